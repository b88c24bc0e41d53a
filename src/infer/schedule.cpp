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
    return "in turn, the dealer's role rotates";
  }
  std::string operator()(const MakeMaterial&) const { return "to a file"; }
  std::string operator()(const UseMaterial&) const { return "from a file"; }
};

}  // namespace

std::string ScheduleText(const Schedule& schedule) { return std::visit(Text{}, schedule); }

std::size_t QueriesAhead(const Schedule& schedule, std::size_t queries) {
  if (const auto* ahead = std::get_if<Ahead>(&schedule)) return ahead->queries;
  if (const auto* use = std::get_if<UseMaterial>(&schedule)) return use->ahead;
  return std::holds_alternative<HelperLeaves>(schedule) ? queries : 0;
}

std::size_t QueriesHeld(const Schedule& schedule, std::size_t queries) {
  const std::size_t ahead = QueriesAhead(schedule, queries);
  return ahead == 0 ? 1 : std::min(queries, ahead + 2);  // one runs and one is being made
}

}  // namespace tercet::infer
