#include "programs/rotation.h"

#include <algorithm>

namespace tercet::programs {
namespace {

infer::Plan PlanOfGroup(const infer::Plan& plan, const mpc::Registry& registry,
                        const mpc::SuiteChoice& suite, std::size_t group, std::size_t images) {
  mpc::Roles roles = plan.roles;
  roles.helper = (roles.helper + static_cast<int>(group)) % 3;
  return infer::MakePlan(plan.network, registry, suite, roles, images);
}

}  // namespace

GroupRange GroupOf(std::size_t images, std::size_t group) {
  const std::size_t each = images / kGroups, larger = images % kGroups;
  return {group * each + std::min(group, larger), each + (group < larger ? 1 : 0)};
}

std::vector<infer::Plan> RotatedPlans(const infer::Plan& plan, const mpc::Registry& registry,
                                      const mpc::SuiteChoice& suite) {
  std::vector<infer::Plan> plans;
  for (std::size_t group = 0; group < std::min(kGroups, plan.batch); ++group)
    plans.push_back(PlanOfGroup(plan, registry, suite, group, GroupOf(plan.batch, group).count));
  return plans;
}

RunTotals RotatedRunCost(const infer::Plan& plan, const mpc::Registry& registry,
                         const mpc::SuiteChoice& suite, std::size_t images) {
  RunTotals totals;
  const auto add = [&](std::size_t batch, std::size_t queries) {
    for (std::size_t group = 0; queries > 0 && group < std::min(kGroups, batch); ++group) {
      const auto cost =
          PlanOfGroup(plan, registry, suite, group, GroupOf(batch, group).count).Total();
      for (std::size_t p = 0; p < 3; ++p) {
        totals.offline_bytes[p] += queries * cost.OfflineBytes()[p];
        totals.online_bytes[p] += queries * cost.OnlineBytes()[p];
      }
      totals.offline_hops = std::max(totals.offline_hops, cost.OfflineHops());
      totals.online_hops = std::max(totals.online_hops, cost.OnlineHops());
    }
  };
  add(plan.batch, images / plan.batch);
  add(images % plan.batch, 1);
  return totals;
}

}  // namespace tercet::programs
