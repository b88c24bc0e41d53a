// SPDX-License-Identifier: Apache-2.0
#include "import/importer.h"

#include <fmt/format.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/json.h"
#include "import/fold.h"

namespace tercet::importer {
namespace {

using nn::LayerType;

}  // namespace

// --- Sums and products with constants

std::vector<double> Importer::Spread(const Node& node, const Value& value, const Array& array) {
  if (array.values.size() == 1 && array.shape.size() <= value.sizes.size()) return array.values;
  Sizes sizes = value.sizes;
  std::replace(sizes.begin(), sizes.end(), kImages, std::int64_t{1});
  const Array all = Broadcast(node, array, sizes);
  std::vector<double> numbers(all.values.size());
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[value.order.empty() ? i : value.order[i]] = all.values[i];
  return numbers;
}

Array Importer::NeedOperand(Node& node, const Value& value, int i) const {
  Array array = NeedConstant(node, i).ToArray();
  if (operators_ > 6) return array;
  node.ExpectInt("broadcast", 1, 1);
  if (!node.Has("axis")) return array;
  const std::size_t rank = value.sizes.size(), axis = node.Axis(node.Int("axis", 0), rank);
  while (axis + array.shape.size() < rank) array.shape.push_back(1);
  return array;
}

Value Importer::OpenValue(const Node& node, int i) {
  Value& value = NeedValue(node, i);
  MakeOpen(node, value);
  Value open = value;
  open.made_by = index_;
  return open;
}

void Importer::MakeOpen(const Node& node, Value& value) {
  if (!value.is_flag && !value.clip) return;
  Settle(value, IsMap(value));
  MakeFlat(value);
  MakeNumber(node, value);
  MakeClip(node, value);
}

void Importer::Arithmetic(Node& node) {
  const std::string& op = node.Op();
  const bool first = FindConstant(node, 0) != nullptr;
  if (!first && FindConstant(node, 1) == nullptr) {
    TwoValues(node);
    return;
  }
  Value value = OpenValue(node, first ? 1 : 0);
  std::vector<double> numbers = Spread(node, value, NeedOperand(node, value, first ? 0 : 1));
  if (op == "Add") {
    Add(value, numbers);
  } else if (op == "Mul") {
    Multiply(value, numbers);
  } else if (op == "Sub") {
    if (first) {
      Multiply(value, {-1});
    } else {
      for (double& number : numbers) number = -number;
    }
    Add(value, numbers);
  } else {
    if (first) node.Fail("divides a constant by a value, expected a value by a constant");
    for (double& number : numbers) {
      if (number == 0) node.Fail("divides by 0");
      number = 1 / number;
    }
    Multiply(value, numbers);
  }
  SetValue(node, std::move(value));
}

void Importer::TwoValues(const Node& node) {
  const std::string& op = node.Op();
  if (op == "Mul" && Original(node.Input(0)) == Original(node.Input(1))) {
    AddElementwise(node, LayerType::kSquare);
    return;
  }
  if (op == "Mul" && AddGate(node)) return;
  if (op == "Mul" || op == "Div") {
    node.Fail(
        fmt::format("{} different values, expected {}", op == "Mul" ? "multiplies" : "divides",
                    op == "Mul" ? "one with itself (a square), a function of itself or a constant"
                                : "one by a constant"));
  }
  if (op == "Sub") {
    Value negative = NeedPlain(node, 1);
    Multiply(negative, {-1});
    negative.made_by = index_;
    MakeArithmetic(node, negative);
    AddSum(node, NeedPlain(node, 0), negative);
    return;
  }
  AddSum(node, NeedPlain(node, 0), NeedPlain(node, 1));
}

void Importer::AddSum(const Node& node, const Value& a, const Value& b) {
  if (a.sizes != b.sizes || a.order != b.order || ShapeOf(a.layer) != ShapeOf(b.layer)) {
    node.Fail(fmt::format("found inputs of {} and {}, expected equal shapes", ValueText(a),
                          ValueText(b)));
  }
  AddSumOf(node, a.layer, b.layer);
  SetOutput(node, Sizes(a.sizes), std::vector<std::size_t>(a.order));
}

void Importer::Sum(Node& node) {
  Value sum = NeedPlain(node, 0);
  const std::size_t first = layers_.size();
  for (int i = 1; i < node.InputCount(); ++i) {
    AddSum(node, sum, NeedPlain(node, i));
    sum = values_[node.Output()];
  }
  LeaveNameToLast(first);
  SetValue(node, std::move(sum));
}

void Importer::Neg(Node& node) {
  Value value = OpenValue(node, 0);
  Multiply(value, {-1});
  SetValue(node, std::move(value));
}

void Importer::BatchNormalization(Node& node) {
  NeedValue(node, 0);
  node.ExpectInt("spatial", 1, 1);
  node.ExpectInt("training_mode", 0, 0);
  node.ExpectInt("is_test", 1, 1);
  node.Ignore("momentum");
  if (node.HasFurtherOutput())
    node.Fail("gives statistics as in training, expected a model for inference");
  // The shortest number that is this float: 1e-05, not 9.99999974737875e-06.
  const double eps = std::stod(fmt::format("{}", node.Float("epsilon", 1e-5F)));
  if (!(eps >= 1e-12 && eps <= 1))
    node.Fail(fmt::format("found epsilon {}, expected a number from 1e-12 to 1", eps));
  Value& value = NeedValue(node, 0);
  if (value.sizes.size() < 2)
    node.Fail(fmt::format("found an input of {}, expected [N, channels, ...]", ValueText(value)));
  const std::size_t channels = ToSize(value.sizes[1]);
  std::map<std::string, std::vector<float>> vectors;
  int input = 1;
  for (const char* name : {"weight", "bias", "running_mean", "running_var"})
    vectors[name] = NeedVector(node, input++, channels);
  MakePlain(node, value);
  if (value.order.empty() && ShapeOf(value.layer).channels == channels) {
    Value normal = value;
    Layer& layer = AddLayerTo(normal, LayerType::kBatchNorm, node);
    layer.spec.eps = eps;
    for (const auto& [name, vector] : vectors) SetVector(layer, name, vector);
    SetValue(node, std::move(normal));
    return;
  }
  // The channels are elsewhere.
  Sizes shape(value.sizes.size(), 1);
  shape[1] = value.sizes[1];
  std::vector<double> scale(channels), shift(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    scale[c] = vectors["weight"][c] / std::sqrt(vectors["running_var"][c] + eps);
    shift[c] = vectors["bias"][c] - scale[c] * vectors["running_mean"][c];
  }
  Value normal = OpenValue(node, 0);
  Multiply(normal, Spread(node, normal, {shape, scale, false}));
  Add(normal, Spread(node, normal, {shape, shift, false}));
  SetValue(node, std::move(normal));
}

// --- Activations

void Importer::Relu(Node& node) { AddRelu(node, 0); }

void Importer::AddRelu(const Node& node, int input) {
  Value value = NeedPlain(node, input);
  if (!IsNonNegative(value.layer)) AddLayerTo(value, LayerType::kRelu, node);
  SetValue(node, std::move(value));
}

void Importer::LeakyRelu(Node& node) {
  Value value = NeedPlain(node, 0);
  Array slopes{{}, {-1}, false};
  if (node.Op() == "LeakyRelu") slopes.values = {node.Float("alpha", 0.01F)};
  if (node.Op() == "PRelu") {
    slopes = NeedConstant(node, 1).ToArray();
    // Until operator set 6 they were those of the channels.
    while (operators_ <= 6 && slopes.values.size() > 1 &&
           slopes.shape.size() + 1 < value.sizes.size())
      slopes.shape.push_back(1);
  }
  const std::vector<double> slope = NeedPerChannel(node, value, slopes);
  if (AreAll(slope, 0)) {
    AddRelu(node, 0);
    return;
  }
  const std::size_t first = layers_.size();
  value.layer = AddBothSides(node, value.layer, slope);
  LeaveNameToLast(first);
  SetValue(node, std::move(value));
}

void Importer::ClipTo(const Node& node, int input, const Bounds& bounds) {
  if (!(bounds.low <= bounds.high))
    node.Fail(fmt::format("found bounds {} and {}, expected the first to be less", bounds.low,
                          bounds.high));
  if (bounds.low == 0 && bounds.high == kInfinity) {
    AddRelu(node, input);
    return;
  }
  Value value = OpenValue(node, input);
  if (bounds.low > -kInfinity || bounds.high < kInfinity) value.clip = bounds;
  SetValue(node, std::move(value));
}

double Importer::Bound(double value) {
  return std::abs(value) >= std::numeric_limits<float>::max() ? std::copysign(kInfinity, value)
                                                              : value;
}

Bounds Importer::ClipBounds(Node& node) const {
  const double low = node.Float("min", std::numeric_limits<float>::lowest());
  const double high = node.Float("max", std::numeric_limits<float>::max());
  return {Bound(node.HasInput(1) ? NeedNumber(node, 1) : low),
          Bound(node.HasInput(2) ? NeedNumber(node, 2) : high)};
}

void Importer::Clip(Node& node) { ClipTo(node, 0, ClipBounds(node)); }

void Importer::MaxOrMin(Node& node) {
  const bool first = FindConstant(node, 0) != nullptr;
  if (node.InputCount() != 2 || (!first && FindConstant(node, 1) == nullptr))
    node.Fail("compares several values, expected one value and a constant");
  const std::vector<double> numbers = NeedConstant(node, first ? 0 : 1).Numbers();
  if (numbers.empty() || !AreAll(numbers, numbers[0]))
    node.Fail("compares with different numbers, expected one");
  Bounds bounds;
  (node.Op() == "Max" ? bounds.low : bounds.high) = numbers[0];
  ClipTo(node, first ? 1 : 0, bounds);
}

void Importer::HardSigmoid(Node& node) {
  Value value = OpenValue(node, 0);
  Multiply(value, {node.Float("alpha", 0.2F)});
  Add(value, {node.Float("beta", 0.5F)});
  value.clip = Bounds{0, 1};
  SetValue(node, std::move(value));
}

void Importer::Sign(Node& node) {
  Value value = NeedValue(node, 0);
  if (value.clip && KeepsSign(*value.clip) && value.clip->high > 0) value.clip.reset();
  if (SignOfHalf(node, value)) return;
  if (!value.clip && value.layer != kNetworkInput &&
      layers_[ToSize(value.layer)].spec.type == LayerType::kSign) {
    // Sign(Sign(x) + 0.1), by which exporters make Sign(0) 1.
    bool same = true, opposite = true, positive = true;
    for (std::size_t i = 0; i < std::max({value.scale.size(), value.shift.size(), std::size_t{1}});
         ++i) {
      const double s = value.scale.empty() ? 1 : value.scale[value.scale.size() == 1 ? 0 : i];
      const double t = value.shift.empty() ? 0 : value.shift[value.shift.size() == 1 ? 0 : i];
      same = same && s + t > 0 && t - s < 0;
      opposite = opposite && s + t < 0 && t - s > 0;
      positive = positive && t > 0;
    }
    if (same || opposite) {
      if (positive) zero_signs_.erase(value.layer);
      value.scale.clear();
      value.shift.clear();
      if (opposite) value.scale = {-1};
      value.made_by = index_;
      SetValue(node, std::move(value));
      return;
    }
  }
  MakePlain(node, value);
  AddLayerTo(value, LayerType::kSign, node);
  zero_signs_.insert(value.layer);
  SetValue(node, std::move(value));
}

bool Importer::SignOfHalf(const Node& node, Value value) {
  if (value.is_flag) {
    SetValue(node, std::move(value));
    return true;
  }
  if (value.clip && value.clip->low == 0 && value.clip->high > 0) value.clip->high = kInfinity;
  if (value.clip && value.clip->low < 0 && value.clip->high == 0) value.clip->low = -kInfinity;
  const bool is_half = value.clip && (value.clip->low == 0 || value.clip->high == 0);
  if (!is_half && (value.clip || !AreAll(value.shift, 0) || !IsNonNegative(value.layer)))
    return false;
  MakeOpen(node, value);
  std::vector<double> directions;
  for (const double factor : value.scale)
    directions.push_back(factor > 0 ? 1 : factor < 0 ? -1 : 0);
  // relu(x) is above 0 where x is.
  const Layer& half = layers_[ToSize(value.layer)];
  if (half.spec.type == LayerType::kRelu) value.layer = half.graph.inputs[0];
  value.scale = {-1};
  value.shift.clear();
  value.is_flag = value.opposite = true;
  value.made_by = index_;
  if (!AreAll(directions, 1)) {
    MakeOpen(node, value);
    Multiply(value, directions);
  }
  SetValue(node, std::move(value));
  return true;
}

void Importer::Compare(Node& node) {
  const bool first = FindConstant(node, 0) != nullptr;
  if (!first && FindConstant(node, 1) == nullptr)
    node.Fail("compares two values, expected a value and a constant");
  Value value = OpenValue(node, first ? 1 : 0);
  std::vector<double> numbers = Spread(node, value, NeedOperand(node, value, first ? 0 : 1));
  for (double& number : numbers) number = -number;
  Add(value, numbers);
  const bool is_greater = node.Op().starts_with("Greater") != first;
  const bool or_equal = node.Op().ends_with("OrEqual");
  if (is_greater != or_equal) Multiply(value, {-1});
  value.is_flag = true;
  value.opposite = !or_equal;
  SetValue(node, std::move(value));
}

Value Importer::NeedFlag(const Node& node, int i) {
  Value value = NeedValue(node, i);
  if (!value.is_flag)
    node.Fail(fmt::format("found '{}' as input {}, expected what a comparison gives",
                          Printable(node.Input(i)), i));
  return value;
}

void Importer::Not(Node& node) {
  Value value = NeedFlag(node, 0);
  value.opposite = !value.opposite;
  SetValue(node, std::move(value));
}

void Importer::Where(Node& node) {
  NeedFlag(node, 0);
  if (FindConstant(node, 1) == nullptr || FindConstant(node, 2) == nullptr)
    node.Fail("chooses between computed values, expected two constants");
  Value value = OpenValue(node, 0);
  const std::vector<double> a = Spread(node, value, NeedConstant(node, 1).ToArray());
  const std::vector<double> b = Spread(node, value, NeedConstant(node, 2).ToArray());
  std::vector<double> difference(std::max(a.size(), b.size()));
  for (std::size_t i = 0; i < difference.size(); ++i)
    difference[i] = a[a.size() == 1 ? 0 : i] - b[b.size() == 1 ? 0 : i];
  Multiply(value, difference);
  Add(value, b);
  SetValue(node, std::move(value));
}

void Importer::Cast(Node& node) {
  const std::int64_t type = node.Int("to", onnx::TensorProto::FLOAT);
  node.Ignore("saturate");
  Value value = NeedPadded(node, 0);
  const bool real = type == onnx::TensorProto::FLOAT || type == onnx::TensorProto::DOUBLE ||
                    type == onnx::TensorProto::FLOAT16 || type == onnx::TensorProto::BFLOAT16;
  if (!real && !value.is_flag)
    node.Fail("makes integers of computed numbers, expected that only at the end");
  SetValue(node, std::move(value));
}

void Importer::BipolarQuant(Node& node) {
  Value value = NeedValue(node, 0);
  if (value.clip && KeepsSign(*value.clip)) value.clip.reset();
  MakePlain(node, value);
  AddLayerTo(value, LayerType::kSign, node);
  value.made_by = index_;
  Multiply(value, Spread(node, value, NeedConstant(node, 1).ToArray()));
  SetValue(node, std::move(value));
}

void Importer::Pow(Node& node) {
  const double exponent = NeedNumber(node, 1);
  if (exponent == 1) {
    SetValue(node, NeedPadded(node, 0));
    return;
  }
  if (exponent != 2) node.Fail("found another exponent, expected 2 (a square)");
  AddElementwise(node, LayerType::kSquare);
}

}  // namespace tercet::importer
