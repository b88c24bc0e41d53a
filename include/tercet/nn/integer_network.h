// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tercet/files/images.h"
#include "tercet/mpc/windows.h"
#include "tercet/nn/network.h"

/// The network that is computed, in the clear and securely alike: integers only, with a proven
/// width per layer.
namespace tercet::nn {

/// Sums over windows, zeros around the map: an average pool whose division is left
/// to the next layer's weights.
struct SumPool {
  mpc::PerAxis kernel = 2, stride = 2;
  mpc::Sides padding = 0;
  /// Otherwise an average is that of the numbers inside the map alone. Windows have different
  /// numbers of these, and each sum is multiplied so that one divisor is left for all.
  bool counts_padding = true;
  mpc::Shape3 Out(const mpc::Shape3& in) const {
    return mpc::Windows{in, kernel, stride, padding}.Out();
  }
  /// What makes averages of the sums: the kernel's area, or the least common multiple of how many
  /// numbers the windows have inside the map. 0 when that is more than kMostDivisor.
  std::size_t Divisor(const mpc::Shape3& in) const;
  /// What the sums at each output position of a channel are multiplied by.
  std::vector<std::size_t> Factors(const mpc::Shape3& in) const;
  static constexpr std::size_t kMostDivisor = std::size_t{1} << 16;
  bool operator==(const SumPool&) const = default;
};

/// A second summand of a layer's values (residual): what left an earlier layer, times one factor or
/// through a linear map of its own. Factor and map are weights, and as secret.
struct Shortcut {
  /// 0 for the network's input, k for the output of the k-th layer.
  std::size_t from = 0;
  /// Without bias, which is in the layer's own.
  std::optional<mpc::LinearShape> linear;
  bool operator==(const Shortcut&) const = default;
};

/// A linear map, an activation and perhaps a max-pool: what leaves is
/// sum_pool(max_pool(activation(W x + b + shortcut))). Public; the weights are apart.
struct PublicLayer {
  /// Of the linear layer in the JSON, e.g. "conv1".
  std::string name;
  /// The JSON layers that it stands for, e.g. "conv2d+batch_norm+sign+max_pool2d".
  std::string type;
  mpc::LinearShape linear;
  std::optional<Shortcut> shortcut;
  mpc::ActivationKind activation = mpc::ActivationKind::kNone;
  /// See mpc::ActivationKind.
  unsigned shift = 0;
  /// See mpc::ActivationSpec.
  std::vector<std::int64_t> table;
  std::optional<mpc::PoolShape> pool;
  std::optional<SumPool> sum_pool;
  /// For every input, -2^(value_bits-1) <= W x + b + shortcut < 2^(value_bits-1): proven, or where
  /// `proven` is false seen on calibration images, with head-room.
  unsigned value_bits = 0;
  bool proven = true;
  /// Not 0 in the last layer of a network whose output is the class: of how many classes the linear
  /// map gives the differences. Output k * w^2 + i is the difference of the logits of some class
  /// j != k and of k, at least 0 where j wins over k; the activation is Sign with max-pool over the
  /// w x w of each class, so that 0 is left of the winner alone.
  std::size_t compared_classes = 0;

  /// What enters the activation: the linear map's output, or classes x w x w.
  mpc::Shape3 ActivationIn() const;
  /// What leaves the layer.
  mpc::Shape3 Out() const;
  /// The activation with its max-pool, of `batch` images; rings are those of the values.
  mpc::ActivationSpec Activation(std::size_t batch) const;
  /// The JSON's choice for this layer, or empty.
  std::string suite;
  bool operator==(const PublicLayer&) const = default;
};

/// What all three parties know: the architecture, which each has from its own JSON (Architecture),
/// and widths, which the model's owner announces (Announcement).
struct PublicNetwork {
  std::string name;
  InputSpec input;
  /// The last has no activation, its values are the logits; or it compares them and 1 is left of
  /// the largest logit's class, 0 of the others (`compared_classes`).
  std::vector<PublicLayer> layers;
  /// NetworkSpec::Digest() of the JSON it was compiled from.
  std::string spec_digest;
  /// The protocol of the linear layers; empty where the parties' roles decide. Not in the JSON
  /// text: which one it is in the end is the plan's.
  std::string linear;

  std::size_t Classes() const { return layers.back().Out().Size(); }
  /// Whether only the class leaves the computation, not the logits.
  bool OnlyClass() const { return layers.back().compared_classes != 0; }
  /// Values the input pixels take: 0 .. 2^bits - 1.
  std::int64_t InputMax() const { return (std::int64_t{1} << input.bits) - 1; }
  bool operator==(const PublicNetwork&) const = default;
};

/// Canonical JSON text of a public network, which differs where networks do: of what parties
/// compare, they take the digest.
std::string PublicNetworkToJson(const PublicNetwork& network);

/// The secret part of one layer. Weights out_channels x depth; bias LinearShape::BiasCount()
/// values; weights of the shortcut's linear map, or its factor where it has none.
struct LayerWeights {
  std::vector<std::int64_t> weight, bias, shortcut;
};

struct IntegerNetwork {
  PublicNetwork net;
  /// One per layer.
  std::vector<LayerWeights> weights;
  /// What was lost when it was compiled, and other remarks for whoever uses it. For the model's
  /// owner: they depend on weights and are in its file, but in no message.
  std::vector<std::string> warnings;
};

/// One image's (or a range of images') input integers, features x count row-major: q = round(p *
/// (2^bits-1) / 255).
std::vector<std::int64_t> QuantiseInput(const InputSpec& spec, const files::Images& images,
                                        std::size_t first, std::size_t count);

}  // namespace tercet::nn
