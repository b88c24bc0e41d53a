// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tercet/infer/plan.h"
#include "tercet/infer/schedule.h"

/// What a run of many queries costs: bytes, hops, memory. Public like the plan; all functions are
/// thread safe.
namespace tercet::infer {

/// The plans that make up one query of `batch` images and run side by side: those of the groups
/// where the helper's role rotates (none for a group that is empty), else one. `suite` is the one
/// that `plan` was made with. Throws what MakePlan throws.
std::vector<Plan> PlansOf(const Plan& plan, const mpc::Registry& registry,
                          const mpc::SuiteChoice& suite, std::size_t batch,
                          const Schedule& schedule);

/// What a run sends, by party, and the hops of one batch.
struct RunTotals {
  std::array<std::uint64_t, 3> offline_bytes{}, online_bytes{};
  std::uint32_t offline_hops = 0, online_hops = 0;
  bool operator==(const RunTotals&) const = default;
};

/// The cost of a run of `images` images in batches of plan.batch, the last one perhaps smaller.
/// Bytes of plans that run side by side add up, their hops are the largest.
RunTotals RunCost(const Plan& plan, const mpc::Registry& registry, const mpc::SuiteChoice& suite,
                  std::size_t images, const Schedule& schedule = InTurn{});

/// What a run needs of memory, in bytes.
struct MemoryNeed {
  std::uint64_t least = 0;  ///< LeastMemory
  std::uint64_t most = 0;   ///< EstimateMemory
  MemoryNeed& operator+=(const MemoryNeed& other);
};
/// Of a run whose material is of `held` queries at once (QueriesHeld), of which `running` are under
/// way (Runners), by party.
std::array<MemoryNeed, 3> RunMemory(const std::vector<Plan>& plans, std::size_t held,
                                    std::size_t images, std::size_t running = 1);

/// Throws Error when this process may not take the least that is needed; a warning when it may not
/// take the most. `batch` and `held` are for the text.
std::optional<std::string> CheckMemory(const MemoryNeed& need, std::size_t batch, std::size_t held);

}  // namespace tercet::infer
