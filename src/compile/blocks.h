// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "compile/real_map.h"
#include "nn/activation_type.h"
#include "nn/float_network_state.h"
#include "tercet/nn/integer_network.h"

/// From the layers of the JSON to those of the integer network: which there are and of what shape,
/// by the architecture alone, and what they compute in real numbers.
namespace tercet::compile {

/// A layer of the JSON as a part of the linear map of a block.
struct Step {
  std::size_t layer = 0;  ///< index in the JSON
  bool scales = false;    ///< batch_norm of the channels of the map before it, not a map of its own
  bool adds_bias = true;  ///< of a map that is applied to two summands, the bias counts once
};

/// What a layer of the integer network stands for: steps on what leaves the block before, and
/// perhaps others on the summand.
struct Block {
  nn::PublicLayer layer;    ///< without width and shift
  std::vector<Step> steps;  ///< none: the identity
  std::vector<Step> shortcut_steps;
  /// The layer of the JSON whose output are the layer's values.
  std::size_t value_layer = 0;
  nn::ActivationEncoding encoding;  ///< of what leaves the activation
  /// Layers that were multiplied out to one map, more than one; and their work one by one.
  std::vector<std::string> multiplied;
  std::size_t macs_before = 0;
};

/// How the integers of what leaves the input or a layer stand for real numbers: beta + alpha q,
/// where beta is public.
struct Offset {
  std::vector<double> beta;  ///< one value an element; empty for zero everywhere
  bool uneven = false;       ///< beta differs within a channel
};

/// A block in real numbers. What the offsets add to the sum is in no bias here, but the shapes
/// leave room for it.
struct BlockMaps {
  RealMap map;    ///< bias of the whole sum
  Offset offset;  ///< of what enters it
  /// The shortcut's map, without bias; where there is none the summand comes as it is.
  std::optional<RealMap> shortcut;
  Offset shortcut_offset;
};

/// Sorts a network's layers into blocks. UnsupportedError names the layer that cannot be computed
/// where it stands, and says what can.
std::vector<Block> MakeBlocks(const nn::NetworkSpec& spec);

/// The blocks with weights, one of `layers` for each layer of the JSON. For `norm_scale` see
/// CompileOptions.
std::vector<BlockMaps> MakeMaps(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
                                const std::vector<nn::FloatLayer>& layers, double norm_scale);

}  // namespace tercet::compile
