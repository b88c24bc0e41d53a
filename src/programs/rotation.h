#pragma once

#include <cstddef>
#include <vector>

#include "programs/cost_table.h"
#include "tercet/infer/plan.h"
#include "tercet/mpc/suite.h"

/// The dealer's role rotates over the images of a batch: they are split into three groups, and
/// group g is computed with helper (roles.helper + g) mod 3, the other roles being the same. What
/// dealing costs is then spread over the parties.
namespace tercet::programs {

inline constexpr std::size_t kGroups = 3;

/// Images [first, first + count) of a batch.
struct GroupRange {
  std::size_t first = 0, count = 0;
};
/// Group `group` of a batch of `images`. The groups follow each other, and their sizes differ by at
/// most one, the first being the largest: with fewer than three images the last ones are empty.
GroupRange GroupOf(std::size_t images, std::size_t group);

/// The plans of the groups of a full batch of plan.batch images; none for a group that is empty
/// then. `suite` is the one that `plan` was made with. Throws what infer::MakePlan throws.
std::vector<infer::Plan> RotatedPlans(const infer::Plan& plan, const mpc::Registry& registry,
                                      const mpc::SuiteChoice& suite);

/// RunCost with the role rotated: bytes are sums over the groups, which run side by side, so that
/// hops are the largest of one group.
RunTotals RotatedRunCost(const infer::Plan& plan, const mpc::Registry& registry,
                         const mpc::SuiteChoice& suite, std::size_t images);

}  // namespace tercet::programs
