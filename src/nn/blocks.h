#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "nn/float_network.h"
#include "nn/real_map.h"

/// From the layers of the JSON to those of the integer network, in real numbers.
namespace tercet::nn {

/// What a layer of the integer network stands for. All maps are on differences from the zero of
/// their input's integers: an activation a = alpha q + beta enters as alpha q, and the part of beta
/// is in the bias.
struct Block {
  PublicLayer layer;  ///< without width, shift and the shortcut's factor
  RealMap map;        ///< bias of the whole sum
  /// The shortcut's map, without bias; where there is none the summand comes as it is.
  std::optional<RealMap> shortcut;
  /// The layer of the JSON whose output are the layer's values.
  std::size_t value_layer = 0;
  /// Layers that were multiplied out to `map`, more than one; and their work one by one.
  std::vector<std::string> multiplied;
  std::size_t macs_before = 0;
};

/// How the integers of what leaves the input or a layer stand for real numbers: beta + alpha q,
/// where beta is public.
struct Offset {
  /// beta, one value an element; empty for zero everywhere.
  std::vector<double> beta;
  bool uneven = false;  ///< beta differs within a channel
};

/// Sorts a network's layers into blocks. UnsupportedError names the layer that cannot be computed
/// where it stands, and says what can.
std::vector<Block> MakeBlocks(const NetworkSpec& spec, const std::vector<FloatLayer>& layers);

}  // namespace tercet::nn
