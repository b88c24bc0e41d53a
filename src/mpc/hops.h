// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tercet/mpc/cost.h"

namespace tercet::mpc {

/// How long the longest chain of dependent messages is that each party stands at the end of.
class HopCounter {
 public:
  /// What is sent in a round does not depend on what is received in it.
  void Add(const Round& round) {
    const auto before = depth_;
    for (const auto& message : round) {
      auto& at = depth_[static_cast<std::size_t>(message.to)];
      at = std::max(at, before[static_cast<std::size_t>(message.from)] + 1);
    }
  }
  std::uint32_t At(PartyId party) const { return depth_[static_cast<std::size_t>(party)]; }
  std::uint32_t Hops() const { return *std::max_element(depth_.begin(), depth_.end()); }

 private:
  std::array<std::uint32_t, 3> depth_{};
};

}  // namespace tercet::mpc
