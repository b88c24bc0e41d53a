// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/random_weights.h"

#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace tercet::compile {
namespace {

class Generator {
 public:
  Generator(std::uint64_t seed, files::TensorFile& file) : random_(seed), file_(file) {}

  /// Uniform from -bound to bound. Neither <random>'s distributions, which each library has its
  /// own of, nor a sum after the product, which some processors round once: one product alone.
  void Add(const std::string& name, std::vector<std::size_t> shape, double bound) {
    std::vector<float> values(std::accumulate(shape.begin(), shape.end(), std::size_t{1},
                                              [](std::size_t a, std::size_t b) { return a * b; }));
    for (float& value : values) {
      const auto steps = static_cast<std::int64_t>(random_() >> 40) - kHalf;
      value = static_cast<float>(static_cast<double>(steps) * (bound / kHalf));
    }
    file_.tensors[name] = files::TensorData::FromFloats(std::move(shape), values);
  }

 private:
  static constexpr std::int64_t kHalf = 1 << 23;

  std::mt19937_64 random_;
  files::TensorFile& file_;
};

}  // namespace

files::TensorFile RandomWeights(const nn::NetworkSpec& spec, std::uint64_t seed) {
  files::TensorFile file;
  Generator generator(seed, file);
  const auto add_map = [&](const nn::LayerSpec& layer, std::vector<std::size_t> shape) {
    const std::size_t inputs = std::accumulate(shape.begin() + 1, shape.end(), std::size_t{1},
                                               [](std::size_t a, std::size_t b) { return a * b; });
    generator.Add(layer.name + ".weight", std::move(shape),
                  std::sqrt(6 / static_cast<double>(inputs)));
    if (layer.bias) generator.Add(layer.name + ".bias", {layer.out_channels}, 0.1);
  };
  for (const nn::LayerSpec& layer : spec.layers) {
    const std::vector<std::size_t> channels{layer.out.channels};
    switch (layer.type) {
      case nn::LayerType::kConv2d:
        add_map(layer, {layer.out_channels, layer.in.channels / layer.groups, layer.kernel.h,
                        layer.kernel.w});
        break;
      case nn::LayerType::kLinear:
        add_map(layer, {layer.out_channels, layer.in.Size()});
        break;
      case nn::LayerType::kBatchNorm:
        generator.Add(layer.name + ".weight", channels, 2);
        generator.Add(layer.name + ".bias", channels, 0.5);
        generator.Add(layer.name + ".running_mean", channels, 0.5);
        file.tensors[layer.name + ".running_var"] =
            files::TensorData::FromFloats(channels, std::vector<float>(layer.out.channels, 1));
        break;
      default:
        break;
    }
  }
  return file;
}

}  // namespace tercet::compile
