#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tercet/infer/plan.h"

namespace tercet::programs {

/// What decides how much of a run's material is in memory at once.
struct MaterialHeld {
  std::size_t queries = 1;     ///< of the run
  std::size_t ahead = 0;       ///< PartySettings::ahead
  bool dealer_leaves = false;  ///< PartySettings::dealer_leaves
  std::size_t Count() const;   ///< queries whose material is there at once
};

/// infer::EstimateMemory of a run; where the dealer's role rotates, of the groups together.
std::array<std::uint64_t, 3> RunMemory(const std::vector<infer::Plan>& plans,
                                       const MaterialHeld& held, std::size_t images);

/// Throws Error when this process may not take half of `needed` bytes, which the estimate may be
/// too large by; a warning when it may not take all.
std::optional<std::string> CheckMemory(std::uint64_t needed, std::size_t batch,
                                       const MaterialHeld& held);

}  // namespace tercet::programs
