// SPDX-License-Identifier: Apache-2.0
#include "serve/worker_choice.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/json.h"
#include "tercet/base/error.h"

namespace tercet::serve {
namespace {

constexpr const char* kOption = "--lanes";

struct Rank {
  const char* variable;
  std::size_t value;
};

// What the environment says.
std::vector<Rank> Ranks(std::size_t workers,
                        const std::function<const char*(const char*)>& environment) {
  std::vector<Rank> ranks;
  for (const char* variable : kRankVariables) {
    const char* const text = environment(variable);
    if (text == nullptr) continue;
    const std::string_view digits(text);
    std::size_t value = workers;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size() || value >= workers)
      throw ConfigError(variable, fmt::format("\"{}\" found, expected the number of a worker of "
                                              "the deployment, 0 to {}",
                                              Printable(digits), workers - 1));
    ranks.push_back({variable, value});
  }
  return ranks;
}

}  // namespace

std::size_t ChooseWorker(const std::string& lanes, const service::Deployment& deployment,
                         const std::function<const char*(const char*)>& environment) {
  const auto& workers = deployment.servers[0].workers;
  std::vector<std::string> texts;
  texts.reserve(workers.size());
  for (const auto& worker : workers) texts.push_back(service::LanesText(worker.lanes));
  const bool automatic = lanes == "auto";
  if (!automatic && !lanes.empty()) {
    const auto wanted = service::ParseLanes(lanes, deployment.lanes, kOption);
    for (std::size_t w = 0; w < workers.size(); ++w)
      if (workers[w].lanes == wanted) return w;
    throw ConfigError(kOption, fmt::format("{} found, but the deployment has workers with {}",
                                           service::LanesText(wanted), fmt::join(texts, " and ")));
  }
  if (!automatic && workers.size() == 1) return 0;
  const auto ranks = Ranks(workers.size(), environment);
  if (ranks.empty())
    throw ConfigError(kOption,
                      fmt::format("expected, since the deployment has workers with {} and "
                                  "none of {} is set",
                                  fmt::join(texts, " and "), fmt::join(kRankVariables, ", ")));
  for (const Rank& rank : ranks)
    if (rank.value != ranks[0].value)
      throw ConfigError(rank.variable,
                        fmt::format("{} found, but {} is {}; unset one of them, or "
                                    "say {}",
                                    rank.value, ranks[0].variable, ranks[0].value, kOption));
  if (!automatic && ranks.size() > 1)
    throw ConfigError(kOption, fmt::format("expected, auto or lanes, since {} and {} are both set",
                                           ranks[0].variable, ranks[1].variable));
  return ranks[0].value;
}

}  // namespace tercet::serve
