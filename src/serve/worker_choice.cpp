// SPDX-License-Identifier: Apache-2.0
#include "serve/worker_choice.h"

#include <fmt/ranges.h>

#include "tercet/base/error.h"

namespace tercet::serve {
namespace {

constexpr const char* kOption = "--lanes";

}  // namespace

std::size_t ChooseWorker(const std::string& lanes, const service::Deployment& deployment,
                         const Environment& environment) {
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
  const auto rank = RankByEngine(environment);
  if (!rank)
    throw ConfigError(kOption, fmt::format("expected, since the deployment has workers with {} and "
                                           "none of {} is set",
                                           fmt::join(texts, " and "), EngineVariables()));
  if (rank->index >= workers.size())
    throw ConfigError(rank->index_variable,
                      fmt::format("{} found, expected the number of a worker of the deployment, 0 "
                                  "to {}",
                                  rank->index, workers.size() - 1));
  return rank->index;
}

}  // namespace tercet::serve
