// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tercet/compile/compile.h"
#include "tercet/mpc/builtin_protocols.h"

/// Float networks with random weights, for tests of the compile step.
namespace tercet::compile {

using Floats = std::vector<float>;

inline const mpc::Oracle& Oracle() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry.PlainOracle();
}

/// `input` without its braces; layers as the JSON has them.
inline nn::NetworkSpec Spec(const std::string& input, const std::string& layers) {
  return nn::ParseNetwork(R"({"name": "N", "input": {)" + input + R"(}, "layers": [)" + layers +
                              R"(], "output": "logits"})",
                          "net");
}

/// Weights that are small integers and biases that are multiples of one half, so that floats
/// compute without rounding.
class Weights {
 public:
  explicit Weights(std::uint64_t seed) : rng_(seed) {}

  Weights& Put(const std::string& name, std::vector<std::size_t> shape, const Floats& values) {
    file_.tensors[name] = files::TensorData::FromFloats(std::move(shape), values);
    return *this;
  }
  /// Fills all layers of a network.
  Weights& Fill(const nn::NetworkSpec& spec) {
    for (const nn::LayerSpec& layer : spec.layers) {
      if (layer.type == nn::LayerType::kConv2d) {
        const std::size_t in = layer.in.channels / layer.groups;
        Put(layer.name + ".weight", {layer.out_channels, in, layer.kernel.h, layer.kernel.w},
            Integers(layer.out_channels * in * layer.kernel.Area()));
      } else if (layer.type == nn::LayerType::kLinear) {
        Put(layer.name + ".weight", {layer.out_channels, layer.in.Size()},
            Integers(layer.out_channels * layer.in.Size()));
      } else if (layer.type == nn::LayerType::kBatchNorm) {
        // sqrt(4 + eps) is 2 as a float, so the factor is gamma / 2 = -1, 0 or 1.
        const std::size_t channels = layer.in.channels;
        Floats gamma = Integers(channels);
        for (float& g : gamma) g = g > 0 ? 2.0F : g < 0 ? -2.0F : 0.0F;
        Put(layer.name + ".weight", {channels}, gamma);
        Put(layer.name + ".running_mean", {channels}, Integers(channels));
        Put(layer.name + ".running_var", {channels}, Floats(channels, 4));
        Put(layer.name + ".bias", {channels}, Halves(channels));
        continue;
      } else {
        continue;
      }
      if (layer.bias) Put(layer.name + ".bias", {layer.out_channels}, Halves(layer.out_channels));
    }
    return *this;
  }
  /// Fills all convolutions and linear layers with real numbers, batch_norm with ones.
  Weights& FillReal(const nn::NetworkSpec& spec) {
    Fill(spec);
    std::normal_distribution<float> normal;
    for (auto& [name, tensor] : file_.tensors) {
      Floats values(tensor.Count());
      for (float& v : values) v = name.ends_with("_var") ? 1 : normal(rng_);
      tensor = files::TensorData::FromFloats(tensor.shape, values);
    }
    return *this;
  }
  nn::FloatNetwork Network(const nn::NetworkSpec& spec) const { return {spec, file_, "model"}; }
  files::TensorFile& File() { return file_; }

 private:
  Floats Integers(std::size_t count) {
    Floats values(count);
    for (float& v : values) v = static_cast<float>(rng_() % 7) - 3;
    return values;
  }
  Floats Halves(std::size_t count) {
    Floats values = Integers(count);
    for (float& v : values) v /= 2;
    return values;
  }

  std::mt19937_64 rng_;
  files::TensorFile file_;
};

inline files::Images RandomImages(const mpc::Shape3& shape, std::size_t count, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  files::Images images{shape, count, {}};
  images.pixels.resize(shape.Size() * count);
  for (auto& p : images.pixels) p = static_cast<std::uint8_t>(rng());
  return images;
}

}  // namespace tercet::compile
