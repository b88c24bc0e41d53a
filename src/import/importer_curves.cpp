// SPDX-License-Identifier: Apache-2.0
// Smooth activations, as tables.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "import/importer.h"

namespace tercet::importer {
namespace {

using mpc::Shape3;
using nn::LayerType;

constexpr int kHalfTable = 128;
/// From here on the functions are straight lines.
constexpr double kFar = 60, kFarther = 70;
/// By how much of its largest value a function may still change beyond its table.
constexpr double kMostBeyond = 0.01;
constexpr int kMostNodes = 16;  // of one function

double Softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
double Gelu(double x) { return x * std::erfc(-x / std::sqrt(2.0)) / 2; }
double GeluByTanh(double x) {
  return x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x))) / 2;
}

/// The function of an operator.
std::optional<RealFunction> Named(Node& node) {
  const std::string& op = node.Op();
  const double alpha = op == "Selu" ? node.Float("alpha", 1.67326319F) : 1;
  if (op == "Sigmoid") return [](double x) { return 1 / (1 + std::exp(-x)); };
  if (op == "Tanh") return [](double x) { return std::tanh(x); };
  if (op == "Erf") return [](double x) { return std::erf(x); };
  if (op == "Softplus") return Softplus;
  if (op == "Mish") return [](double x) { return x * std::tanh(Softplus(x)); };
  if (op == "HardSwish") return [](double x) { return x * std::clamp(x / 6 + 0.5, 0.0, 1.0); };
  if (op == "Gelu") return node.String("approximate", "none") == "tanh" ? GeluByTanh : Gelu;
  if (op == "Elu" || op == "Selu") {
    const double negative = op == "Elu" ? node.Float("alpha", 1) : alpha;
    const double gamma = op == "Elu" ? 1 : node.Float("gamma", 1.05070102F);
    return [=](double x) { return gamma * (x > 0 ? x : negative * std::expm1(x)); };
  }
  if (op == "Celu") {
    const double scale = node.Float("alpha", 1);
    return [=](double x) { return x > 0 ? x : scale * std::expm1(x / scale); };
  }
  if (op == "HardSigmoid") {
    const double factor = node.Float("alpha", 0.2F), shift = node.Float("beta", 0.5F);
    return [=](double x) { return std::clamp(factor * x + shift, 0.0, 1.0); };
  }
  return std::nullopt;
}

/// A function as `slope` times relu(x), and a table of the rest from -range to range.
struct Curve {
  double slope = 0, range = 0, step = 0, output_scale = 0, error = 0;
  std::vector<std::int64_t> values;
};

std::optional<Curve> MakeCurve(const RealFunction& f) {
  Curve curve;
  curve.slope = (f(kFarther) - f(kFar)) / (kFarther - kFar);
  const auto rest = [&](double x) { return f(x) - curve.slope * std::max(x, 0.0); };
  double most = std::max(std::abs(rest(-kFar)), std::abs(rest(kFar)));
  for (double x = -8; x <= 8; x += 1.0 / 64) most = std::max(most, std::abs(rest(x)));
  const auto is_flat = [&](double range) {
    return std::abs(rest(-range) - rest(-kFarther)) <= kMostBeyond * most &&
           std::abs(rest(range) - rest(kFarther)) <= kMostBeyond * most;
  };
  curve.range = is_flat(4) ? 4 : 8;
  if (!is_flat(curve.range) || !(most > 0)) return std::nullopt;
  curve.step = curve.range / kHalfTable;
  double low = 0, high = 0;
  for (int i = -kHalfTable; i < kHalfTable; ++i) {
    low = std::min(low, rest(i * curve.step));
    high = std::max(high, rest(i * curve.step));
  }
  curve.output_scale = most / (low < 0 && high > 0 ? 127 : 255);
  for (int i = -kHalfTable; i < kHalfTable; ++i)
    curve.values.push_back(std::llround(rest(i * curve.step) / curve.output_scale));
  for (double x = -2 * curve.range; x <= 2 * curve.range; x += curve.step / 16) {
    const double within = std::clamp(x, -curve.range, curve.range - curve.step);
    const auto entry = static_cast<std::size_t>(std::llround(within / curve.step) + kHalfTable);
    const double found = curve.output_scale * static_cast<double>(curve.values[entry]) +
                         curve.slope * std::max(x, 0.0);
    curve.error = std::max(curve.error, std::abs(found - f(x)));
  }
  return curve;
}

}  // namespace

void Importer::Lookup(Node& node) {
  const RealFunction function = *Named(node);
  AddCurve(node, OpenValue(node, 0), function);
}

void Importer::AddCurve(const Node& node, Value value, const RealFunction& function) {
  const std::optional<Curve> curve = MakeCurve(function);
  if (!curve)
    node.Fail(
        "is a function that is no straight line below -8 or above 8, expected one that a table "
        "and a ReLU can make");
  const std::size_t first = layers_.size();
  const double low = -curve->range, high = curve->range - curve->step;
  int growing = kNone;
  if (curve->slope != 0) {
    MakePlain(node, value);
    growing = ClipAndGrow(node, value, {low, high}, curve->slope);
  } else {
    value.clip = Bounds{low, high};
    MakePlain(node, value);
  }
  Layer& table = AddLayerTo(value, LayerType::kTable, node);
  table.spec.input_scale = curve->step;
  table.spec.output_scale = curve->output_scale;
  table.spec.values = curve->values;
  table.note = fmt::format(
      "{} becomes a table of 256 steps from {} to {}{}; it is off by up to {:.2g}", node.Text(),
      low, high, curve->slope != 0 ? ", added to a ReLU" : ", beyond which it stays", curve->error);
  if (growing != kNone) value.layer = AddSumOf(node, AddScaled(node, value.layer, 1), growing);
  LeaveNameToLast(first);
  SetValue(node, std::move(value));
}

int Importer::ClipAndGrow(const Node& node, Value& value, const Bounds& bounds, double slope) {
  const Shape3 shape = ShapeOf(value.layer);
  const std::size_t channels = shape.channels;
  if (ToSigned(2 * channels) > kMaxChannels)
    node.Fail(fmt::format("takes {} channels, expected at most {}", channels, kMaxChannels / 2));
  const auto one_by_one = [&](std::size_t outputs, std::vector<float> weight,
                              std::vector<float> bias) {
    // The same numbers for each channel.
    std::vector<float> weights, biases;
    for (std::size_t c = 0; c < channels; ++c) {
      weights.insert(weights.end(), weight.begin(), weight.end());
      biases.insert(biases.end(), bias.begin(), bias.end());
    }
    Layer& layer =
        AddLayer(node, LayerType::kConv2d, {value.layer}, {outputs, shape.height, shape.width});
    SetChannelwise(layer, outputs, channels, weights, biases);
    value.layer = static_cast<int>(layers_.size()) - 1;
  };
  const auto low = static_cast<float>(bounds.low), high = static_cast<float>(bounds.high);
  // relu(x - low) and relu(slope x) at once, so that each activation takes what the one before
  // gives.
  one_by_one(2 * channels, {1, static_cast<float>(slope)}, {-low, 0});
  AddLayerTo(value, LayerType::kRelu, node);
  const int both = value.layer;
  one_by_one(channels, {0, 1}, {});
  const int growing = value.layer;
  value.layer = both;
  one_by_one(channels, {-1, 0}, {high - low});
  AddLayerTo(value, LayerType::kRelu, node);
  one_by_one(channels, {-1}, {high});
  return growing;
}

std::optional<RealFunction> Importer::FunctionOf(const std::string& name, const std::string& of,
                                                 int nodes) const {
  if (Original(name) == of) return [](double x) { return x; };
  const auto producer = producers_.find(Original(name));
  if (producer == producers_.end() || nodes == 0) return std::nullopt;
  Node node = NodeAt(producer->second);
  if (!node.IsStandard()) return std::nullopt;
  const std::string& op = node.Op();
  if (op == "Add" || op == "Sub" || op == "Mul" || op == "Div") {
    const bool first = FindConstant(node, 0) != nullptr;
    const Constant* constant = FindConstant(node, first ? 0 : 1);
    if (constant == nullptr || constant->Shape().size() > 1) return std::nullopt;
    const std::vector<double> numbers = constant->Numbers();
    const auto inner = FunctionOf(node.Input(first ? 1 : 0), of, nodes - 1);
    if (!inner || numbers.size() != 1 || (first && op == "Div")) return std::nullopt;
    const double c = numbers[0], scale = op == "Mul" ? c : op == "Div" ? 1 / c : 1;
    const double sign = first && op == "Sub" ? -1 : 1;
    const double shift = op == "Add" ? c : op == "Sub" ? -sign * c : 0;
    return [=, f = *inner](double x) { return sign * scale * f(x) + shift; };
  }
  std::optional<RealFunction> outer = Named(node);
  if (op == "Relu") outer = [](double x) { return std::max(x, 0.0); };
  if (op == "Clip")
    outer = [b = ClipBounds(node)](double x) { return std::min(std::max(x, b.low), b.high); };
  if (!outer) return std::nullopt;
  const auto inner = FunctionOf(node.Input(0), of, nodes - 1);
  if (!inner) return std::nullopt;
  return [f = *outer, g = *inner](double x) { return f(g(x)); };
}

bool Importer::AddGate(const Node& node) {
  for (const int i : {0, 1}) {
    const std::string& of = Original(node.Input(i));
    const auto gate = FunctionOf(node.Input(1 - i), of, kMostNodes);
    if (!gate || Original(node.Input(1 - i)) == of) continue;
    Value value = OpenValue(node, i);
    AddCurve(node, value, [f = *gate](double x) { return x * f(x); });
    return true;
  }
  return false;
}

}  // namespace tercet::importer
