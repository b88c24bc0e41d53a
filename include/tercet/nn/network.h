// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tercet/mpc/spec.h"

/// A network as its JSON file describes it: public architecture, no weights.
namespace tercet::nn {

using mpc::Shape3;

enum class LayerType : std::uint8_t {
  kConv2d,
  kLinear,
  kBatchNorm,
  kSign,
  kRelu,
  kSquare,
  kTable,
  kClip,
  kMaxPool2d,
  kAvgPool2d,
  kFlatten,
  kAdd
};
const char* LayerTypeName(LayerType type);  ///< as in the JSON: "conv2d", "linear", ...

/// Classes are told by numbers of one byte.
inline constexpr std::size_t kMaxClasses = 256;

/// The suite that leaves the choice to the model's owner, in a network's JSON or as --suite.
inline constexpr const char* kAutoSuite = "auto";

/// How bytes of an image become the network's input: the pixel p (0..255) is first rounded to
/// `bits` bits, q = round(p * (2^bits - 1) / 255), and stands for the real number (q * 255 /
/// (2^bits - 1) / scale - mean) / std.
struct InputSpec {
  Shape3 shape;
  double scale = 255.0, mean = 0.0, std = 1.0;
  unsigned bits = 8;
  bool operator==(const InputSpec&) const = default;
};

/// One layer of the JSON. Fields that the type does not use keep their defaults.
struct LayerSpec {
  std::string name;
  LayerType type = LayerType::kFlatten;
  std::size_t out_channels = 0;  ///< conv2d; out_features of linear
  /// conv2d and pools.
  mpc::PerAxis kernel = 1, stride = 1;
  mpc::Sides padding = 0;
  double pad_value = 0;           ///< conv2d: the number around the map
  bool count_include_pad = true;  ///< avg_pool2d: zeros around the map count in the divisor
  mpc::PerAxis dilation = 1;      ///< conv2d: steps from one weight of a kernel to the next
  std::size_t groups = 1;         ///< conv2d
  bool bias = true;               ///< conv2d, linear
  double eps = 1e-5;              ///< batch_norm
  /// table: x becomes output_scale * values[i], where i counts from the x that is nearest to
  /// -values.size() / 2 * input_scale, in steps of input_scale.
  std::vector<std::int64_t> values;
  double input_scale = 1, output_scale = 1;
  /// clip: x becomes `low` or `high` where it is beyond. Computed as a table of 256 steps of
  /// input_scale, or where that is 0 as two ReLUs.
  double low = 0, high = 0;
  /// add: name of the earlier layer whose output is added. conv2d: name of the earlier layer whose
  /// output is its input, or "input" for the network's; empty for the layer before.
  std::string from;
  std::string suite;  ///< activations, max_pool2d: overrides the run's suite when not empty
  Shape3 in;          ///< filled in by the loader; of a linear layer the map before it is flattened
  Shape3 out;         ///< filled in by the loader
};

/// The linear map of a conv2d or linear layer; a linear layer's input counts as flattened, and
/// between the weights of a dilated kernel there are zeros.
mpc::LinearShape LinearShapeOf(const LayerSpec& layer);

/// Whether numbers other than zero stand around the map of a conv2d.
inline bool PadsWithNumber(const LayerSpec& layer) {
  return layer.pad_value != 0 && !layer.padding.None();
}

struct NetworkSpec {
  std::string name;
  InputSpec input;
  std::vector<LayerSpec> layers;
  std::string output = "logits";  ///< or "class": the result is the class and nothing else

  Shape3 OutputShape() const { return layers.back().out; }
  std::size_t Classes() const { return OutputShape().Size(); }
  /// SHA-256 (hex) of the canonical form of everything above; equal exactly for equal
  /// architectures.
  std::string Digest() const;
};

/// What may be a mistake in an architecture, in words: a conv2d or linear directly on what another
/// one gives, with no activation between, where that is not the depthwise and pointwise half of a
/// separable convolution. They are multiplied out; but exporters are known to drop a sign.
std::vector<std::string> Remarks(const NetworkSpec& spec);

/// Reads and checks a network. Every error is a ConfigError whose place is "FILE POINTER", e.g.
/// "nets/a.json /layers/3/kernel", and whose text says what was found and what was expected:
/// unreadable file, JSON syntax (line and column), schema violation (unknown key, wrong type,
/// missing key, out of range), names that are not unique, a layer that does not fit its input's
/// shape (kernel larger than the padded input, groups that do not divide the channels, a linear
/// layer on an unflattened map is allowed and flattens), an activation with nothing before it that
/// computes, an add whose source is no earlier layer or has another shape, a conv2d whose source is
/// no earlier layer, 2^31 or more activations or weights in a layer. A key that is unknown, missing
/// or comes twice is reported at the object around it. No layer is called "input". The JSON Schema
/// is nets/network.schema.json, built into the library. Thread safe.
NetworkSpec LoadNetwork(const std::filesystem::path& file);
/// The same from text; `name` stands for the file in messages.
NetworkSpec ParseNetwork(const std::string& text, const std::string& name);

}  // namespace tercet::nn
