// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

/// The order of a graph's layers in a network's list, where a layer takes what leaves the one
/// before it.
namespace tercet::importer {

inline constexpr int kNetworkInput = -1;

/// A layer as its inputs see it.
struct GraphLayer {
  /// May take any earlier layer's output (a convolution).
  bool from_anywhere = false;
  /// Indices of layers, or kNetworkInput: one, or two of a sum, of which it follows one and takes
  /// the other from anywhere.
  std::vector<int> inputs;
};

struct Schedule {
  std::vector<int> order;  ///< indices of all layers when there is an order
  /// When there is none: the layer that has no place, and of a layer that is no sum the other one
  /// that has to follow the same layer (kNetworkInput: none).
  int misfit = kNetworkInput, rival = kNetworkInput;
};

/// Layers come sorted: each after its inputs. Finds an order for chains whose branches begin with
/// convolutions and end in sums. Thread safe.
Schedule MakeSchedule(const std::vector<GraphLayer>& layers);

}  // namespace tercet::importer
