// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/run_cost.h"

#include <algorithm>

#include "infer/rotation.h"
#include "tercet/base/error.h"
#include "tercet/infer/memory.h"

namespace tercet::infer {

std::vector<Plan> PlansOf(const Plan& plan, const mpc::Registry& registry,
                          const mpc::SuiteChoice& suite, std::size_t batch,
                          const Schedule& schedule) {
  if (!std::holds_alternative<HelperRotates>(schedule))
    return {batch == plan.batch ? plan
                                : MakePlan(plan.network, registry, suite, plan.roles, batch)};
  std::vector<Plan> plans;
  for (std::size_t group = 0; group < std::min(kGroups, batch); ++group) {
    mpc::Roles roles = plan.roles;
    roles.helper = (roles.helper + static_cast<int>(group)) % 3;
    plans.push_back(MakePlan(plan.network, registry, suite, roles, GroupOf(batch, group).count));
  }
  return plans;
}

RunTotals RunCost(const Plan& plan, const mpc::Registry& registry, const mpc::SuiteChoice& suite,
                  std::size_t images, const Schedule& schedule) {
  const bool from_file = std::holds_alternative<UseMaterial>(schedule);
  RunTotals totals;
  const auto add = [&](std::size_t batch, std::size_t queries) {
    if (queries == 0) return;
    for (const auto& each : PlansOf(plan, registry, suite, batch, schedule)) {
      const auto cost = each.Total();
      for (std::size_t p = 0; p < 3; ++p) {
        if (!from_file) totals.offline_bytes[p] += queries * cost.OfflineBytes()[p];
        totals.online_bytes[p] += queries * cost.OnlineBytes()[p];
      }
      if (!from_file) totals.offline_hops = std::max(totals.offline_hops, cost.OfflineHops());
      totals.online_hops = std::max(totals.online_hops, cost.OnlineHops());
    }
  };
  const std::size_t whole = images / plan.batch, rest = images % plan.batch;
  if (from_file) {  // which holds material for whole batches
    add(plan.batch, whole + (rest > 0 ? 1 : 0));
  } else {
    add(plan.batch, whole);
    if (rest > 0) add(rest, 1);
  }
  return totals;
}

MemoryNeed& MemoryNeed::operator+=(const MemoryNeed& other) {
  least += other.least;
  most += other.most;
  return *this;
}

std::array<MemoryNeed, 3> RunMemory(const std::vector<Plan>& plans, std::size_t held,
                                    std::size_t images, std::size_t running) {
  std::array<MemoryNeed, 3> sum{};
  for (const auto& plan : plans) {
    const auto least = LeastMemory(plan), most = EstimateMemory(plan, held, images, running);
    for (std::size_t p = 0; p < 3; ++p) sum[p] += {least[p], most[p]};
  }
  return sum;
}

std::optional<std::string> CheckMemory(const MemoryNeed& need, std::size_t batch,
                                       std::size_t held) {
  const auto available = MemoryAvailable();
  if (!available || need.most <= available->bytes) return std::nullopt;
  const bool refused = need.least > available->bytes;
  auto text = fmt::format(
      "batches of {} images{} {} {} of memory, and {} leaves {}; take smaller batches", batch,
      held > 1 && !refused ? fmt::format(", with material of {} at once,", held) : "",
      refused ? "need at least" : "may need", MemoryText(refused ? need.least : need.most),
      available->limit, MemoryText(available->bytes));
  if (refused) throw Error(text);
  return text;
}

}  // namespace tercet::infer
