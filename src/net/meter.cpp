// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/meter.h"

#include <algorithm>

#include "tercet/base/error.h"

namespace tercet::net {

void Meter::AddSent(Phase phase, std::size_t layer, int to, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  auto& layers = cells_[static_cast<std::size_t>(phase)];
  TERCET_CHECK(layer < layers.size() && to >= 0 && to < 3,
               "the meter has {} layers, got layer {} and receiver {}", layers.size(), layer, to);
  layers[layer].sent_bytes[static_cast<std::size_t>(to)] += bytes;
  ++layers[layer].sent_messages[static_cast<std::size_t>(to)];
}

void Meter::AddLayer(Phase phase, std::size_t layer, std::uint32_t hops, double seconds) {
  const std::lock_guard lock(mutex_);
  auto& layers = cells_[static_cast<std::size_t>(phase)];
  TERCET_CHECK(layer < layers.size(), "the meter has {} layers, got layer {}", layers.size(),
               layer);
  layers[layer].hops = std::max(layers[layer].hops, hops);
  layers[layer].seconds += seconds;
}

std::vector<Meter::Cell> Meter::Layers(Phase phase) const {
  const std::lock_guard lock(mutex_);
  return cells_[static_cast<std::size_t>(phase)];
}

Meter::Cell Meter::Total(Phase phase) const {
  Cell total;
  for (const Cell& cell : Layers(phase)) {
    for (std::size_t to = 0; to < 3; ++to) {
      total.sent_bytes[to] += cell.sent_bytes[to];
      total.sent_messages[to] += cell.sent_messages[to];
    }
    total.hops += cell.hops;
    total.seconds += cell.seconds;
  }
  return total;
}

}  // namespace tercet::net
