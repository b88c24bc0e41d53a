// SPDX-License-Identifier: Apache-2.0
#include "compile/blocks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "nn/float_network_state.h"
#include "nn/sum_windows.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::compile {
namespace {

using mpc::ActivationKind;

std::string Supported() {
  const auto names = [](auto holds) { return nn::ActivationNames(holds); };
  return fmt::format(
      "it supports layers of conv2d, linear, batch_norm and avg_pool2d in any order (those with "
      "nothing between are multiplied out), perhaps an add, then {} with one max_pool2d (before or "
      "after {}) and one avg_pool2d, and at the end a linear map, perhaps with {}",
      names([](const auto& /*type*/) { return true; }),
      names([](const auto& type) { return type.Function().Monotone(); }),
      names([](const auto& type) { return type.Function().FixedPoint(); }));
}

/// Outputs that may be classes.
constexpr std::size_t kMostOutputs = 256;

/// A linear map of what leaves the input (0) or a block (its number, from 1).
struct Term {
  std::size_t source = 0;
  std::size_t stage = 0;           // pools that the source's block had
  std::optional<MapShape> map;     // none: as it is
  std::vector<Step> steps;         // that make it
  std::string name;                // of the last conv2d or linear in it, else of the first layer
  std::vector<std::string> parts;  // layers of the JSON that are multiplied out in it
  std::size_t macs = 0;
};

/// What leaves a layer of the JSON: the sum of one term or two.
struct Value {
  std::vector<Term> terms;
  std::size_t layer = 0;                // of the JSON, the last that made it
  const nn::LayerSpec* pool = nullptr;  // a max-pool that waits for its activation

  bool Untouched() const { return terms.size() == 1 && !terms[0].map; }
};

/// Of what leaves a source, as the architecture alone says.
struct OffsetKind {
  bool zero = true;
  bool uneven = false;
};

OffsetKind OffsetKindOf(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
                        std::size_t source) {
  if (source == 0) return {spec.input.mean == 0, false};
  const nn::PublicLayer& layer = blocks[source - 1].layer;
  if (blocks[source - 1].encoding.low == 0) return {};
  return {false, layer.sum_pool && !layer.sum_pool->padding.None()};
}

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
  const auto area = static_cast<double>(layer.sum_pool->kernel.Area());
  for (double& value : offset.beta) value = value * low / area;
  return offset;
}

class BlockMaker {
 public:
  explicit BlockMaker(const nn::NetworkSpec& spec) : spec_(spec) {
    for (const nn::LayerSpec& layer : spec.layers) used_.insert(layer.from);
  }

  std::vector<Block> Make() {
    value_ = {{Term{}}, 0, nullptr};
    Keep("input");
    for (index_ = 0; index_ < spec_.layers.size(); ++index_) {
      const nn::LayerSpec& layer = spec_.layers[index_];
      Visit(layer);
      value_.layer = index_;
      Keep(layer.name);
    }
    const nn::LayerSpec& last = spec_.layers.back();
    if (value_.pool != nullptr) Refuse(*value_.pool, "without sign or relu after it");
    if (value_.Untouched()) {
      // What leaves an activation is the output as it is; only, signs order no classes.
      const bool signs =
          blocks_.empty() || (mpc::FunctionOf(blocks_.back().layer.activation).ScaleFree() &&
                              !blocks_.back().layer.sum_pool);
      if (signs) Refuse(last, "as what leaves the network");
      Output();
    }
    Close(last, ActivationKind::kNone);
    return std::move(blocks_);
  }

 private:
  [[noreturn]] static void Refuse(const nn::LayerSpec& layer, const std::string& where) {
    throw UnsupportedError(fmt::format("layer {}: the compile step does not support {} {}; {}",
                                       layer.name, nn::LayerTypeName(layer.type), where,
                                       Supported()));
  }

  void Keep(const std::string& name) {
    if (used_.contains(name)) kept_[name] = value_;
  }

  /// What left layer `layer.from`.
  const Value& Kept(const nn::LayerSpec& layer) const {
    const Value& value = kept_.at(layer.from);
    if (value.pool != nullptr)
      Refuse(layer, fmt::format("from {}, which has no activation yet", layer.from));
    for (const Term& term : value.terms) {
      if (term.source > 0 && term.stage != stage_[term.source - 1])
        Refuse(layer,
               fmt::format("from {}, of which only what leaves its pool is left", layer.from));
    }
    return value;
  }

  void Visit(const nn::LayerSpec& layer) {
    switch (layer.type) {
      case nn::LayerType::kConv2d:
      case nn::LayerType::kLinear:
        if (!layer.from.empty()) value_ = Kept(layer);
        CheckNoPool(layer);
        Apply(layer, {nn::LinearShapeOf(layer), layer.bias}, true);
        break;
      case nn::LayerType::kBatchNorm:
        CheckNoPool(layer);
        Normalise(layer);
        break;
      case nn::LayerType::kMaxPool2d:
        MaxPool(layer);
        return;
      case nn::LayerType::kAvgPool2d:
        CheckNoPool(layer);
        if (AveragePool(layer)) return;
        break;
      case nn::LayerType::kFlatten:
        return;
      case nn::LayerType::kAdd:
        CheckNoPool(layer);
        Add(layer);
        break;
      default:
        Activate(layer, *nn::FindActivation(layer.type));
        return;
    }
    AppendType(open_type_, layer);
  }

  static void AppendType(std::string& type, const nn::LayerSpec& layer) {
    if (!type.empty()) type += '+';
    type += nn::LayerTypeName(layer.type);
  }

  void CheckNoPool(const nn::LayerSpec& layer) const {
    if (value_.pool != nullptr)
      Refuse(layer, fmt::format("between {} and its activation", value_.pool->name));
  }

  /// The shape that what leaves a term really has; the JSON's may be flattened.
  mpc::Shape3 ShapeOf(const Term& term) const {
    if (term.map) return term.map->shape.Out();
    return term.source == 0 ? spec_.input.shape : blocks_[term.source - 1].layer.Out();
  }

  /// Multiplies the value by a map; of a sum, each summand.
  void Apply(const nn::LayerSpec& layer, const MapShape& map, bool names) {
    for (std::size_t t = 0; t < value_.terms.size(); ++t)
      ApplyTo(value_.terms[t], layer, map, names, {index_, false, t == 0});
  }

  void ApplyTo(Term& term, const nn::LayerSpec& layer, const MapShape& map, bool names,
               const Step& step) const {
    const mpc::Shape3 found = ShapeOf(term), wanted = map.shape.in;
    if (!term.map && found != wanted && wanted != mpc::Shape3{found.Size(), 1, 1})
      RefuseDense(layer, wanted);
    if (names || term.parts.empty()) term.name = layer.name;
    if (term.map) {
      const std::optional<MapShape> product = ProductShape(*term.map, map);
      if (!product) {
        throw UnsupportedError(fmt::format(
            "layer {}: multiplied out with {} before it, which no activation separates from it, it "
            "has more than {} weights",
            layer.name, fmt::join(term.parts, " and "), kMostWeights));
      }
      term.map = product;
    } else {
      term.map = map;
    }
    term.macs += map.shape.Macs();
    term.parts.push_back(layer.name);
    term.steps.push_back(step);
  }

  void Normalise(const nn::LayerSpec& layer) {
    for (std::size_t t = 0; t < value_.terms.size(); ++t) {
      Term& term = value_.terms[t];
      if (term.map && term.map->shape.Out() == layer.in) {
        AddBiasShape(*term.map, false);
        term.steps.push_back({index_, true, t == 0});
      } else {
        MapShape map = DepthwiseShape(layer.in, 1, 1, 0);
        AddBiasShape(map, false);
        ApplyTo(term, layer, map, false, {index_, false, t == 0});
      }
    }
  }

  void Activate(const nn::LayerSpec& layer, const nn::ActivationType& activation) {
    if (value_.pool != nullptr && !activation.Function().Monotone())
      Refuse(layer, fmt::format("after {}, as the largest {} is not that of the largest value",
                                value_.pool->name, nn::LayerTypeName(layer.type)));
    if (value_.Untouched() && value_.terms[0].source == blocks_.size() && !blocks_.empty() &&
        !blocks_.back().layer.sum_pool)
      Refuse(layer, fmt::format("directly after that of {}", blocks_.back().layer.name));
    const nn::LayerSpec* pool = value_.pool;
    Close(layer, activation.Kind());
    Block& block = blocks_.back();
    AppendType(block.layer.type, layer);
    SetSuite(block, layer);
    block.encoding = activation.Encoding(layer);
    block.layer.table = block.encoding.table;
    if (!block.layer.table.empty() && block.layer.shortcut && !block.layer.shortcut->linear)
      Refuse(layer,
             "on a sum of what left an earlier activation as it is, whose scale would have "
             "to be the table's");
    if (pool != nullptr) {
      // Of a monotone function the largest value's is the largest.
      block.layer.pool = mpc::PoolShape{pool->kernel, pool->stride, pool->padding};
      SetSuite(block, *pool);
    }
  }

  /// After a dense product only the order of the values is left of the JSON's shape.
  [[noreturn]] static void RefuseDense(const nn::LayerSpec& layer, const mpc::Shape3& shape) {
    Refuse(layer,
           fmt::format("on a map of {} that leaves layers multiplied out to one dense matrix",
                       mpc::ShapeText(shape)));
  }

  /// Whether the value is what leaves the last block, in the JSON's shape.
  bool FollowsBlock(const nn::LayerSpec& layer) const {
    return value_.Untouched() && !blocks_.empty() && value_.terms[0].source == blocks_.size() &&
           ShapeOf(value_.terms[0]) == layer.in;
  }

  void MaxPool(const nn::LayerSpec& layer) {
    CheckNoPool(layer);
    if (!value_.Untouched()) {
      if (ShapeOf(value_.terms[0]) != layer.in) RefuseDense(layer, layer.in);
      value_.pool = &layer;
      AppendType(open_type_, layer);
      return;
    }
    if (!FollowsBlock(layer)) Refuse(layer, "that follows no activation and no linear map");
    nn::PublicLayer& last = blocks_.back().layer;
    if (last.pool || last.sum_pool) Refuse(layer, "after another pool");
    const mpc::ActivationFunction& function = mpc::FunctionOf(last.activation);
    if (!function.Monotone()) Refuse(layer, fmt::format("after {}", function.Name()));
    last.pool = mpc::PoolShape{layer.kernel, layer.stride, layer.padding};
    SetSuite(blocks_.back(), layer);
    AppendType(last.type, layer);
    value_.terms[0].stage = ++stage_.back();
  }

  /// A linear map that changes nothing, for a network without one at its end: one dense matrix
  /// where there may be classes to compare.
  void Output() {
    Term& term = value_.terms[0];
    const std::size_t size = ShapeOf(term).Size();
    if (size <= kMostOutputs) {
      MapShape map;
      map.shape = {.in = {size, 1, 1}, .out_channels = size};
      term.map = map;
    }
    term.name = "output";
    open_type_ = "output";
  }

  /// Whether it became the sums of the last block, instead of a linear map of the next one.
  bool AveragePool(const nn::LayerSpec& layer) {
    if (!FollowsBlock(layer) || blocks_.back().layer.sum_pool) {
      Apply(layer, DepthwiseShape(layer.in, layer.kernel, layer.stride, layer.padding), false);
      return false;
    }
    blocks_.back().layer.sum_pool = nn::SumPool{layer.kernel, layer.stride, layer.padding};
    AppendType(blocks_.back().layer.type, layer);
    value_.terms[0].stage = ++stage_.back();
    return true;
  }

  void Add(const nn::LayerSpec& layer) {
    const Value& other = Kept(layer);
    if (value_.terms.size() + other.terms.size() > 2)
      Refuse(layer, "of more than two summands without an activation between");
    value_.terms.push_back(other.terms[0]);
  }

  static void SetSuite(Block& block, const nn::LayerSpec& layer) {
    std::string& suite = block.layer.suite;
    if (layer.suite.empty() || layer.suite == suite) return;
    if (!suite.empty()) {
      throw UnsupportedError(fmt::format(
          "layer {}: an activation and its max_pool2d run in one suite, but the network names {} "
          "and {}",
          layer.name, suite, layer.suite));
    }
    suite = layer.suite;
  }

  /// Makes a block of the value.
  void Close(const nn::LayerSpec& layer, ActivationKind activation) {
    // The linear layer takes what leaves the block before; of two terms that could, one that has a
    // map.
    std::size_t main = value_.terms.size();
    for (std::size_t t = 0; t < value_.terms.size(); ++t) {
      if (value_.terms[t].source != blocks_.size()) continue;
      if (main == value_.terms.size() || !value_.terms[main].map) main = t;
    }
    if (main == value_.terms.size())
      Refuse(layer, "on what does not come from the activation before it");

    Block block;
    Term& term = value_.terms[main];
    MapShape map = term.map ? *term.map : DepthwiseShape(ShapeOf(term), 1, 1, 0);
    block.layer.name = NameFor(term, layer);
    block.layer.type = std::move(open_type_);
    open_type_.clear();
    block.layer.activation = activation;
    block.value_layer = value_.layer;
    AddOffset(term.source, map);
    if (value_.terms.size() > 1) AddShortcut(value_.terms[1 - main], layer, map, block);
    block.layer.linear = map.shape;
    block.steps = std::move(term.steps);
    if (term.parts.size() > 1) block.multiplied = std::move(term.parts);
    block.macs_before = term.macs;
    blocks_.push_back(std::move(block));
    stage_.push_back(0);
    value_ = {{Term{}}, index_, nullptr};
    value_.terms[0].source = blocks_.size();
  }

  void AddOffset(std::size_t source, MapShape& map) const {
    const OffsetKind offset = OffsetKindOf(spec_, blocks_, source);
    if (!offset.zero) AddToBiasShape(map, offset.uneven);
  }

  /// `map` is that of the block, which takes the summand's bias.
  void AddShortcut(Term& term, const nn::LayerSpec& layer, MapShape& map, Block& block) const {
    nn::Shortcut shortcut;
    shortcut.from = term.source;
    const mpc::Shape3 out = map.shape.Out();
    if (ShapeOf(term) != out) {
      Refuse(layer, fmt::format("on a sum of {} and {}", mpc::ShapeText(out),
                                mpc::ShapeText(ShapeOf(term))));
    }
    if (term.map) {
      AddOffset(term.source, *term.map);
      AddBiasShape(map, term.map->shape.bias_per_element);
      shortcut.linear = term.map->shape;
      shortcut.linear->bias_per_element = false;
      block.shortcut_steps = std::move(term.steps);
    } else {
      const OffsetKind offset = OffsetKindOf(spec_, blocks_, term.source);
      if (!offset.zero) AddBiasShape(map, offset.uneven);
    }
    block.layer.shortcut = shortcut;
  }

  /// Names are unique in the JSON, but a linear map with two uses is in two blocks.
  std::string NameFor(const Term& term, const nn::LayerSpec& layer) const {
    const auto taken = [this](const std::string& name) {
      return std::any_of(blocks_.begin(), blocks_.end(),
                         [&](const Block& block) { return block.layer.name == name; });
    };
    return term.name.empty() || taken(term.name) ? layer.name : term.name;
  }

  const nn::NetworkSpec& spec_;
  std::size_t index_ = 0;
  Value value_;
  std::string open_type_;       // the JSON layers since the last block
  std::set<std::string> used_;  // names that some layer takes its input or summand from
  std::map<std::string, Value> kept_;
  std::vector<Block> blocks_;
  std::vector<std::size_t> stage_;  // pools of each block so far
};

/// The blocks' maps in real numbers.
class MapMaker {
 public:
  MapMaker(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
           const std::vector<nn::FloatLayer>& layers, double norm_scale)
      : spec_(spec), blocks_(blocks), layers_(layers), norm_scale_(norm_scale) {}

  /// Of block `b`, from 0; what enters it left source `b`.
  BlockMaps Make(std::size_t b) const {
    const Block& block = blocks_[b];
    BlockMaps maps;
    maps.map = block.steps.empty() ? Identity(block.layer.linear) : Product(block.steps);
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
    if (layer.type == nn::LayerType::kBatchNorm) {
      RealMap map = DepthwiseMap(layer.in, 1, 1, 0, 1);
      Normalise(step, map);
      return map;
    }
    if (layer.type == nn::LayerType::kAvgPool2d) {
      const double share = 1 / static_cast<double>(layer.kernel.Area());
      return DepthwiseMap(layer.in, layer.kernel, layer.stride, layer.padding, share);
    }
    const nn::FloatLayer& weights = layers_[step.layer];
    RealMap map{{nn::LinearShapeOf(layer), layer.bias}, {}, {}};
    map.weight.assign(weights.weight.begin(), weights.weight.end());
    if (step.adds_bias) map.bias.assign(weights.bias.begin(), weights.bias.end());
    map.bias.resize(layer.out_channels);
    return map;
  }

  void Normalise(const Step& step, RealMap& map) const {
    const nn::LayerSpec& layer = spec_.layers[step.layer];
    const nn::FloatLayer& norm = layers_[step.layer];
    std::vector<double> factor(layer.in.channels), shift(factor.size());
    for (std::size_t c = 0; c < factor.size(); ++c) {
      const double exact = norm.weight[c] / std::sqrt(norm.variance[c] + layer.eps);
      factor[c] = Rounded(exact);
      if (step.adds_bias) shift[c] = Rounded(norm.bias[c] - exact * norm.mean[c]);
    }
    ScaleChannels(map, factor, shift);
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
      RealMap map = Product(block.shortcut_steps);
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
};

}  // namespace

std::vector<Block> MakeBlocks(const nn::NetworkSpec& spec) { return BlockMaker(spec).Make(); }

std::vector<BlockMaps> MakeMaps(const nn::NetworkSpec& spec, const std::vector<Block>& blocks,
                                const std::vector<nn::FloatLayer>& layers, double norm_scale) {
  const MapMaker maker(spec, blocks, layers, norm_scale);
  std::vector<BlockMaps> maps;
  for (std::size_t b = 0; b < blocks.size(); ++b) maps.push_back(maker.Make(b));
  return maps;
}

}  // namespace tercet::compile
