// SPDX-License-Identifier: Apache-2.0
#include "import/importer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/json.h"

namespace tercet::importer {
namespace {

using files::TensorData;
using mpc::Shape3;
using nn::LayerSpec;
using nn::LayerType;

}  // namespace

// --- Windows

Window Importer::ReadWindow(Node& node, const Value& value, const Sizes& kernel, bool pools) {
  const std::size_t rank = value.sizes.size(), axes = rank - 2;
  Sizes kernels = node.Ints("kernel_shape").value_or(kernel);
  if (kernels.size() != axes ||
      std::any_of(kernels.begin(), kernels.end(), [](auto k) { return k < 1 || k > kMaxSide; }))
    node.Fail(fmt::format("found kernel_shape {}, expected {} numbers from 1 to {}",
                          SizesText(kernels), axes, kMaxSide));
  const Sizes strides = node.Bounded("strides", axes, 1, 1);
  const Sizes dilations = node.Bounded("dilations", axes, 1, 1);
  const std::string automatic = node.String("auto_pad", "NOTSET");
  const bool upper = automatic == "SAME_UPPER", same = upper || automatic == "SAME_LOWER";
  if (!same && automatic != "NOTSET" && automatic != "VALID")
    node.Fail(fmt::format("found auto_pad {}, expected NOTSET, VALID, SAME_UPPER or SAME_LOWER",
                          Printable(automatic)));
  Sizes pads = node.Bounded("pads", 2 * axes, 0, 0);
  if (automatic != "NOTSET") pads.assign(pads.size(), 0);
  const bool ceils = pools && node.Int("ceil_mode", 0) != 0;
  Window window;
  for (std::size_t i = 0; i < axes; ++i) {
    Axis& axis = i + 1 == axes ? window.columns : window.rows;
    const std::int64_t around = HasPadding(value) ? value.before[i + 2] : 0;
    const std::int64_t behind = HasPadding(value) ? value.after[i + 2] : 0;
    axis = {.in = ToSize(value.sizes[i + 2]),
            .kernel = ToSize(kernels[i]),
            .stride = ToSize(strides[i]),
            .dilation = ToSize(dilations[i]),
            .before = ToSize(pads[i] + around),
            .after = ToSize(pads[axes + i] + behind)};
    const std::size_t in = axis.in + axis.before + axis.after, stride = axis.stride;
    if (same) {
      const std::size_t needed = ((in + stride - 1) / stride - 1) * stride + axis.Reach();
      const std::size_t more = needed > in ? needed - in : 0;
      axis.before += upper ? more / 2 : more - more / 2;
      axis.after += upper ? more - more / 2 : more / 2;
    }
  }
  const auto fits = [](const Axis& axis) {
    return axis.Reach() <= axis.in + axis.before + axis.after;
  };
  if (!fits(window.rows) || !fits(window.columns)) {
    node.Fail(fmt::format(
        "found a kernel of {} x {}, expected at most the sides of the padded input, {} x {}",
        window.rows.Reach(), window.columns.Reach(),
        window.rows.in + window.rows.before + window.rows.after,
        window.columns.in + window.columns.before + window.columns.after));
  }
  if (ceils) {
    for (Axis* axis : {&window.rows, &window.columns}) {
      // One more window where some numbers are left, but none that begins behind the map.
      const std::size_t next = axis->Out() * axis->stride;
      const std::size_t end = axis->in + axis->before + axis->after;
      if (next + axis->Reach() - axis->stride < end && next < axis->in + axis->before)
        axis->after += next + axis->Reach() - end;
    }
  }
  return window;
}

void Importer::CheckChannelPads(const Node& node, const Value& value) const {
  if (HasPadding(value) && (value.before[1] != 0 || value.after[1] != 0))
    node.Fail("found zeros around the channels, expected them only around maps");
}

void Importer::SetWindow(const Window& window, LayerSpec& spec) {
  const Axis &rows = window.rows, &columns = window.columns;
  spec.kernel = {rows.kernel, columns.kernel};
  spec.stride = {rows.stride, columns.stride};
  spec.dilation = {rows.dilation, columns.dilation};
  spec.padding = {rows.before, columns.before, rows.after, columns.after};
}

Sizes Importer::SizesOf(const Value& in, const Shape3& out) {
  if (in.sizes.size() == 3) return {in.sizes[0], ToSigned(out.channels), ToSigned(out.width)};
  return {in.sizes[0], ToSigned(out.channels), ToSigned(out.height), ToSigned(out.width)};
}

void Importer::Conv(Node& node) {
  Value& value = NeedMap(node, 0);
  CheckChannelPads(node, value);
  const double around = HasPadding(value) ? value.padding : 0;
  MakePlain(node, value);
  const Constant& weight = NeedConstant(node, 1);
  Sizes sizes = weight.Shape();
  const std::size_t rank = value.sizes.size();
  const Window window = ReadWindow(
      node, value,
      sizes.size() == rank ? Sizes(sizes.begin() + 2, sizes.end()) : Sizes(rank - 2, 0), false);
  if (around != 0 && OwnPads(window, value) != 0)
    node.Fail(fmt::format(
        "pads with zeros what is padded with {} before, expected one number around the map",
        around));
  const std::int64_t in_channels = value.sizes[1], groups = node.Int("group", 1);
  if (groups < 1 || in_channels % groups != 0) {
    node.Fail(fmt::format("found group {}, expected a divisor of the {} input channels", groups,
                          in_channels));
  }
  Sizes expected = {in_channels / groups};
  if (rank == 4) expected.push_back(ToSigned(window.rows.kernel));
  expected.push_back(ToSigned(window.columns.kernel));
  if (sizes.size() != rank || sizes[0] < 1 || sizes[0] > kMaxChannels ||
      Sizes(sizes.begin() + 1, sizes.end()) != expected) {
    node.Fail(fmt::format("found weights of shape {}, expected [outputs, {}]", SizesText(sizes),
                          fmt::join(expected, ", ")));
  }
  const std::size_t outputs = ToSize(sizes[0]);
  Layer& layer = AddLayer(node, LayerType::kConv2d, {value.layer}, window.Out(outputs));
  layer.spec.out_channels = outputs;
  layer.spec.groups = ToSize(groups);
  SetWindow(window, layer.spec);
  layer.spec.pad_value = around;
  const std::vector<float> weights = weight.Weights();
  layer.tensors["weight"] = TensorData::FromFloats(
      {outputs, ToSize(in_channels / groups), window.rows.kernel, window.columns.kernel}, weights);
  layer.spec.bias = node.HasInput(2);
  if (layer.spec.bias) SetVector(layer, "bias", NeedVector(node, 2, outputs));
  SetOutput(node, SizesOf(value, layer.out));
}

void Importer::AddPool(const Node& node, LayerType type, const Value& value, const Window& window) {
  Layer& layer = AddLayer(node, type, {value.layer}, window.Out(ShapeOf(value.layer).channels));
  if (window.rows.dilation != 1 || window.columns.dilation != 1)
    node.Fail(fmt::format("found dilations [{}, {}], expected 1 (of a pool)", window.rows.dilation,
                          window.columns.dilation));
  SetWindow(window, layer.spec);
  SetOutput(node, SizesOf(value, layer.out));
}

bool Importer::PoolsFirst(const Value& value) const {
  if (value.is_flag || value.layer == kNetworkInput) return false;
  const nn::LayerType type = layers_[ToSize(value.layer)].spec.type;
  const auto factors = PerChannel(value.scale, ShapeOf(value.layer), 1);
  return (type == LayerType::kSign || type == LayerType::kRelu) && factors &&
         PerChannel(value.shift, ShapeOf(value.layer), 0) &&
         std::all_of(factors->begin(), factors->end(), [](double f) { return f > 0; });
}

void Importer::MaxPool(Node& node) {
  Value& value = NeedMap(node, 0);
  node.Ignore("storage_order");  // of the indices, which nothing can read
  AddMaxPool(node, value, ReadWindow(node, value, Sizes(value.sizes.size() - 2, 0), true));
}

void Importer::AddMaxPool(const Node& node, Value& value, const Window& window) {
  CheckChannelPads(node, value);
  if (HasPadding(value)) {
    MakePlain(node, value);
    if (value.padding > 0 || !IsNonNegative(value.layer))
      node.Fail(
          "found numbers around its input that may be larger than it, expected zeros around "
          "what is never less");
  }
  MakeNumber(node, value);
  if (!HasPadding(value) && PoolSteps(node, value, window)) return;
  if (!PoolsFirst(value)) MakeArithmetic(node, value);
  const Value before = value;
  AddPool(node, LayerType::kMaxPool2d, before, window);
  Value& after = values_[node.Output()];
  const Shape3 in = ShapeOf(before.layer), out = ShapeOf(after.layer);
  after.clip = before.clip;
  after.made_by = before.made_by;
  const auto spread = [&](const std::vector<double>& all, double otherwise) {
    if (all.size() <= 1) return all;
    const std::vector<double> channels = *PerChannel(all, in, otherwise);
    std::vector<double> larger;
    for (const double number : channels)
      larger.insert(larger.end(), out.height * out.width, number);
    return larger;
  };
  after.scale = spread(before.scale, 1);
  after.shift = spread(before.shift, 0);
}

void Importer::AveragePool(Node& node) {
  Value& value = NeedMap(node, 0);
  CheckChannelPads(node, value);
  if (HasPadding(value) && value.padding != 0)
    node.Fail(fmt::format("found {} around its input, expected zeros", value.padding));
  MakePlain(node, value);
  const Sizes no_kernel(value.sizes.size() - 2, 0);
  const Window floor = ReadWindow(node, value, no_kernel, false);
  const Window window = ReadWindow(node, value, no_kernel, true);
  const bool counts_padding = node.Int("count_include_pad", 0) == 1;
  const bool pads = OwnPads(floor, value) != 0;
  // Positions beyond what is padded count in no divisor.
  const bool beyond =
      window.rows.after != floor.rows.after || window.columns.after != floor.columns.after;
  const bool some_count = HasPadding(value) || (pads && counts_padding);
  const bool some_do_not = (pads && !counts_padding) || beyond;
  if (some_count && some_do_not)
    node.Fail(
        "averages zeros around the map of which some count in its divisor and others do not, "
        "expected all or none (pads with count_include_pad 1 and ceil_mode 0, or 0 and no Pad)");
  AddPool(node, LayerType::kAvgPool2d, value, window);
  layers_.back().spec.count_include_pad = !some_do_not;
}

std::size_t Importer::OwnPads(const Window& window, const Value& value) {
  std::size_t most = 0;
  const std::size_t axes = value.sizes.size() - 2;
  for (std::size_t i = 0; i < axes; ++i) {
    const Axis& axis = i + 1 == axes ? window.columns : window.rows;
    const bool padded = HasPadding(value);
    most = std::max({most, axis.before - (padded ? ToSize(value.before[i + 2]) : 0),
                     axis.after - (padded ? ToSize(value.after[i + 2]) : 0)});
  }
  return most;
}

Window Importer::WholeMap(const Shape3& shape) {
  Window window;
  window.rows = {.in = shape.height, .kernel = shape.height, .stride = shape.height};
  window.columns = {.in = shape.width, .kernel = shape.width, .stride = shape.width};
  return window;
}

void Importer::GlobalPool(Node& node) {
  NeedValue(node, 0);
  Value& value = NeedMap(node, 0);
  const Window window = WholeMap(MapShape(value));
  if (node.Op() == "GlobalMaxPool") {
    AddMaxPool(node, value, window);
  } else {
    MakePlain(node, value);
    AddPool(node, LayerType::kAvgPool2d, value, window);
  }
}

void Importer::Reduce(Node& node) {
  Value& value = NeedPlain(node, 0);
  const std::size_t rank = value.sizes.size();
  Sizes axes = node.Ints("axes").value_or(Sizes{});
  if (node.HasInput(1)) axes = NeedConstant(node, 1).Integers();
  const bool keeps = node.Int("keepdims", 1) != 0;
  node.Ignore("noop_with_empty_axes");
  std::vector<bool> reduced(rank, axes.empty());
  for (const std::int64_t axis : axes) reduced[node.Axis(axis, rank)] = true;
  Sizes kept_sizes, sizes;
  for (std::size_t i = 0; i < rank; ++i) {
    if (reduced[i] && value.sizes[i] == kImages)
      node.Fail("reduces over the images, expected that only over height and width");
    kept_sizes.push_back(reduced[i] ? 1 : value.sizes[i]);
    if (!reduced[i] || keeps) sizes.push_back(kept_sizes.back());
  }
  // The channel of each element of what comes out: all that is reduced to it is of that channel.
  const Shape3 shape = ShapeOf(value.layer);
  const std::size_t area = shape.height * shape.width, count = CountOf(value);
  std::vector<std::size_t> channel, members;
  std::vector<std::size_t> position(rank, 0);
  std::map<std::vector<std::size_t>, std::size_t> index;
  bool fits = true;
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<std::size_t> kept;
    std::size_t rest = i;
    for (std::size_t a = rank; a-- > 0;) {
      const std::size_t size = value.sizes[a] == kImages ? 1 : ToSize(value.sizes[a]);
      if (!reduced[a]) kept.push_back(rest % size);
      rest /= size;
    }
    const std::size_t of = (value.order.empty() ? i : value.order[i]) / area;
    const auto [found, is_new] = index.emplace(kept, channel.size());
    if (is_new) {
      channel.push_back(of);
      members.push_back(0);
    }
    fits = fits && channel[found->second] == of;
    ++members[found->second];
  }
  for (const std::size_t number : members) fits = fits && number == area;
  if (!fits) node.Fail("reduces over other axes, expected height and width of a map (2 and 3)");
  const bool max = node.Op() == "ReduceMax";
  Layer& layer = AddLayer(node, max ? LayerType::kMaxPool2d : LayerType::kAvgPool2d, {value.layer},
                          {shape.channels});
  SetWindow(WholeMap(shape), layer.spec);
  Value& output = SetOutput(node, sizes, channel);
  if (node.Op() == "ReduceSum") {
    Multiply(output, {static_cast<double>(area)});
    output.made_by = index_;
  }
  TidyOrder(output);
}

// --- Products

void Importer::AddLinear(const Node& node, Value value, std::size_t axis, const Constant& weight,
                         bool transposed, double factor) {
  Sizes sizes = weight.Shape();
  while (sizes.size() > 2 && sizes.front() == 1) sizes.erase(sizes.begin());
  const std::size_t input_axis = transposed ? 1 : 0;
  const std::int64_t inputs = value.sizes[axis];
  if (sizes.size() != 2 || sizes[input_axis] != inputs || sizes[1 - input_axis] < 1 ||
      sizes[1 - input_axis] > kMaxChannels) {
    node.Fail(fmt::format(
        "found weights of shape {}, expected {}", SizesText(sizes),
        transposed ? fmt::format("[outputs, {}]", inputs) : fmt::format("[{}, outputs]", inputs)));
  }
  const std::size_t outputs = ToSize(sizes[1 - input_axis]), count = CountOf(value);
  const std::vector<float> weights = weight.Weights();
  const std::size_t in = ToSize(inputs);
  const auto at = [&](std::size_t o, std::size_t i) {
    const float w = transposed ? weights[o * in + i] : weights[i * outputs + o];
    return factor == 1 ? w : static_cast<float>(w * factor);
  };
  const auto place = [&](std::size_t i) { return value.order.empty() ? i : value.order[i]; };
  std::vector<float> rows(outputs * in);
  Sizes out_sizes = value.sizes;
  out_sizes[axis] = ToSigned(outputs);
  if (count == in) {
    for (std::size_t o = 0; o < outputs; ++o)
      for (std::size_t i = 0; i < in; ++i) rows[o * in + place(i)] = at(o, i);
    Layer& layer = AddLayer(node, LayerType::kLinear, {value.layer}, {outputs});
    layer.spec.out_channels = outputs;
    layer.spec.bias = false;
    layer.tensors["weight"] = TensorData::FromFloats({outputs, in}, rows);
    SetOutput(node, out_sizes);
    return;
  }
  // A matrix for each position of a map is a convolution of 1 x 1.
  const Shape3 shape = ShapeOf(value.layer);
  const std::size_t area = shape.height * shape.width;
  std::size_t behind = 1;
  for (std::size_t a = axis + 1; a < value.sizes.size(); ++a) behind *= ToSize(value.sizes[a]);
  bool fits = shape.channels == in;
  std::vector<std::size_t> order(count / in * outputs);
  for (std::size_t i = 0; i < count && fits; ++i) {
    const std::size_t channel = i / behind % in, first = i - channel * behind;
    fits = place(i) == channel * area + place(first);
    if (channel != 0) continue;
    const std::size_t to = i / (behind * in) * behind * outputs + i % behind;
    for (std::size_t o = 0; o < outputs; ++o) order[to + o * behind] = o * area + place(first);
  }
  if (!fits)
    node.Fail(fmt::format("found an input of {}, expected [N, features] (a Flatten before it?)",
                          ValueText(value)));
  for (std::size_t o = 0; o < outputs; ++o)
    for (std::size_t i = 0; i < in; ++i) rows[o * in + i] = at(o, i);
  Layer& layer =
      AddLayer(node, LayerType::kConv2d, {value.layer}, {outputs, shape.height, shape.width});
  layer.spec.out_channels = outputs;
  layer.spec.bias = false;
  layer.tensors["weight"] = TensorData::FromFloats({outputs, in, 1, 1}, rows);
  TidyOrder(SetOutput(node, out_sizes, std::move(order)));
}

Value Importer::NeedVectors(const Node& node, int i) {
  Settle(NeedValue(node, i), false);
  Value& value = NeedPlain(node, i);
  // Images of some shape that come as a vector.
  if (value.layer == kNetworkInput && value.sizes.size() == 2 &&
      input_spec_.shape != Shape3{CountOf(value)}) {
    Layer& layer = AddLayerTo(value, LayerType::kFlatten, node);
    layer.out = {CountOf(value)};
    layer.wanted_name.clear();
    layer.operation = "Flatten";
  }
  return value;
}

void Importer::Gemm(Node& node) {
  const double alpha = node.Float("alpha", 1), beta = node.Float("beta", 1);
  if (operators_ <= 6) node.Ignore("broadcast");
  const std::int64_t a_transposed = node.Int("transA", 0), b_transposed = node.Int("transB", 0);
  for (const std::int64_t flag : {a_transposed, b_transposed})
    if (flag != 0 && flag != 1)
      node.Fail(fmt::format("found transA or transB {}, expected 0 or 1", flag));
  const bool weights_first = FindConstant(node, 0) != nullptr;
  Value value = NeedVectors(node, weights_first ? 1 : 0);
  if (value.sizes.size() != 2)
    node.Fail(fmt::format("found an input of {}, expected [N, features] (a Flatten before it?)",
                          ValueText(value)));
  if ((weights_first ? b_transposed : a_transposed) == 1) std::swap(value.sizes[0], value.sizes[1]);
  const std::size_t axis = weights_first ? 0 : 1;
  if (!IsImages(value.sizes[1 - axis]) || value.sizes[axis] == kImages) {
    node.Fail(fmt::format("found an input of {} (transposed where transA is 1), expected {}",
                          ValueText(value), weights_first ? "[features, N]" : "[N, features]"));
  }
  AddLinear(node, value, axis, NeedConstant(node, weights_first ? 0 : 1),
            weights_first ? a_transposed == 0 : b_transposed == 1, alpha);
  if (node.HasInput(2) && beta != 0) {
    Value& sum = values_[node.Output()];
    sum.made_by = index_;
    std::vector<double> bias = Spread(node, sum, NeedConstant(node, 2).ToArray());
    for (double& number : bias) number *= beta;
    Add(sum, bias);
  }
}

void Importer::MatMul(Node& node) {
  const bool weights_first = FindConstant(node, 0) != nullptr;
  const Value value = NeedVectors(node, weights_first ? 1 : 0);
  const std::size_t rank = value.sizes.size(), from_end = weights_first && rank > 1 ? 2 : 1;
  if (rank < from_end || value.sizes[rank - from_end] == kImages)
    node.Fail(fmt::format("found an input of {}, expected [N, features]", ValueText(value)));
  AddLinear(node, value, rank - from_end, NeedConstant(node, weights_first ? 0 : 1), weights_first,
            1);
}

}  // namespace tercet::importer
