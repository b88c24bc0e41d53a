// SPDX-License-Identifier: Apache-2.0
// A graph as the chain that a network is here: an activation takes what the one before it gives,
// and perhaps one summand from earlier.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "import/importer.h"
#include "tercet/base/error.h"

namespace tercet::importer {
namespace {

using files::TensorData;
using mpc::Shape3;
using nn::LayerType;

bool IsActivation(LayerType type) {
  return type == LayerType::kSign || type == LayerType::kRelu || type == LayerType::kSquare ||
         type == LayerType::kTable;
}

}  // namespace

std::size_t Importer::SummandsOf(int layer) const {
  if (layer == kNetworkInput) return 1;
  const Layer& made = layers_[ToSize(layer)];
  if (IsActivation(made.spec.type)) return 1;
  std::size_t summands = 0;
  for (const int input : made.graph.inputs) summands += SummandsOf(input);
  return summands;
}

int Importer::AddActivationOf(const Node& node, int layer) {
  Value value;
  value.layer = AddScaled(node, layer, 1);
  AddLayerTo(value, AreSigns(layer) ? LayerType::kSign : LayerType::kRelu, node);
  return value.layer;
}

int Importer::Carry(const Node& node, int layer) {
  if (const auto found = carried_.find(layer); found != carried_.end()) return found->second.last;
  const Shape3 shape = ShapeOf(layer);
  const int first = static_cast<int>(layers_.size());
  Value value;
  if (IsNonNegative(layer) || AreSigns(layer)) {
    value.layer = AddActivationOf(node, layer);
  } else {
    value.layer = AddBothSides(node, layer, std::vector<double>(shape.channels, 1));
  }
  layers_[ToSize(first)].note =
      fmt::format("{} takes one {} more, which carries numbers on as they are", node.Text(),
                  AreSigns(layer) ? "Sign" : "ReLU");
  carried_[layer] = {first, value.layer};
  return value.layer;
}

int Importer::AddBothSides(const Node& node, int layer, const std::vector<double>& slopes) {
  const Shape3 shape = ShapeOf(layer);
  if (ToSigned(2 * shape.channels) > kMaxChannels)
    node.Fail(
        fmt::format("needs two activations for each of {} channels, expected at most {} channels",
                    shape.channels, kMaxChannels / 2));
  std::vector<float> apart, together;
  for (const double slope : slopes) {
    apart.insert(apart.end(), {1, -1});
    together.insert(together.end(), {1, static_cast<float>(-slope)});
  }
  Layer& spread =
      AddLayer(node, LayerType::kConv2d, {layer}, {2 * shape.channels, shape.height, shape.width});
  SetChannelwise(spread, 2 * shape.channels, shape.channels, apart, {});
  Value value;
  value.layer = static_cast<int>(layers_.size()) - 1;
  AddLayerTo(value, LayerType::kRelu, node);
  Layer& sum = AddLayer(node, LayerType::kConv2d, {value.layer}, shape);
  SetChannelwise(sum, shape.channels, shape.channels, together, {});
  return static_cast<int>(layers_.size()) - 1;
}

void Importer::ReadCarriers() {
  for (int l = 0; l < static_cast<int>(layers_.size()); ++l) {
    for (int& input : layers_[ToSize(l)].graph.inputs) {
      const auto found = carried_.find(input);
      if (found != carried_.end() && found->second.first != l) input = found->second.last;
    }
  }
  carried_.clear();
  put_together_.clear();
  Sort();
}

void Importer::Sort() {
  std::vector<int> place(layers_.size(), kNone), order, open;
  for (int l = 0; l < static_cast<int>(layers_.size()); ++l) {
    open.push_back(l);
    while (!open.empty()) {
      const int next = open.back();
      const std::vector<int>& inputs = layers_[ToSize(next)].graph.inputs;
      const auto missing = std::find_if(inputs.begin(), inputs.end(), [&](int input) {
        return input != kNetworkInput && place[ToSize(input)] == kNone;
      });
      if (missing != inputs.end()) {
        open.push_back(*missing);
        continue;
      }
      open.pop_back();
      if (place[ToSize(next)] != kNone) continue;
      place[ToSize(next)] = static_cast<int>(order.size());
      order.push_back(next);
    }
  }
  std::vector<Layer> sorted;
  for (const int l : order) {
    sorted.push_back(std::move(layers_[ToSize(l)]));
    for (int& input : sorted.back().graph.inputs)
      if (input != kNetworkInput) input = place[ToSize(input)];
  }
  layers_ = std::move(sorted);
  if (result_layer_ != kNetworkInput) result_layer_ = place[ToSize(result_layer_)];
}

/// One axis of a convolution that makes `out` numbers of `in`.
Axis Importer::AxisBetween(std::size_t in, std::size_t out) {
  if (out <= in) return {.in = in, .kernel = in - out + 1};
  const std::size_t more = out - in;
  return {.in = in, .kernel = more, .before = more, .after = more - 1};
}

int Importer::AddNothingOf(const Node& node, int layer, const Shape3& out) {
  const Shape3 in = ShapeOf(layer);
  const Window window{AxisBetween(in.height, out.height), AxisBetween(in.width, out.width)};
  const std::size_t groups = std::gcd(in.channels, out.channels);
  const std::size_t kernel = window.rows.kernel * window.columns.kernel;
  if (in.channels / groups >= kMostWeights / kernel / out.channels)
    node.Fail("follows another branch of so many numbers that both cannot be one chain");
  CountWeights(node, out.channels, in.channels / groups, kernel);
  Layer& nothing = AddLayer(node, LayerType::kConv2d, {layer}, out);
  nothing.wanted_name.clear();
  nothing.spec.out_channels = out.channels;
  nothing.spec.groups = groups;
  nothing.spec.bias = false;
  SetWindow(window, nothing.spec);
  nothing.tensors["weight"] = TensorData::FromFloats(
      {out.channels, in.channels / groups, window.rows.kernel, window.columns.kernel},
      std::vector<float>(out.channels * (in.channels / groups) * kernel, 0));
  return static_cast<int>(layers_.size()) - 1;
}

int Importer::AddChained(const Node& node, int value, int before) {
  const int nothing = AddNothingOf(node, before, ShapeOf(value));
  AddLayer(node, LayerType::kAdd, {nothing, value}, ShapeOf(value)).wanted_name.clear();
  order_.insert(order_.end(), {nothing, nothing + 1});
  return nothing + 1;
}

std::vector<std::vector<int>> Importer::Readers() const {
  std::vector<std::vector<int>> readers(layers_.size());
  for (std::size_t l = 0; l < layers_.size(); ++l)
    for (const int input : layers_[l].graph.inputs)
      if (input != kNetworkInput) readers[ToSize(input)].push_back(static_cast<int>(l));
  return readers;
}

bool Importer::CarryBeforeBranches() {
  const std::vector<std::vector<int>> readers = Readers();
  for (int l = 0; l < static_cast<int>(layers_.size()); ++l) {
    const auto branches = std::count_if(
        readers[ToSize(l)].begin(), readers[ToSize(l)].end(),
        [&](int reader) { return layers_[ToSize(reader)].spec.type != LayerType::kAdd; });
    if (branches < 2 || SummandsOf(l) < 2) continue;
    Carry(NodeAt(layers_[ToSize(l)].node), l);
    ReadCarriers();
    return true;
  }
  return false;
}

bool Importer::IsActive(int layer) const {
  if (layer == kNetworkInput) return true;
  const Layer& made = layers_[ToSize(layer)];
  if (made.spec.type == LayerType::kMaxPool2d || made.spec.type == LayerType::kFlatten)
    return IsActive(made.graph.inputs[0]);
  return IsActivation(made.spec.type);
}

void Importer::GoRound(int reader, std::size_t input) {
  const int source = layers_[ToSize(reader)].graph.inputs[input];
  const int same = AddScaled(NodeAt(layers_[ToSize(reader)].node), source, 1);
  layers_[ToSize(same)].wanted_name.clear();
  layers_[ToSize(reader)].graph.inputs[input] = same;
}

std::vector<int> Importer::Order() {
  const auto count = static_cast<int>(layers_.size());
  for (int l = 0; l < count; ++l)
    if (IsActivation(layers_[ToSize(l)].spec.type) && IsActive(layers_[ToSize(l)].graph.inputs[0]))
      GoRound(l, 0);
  for (bool sums_went_round = false;;) {
    Sort();
    std::vector<GraphLayer> layers;
    for (const Layer& layer : layers_) layers.push_back(layer.graph);
    const Schedule schedule = MakeSchedule(layers);
    if (schedule.misfit == kNetworkInput) return schedule.order;
    if (schedule.rival != kNetworkInput) {
      GoRound(schedule.misfit, 0);
      continue;
    }
    TERCET_CHECK(!sums_went_round, "{}: its layers have no order", file_);
    sums_went_round = true;
    for (std::size_t l = 0; l < layers.size(); ++l)
      for (std::size_t i = 0; layers[l].inputs.size() == 2 && i < 2; ++i)
        GoRound(static_cast<int>(l), i);
  }
}

bool Importer::Reads(int value, int source) const {
  if (value == source) return true;
  if (value == kNetworkInput) return false;
  const Layer& made = layers_[ToSize(value)];
  if (IsActivation(made.spec.type)) return false;
  return std::any_of(made.graph.inputs.begin(), made.graph.inputs.end(),
                     [&](int input) { return Reads(input, source); });
}

bool Importer::WaitsForActivation(int value) const {
  while (value != kNetworkInput && layers_[ToSize(value)].spec.type == LayerType::kBatchNorm)
    value = layers_[ToSize(value)].graph.inputs[0];
  if (value == kNetworkInput || layers_[ToSize(value)].spec.type != LayerType::kMaxPool2d)
    return false;
  do {
    value = layers_[ToSize(value)].graph.inputs[0];
  } while (value != kNetworkInput && layers_[ToSize(value)].spec.type == LayerType::kBatchNorm);
  return value != kNetworkInput && !IsActivation(layers_[ToSize(value)].spec.type);
}

void Importer::MakeChain() {
  const std::vector<int> order = Order();
  // What the last activation gives, and behind its pools.
  int activation = kNetworkInput, last = kNetworkInput;
  for (const int l : order) {
    const LayerType type = layers_[ToSize(l)].spec.type;
    const bool pools = type == LayerType::kMaxPool2d;
    const int value = layers_[ToSize(l)].graph.inputs[0];
    const Node node = NodeAt(layers_[ToSize(l)].node);
    // Only a value of one summand can take nothing of the activation before as its second one.
    const bool begins = pools ? !Reads(value, last) && SummandsOf(value) == 1
                              : IsActivation(type) && !WaitsForActivation(value) &&
                                    !Reads(value, activation) && SummandsOf(value) == 1;
    if (begins) {
      const int chained = AddChained(node, value, last);
      layers_[ToSize(l)].graph.inputs[0] = chained;
    }
    order_.push_back(l);
    if (IsActivation(type)) activation = last = l;
    if ((pools || type == LayerType::kAvgPool2d) && layers_[ToSize(l)].graph.inputs[0] == last)
      last = l;
  }
  if (!Reads(result_layer_, activation) && SummandsOf(result_layer_) == 1)
    result_layer_ = AddChained(NodeAt(layers_[ToSize(result_layer_)].node), result_layer_, last);
}

}  // namespace tercet::importer
