// SPDX-License-Identifier: Apache-2.0
// What one layer here cannot take: sums of more than two, maps that are put together, max-pools
// without an activation beside them.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "import/importer.h"

namespace tercet::importer {
namespace {

using files::TensorData;
using mpc::Shape3;
using nn::LayerType;

/// How many summands a value may have that no activation has made one of.
constexpr std::size_t kMostSummands = 2;
constexpr std::int64_t kMostTogether = 8192;  // channels
static_assert(kMostTogether * kMostTogether <= std::int64_t{kMostWeights});
constexpr std::size_t kMostDifferences = 128;  // of one max-pool

}  // namespace

bool Importer::IsNonNegative(int layer) const {
  if (layer == kNetworkInput) return false;
  const Layer& made = layers_[ToSize(layer)];
  switch (made.spec.type) {
    case LayerType::kRelu:
    case LayerType::kSquare:
      return true;
    case LayerType::kMaxPool2d:
    case LayerType::kAvgPool2d:
    case LayerType::kFlatten:
      return IsNonNegative(made.graph.inputs[0]);
    case LayerType::kConv2d:
      return made.moves && IsNonNegative(made.graph.inputs[0]);
    case LayerType::kAdd:
      return IsNonNegative(made.graph.inputs[0]) && IsNonNegative(made.graph.inputs[1]);
    default:
      return false;
  }
}

bool Importer::AreSigns(int layer) const {
  if (layer == kNetworkInput) return false;
  const Layer& made = layers_[ToSize(layer)];
  switch (made.spec.type) {
    case LayerType::kSign:
      return true;
    case LayerType::kMaxPool2d:
    case LayerType::kFlatten:
      return AreSigns(made.graph.inputs[0]);
    case LayerType::kAdd:
      // Of maps that are put together each number is that of one of them.
      return made.moves &&
             std::all_of(made.graph.inputs.begin(), made.graph.inputs.end(),
                         [&](int part) { return AreSigns(layers_[ToSize(part)].graph.inputs[0]); });
    default:
      return false;
  }
}

int Importer::AddScaled(const Node& node, int layer, double factor) {
  const Shape3 shape = ShapeOf(layer);
  Layer& scaled = AddLayer(node, LayerType::kConv2d, {layer}, shape);
  SetChannelwise(scaled, shape.channels, shape.channels,
                 std::vector<float>(shape.channels, static_cast<float>(factor)), {});
  scaled.moves = factor == 1;
  return static_cast<int>(layers_.size()) - 1;
}

void Importer::LimitSummands(const Node& node, int& a, int& b) {
  for (int* const layer : {&a, &b})
    if (SummandsOf(a) + SummandsOf(b) > kMostSummands && SummandsOf(*layer) > 1)
      *layer = Carry(node, *layer);
}

int Importer::AddSumOf(const Node& node, int a, int b) {
  const std::size_t first = layers_.size();
  LimitSummands(node, a, b);
  AddLayer(node, LayerType::kAdd, {a, b}, ShapeOf(a));
  LeaveNameToLast(first);
  return static_cast<int>(layers_.size()) - 1;
}

void Importer::CountWeights(const Node& node, std::size_t outputs, std::size_t depth,
                            std::size_t taps) {
  const std::size_t left = kMostWeights - added_weights_;
  if (depth > 0 && taps > 0 && outputs > left / depth / taps)
    node.Fail(
        fmt::format("needs a layer of {} x {} x {} weights to pick, place or compare numbers, "
                    "where {} are left of the {} that all such layers may have",
                    outputs, depth, taps, left, kMostWeights));
  added_weights_ += outputs * depth * taps;
}

int Importer::PutTogether(const Node& node, int a, int b) {
  const std::pair key{a, b};
  if (const auto found = put_together_.find(key); found != put_together_.end())
    return found->second;
  LimitSummands(node, a, b);
  const Shape3 shape = ShapeOf(a);
  const std::size_t all = shape.channels + ShapeOf(b).channels;
  CountWeights(node, all, all, 1);
  // A sum of two maps, each with zeros where the other one is.
  std::vector<int> parts;
  for (const auto& [layer, begin] : {std::pair{a, std::size_t{0}}, {b, shape.channels}}) {
    const std::size_t channels = ShapeOf(layer).channels;
    Layer& part = AddLayer(node, LayerType::kConv2d, {layer}, {all, shape.height, shape.width});
    std::vector<float> weight(all * channels, 0);
    for (std::size_t c = 0; c < channels; ++c) weight[(begin + c) * channels + c] = 1;
    SetChannelwise(part, all, 1, weight, {});
    part.moves = true;
    parts.push_back(static_cast<int>(layers_.size()) - 1);
  }
  AddLayer(node, LayerType::kAdd, parts, {all, shape.height, shape.width}).moves = true;
  return put_together_[key] = static_cast<int>(layers_.size()) - 1;
}

void Importer::Concat(Node& node) {
  std::vector<Value> values = {NeedPlain(node, 0)};
  values.reserve(ToSize(node.InputCount()));
  for (int i = 1; i < node.InputCount(); ++i) values.push_back(NeedPlain(node, i));
  const Value& front = values.front();
  const std::size_t axis = node.Axis(node.Int("axis", 1), front.sizes.size());
  const Shape3 shape = ShapeOf(front.layer);
  Sizes sizes = front.sizes;
  for (const Value& value : values) {
    const Shape3 other = ShapeOf(value.layer);
    bool fits = axis == 1 && value.sizes.size() == sizes.size() && value.order.empty() &&
                other.height == shape.height && other.width == shape.width &&
                value.sizes[1] == ToSigned(other.channels);
    for (std::size_t i = 0; fits && i < sizes.size(); ++i)
      fits = i == 1 || value.sizes[i] == sizes[i];
    if (!fits)
      node.Fail(
          fmt::format("puts {} and {} together in axis {}, expected maps of equal sides and "
                      "their channels, axis 1",
                      ValueText(front), ValueText(value), axis));
  }
  const std::size_t first = layers_.size();
  int together = front.layer;
  for (std::size_t i = 1; i < values.size(); ++i) {
    sizes[1] += values[i].sizes[1];
    if (sizes[1] > kMostTogether)
      node.Fail(fmt::format("makes {} channels, expected at most {}", sizes[1], kMostTogether));
    together = PutTogether(node, together, values[i].layer);
  }
  LeaveNameToLast(first);
  Value value = front;
  value.layer = together;
  value.sizes = sizes;
  SetValue(node, std::move(value));
}

// --- Max-pools

bool Importer::Falls(const Layer& norm) {
  const std::vector<double> factors = norm.tensors.at("weight").AsDoubles();
  return std::any_of(factors.begin(), factors.end(), [](double f) { return f < 0; });
}

bool Importer::HasActivation(int pool, const std::vector<std::vector<int>>& readers) const {
  const auto type = [&](int layer) {
    return layer == kNetworkInput ? LayerType::kAdd : layers_[ToSize(layer)].spec.type;
  };
  // A Sign can be that of the least number where a batch_norm between them changes signs.
  const auto fits = [&](int layer, bool falls) {
    if (type(layer) == LayerType::kRelu) return !falls;
    return type(layer) == LayerType::kSign &&
           (!falls || SummandsOf(layers_[ToSize(layer)].graph.inputs[0]) == 1);
  };
  bool falls = false;
  int layer = layers_[ToSize(pool)].graph.inputs[0];
  while (layer != kNetworkInput && type(layer) == LayerType::kBatchNorm) {
    falls = falls || Falls(layers_[ToSize(layer)]);
    layer = layers_[ToSize(layer)].graph.inputs[0];
  }
  if (fits(layer, falls)) return true;
  const LayerType before = type(layer);
  if (layer == kNetworkInput || before == LayerType::kMaxPool2d ||
      before == LayerType::kAvgPool2d || before == LayerType::kTable ||
      before == LayerType::kSquare || before == LayerType::kRelu || before == LayerType::kSign)
    return false;
  falls = false;
  for (layer = pool; readers[ToSize(layer)].size() == 1;) {
    layer = readers[ToSize(layer)][0];
    if (type(layer) != LayerType::kBatchNorm) return fits(layer, falls);
    falls = falls || Falls(layers_[ToSize(layer)]);
  }
  return false;
}

void Importer::ReplacePools() {
  const std::vector<std::vector<int>> readers = Readers();
  const int count = static_cast<int>(layers_.size());
  std::vector<bool> replaced(layers_.size(), false);
  for (int l = 0; l < count; ++l) {
    const LayerType type = layers_[ToSize(l)].spec.type;
    const bool is_max = type == LayerType::kMaxPool2d;
    replaced[ToSize(l)] =
        (is_max && (l == result_layer_ || !HasActivation(l, readers) || IsShared(l, readers))) ||
        (type == LayerType::kAvgPool2d && IsShared(l, readers));
  }
  std::vector<Layer> before = std::exchange(layers_, {});
  std::vector<int> place(before.size());
  for (std::size_t l = 0; l < before.size(); ++l) {
    for (int& input : before[l].graph.inputs)
      if (input != kNetworkInput) input = place[ToSize(input)];
    if (replaced[l]) {
      place[l] = ReplacePool(std::move(before[l]));
      continue;
    }
    layers_.push_back(std::move(before[l]));
    place[l] = static_cast<int>(layers_.size()) - 1;
  }
  if (result_layer_ != kNetworkInput) result_layer_ = place[ToSize(result_layer_)];
  ReadCarriers();
}

bool Importer::IsShared(int pool, const std::vector<std::vector<int>>& readers) const {
  for (int layer = layers_[ToSize(pool)].graph.inputs[0]; layer != kNetworkInput;
       layer = layers_[ToSize(layer)].graph.inputs[0]) {
    const LayerType type = layers_[ToSize(layer)].spec.type;
    const bool is_activation = type == LayerType::kRelu || type == LayerType::kSign ||
                               type == LayerType::kTable || type == LayerType::kSquare;
    if (!is_activation && type != LayerType::kBatchNorm) return false;
    if (readers[ToSize(layer)].size() > 1 || layer == result_layer_) return true;
    if (is_activation) return false;
  }
  return false;
}

int Importer::ReplacePool(Layer pool) {
  const Node node = NodeAt(pool.node);
  const nn::LayerSpec& spec = pool.spec;
  const int input = pool.graph.inputs[0];
  if (spec.kernel.h == 1 && spec.kernel.w == 1 && spec.stride.h == 1 && spec.stride.w == 1 &&
      spec.padding.None())
    return input;
  const std::size_t first = layers_.size();
  const bool averages = spec.type == LayerType::kAvgPool2d;
  const bool is_linear = averages && (spec.padding.None() || spec.count_include_pad);
  const bool can_repeat = IsNonNegative(input) || AreSigns(input);
  if (averages || can_repeat) {
    if (is_linear) pool.graph.inputs = {AddScaled(node, input, 1)};
    if (!is_linear && can_repeat) pool.graph.inputs = {AddActivationOf(node, input)};
    layers_.push_back(std::move(pool));
    LeaveNameToLast(first);
    return static_cast<int>(layers_.size()) - 1;
  }
  if (!spec.padding.None())
    node.Fail(
        "pads what is neither a ReLU's nor a Sign's, nor goes into one; put one of them before or "
        "behind it, or leave out the padding");
  const Shape3 in = ShapeOf(input);
  const std::size_t differences = spec.kernel.h + spec.kernel.w - 2;
  const std::size_t side = std::max(spec.kernel.h, spec.kernel.w);
  if (differences > kMostDifferences || in.channels * differences * side > kMostWeights)
    node.Fail(
        fmt::format("finds the largest of {} x {} numbers in {} channels that are neither a ReLU's "
                    "nor a Sign's, nor go into one; "
                    "put one of them before or behind it, or use smaller windows",
                    spec.kernel.h, spec.kernel.w, in.channels));
  CountWeights(node, in.channels, differences, side);
  Window columns, rows;
  columns.rows = {.in = in.height};
  columns.columns = {.in = in.width, .kernel = spec.kernel.w, .stride = spec.stride.w};
  rows.rows = {.in = in.height, .kernel = spec.kernel.h, .stride = spec.stride.h};
  rows.columns = {.in = columns.columns.Out()};
  const int largest = AddLargest(node, AddLargest(node, input, columns, false), rows, true);
  LeaveNameToLast(first);
  layers_[ToSize(largest)].wanted_name = pool.wanted_name;
  if (differences > 0)
    notes_.insert(fmt::format(
        "{} has no ReLU and no Sign beside it and is computed by {} ReLUs of differences",
        node.Text(), differences));
  return largest;
}

int Importer::AddLargest(const Node& node, int layer, const Window& window, bool by_rows) {
  const Axis& axis = by_rows ? window.rows : window.columns;
  if (axis.kernel == 1 && axis.stride == 1) return layer;
  const std::size_t channels = ShapeOf(layer).channels;
  // The number of a window at `plus`, less that at `minus`.
  const auto pick = [&](std::size_t plus, std::optional<std::size_t> minus) {
    std::vector<float> weight(channels * axis.kernel, 0);
    for (std::size_t c = 0; c < channels; ++c) {
      weight[c * axis.kernel + plus] = 1;
      if (minus) weight[c * axis.kernel + *minus] = -1;
    }
    Layer& picked = AddLayer(node, LayerType::kConv2d, {layer}, window.Out(channels));
    SetChannelwise(picked, channels, channels, weight, {});
    SetWindow(window, picked.spec);
    picked.tensors["weight"] =
        TensorData::FromFloats({channels, 1, window.rows.kernel, window.columns.kernel}, weight);
    return static_cast<int>(layers_.size()) - 1;
  };
  if (axis.kernel == 1) return pick(0, std::nullopt);
  const auto relu = [&](int of) {
    Value value;
    value.layer = of;
    AddLayerTo(value, LayerType::kRelu, node);
    return value.layer;
  };
  if (SummandsOf(layer) > 1) layer = Carry(node, layer);
  // max(a, b) is a + relu(b - a).
  const int more = relu(pick(1, 0));
  int largest = AddSumOf(node, more, pick(0, std::nullopt));
  for (std::size_t i = 2; i < axis.kernel; ++i) {
    int next = pick(i, std::nullopt);
    LimitSummands(node, largest, next);
    const int above = relu(AddSumOf(node, next, AddScaled(node, largest, -1)));
    largest = AddSumOf(node, above, largest);
  }
  return largest;
}

}  // namespace tercet::importer
