// SPDX-License-Identifier: Apache-2.0
#include "import/importer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "import/fold.h"

namespace tercet::importer {
namespace {

using mpc::Shape3;
using nn::LayerType;

}  // namespace

std::string ValueText(const Value& value) {
  std::vector<std::string> sizes;
  for (const std::int64_t size : value.sizes)
    sizes.push_back(size == kImages ? "N" : std::to_string(size));
  return fmt::format("[{}]", fmt::join(sizes, ", "));
}

bool HasPadding(const Value& value) {
  const auto some = [](std::int64_t count) { return count != 0; };
  return std::any_of(value.before.begin(), value.before.end(), some) ||
         std::any_of(value.after.begin(), value.after.end(), some);
}

std::size_t CountOf(const Value& value) {
  std::size_t count = 1;
  for (const std::int64_t size : value.sizes) count *= size == kImages ? 1 : ToSize(size);
  return count;
}

void Multiply(Value& value, const std::vector<double>& factor) {
  const auto at = [](const std::vector<double>& v, std::size_t i, double otherwise) {
    return v.empty() ? otherwise : v[v.size() == 1 ? 0 : i];
  };
  const std::vector<double> scale = value.scale, shift = value.shift;
  value.scale.resize(std::max({scale.size(), factor.size(), std::size_t{1}}));
  for (std::size_t i = 0; i < value.scale.size(); ++i)
    value.scale[i] = at(scale, i, 1) * at(factor, i, 1);
  if (shift.empty()) return;
  value.shift.resize(std::max(shift.size(), factor.size()));
  for (std::size_t i = 0; i < value.shift.size(); ++i)
    value.shift[i] = at(shift, i, 0) * at(factor, i, 1);
}

void Add(Value& value, const std::vector<double>& summand) {
  const std::vector<double> shift = value.shift;
  value.shift.resize(std::max(shift.size(), summand.size()));
  for (std::size_t i = 0; i < value.shift.size(); ++i) {
    value.shift[i] = (shift.empty() ? 0 : shift[shift.size() == 1 ? 0 : i]) +
                     summand[summand.size() == 1 ? 0 : i];
  }
}

// --- Constants

const Constant* Importer::FindConstant(const Node& node, int i) const {
  if (!node.HasInput(i)) return nullptr;
  const auto found = constants_.find(Original(node.Input(i)));
  return found == constants_.end() ? nullptr : &found->second;
}

const Constant& Importer::NeedConstant(const Node& node, int i) const {
  const Constant* constant = FindConstant(node, i);
  if (constant == nullptr) {
    node.Fail(
        fmt::format("found '{}' as input {}, expected a constant", Printable(node.Input(i)), i));
  }
  return *constant;
}

double Importer::NeedNumber(const Node& node, int i) const {
  const std::vector<double> numbers = NeedConstant(node, i).Numbers();
  if (numbers.size() != 1)
    node.Fail(fmt::format("found {} numbers as input {}, expected one", numbers.size(), i));
  return numbers[0];
}

void Importer::SetConstant(const Node& node, Array array) {
  constants_.emplace(node.Output(), Constant(std::move(array), node.Output(), path_));
}

bool Importer::FoldsConstants(Node& node) {
  if (!CanFold(node) || node.InputCount() == 0) return false;
  Inputs inputs;
  for (int i = 0; i < node.InputCount(); ++i) {
    const Constant* constant = FindConstant(node, i);
    if (constant == nullptr && node.HasInput(i)) return false;
    inputs.emplace_back();
    if (constant != nullptr) inputs.back() = constant->ToArray();
  }
  SetConstant(node, Fold(node, inputs));
  return true;
}

void Importer::ConstantNode(Node& node) {
  if (const onnx::TensorProto* tensor = node.Tensor("value")) {
    constants_.emplace(node.Output(), Constant(*tensor, node.Output(), path_));
  } else if (const auto floats = node.Floats("value_floats")) {
    SetConstant(node, {{ToSigned(floats->size())}, {floats->begin(), floats->end()}, false});
  } else if (const auto integers = node.Ints("value_ints")) {
    SetConstant(node, {{ToSigned(integers->size())}, {integers->begin(), integers->end()}, true});
  } else if (node.Has("value_int")) {
    SetConstant(node, {{}, {static_cast<double>(node.Int("value_int", 0))}, true});
  } else if (node.Has("value_float")) {
    SetConstant(node, {{}, {node.Float("value_float", 0)}, false});
  } else {
    node.Fail("has no attribute value, value_float, value_floats, value_int or value_ints");
  }
}

std::vector<float> Importer::NeedVector(const Node& node, int i, std::size_t count) const {
  const Constant& constant = NeedConstant(node, i);
  if (constant.Shape() != Sizes{ToSigned(count)}) {
    node.Fail(fmt::format("found {} of shape {} as input {}, expected [{}]",
                          Printable(node.Input(i)), SizesText(constant.Shape()), i, count));
  }
  return constant.Weights();
}

// --- Values

Value& Importer::NeedPadded(const Node& node, int i) {
  if (FindConstant(node, i) != nullptr) {
    node.Fail(fmt::format("found the constant '{}' as input {}, expected a computed value",
                          Printable(node.Input(i)), i));
  }
  const auto found = values_.find(Original(node.Input(i)));
  if (found == values_.end()) {
    node.Fail(fmt::format("found '{}' as input {}, expected what an earlier node computes",
                          Printable(node.Input(i)), i));
  }
  return found->second;
}

Value& Importer::NeedValue(const Node& node, int i) {
  Value& value = NeedPadded(node, i);
  if (HasPadding(value))
    node.Fail(
        fmt::format("found '{}' with zeros around it as input {}, expected these only of "
                    "Conv and pools",
                    Printable(node.Input(i)), i));
  return value;
}

Value& Importer::NeedPlain(const Node& node, int i) {
  Value& value = NeedValue(node, i);
  MakePlain(node, value);
  return value;
}

void Importer::MakePlain(const Node& node, Value& value) {
  Settle(value, IsMap(value));
  MakeFlat(value);
  MakeNumber(node, value);
  MakeClip(node, value);
  MakeArithmetic(node, value);
}

bool Importer::IsImages(std::int64_t size) const {
  return size == kImages || (size == 1 && images_ == 1);
}

bool Importer::IsMap(const Value& value) const {
  const std::size_t rank = value.sizes.size();
  return (rank == 3 || rank == 4) && IsImages(value.sizes[0]);
}

Shape3 Importer::MapShape(const Value& value) {
  const Sizes& s = value.sizes;
  return {ToSize(s[1]), s.size() == 4 ? ToSize(s[2]) : 1, ToSize(s.back())};
}

Value& Importer::NeedMap(const Node& node, int i) {
  Value& value = NeedPadded(node, i);
  if (!IsMap(value))
    node.Fail(fmt::format("found an input of {}, expected [N, channels, height, width]",
                          ValueText(value)));
  Settle(value, true);
  PutChannelsInOrder(node, value);
  return value;
}

Shape3 Importer::ShapeOf(int layer) const {
  return layer == kNetworkInput ? input_spec_.shape : layers_[ToSize(layer)].out;
}

Layer& Importer::AddLayerTo(Value& value, LayerType type, const Node& node) {
  Layer& layer = AddLayer(node, type, {value.layer}, ShapeOf(value.layer));
  value.layer = static_cast<int>(layers_.size()) - 1;
  return layer;
}

Node Importer::MakerOf(const Node& node, const Value& value) const {
  return value.made_by == kNone ? node : NodeAt(value.made_by);
}

void Importer::MakeFlat(Value& value) {
  if (value.flattened_by == kNone) return;
  const Node maker = NodeAt(value.flattened_by);
  value.flattened_by = kNone;
  AddLayerTo(value, LayerType::kFlatten, maker).out = {CountOf(value)};
}

void Importer::MakeNumber(const Node& node, Value& value) {
  if (!value.is_flag) return;
  MakeArithmetic(node, value);
  AddLayerTo(value, LayerType::kSign, MakerOf(node, value));
  value.scale = {value.opposite ? -0.5 : 0.5};
  value.shift = {0.5};
  value.is_flag = value.opposite = false;
}

void Importer::MakeClip(const Node& node, Value& value) {
  if (!value.clip) return;
  const Bounds bounds = *value.clip;
  value.clip.reset();
  const Node maker = MakerOf(node, value);
  const bool as_it_is = value.scale.empty() && value.shift.empty();
  if (bounds.low > -kInfinity && !(as_it_is && bounds.low <= 0 && IsNonNegative(value.layer))) {
    if (bounds.low != 0) Add(value, {-bounds.low});
    MakeArithmetic(node, value);
    AddLayerTo(value, LayerType::kRelu, maker);
    if (bounds.low != 0) value.shift = {bounds.low};
  }
  if (bounds.high == kInfinity) return;
  Multiply(value, {-1});
  Add(value, {bounds.high});
  MakeArithmetic(node, value);
  AddLayerTo(value, LayerType::kRelu, maker);
  value.scale = {-1};
  value.shift = {bounds.high};
}

std::optional<std::vector<double>> Importer::PerChannel(const std::vector<double>& all,
                                                        const Shape3& shape, double otherwise) {
  if (all.size() <= 1) return std::vector<double>(shape.channels, all.empty() ? otherwise : all[0]);
  const std::size_t area = shape.height * shape.width;
  std::vector<double> channels(shape.channels);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i % area == 0) channels[i / area] = all[i];
    if (all[i] != channels[i / area]) return std::nullopt;
  }
  return channels;
}

bool Importer::AreAll(const std::vector<double>& values, double expected) {
  return std::all_of(values.begin(), values.end(), [&](double v) { return v == expected; });
}

void Importer::MakeArithmetic(const Node& node, Value& value) {
  const std::vector<double> scale = std::move(value.scale), shift = std::move(value.shift);
  value.scale.clear();
  value.shift.clear();
  if (AreAll(scale, 1) && AreAll(shift, 0)) return;
  const Shape3 shape = ShapeOf(value.layer);
  auto factors = PerChannel(scale, shape, 1), summands = PerChannel(shift, shape, 0);
  const Node maker = MakerOf(node, value);
  if (!factors || !summands)
    maker.Fail(
        "computes with a constant that differs within a channel, expected one number for "
        "each channel (but behind a Flatten any)");
  Layer& layer = AddLayerTo(value, LayerType::kBatchNorm, maker);
  SetNorm(layer, *factors, *summands);
  layer.arithmetic = true;
  layer.scale = std::move(*factors);
  layer.shift = std::move(*summands);
}

std::vector<float> Importer::Floats(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

void Importer::SetNorm(Layer& layer, const std::vector<double>& scale,
                       const std::vector<double>& shift) {
  constexpr double kEps = 0x1p-24;
  layer.spec.eps = kEps;
  SetVector(layer, "weight", Floats(scale));
  SetVector(layer, "bias", Floats(shift));
  SetVector(layer, "running_mean", std::vector<float>(scale.size(), 0));
  SetVector(layer, "running_var", std::vector<float>(scale.size(), static_cast<float>(1 - kEps)));
}

bool Importer::KeepsSign(const Bounds& bounds) { return bounds.low < 0 && bounds.high >= 0; }

}  // namespace tercet::importer
