// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

#include "tercet/net/link.h"

namespace tercet::net {

/// Payload bytes and messages that one party sent, by phase, layer and neighbour, the depth of the
/// longest chain of dependent messages (hops) and the time, by phase and layer. Layer 0 is the
/// input, layers 1..L those of the plan, L+1 the output. Thread safe.
class Meter {
 public:
  struct Cell {
    std::array<std::uint64_t, 3> sent_bytes{};     ///< by receiving party
    std::array<std::uint64_t, 3> sent_messages{};  ///< by receiving party
    std::uint32_t hops = 0;  ///< growth of the depth in this layer, largest over the queries
    double seconds = 0;      ///< sum over the queries
  };
  explicit Meter(std::size_t layers) : cells_{} {
    for (auto& phase : cells_) phase.resize(layers);
  }
  void AddSent(Phase phase, std::size_t layer, int to, std::uint64_t bytes);
  void AddLayer(Phase phase, std::size_t layer, std::uint32_t hops, double seconds);
  std::vector<Cell> Layers(Phase phase) const;
  Cell Total(Phase phase) const;  ///< sums; hops too

 private:
  mutable std::mutex mutex_;
  std::array<std::vector<Cell>, kPhases> cells_;
};

}  // namespace tercet::net
