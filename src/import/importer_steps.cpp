// SPDX-License-Identifier: Apache-2.0
// Activations of a few bits, as sums of signs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/json.h"
#include "import/importer.h"

namespace tercet::importer {
namespace {

using files::TensorData;
using mpc::Shape3;
using nn::LayerType;

/// More steps than activations of 4 bits have would be more signs than are worth it.
constexpr std::size_t kMostSteps = 15;

}  // namespace

std::vector<double> Importer::NeedPerChannel(const Node& node, const Value& value,
                                             const Array& array) {
  const auto channels = PerChannel(Spread(node, value, array), ShapeOf(value.layer), 0);
  if (!channels)
    node.Fail(
        "computes with a constant that differs within a channel, expected one number for each "
        "channel (but behind a Flatten any)");
  return *channels;
}

void Importer::AddSteps(const Node& node, Value value, const std::vector<Step>& steps,
                        const std::vector<double>& scale, const std::vector<double>& shift) {
  const Shape3 shape = ShapeOf(value.layer);
  const std::size_t count = steps.size(), channels = shape.channels;
  if (count < 1 || count > kMostSteps || ToSigned(count * channels) > kMaxChannels)
    node.Fail(
        fmt::format("found {} steps in each of {} channels, expected 1 to {} and in all channels "
                    "at most {}: train with activations of at most 4 bits",
                    count, channels, kMostSteps, kMaxChannels));
  SkipRelu(value, steps);
  const std::size_t first = layers_.size();
  // Each step of each channel is a channel of its own, of which the sign says whether it is taken.
  Layer& spread = AddLayer(node, LayerType::kConv2d, {value.layer},
                           {count * channels, shape.height, shape.width});
  std::vector<float> weight, bias;
  for (std::size_t c = 0; c < channels; ++c) {
    for (const Step& step : steps) {
      const double direction = step.or_equal ? 1 : -1;
      weight.push_back(static_cast<float>(direction));
      bias.push_back(static_cast<float>(-direction * step.at[c]));
    }
  }
  SetChannelwise(spread, count * channels, channels, weight, bias);
  value.layer = static_cast<int>(layers_.size()) - 1;
  AddLayerTo(value, LayerType::kSign, node);
  Layer& sum = AddLayer(node, LayerType::kConv2d, {value.layer}, shape);
  weight.clear();
  bias.clear();
  for (std::size_t c = 0; c < channels; ++c) {
    for (const Step& step : steps)
      weight.push_back(static_cast<float>(step.or_equal ? scale[c] / 2 : -scale[c] / 2));
    bias.push_back(static_cast<float>(shift[c] + scale[c] * static_cast<double>(count) / 2));
  }
  SetChannelwise(sum, channels, channels, weight, bias);
  sum.sums_steps = std::all_of(scale.begin(), scale.end(), [](double s) { return s > 0; });
  LeaveNameToLast(first);
  value.layer = static_cast<int>(layers_.size()) - 1;
  SetValue(node, std::move(value));
}

bool Importer::PoolSteps(const Node& node, const Value& value, const Window& window) {
  if (value.layer == kNetworkInput || !layers_[ToSize(value.layer)].sums_steps) return false;
  if (value.clip || value.is_flag || !value.scale.empty() || !value.shift.empty()) return false;
  Layer sum = layers_[ToSize(value.layer)];
  const std::size_t first = layers_.size();
  Value signs = value;
  signs.layer = sum.graph.inputs[0];
  const Shape3 shape = ShapeOf(signs.layer);
  // Steps that are taken only beyond a number have signs that fall.
  std::vector<double> weights = sum.tensors.at("weight").AsDoubles(), directions;
  for (double& weight : weights) {
    directions.insert(directions.end(), shape.height * shape.width, weight < 0 ? -1.0 : 1.0);
    weight = std::abs(weight);
  }
  Multiply(signs, directions);
  MakeArithmetic(node, signs);
  AddPool(node, LayerType::kMaxPool2d, signs, window);
  sum.tensors["weight"] = TensorData::FromFloats(sum.tensors.at("weight").shape, Floats(weights));
  const int pooled = static_cast<int>(layers_.size()) - 1;
  Layer& again = AddLayer(node, LayerType::kConv2d, {pooled}, window.Out(sum.out.channels));
  again.spec = sum.spec;
  again.tensors = std::move(sum.tensors);
  again.sums_steps = true;
  LeaveNameToLast(first);
  SetOutput(node, SizesOf(value, layers_.back().out));
  return true;
}

void Importer::LeaveNameToLast(std::size_t first) {
  for (std::size_t l = first; l + 1 < layers_.size(); ++l) layers_[l].wanted_name.clear();
}

void Importer::SkipRelu(Value& value, const std::vector<Step>& steps) const {
  if (value.layer == kNetworkInput) return;
  const Layer& before = layers_[ToSize(value.layer)];
  const bool positive = std::all_of(steps.begin(), steps.end(), [](const Step& step) {
    return std::all_of(step.at.begin(), step.at.end(),
                       [&](double at) { return step.or_equal ? at > 0 : at >= 0; });
  });
  if (before.spec.type == LayerType::kRelu && positive) value.layer = before.graph.inputs[0];
}

void Importer::SetChannelwise(Layer& layer, std::size_t out_channels, std::size_t groups,
                              const std::vector<float>& weight, const std::vector<float>& bias) {
  layer.spec.out_channels = out_channels;
  layer.spec.groups = groups;
  layer.spec.bias = !bias.empty();
  layer.tensors["weight"] =
      TensorData::FromFloats({out_channels, weight.size() / out_channels, 1, 1}, weight);
  if (!bias.empty()) SetVector(layer, "bias", bias);
}

void Importer::MultiThreshold(Node& node) {
  const Array thresholds = NeedConstant(node, 1).ToArray();
  const double scale = node.Float("out_scale", 1), bias = node.Float("out_bias", 0);
  const std::string layout = node.String("data_layout", "NCHW");
  node.Ignore("out_dtype");
  if (thresholds.shape.size() != 2)
    node.Fail(fmt::format("found thresholds of shape {}, expected [channels, steps]",
                          SizesText(thresholds.shape)));
  const auto count = ToSize(thresholds.shape[1]);
  const Value& value = NeedPlain(node, 0);
  const std::size_t rank = value.sizes.size(), channels = ShapeOf(value.layer).channels;
  Sizes shape(rank, 1);
  shape[layout == "NHWC" ? rank - 1 : std::min<std::size_t>(1, rank - 1)] = thresholds.shape[0];
  if (count == 1) {
    Value flag = OpenValue(node, 0);
    std::vector<double> negative = thresholds.values;
    for (double& number : negative) number = -number;
    Add(flag, Spread(node, flag, {shape, negative, false}));
    flag.is_flag = true;
    MakeOpen(node, flag);
    flag.made_by = index_;
    Multiply(flag, {scale});
    Add(flag, {bias});
    SetValue(node, std::move(flag));
    return;
  }
  std::vector<Step> steps;
  for (std::size_t k = 0; k < count; ++k) {
    Array column{shape, {}, false};
    for (std::size_t i = k; i < thresholds.values.size(); i += count)
      column.values.push_back(thresholds.values[i]);
    steps.push_back({NeedPerChannel(node, value, column), true});
  }
  AddSteps(node, value, steps, std::vector<double>(channels, scale),
           std::vector<double>(channels, bias));
}

void Importer::Quant(Node& node) {
  const bool is_signed = node.Int("signed", 1) != 0, narrow = node.Int("narrow", 0) != 0;
  const std::string mode = node.String("rounding_mode", "ROUND");
  if (mode != "ROUND" && mode != "FLOOR" && mode != "CEIL")
    node.Fail(
        fmt::format("found rounding_mode {}, expected ROUND, FLOOR or CEIL", Printable(mode)));
  const double bits = NeedNumber(node, 3);
  if (!(bits >= 1 && bits <= 4 && bits == std::floor(bits)))
    node.Fail(
        fmt::format("found activations of {} bits, expected 1 to 4; leave wider ones out, Tercet "
                    "quantises them itself",
                    bits));
  const double levels = std::exp2(bits);
  const double low = is_signed ? -levels / 2 + (narrow ? 1 : 0) : 0;
  const double high = is_signed ? levels / 2 - 1 : levels - (narrow ? 2 : 1);
  const Value& value = NeedPlain(node, 0);
  const std::vector<double> scale = NeedPerChannel(node, value, NeedConstant(node, 1).ToArray());
  const std::vector<double> zero = NeedPerChannel(node, value, NeedConstant(node, 2).ToArray());
  std::vector<Step> steps;
  for (double level = low + 1; level <= high; ++level) {
    // From here on x / scale + zero is rounded to the level; halves go to even ones.
    const double at = mode == "ROUND" ? level - 0.5 : mode == "FLOOR" ? level : level - 1;
    Step step{{}, mode == "FLOOR" || (mode == "ROUND" && std::fmod(level, 2) == 0)};
    for (std::size_t c = 0; c < scale.size(); ++c) {
      if (!(scale[c] > 0)) node.Fail("found a scale that is not above 0, expected all to be");
      step.at.push_back((at - zero[c]) * scale[c]);
    }
    steps.push_back(std::move(step));
  }
  std::vector<double> shift(scale.size());
  for (std::size_t c = 0; c < scale.size(); ++c) shift[c] = (low - zero[c]) * scale[c];
  AddSteps(node, value, steps, scale, shift);
}

}  // namespace tercet::importer
