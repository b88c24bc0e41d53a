// SPDX-License-Identifier: Apache-2.0
// Parts of maps and vectors, and channels in another order.
#include <fmt/format.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "import/fold.h"
#include "import/importer.h"

namespace tercet::importer {
namespace {

using files::TensorData;
using mpc::Shape3;
using nn::LayerType;

/// An axis of a convolution that takes the numbers at these places.
std::optional<Axis> AxisOf(std::size_t in, const std::vector<std::size_t>& places) {
  Axis axis{.in = in};
  if (places.size() > 1) {
    if (places[1] <= places[0]) return std::nullopt;
    axis.stride = places[1] - places[0];
  }
  // The window begins at its output's place, less that of the first one, and none is left at the
  // end.
  const std::size_t reached = places.size() * axis.stride;
  axis.kernel = std::max(places[0] + 1, in >= reached ? in - reached + 1 : 1);
  return axis;
}

std::vector<std::size_t> All(std::size_t count) {
  std::vector<std::size_t> places(count);
  std::iota(places.begin(), places.end(), 0);
  return places;
}

}  // namespace

Importer::Parts Importer::WholeOf(const Shape3& shape) {
  Parts parts{std::vector<int>(shape.channels), All(shape.height), All(shape.width)};
  std::iota(parts.channels.begin(), parts.channels.end(), 0);
  return parts;
}

Value Importer::AddParts(const Node& node, const Value& value, const Parts& parts) {
  const Shape3 in = ShapeOf(value.layer);
  const auto rows = AxisOf(in.height, parts.rows), columns = AxisOf(in.width, parts.columns);
  if (!rows || !columns) node.Fail("turns rows or columns round, expected that of channels alone");
  const Window window{*rows, *columns};
  const bool all_channels = parts.channels == WholeOf(in).channels;
  const std::size_t outputs = parts.channels.size(), depth = all_channels ? 1 : in.channels;
  const std::size_t taps = window.rows.kernel * window.columns.kernel;
  if (ToSigned(outputs) > kMaxChannels)
    node.Fail(fmt::format("makes {} channels of {}, expected at most {}", outputs, in.channels,
                          kMaxChannels));
  CountWeights(node, outputs, depth, taps);
  std::vector<float> weight(outputs * depth * taps, 0);
  for (std::size_t o = 0; o < outputs; ++o) {
    if (parts.channels[o] == kNone) continue;
    const std::size_t channel = all_channels ? 0 : ToSize(parts.channels[o]);
    weight[(o * depth + channel) * taps + parts.rows[0] * window.columns.kernel +
           parts.columns[0]] = 1;
  }
  Layer& layer = AddLayer(node, LayerType::kConv2d, {value.layer}, window.Out(outputs));
  layer.spec.out_channels = outputs;
  layer.spec.groups = all_channels ? in.channels : 1;
  layer.spec.bias = false;
  layer.moves = true;
  SetWindow(window, layer.spec);
  layer.tensors["weight"] =
      TensorData::FromFloats({outputs, depth, window.rows.kernel, window.columns.kernel}, weight);
  Value picked = value;
  picked.layer = static_cast<int>(layers_.size()) - 1;
  picked.order.clear();
  return picked;
}

void Importer::PutChannelsInOrder(const Node& node, Value& value) {
  const Shape3 from = ShapeOf(value.layer);
  const Shape3 to = value.sizes.size() == 2 ? Shape3{CountOf(value)} : MapShape(value);
  if (value.order.empty() && from == to) return;
  const std::size_t area = to.height * to.width;
  bool fits = from == to;
  Parts parts = WholeOf(from);
  for (std::size_t i = 0; fits && i < value.order.size(); ++i) {
    if (i % area == 0) parts.channels[i / area] = static_cast<int>(value.order[i] / area);
    fits = value.order[i] == ToSize(parts.channels[i / area]) * area + i % area;
  }
  if (!fits)
    node.Fail(
        fmt::format("found an input of {} whose numbers an earlier Reshape or Transpose "
                    "has put elsewhere, expected that only before a Gemm or MatMul, or of whole "
                    "channels",
                    ValueText(value)));
  MakePlain(node, value);
  value = AddParts(node, value, parts);
  layers_.back().wanted_name.clear();
}

Value Importer::NeedChannels(const Node& node, int i) {
  const Value& any = NeedValue(node, i);
  const bool is_vector = any.sizes.size() == 2 && IsImages(any.sizes[0]);
  if (!is_vector && !IsMap(any))
    node.Fail(
        fmt::format("found an input of {}, expected [N, channels, height, width] or [N, features]",
                    ValueText(any)));
  Value value = is_vector ? NeedVectors(node, i) : NeedPlain(node, i);
  PutChannelsInOrder(node, value);
  return value;
}

void Importer::Slice(Node& node) {
  const Value value = NeedChannels(node, 0);
  const auto integers = [&](int i) {
    return node.HasInput(i) ? std::optional(NeedConstant(node, i).Integers()) : std::nullopt;
  };
  Sizes sizes = value.sizes;
  std::replace(sizes.begin(), sizes.end(), kImages, std::int64_t{1});
  Parts parts = WholeOf(ShapeOf(value.layer));
  for (const auto& [axis, places] : SlicedPlaces(node, sizes, integers)) {
    sizes[axis] = ToSigned(places.size());
    if (places.empty() || (axis == 0 && value.sizes[0] == kImages))
      node.Fail(
          fmt::format("takes {} of axis {} of {}, expected some channels, features, rows or "
                      "columns",
                      places.empty() ? "nothing" : "images", axis, ValueText(value)));
    if (axis == 1) {
      parts.channels.assign(places.begin(), places.end());
    } else if (axis > 1) {
      (axis + 1 == sizes.size() ? parts.columns : parts.rows) = places;
    }
  }
  sizes[0] = value.sizes[0];
  Value part = AddParts(node, value, parts);
  part.sizes = std::move(sizes);
  SetValue(node, std::move(part));
}

void Importer::Split(Node& node) {
  const Value value = NeedChannels(node, 0);
  const std::size_t axis = node.Axis(node.Int("axis", 0), value.sizes.size());
  node.Ignore("num_outputs");  // there are as many
  const auto& outputs = graph_.node(index_).output();
  const std::int64_t size = axis == 1 ? value.sizes[1] : 0, count = outputs.size();
  Sizes each(ToSize(count), (size + count - 1) / count);
  each.back() = size - (count - 1) * each.front();
  if (const auto attribute = node.Ints("split")) each = *attribute;  // until operator set 12
  if (node.HasInput(1)) each = NeedConstant(node, 1).Integers();
  const bool fits =
      each.size() == ToSize(count) &&
      std::all_of(each.begin(), each.end(), [&](auto part) { return part > 0 && part <= size; }) &&
      std::accumulate(each.begin(), each.end(), std::int64_t{0}) == size;
  if (!fits)
    node.Fail(
        fmt::format("splits axis {} of {} into {}, expected the channels or features, axis 1, "
                    "and parts that add up to them",
                    axis, ValueText(value), SizesText(each)));
  int begin = 0;
  for (int o = 0; o < outputs.size(); ++o) {
    Parts parts = WholeOf(ShapeOf(value.layer));
    parts.channels.resize(ToSize(each[ToSize(o)]));
    std::iota(parts.channels.begin(), parts.channels.end(), begin);
    begin += static_cast<int>(each[ToSize(o)]);
    if (outputs[o].empty()) continue;
    Value part = AddParts(node, value, parts);
    part.sizes[1] = each[ToSize(o)];
    values_[outputs[o]] = std::move(part);
  }
}

void Importer::Gather(Node& node) {
  const Value value = NeedChannels(node, 0);
  const std::size_t axis = node.Axis(node.Int("axis", 0), value.sizes.size());
  const Constant& constant = NeedConstant(node, 1);
  if (axis != 1 || constant.Shape().size() > 1 || constant.Count() == 0)
    node.Fail(
        fmt::format("takes places {} of axis {} of {}, expected one or a list of channels or "
                    "features, axis 1",
                    SizesText(constant.Shape()), axis, ValueText(value)));
  Parts parts = WholeOf(ShapeOf(value.layer));
  parts.channels.clear();
  for (const std::int64_t place : constant.Integers())
    parts.channels.push_back(static_cast<int>(node.Axis(place, ToSize(value.sizes[1]))));
  Value part = AddParts(node, value, parts);
  part.sizes[1] = ToSigned(parts.channels.size());
  if (constant.Shape().empty()) part.sizes.erase(part.sizes.begin() + 1);
  SetValue(node, std::move(part));
}

void Importer::PadChannels(const Node& node, Value& value, std::size_t before, std::size_t after) {
  Settle(value, true);
  PutChannelsInOrder(node, value);
  MakePlain(node, value);
  Parts parts = WholeOf(ShapeOf(value.layer));
  parts.channels.insert(parts.channels.begin(), before, kNone);
  parts.channels.insert(parts.channels.end(), after, kNone);
  value = AddParts(node, value, parts);
  value.sizes[1] = ToSigned(parts.channels.size());
}

}  // namespace tercet::importer
