// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "compile/blocks.h"
#include "nn/convolve.h"
#include "nn/sum_windows.h"
#include "tercet/base/error.h"

namespace tercet::compile {
namespace {

Offset OffsetOf(const nn::NetworkSpec& spec, const std::vector<Block>& blocks, std::size_t source) {
  const OffsetKind kind = OffsetKindOf(spec, blocks, source);
  if (kind.zero) return {};
  if (source == 0)
    return {std::vector<double>(spec.input.shape.Size(), -spec.input.mean / spec.input.std), false};
  const nn::PublicLayer& layer = blocks[source - 1].layer;
  const double low = blocks[source - 1].encoding.low;
  if (!layer.sum_pool) return {std::vector<double>(layer.Out().Size(), low), false};
  nn::PublicLayer before = layer;
  before.sum_pool.reset();
  const mpc::Shape3 in = before.Out();
  const std::vector<double> ones(in.Size(), 1);
  Offset offset{std::vector<double>(layer.Out().Size()), kind.uneven};
  nn::SumWindows(in, *layer.sum_pool, ones.data(), 1, offset.beta.data());
  const auto divisor = static_cast<double>(layer.sum_pool->Divisor(in));
  for (double& value : offset.beta) value = value * low / divisor;
  return offset;
}

/// The blocks' maps in real numbers.
class MapMaker {
 public:
  MapMaker(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
           const std::vector<nn::FloatLayer>& layers, double norm_scale)
      : spec_(spec), blocks_(blocks), layers_(layers), norm_scale_(norm_scale) {}

  /// Of block `b`, from 0; what enters it left source `b`. Blocks are made in their order.
  BlockMaps Make(std::size_t b) {
    const Block& block = blocks_[b];
    negated_.push_back(NegatedChannels(block));
    BlockMaps maps;
    maps.negated = negated_.back();
    maps.map = MapOf(block.layer.linear, block.steps);
    Negate(b, maps.map);
    maps.offset = OffsetOf(spec_, blocks_, b);
    MakeRoom(maps.offset, maps.map);
    if (block.layer.shortcut) AddShortcut(block, maps);
    TERCET_CHECK(maps.map.shape == block.layer.linear, "layer {}: the map has another shape",
                 block.layer.name);
    return maps;
  }

 private:
  static RealMap Identity(const mpc::LinearShape& shape) {
    if (shape.groups == shape.in.channels) return DepthwiseMap(shape.in, 1, 1, 0, 1);
    const std::size_t size = shape.out_channels;
    RealMap map{{shape, false}, std::vector<double>(size * size), std::vector<double>(size)};
    map.shape.bias_per_element = false;
    for (std::size_t i = 0; i < size; ++i) map.weight[i * size + i] = 1;
    return map;
  }

  /// Which channels of a block the batch_norms at its pool multiply by less than 0.
  std::vector<bool> NegatedChannels(const Block& block) const {
    if (block.pool_norms.empty()) return {};
    std::vector<bool> negated(block.layer.Out().channels, false);
    for (const std::size_t norm : block.pool_norms) {
      const std::vector<double> factors = FactorsOf(norm);
      for (std::size_t c = 0; c < factors.size(); ++c) negated[c] = negated[c] != (factors[c] < 0);
    }
    const auto first = std::find(negated.begin(), negated.end(), true);
    if (first == negated.end()) return {};
    if (!block.negates) {
      const char* name = mpc::FunctionOf(block.layer.activation).Name();
      throw UnsupportedError(fmt::format(
          "layer {}: it multiplies channel {} by less than 0 between a max_pool2d and its {}, "
          "which "
          "only a sign without a residual can compute; train with the batch_norm before both",
          spec_.layers[block.pool_norms.front()].name, first - negated.begin(), name));
    }
    return negated;
  }

  /// Makes the map of x one of what leaves `source`, -x in some channels.
  void Negate(std::size_t source, RealMap& map) const {
    if (source == 0 || negated_[source - 1].empty()) return;
    const mpc::LinearShape& shape = map.shape;
    const std::size_t taps = shape.kernel_h * shape.kernel_w;
    const std::size_t in_group = shape.in.channels / shape.groups;
    const std::size_t out_group = shape.out_channels / shape.groups;
    // Dense maps count all of a channel's elements as channels.
    const std::size_t each = shape.in.channels / negated_[source - 1].size();
    for (std::size_t i = 0; i < map.weight.size(); ++i) {
      const std::size_t group = i / shape.Depth() / out_group;
      const std::size_t channel = group * in_group + i / taps % in_group;
      if (negated_[source - 1][channel / each]) map.weight[i] = -map.weight[i];
    }
  }

  RealMap MapOf(const mpc::LinearShape& shape, const std::vector<Step>& steps) const {
    return steps.empty() ? Identity(shape) : Product(steps);
  }

  RealMap Product(const std::vector<Step>& steps) const {
    std::optional<RealMap> map;
    for (const Step& step : steps) {
      if (step.scales) {
        Normalise(step, *map);
        continue;
      }
      RealMap next = MapOf(step);
      map = map ? *Compose(*map, next) : std::move(next);
    }
    return std::move(*map);
  }

  RealMap MapOf(const Step& step) const {
    const nn::LayerSpec& layer = spec_.layers[step.layer];
    if (layer.type == nn::LayerType::kBatchNorm || step.number) {
      RealMap map = DepthwiseMap(step.in, 1, 1, 0, 1);
      Normalise(step, map);
      return map;
    }
    if (layer.type == nn::LayerType::kAvgPool2d) {
      const double share = 1 / static_cast<double>(layer.kernel.Area());
      return DepthwiseMap(layer.in, layer.kernel, layer.stride, layer.padding, share);
    }
    const nn::FloatLayer& weights = layers_[step.layer];
    const MapShape shape = WeightedShape(layer);
    RealMap map{shape, {}, {}};
    map.weight.assign(weights.weight.begin(), weights.weight.end());
    if (step.adds_bias) map.bias.assign(weights.bias.begin(), weights.bias.end());
    map.bias.resize(layer.out_channels);
    if (nn::PadsWithNumber(layer))
      map.bias = nn::BiasWithPadding(map.shape, map.weight, map.bias, layer.pad_value);
    return map;
  }

  void Normalise(const Step& step, RealMap& map) const {
    if (step.number) {
      const std::size_t channels = map.shape.out_channels;
      ScaleChannels(map, std::vector<double>(channels, step.number->factor),
                    std::vector<double>(channels, step.adds_bias ? step.number->shift : 0));
      return;
    }
    const nn::FloatLayer& norm = layers_[step.layer];
    const std::vector<double> exact = ExactFactorsOf(step.layer);
    std::vector<double> shift(exact.size());
    for (std::size_t c = 0; c < shift.size(); ++c)
      if (step.adds_bias) shift[c] = Rounded(norm.bias[c] - exact[c] * norm.mean[c]);
    ScaleChannels(map, FactorsOf(step.layer), shift);
  }

  /// What a layer of batch_norm multiplies each channel by.
  std::vector<double> ExactFactorsOf(std::size_t layer) const {
    const nn::FloatLayer& norm = layers_[layer];
    std::vector<double> factors(norm.weight.size());
    for (std::size_t c = 0; c < factors.size(); ++c)
      factors[c] = norm.weight[c] / std::sqrt(norm.variance[c] + spec_.layers[layer].eps);
    return factors;
  }
  std::vector<double> FactorsOf(std::size_t layer) const {
    std::vector<double> factors = ExactFactorsOf(layer);
    for (double& factor : factors) factor = Rounded(factor);
    return factors;
  }

  double Rounded(double value) const {
    return norm_scale_ == 0 ? value : std::round(value * norm_scale_) / norm_scale_;
  }

  /// In a map's bias, for what the offset of its input adds.
  static void MakeRoom(const Offset& offset, RealMap& map) {
    if (!offset.beta.empty())
      AddToBias(map, std::vector<double>(offset.beta.size()), offset.uneven);
  }

  void AddShortcut(const Block& block, BlockMaps& maps) const {
    const nn::Shortcut& shortcut = *block.layer.shortcut;
    maps.shortcut_offset = OffsetOf(spec_, blocks_, shortcut.from);
    if (shortcut.linear) {
      RealMap map = MapOf(*shortcut.linear, block.shortcut_steps);
      Negate(shortcut.from, map);
      MakeRoom(maps.shortcut_offset, map);
      AddBias(maps.map, map.bias, map.shape.bias_per_element);
      map.shape.bias_per_element = false;
      map.bias.assign(map.shape.out_channels, 0);
      maps.shortcut = std::move(map);
    } else if (maps.shortcut_offset.uneven) {
      AddBias(maps.map, std::vector<double>(maps.map.shape.Out().Size()), true);
    }
  }

  const nn::NetworkSpec& spec_;
  const std::vector<Block>& blocks_;
  const std::vector<nn::FloatLayer>& layers_;
  double norm_scale_;
  std::vector<std::vector<bool>> negated_;  // of each block that is made
};

}  // namespace

OffsetKind OffsetKindOf(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
                        std::size_t source) {
  if (source == 0) return {spec.input.mean == 0, false};
  const nn::PublicLayer& layer = blocks[source - 1].layer;
  if (blocks[source - 1].encoding.low == 0) return {};
  return {false,
          layer.sum_pool && layer.sum_pool->counts_padding && !layer.sum_pool->padding.None()};
}

MapShape WeightedShape(const nn::LayerSpec& layer) {
  MapShape map{nn::LinearShapeOf(layer), layer.bias};
  if (nn::PadsWithNumber(layer)) AddBiasShape(map, true);
  return map;
}

std::vector<BlockMaps> MakeMaps(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
                                const std::vector<nn::FloatLayer>& layers, double norm_scale) {
  MapMaker maker(spec, blocks, layers, norm_scale);
  std::vector<BlockMaps> maps;
  for (std::size_t b = 0; b < blocks.size(); ++b) maps.push_back(maker.Make(b));
  return maps;
}

}  // namespace tercet::compile
