// SPDX-License-Identifier: Apache-2.0
#include "base/engine.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <string_view>

#include "base/json.h"
#include "tercet/base/error.h"

namespace tercet {
namespace {

constexpr std::array kEngines{EngineRank{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", 0, {}},
                              EngineRank{"SLURM_PROCID", "SLURM_NTASKS", 0, {}},
                              EngineRank{"JOB_COMPLETION_INDEX", nullptr, 0, {}}};

std::size_t NumberIn(const char* variable, std::string_view text) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size())
    throw ConfigError(variable,
                      fmt::format("\"{}\" found, a whole number expected", Printable(text)));
  return number;
}

}  // namespace

std::optional<EngineRank> RankByEngine(const Environment& environment) {
  for (EngineRank rank : kEngines) {
    const char* const index = environment(rank.index_variable);
    if (index == nullptr) continue;
    rank.index = NumberIn(rank.index_variable, index);
    const char* const count =
        rank.count_variable == nullptr ? nullptr : environment(rank.count_variable);
    if (count != nullptr) rank.count = NumberIn(rank.count_variable, count);
    return rank;
  }
  return std::nullopt;
}

std::string EngineVariables() {
  return fmt::format("{}, {} and {}", kEngines[0].index_variable, kEngines[1].index_variable,
                     kEngines[2].index_variable);
}

}  // namespace tercet
