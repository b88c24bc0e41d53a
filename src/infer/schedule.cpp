// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/schedule.h"

#include <fmt/format.h>

#include <algorithm>

namespace tercet::infer {
namespace {

struct Text {
  std::string operator()(const InTurn&) const { return "in turn"; }
  std::string operator()(const Ahead& ahead) const {
    return fmt::format("{} ahead", ahead.queries);
  }
  std::string operator()(const HelperLeaves&) const { return "all ahead"; }
  std::string operator()(const HelperRotates&) const {
    return "in turn, the helper's role rotates";
  }
  std::string operator()(const MakeMaterial&) const { return "to a file"; }
  std::string operator()(const UseMaterial&) const { return "from a file"; }
};

}  // namespace

std::string ScheduleText(const Schedule& schedule) { return std::visit(Text{}, schedule); }

std::size_t Runners(std::size_t in_flight, std::size_t queries) {
  return std::max<std::size_t>(1, std::min(in_flight, queries));
}

std::size_t QueriesAhead(const Schedule& schedule, std::size_t queries, std::size_t runner,
                         std::size_t runners) {
  std::size_t ahead = std::holds_alternative<HelperLeaves>(schedule) ? queries : 0;
  if (const auto* some = std::get_if<Ahead>(&schedule)) ahead = some->queries;
  if (const auto* use = std::get_if<UseMaterial>(&schedule)) ahead = use->ahead;
  return ahead / runners + (runner < ahead % runners ? 1 : 0);
}

std::size_t QueriesHeld(const Schedule& schedule, std::size_t queries, std::size_t in_flight) {
  std::size_t held = 0;
  const std::size_t runners = Runners(in_flight, queries);
  for (std::size_t r = 0; r < runners; ++r) {
    const std::size_t ahead = QueriesAhead(schedule, queries, r, runners);
    held += ahead == 0 ? 1 : ahead + 2;  // one runs and one is being made
  }
  return std::min(queries, held);
}

}  // namespace tercet::infer
