// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
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
  mpc::Shape3 in;         ///< what a map of its own takes
  /// Instead of a layer's map, a part of a clip: factor * x + shift.
  struct Number {
    double factor = 1, shift = 0;
  };
  std::optional<Number> number;
};

/// A block's values where no layer of the JSON gives them: clips are two ReLUs,
/// high - relu(high - max(x, low)), of which both take a function of x.
struct ClipPart {
  double low = 0, high = 0;
  bool second = false;
  /// Of what the layer before the clip gives.
  double Value(double x) const { return second ? high - std::max(x, low) : x - low; }
};

/// What a layer of the integer network stands for: steps on what leaves the block before, and
/// perhaps others on the summand.
struct Block {
  nn::PublicLayer layer;    ///< without width and shift
  std::vector<Step> steps;  ///< none: the identity
  std::vector<Step> shortcut_steps;
  /// The layer of the JSON whose output are the layer's values, or what they are made of.
  std::size_t value_layer = 0;
  std::optional<ClipPart> clip;
  nn::ActivationEncoding encoding;  ///< of what leaves the activation
  /// Layers of batch_norm that follow the max-pool in the JSON, or come before it but after the
  /// activation: where they multiply by less than 0, the largest value is not that of the pool.
  std::vector<std::size_t> pool_norms;
  /// Whether the layer gives -x for x in channels where they do (a Sign can).
  bool negates = false;
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
  /// Channels of which the layer gives -x for x; `map` and `shortcut` count with those of the
  /// layers before. Empty for none.
  std::vector<bool> negated;
};

/// Of what leaves a source, as the architecture alone says.
struct OffsetKind {
  bool zero = true;
  bool uneven = false;
};
/// Of source 0, the input, or of a block (its number, from 1).
OffsetKind OffsetKindOf(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
                        std::size_t source);
/// Of a conv2d or linear. Numbers around the map are a bias where they meet it; so they are zeros
/// and a bias of each element.
MapShape WeightedShape(const nn::LayerSpec& layer);

/// Sorts a network's layers into blocks. UnsupportedError names the layer that cannot be computed
/// where it stands, and says what can.
std::vector<Block> MakeBlocks(const nn::NetworkSpec& spec);

/// The blocks with weights, one of `layers` for each layer of the JSON. For `norm_scale` see
/// CompileOptions.
std::vector<BlockMaps> MakeMaps(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
                                const std::vector<nn::FloatLayer>& layers, double norm_scale);

}  // namespace tercet::compile
