#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tercet/mpc/spec.h"
#include "tercet/nn/images.h"
#include "tercet/nn/network.h"

/// The network that is computed, in the clear and securely alike: integers only, with a proven
/// width per layer.
namespace tercet::nn {

/// A linear map, an activation and perhaps a max-pool. Public; the weights are apart.
struct PublicLayer {
  std::string name;  ///< of the linear layer in the JSON, e.g. "conv1"
  std::string
      type;  ///< the JSON layers that it stands for, e.g. "conv2d+batch_norm+sign+max_pool2d"
  mpc::LinearShape linear;
  mpc::ActivationKind activation = mpc::ActivationKind::kNone;
  std::optional<mpc::PoolShape> pool;
  /// Proven: for every input, -2^(value_bits-1) <= (W x + b) < 2^(value_bits-1).
  unsigned value_bits = 0;
  std::string suite;  ///< the JSON's choice for this layer, or empty
  bool operator==(const PublicLayer&) const = default;
};

/// What all three parties know: architecture and widths.
struct PublicNetwork {
  std::string name;
  InputSpec input;
  std::vector<PublicLayer> layers;  ///< the last has no activation; its values are the logits
  double logit_scale = 1.0;         ///< a logit of the float network is about integer * logit_scale
  std::string spec_digest;          ///< NetworkSpec::Digest() of the JSON it was compiled from

  std::size_t Classes() const { return layers.back().linear.Out().Size(); }
  /// Values the input pixels take: 0 .. 2^bits - 1.
  std::int64_t InputMax() const { return (std::int64_t{1} << input.bits) - 1; }
  bool operator==(const PublicNetwork&) const = default;
};

/// Canonical JSON text of a public network, and back. Parsing checks everything that comes from a
/// peer or file (sizes, widths, that shapes follow one another); ConfigError with `place` and JSON
/// pointer.
std::string PublicNetworkToJson(const PublicNetwork& network);
PublicNetwork PublicNetworkFromJson(const std::string& text, const std::string& place);

/// The secret part of one layer. Weights out_channels x depth; bias LinearShape::BiasCount()
/// values.
struct LayerWeights {
  std::vector<std::int64_t> weight, bias;
};

struct IntegerNetwork {
  PublicNetwork net;
  std::vector<LayerWeights> weights;  ///< one per layer
};

/// A compiled model is a safetensors file: integer tensors "conv1.weight", "conv1.bias" in the
/// smallest signed type that holds them, and the public network as JSON in the metadata
/// ("tercet.network", "tercet.format" = "1"). Loading proves the widths again: ConfigError names
/// the layer whose bound does not hold, a missing tensor or a wrong shape.
void SaveCompiled(const IntegerNetwork& network, const std::filesystem::path& file);
IntegerNetwork LoadCompiled(const std::filesystem::path& file);
/// Whether the file is a compiled model (has the metadata above) rather than float weights.
bool IsCompiled(const std::filesystem::path& file);

/// Throws ConfigError unless every layer's interval of values, over all inputs in range, fits its
/// value_bits.
void ProveWidths(const IntegerNetwork& network, const std::string& place);

/// One image's (or a range of images') input integers, features x count row-major: q = round(p *
/// (2^bits-1) / 255).
std::vector<std::int64_t> QuantiseInput(const InputSpec& spec, const Images& images,
                                        std::size_t first, std::size_t count);

}  // namespace tercet::nn
