// SPDX-License-Identifier: Apache-2.0
#include "compile/blocks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "tercet/base/error.h"

namespace tercet::compile {
namespace {

using mpc::ActivationKind;

std::string Supported() {
  const auto names = [](auto holds) { return nn::ActivationNames(holds); };
  return fmt::format(
      "it supports layers of conv2d, linear, batch_norm and avg_pool2d in any order (those with "
      "nothing between are multiplied out), perhaps an add, then {} with one max_pool2d (before or "
      "after {}, perhaps with batch_norm between) and one avg_pool2d, and at the end a linear map, "
      "perhaps with {}",
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
  std::vector<std::size_t> norms;       // of the JSON, behind that pool

  bool Untouched() const { return terms.size() == 1 && !terms[0].map; }
};

class BlockMaker {
 public:
  explicit BlockMaker(const nn::NetworkSpec& spec) : spec_(spec) {
    for (const nn::LayerSpec& layer : spec.layers) used_.insert(layer.from);
  }

  std::vector<Block> Make() {
    value_ = {{Term{}}, 0, nullptr, {}};
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
        Apply(layer, WeightedShape(layer), true);
        break;
      case nn::LayerType::kBatchNorm:
        if (value_.pool != nullptr) value_.norms.push_back(index_);
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
      case nn::LayerType::kClip:
        if (layer.input_scale == 0) {
          ClipInTwo(layer);
          return;
        }
        [[fallthrough]];
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
      ApplyTo(value_.terms[t], layer, map, names, {index_, false, t == 0, map.shape.in, {}});
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
      // Behind a pool that waits it still is a map of what enters the pool.
      const mpc::Shape3& in = value_.pool != nullptr ? value_.pool->in : layer.in;
      if (term.map && term.map->shape.Out() == in) {
        AddBiasShape(*term.map, false);
        term.steps.push_back({index_, true, t == 0, in, {}});
      } else {
        MapShape map = DepthwiseShape(in, 1, 1, 0);
        AddBiasShape(map, false);
        ApplyTo(term, layer, map, false, {index_, false, t == 0, in, {}});
      }
    }
  }

  /// factor * x + shift of the value.
  void AddNumber(const nn::LayerSpec& layer, double factor, double shift) {
    for (std::size_t t = 0; t < value_.terms.size(); ++t) {
      Term& term = value_.terms[t];
      const mpc::Shape3 in = ShapeOf(term);
      Step step{index_, term.map.has_value(), t == 0, in, Step::Number{factor, shift}};
      if (!term.map) {
        term.map = DepthwiseShape(in, 1, 1, 0);
        if (term.parts.empty()) term.name = layer.name;
      }
      AddBiasShape(*term.map, false);
      term.steps.push_back(step);
    }
  }

  void ClipInTwo(const nn::LayerSpec& layer) {
    const nn::ActivationType& relu = *nn::FindActivation(nn::LayerType::kRelu);
    const std::size_t values = value_.layer;
    AddNumber(layer, 1, -layer.low);
    Activate(layer, relu);
    AddNumber(layer, -1, layer.high - layer.low);
    Activate(layer, relu);
    AddNumber(layer, -1, layer.high);
    for (const bool second : {false, true}) {
      Block& block = blocks_[blocks_.size() - (second ? 1 : 2)];
      block.value_layer = values;
      block.clip = ClipPart{layer.low, layer.high, second};
    }
  }

  /// A max-pool behind a clip is one of its first half.
  bool PoolClip(const nn::LayerSpec& layer) {
    Term& term = value_.terms[0];
    if (value_.terms.size() > 1 || term.source != blocks_.size() || term.steps.size() != 1 ||
        !term.steps[0].number || !blocks_.back().clip)
      return false;
    Block& first = blocks_[blocks_.size() - 2];
    Block& second = blocks_.back();
    if (first.layer.pool || second.layer.sum_pool) Refuse(layer, "after another pool");
    SetPool(first, layer, {});
    AppendType(first.layer.type, layer);
    MapShape map = DepthwiseShape(first.layer.Out(), 1, 1, 0);
    AddBiasShape(map, false);
    second.layer.linear = map.shape;
    term.map = map;
    second.steps[0].in = term.steps[0].in = map.shape.in;
    ++stage_[stage_.size() - 2];
    term.stage = ++stage_.back();
    return true;
  }

  void Activate(const nn::LayerSpec& layer, const nn::ActivationType& activation) {
    if (value_.pool != nullptr && !activation.Function().Monotone())
      Refuse(layer, fmt::format("after {}, as the largest {} is not that of the largest value",
                                value_.pool->name, nn::LayerTypeName(layer.type)));
    if (value_.Untouched() && value_.terms[0].source == blocks_.size() && !blocks_.empty() &&
        !blocks_.back().layer.sum_pool)
      Refuse(layer, fmt::format("directly after that of {}", blocks_.back().layer.name));
    const nn::LayerSpec* pool = value_.pool;
    const std::vector<std::size_t> norms = value_.norms;
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
      SetPool(block, *pool, norms);
    }
  }

  void SetPool(Block& block, const nn::LayerSpec& pool, const std::vector<std::size_t>& norms) {
    block.layer.pool = mpc::PoolShape{pool.kernel, pool.stride, pool.padding};
    SetSuite(block, pool);
    block.pool_norms = norms;
    block.negates = !norms.empty() && block.encoding.IsSymmetric() && !block.layer.shortcut;
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
    if (PoolClip(layer)) return;
    const std::vector<std::size_t> norms = NormsOfBlock();
    if (!value_.Untouched() && norms.empty()) {
      if (ShapeOf(value_.terms[0]) != layer.in) RefuseDense(layer, layer.in);
      value_.pool = &layer;
      AppendType(open_type_, layer);
      return;
    }
    if (norms.empty() && !FollowsBlock(layer))
      Refuse(layer, "that follows no activation and no linear map");
    nn::PublicLayer& last = blocks_.back().layer;
    if (last.pool || last.sum_pool) Refuse(layer, "after another pool");
    const mpc::ActivationFunction& function = mpc::FunctionOf(last.activation);
    if (!function.Monotone()) Refuse(layer, fmt::format("after {}", function.Name()));
    SetPool(blocks_.back(), layer, norms);
    AppendType(last.type, layer);
    Term& term = value_.terms[0];
    term.stage = ++stage_.back();
    if (norms.empty()) return;
    // The largest of what they give is what they make of the largest, or where they multiply by
    // less than 0 of the least.
    for (Step& step : term.steps) step.in = last.Out();
    MapShape map = DepthwiseShape(last.Out(), 1, 1, 0);
    AddBiasShape(map, false);
    term.map = map;
    term.macs = map.shape.Macs() * norms.size();
  }

  /// Layers of batch_norm if the value is what they make of what left the last activation, which no
  /// pool follows.
  std::vector<std::size_t> NormsOfBlock() const {
    const Term& term = value_.terms[0];
    if (value_.terms.size() > 1 || blocks_.empty() || term.source != blocks_.size() ||
        stage_.back() > 0)
      return {};
    std::vector<std::size_t> norms;
    for (const Step& step : term.steps) {
      if (spec_.layers[step.layer].type != nn::LayerType::kBatchNorm) return {};
      norms.push_back(step.layer);
    }
    return norms;
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
    const bool counts_padding = layer.count_include_pad || layer.padding.None();
    if (!FollowsBlock(layer) || blocks_.back().layer.sum_pool) {
      if (!counts_padding)
        Refuse(layer,
               "that does not count its padding, but where it follows an activation with no other "
               "avg_pool2d");
      Apply(layer, DepthwiseShape(layer.in, layer.kernel, layer.stride, layer.padding), false);
      return false;
    }
    blocks_.back().layer.sum_pool =
        nn::SumPool{layer.kernel, layer.stride, layer.padding, counts_padding};
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
    value_ = {{Term{}}, index_, nullptr, {}};
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
    // What is negated in some channels is no summand as it is.
    if (!term.map && term.source > 0 && blocks_[term.source - 1].negates)
      term.map = DepthwiseShape(out, 1, 1, 0);
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

}  // namespace

std::vector<Block> MakeBlocks(const nn::NetworkSpec& spec) { return BlockMaker(spec).Make(); }

}  // namespace tercet::compile
