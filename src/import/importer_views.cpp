// SPDX-License-Identifier: Apache-2.0
#include "import/importer.h"

#include <fmt/format.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/json.h"
#include "import/fold.h"
#include "tercet/base/error.h"

namespace tercet::importer {
namespace {

using mpc::Shape3;

}  // namespace

// --- The input

void Importer::FailInput(const std::string& problem) const {
  throw ConfigError(file_ + " input " + Printable(input_->name()), problem);
}

void Importer::ReadInput() {
  if (!input_->type().has_tensor_type()) FailInput("is no tensor, expected one");
  const auto& type = input_->type().tensor_type();
  if (type.elem_type() != onnx::TensorProto::FLOAT &&
      type.elem_type() != onnx::TensorProto::DOUBLE &&
      type.elem_type() != onnx::TensorProto::BFLOAT16 &&
      type.elem_type() != onnx::TensorProto::FLOAT16)
    FailInput("is no tensor of real numbers, expected FLOAT, DOUBLE, FLOAT16 or BFLOAT16");
  Sizes sizes;  // 0: any
  for (const auto& dim : type.shape().dim()) {
    // Some exporters write -1 for any.
    sizes.push_back(dim.has_dim_value() && dim.dim_value() != -1 ? dim.dim_value() : 0);
    if (sizes.back() < 0 || sizes.back() > ToSigned(kMaxElements))
      FailInput(fmt::format("found a side of {}, expected sizes", sizes.back()));
  }
  input_spec_ = options_.input;
  const Shape3& given = options_.input.shape;
  const bool is_given = given.channels != 0;
  if (sizes.empty() && is_given) sizes = Sizes(4, 0);  // without a shape, or of one number
  input_text_ = SizesText(sizes) + " (0: any)";
  if (sizes.empty() || sizes.size() > 4)
    FailInput(
        fmt::format("found {}, expected [N, channels, height, width], [N, height, width, "
                    "channels] or [N, features]{}",
                    input_text_, sizes.empty() ? "; --shape gives the images' shape" : ""));
  if (sizes.size() == 1) {  // of one image
    sizes.insert(sizes.begin(), 1);
    images_ = 1;
  } else {
    images_ = sizes[0];
  }
  const Sizes each(sizes.begin() + 1, sizes.end());
  const Sizes channels_first = {ToSigned(given.channels), ToSigned(given.height),
                                ToSigned(given.width)};
  const Sizes channels_last = {channels_first[1], channels_first[2], channels_first[0]};
  const auto fits = [&](const Sizes& wanted) {
    return std::equal(each.begin(), each.end(), wanted.begin(), wanted.end(),
                      [](std::int64_t a, std::int64_t b) { return a == 0 || a == b; });
  };
  const bool any = std::find(each.begin(), each.end(), 0) != each.end();
  Value value;
  value.sizes = each;
  if (is_given) {
    if (each.size() == 3) {
      channels_last_ = !fits(channels_first);
      value.sizes = channels_last_ ? channels_last : channels_first;
    } else if (each.size() == 1) {
      value.sizes = {ToSigned(given.Size())};
    }
    if (!fits(value.sizes) || CountOf(value) != given.Size())
      FailInput(fmt::format("found {}, expected it to fit the shape {}", input_text_,
                            mpc::ShapeText(given)));
  } else if (any) {
    FailInput(fmt::format("found {}, expected fixed sizes but for the first; --shape gives them",
                          input_text_));
  } else if (each.size() == 3) {
    const auto few = [](std::int64_t size) { return size == 1 || size == 3 || size == 4; };
    channels_last_ = few(each[2]) && !few(each[0]);
  }
  std::size_t count = 1;
  for (const std::int64_t size : value.sizes) {
    if ((count *= ToSize(size)) >= kMaxElements)
      FailInput(fmt::format("found {}, expected fewer than {} numbers", input_text_, kMaxElements));
  }
  value.sizes.insert(value.sizes.begin(), kImages);
  values_.emplace(input_->name(), value);
}

void Importer::Settle(Value& value, bool as_map) {
  if (value.layer != kNetworkInput || value.settled) return;
  const std::size_t count = CountOf(value);
  if (places_.empty()) {
    places_.resize(count);
    std::iota(places_.begin(), places_.end(), 0);
    Shape3 shape = options_.input.shape;
    if (as_map) {
      shape = MapShape(value);
      CheckImageOrder(value);
      for (std::size_t i = 0; i < value.order.size(); ++i) places_[value.order[i]] = i;
    } else if (shape.channels == 0 || channels_last_) {
      shape = GuessShape();
    }
    SetInputShape(shape);
  }
  if (value.order.empty()) {
    value.order = places_;
  } else {
    for (std::size_t& element : value.order) element = places_[element];
  }
  for (std::vector<double>* numbers : {&value.scale, &value.shift}) {
    if (numbers->size() <= 1) continue;
    const std::vector<double> before = *numbers;
    for (std::size_t i = 0; i < count; ++i) (*numbers)[places_[i]] = before[i];
  }
  TidyOrder(value);
  value.settled = true;
}

void Importer::CheckImageOrder(const Value& value) const {
  const Shape3 shape = MapShape(value);
  const std::size_t area = shape.height * shape.width;
  for (std::size_t i = 0; i < value.order.size(); ++i)
    if (value.order[i] != i % area * shape.channels + i / area)
      FailInput(
          "is put into another order than rows, columns and channels last, expected one that a "
          "convolution or pool takes as it is or with its channels put first; leave the Transpose "
          "out (--transpose reads images with rows and columns swapped)");
}

Shape3 Importer::GuessShape() {
  const Sizes sizes = values_.at(input_->name()).sizes;
  if (sizes.size() == 4 && channels_last_) {
    const Shape3 shape{ToSize(sizes[3]), ToSize(sizes[1]), ToSize(sizes[2])};
    const std::size_t area = shape.height * shape.width;
    for (std::size_t i = 0; i < places_.size(); ++i)
      places_[i] = i % shape.channels * area + i / shape.channels;
    return shape;
  }
  if (sizes.size() == 4) return {ToSize(sizes[1]), ToSize(sizes[2]), ToSize(sizes[3])};
  if (sizes.size() == 3 && sizes[1] > 1 && sizes[2] > 1)
    return {1, ToSize(sizes[1]), ToSize(sizes[2])};
  return {places_.size()};
}

void Importer::SetInputShape(const Shape3& shape) {
  const Shape3& given = options_.input.shape;
  if (given.channels != 0 && shape != given)
    FailInput(
        fmt::format("found {}, of which the first layer takes {}; expected it to fit the "
                    "shape {}",
                    input_text_, mpc::ShapeText(shape), mpc::ShapeText(given)));
  if (shape.channels < 1 || ToSigned(shape.channels) > kMaxChannels || shape.height < 1 ||
      ToSigned(shape.height) > kMaxSide || shape.width < 1 || ToSigned(shape.width) > kMaxSide)
    FailInput(fmt::format("found {}, expected at most {} channels and sides of {}",
                          mpc::ShapeText(shape), kMaxChannels, kMaxSide));
  input_spec_.shape = shape;
}

void Importer::TidyOrder(Value& value) {
  for (std::size_t i = 0; i < value.order.size(); ++i)
    if (value.order[i] != i) return;
  value.order.clear();
}

// --- Shapes

void Importer::Pad(Node& node) {
  Value value = NeedPadded(node, 0);
  const std::size_t rank = value.sizes.size();
  if (const std::string mode = node.String("mode", "constant"); mode != "constant")
    node.Fail(fmt::format("found mode {}, expected constant", Printable(mode)));
  const auto attribute = node.Ints("pads");  // until operator set 10
  const Sizes given = attribute ? *attribute : NeedConstant(node, 1).Integers();
  double number = node.Float("value", 0);
  if (node.HasInput(2)) number = NeedNumber(node, 2);
  Sizes axes(rank);
  std::iota(axes.begin(), axes.end(), 0);
  if (node.HasInput(3)) axes = NeedConstant(node, 3).Integers();
  Sizes before(rank, 0), after(rank, 0);
  bool fits = given.size() == 2 * axes.size();
  for (std::size_t i = 0; i < axes.size() && fits; ++i) {
    const std::size_t axis = node.Axis(axes[i], rank);
    before[axis] = given[i];
    after[axis] = given[axes.size() + i];
    const bool some = given[i] != 0 || given[axes.size() + i] != 0;
    fits = std::min(given[i], given[axes.size() + i]) >= 0 && given[i] <= kMaxSide &&
           given[axes.size() + i] <= kMaxSide && !(some && value.sizes[axis] == kImages);
  }
  if (!fits) {
    node.Fail(
        fmt::format("found pads {}, expected numbers from 0 to {} for each axis, and 0 for "
                    "the images",
                    SizesText(given), kMaxSide));
  }
  if (number == 0 && IsMap(value) && before[1] + after[1] != 0 &&
      (!HasPadding(value) || value.padding == 0)) {
    PadChannels(node, value, ToSize(before[1]), ToSize(after[1]));
    before[1] = after[1] = 0;
  }
  if (HasPadding(value) && value.padding != number)
    node.Fail("pads what is padded with another number, expected the same");
  if (value.before.empty()) value.before = value.after = Sizes(rank, 0);
  for (std::size_t i = 0; i < rank; ++i) {
    value.before[i] += before[i];
    value.after[i] += after[i];
  }
  value.padding = number;
  SetValue(node, std::move(value));
}

void Importer::SetSizes(const Node& node, Value value, Sizes sizes) {
  const auto images = [](const Sizes& of) {
    return std::find(of.begin(), of.end(), kImages) - of.begin();
  };
  const auto only_ones_before = [&](const Sizes& of) {
    return std::all_of(of.begin(), of.begin() + images(of), [](auto size) { return size == 1; });
  };
  const bool moves = !only_ones_before(value.sizes) || !only_ones_before(sizes);
  if (moves && images_ != 1 && sizes != value.sizes) {
    node.Fail(fmt::format("makes {} of {}, expected the images to stay first",
                          ValueText({.sizes = sizes}), ValueText(value)));
  }
  if (sizes.size() > 2) {
    value.flattened_by = kNone;
  } else if (value.sizes.size() > 2) {
    value.flattened_by = index_;
  }
  value.sizes = std::move(sizes);
  value.before.clear();
  value.after.clear();
  SetValue(node, std::move(value));
}

void Importer::Flatten(Node& node) {
  const Value& value = NeedValue(node, 0);
  const std::size_t rank = value.sizes.size();
  const std::int64_t axis = node.Int("axis", 1);
  const std::size_t first = axis == ToSigned(rank) ? rank : node.Axis(axis, rank);
  std::int64_t before = 1;
  const bool has_images =
      std::find(value.sizes.begin(), value.sizes.end(), kImages) != value.sizes.end();
  bool images = !has_images;
  for (std::size_t i = 0; i < first; ++i) {
    images = images || value.sizes[i] == kImages;
    if (value.sizes[i] != kImages) before *= value.sizes[i];
  }
  if (!images || before != 1) node.Fail(fmt::format("found axis {}, expected 1", axis));
  SetSizes(node, value, {kImages, ToSigned(CountOf(value))});
}

void Importer::Reshape(Node& node) {
  const Value& value = NeedValue(node, 0);
  const Sizes given = NeedConstant(node, 1).SizesOrImages();
  const bool zero_copies = node.Int("allowzero", 0) == 0;
  Sizes sizes = given;
  const std::int64_t features = ToSigned(CountOf(value));
  const auto fail = [&] {
    Sizes shown = given;
    std::replace(shown.begin(), shown.end(), kImages, std::int64_t{0});
    node.Fail(
        fmt::format("found shape {}, expected [N, {}] or other sizes of each image's "
                    "numbers",
                    SizesText(shown), features));
  };
  std::int64_t known = 1;  // but for the images and an open one
  std::size_t open = sizes.size(), images = sizes.size();
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 && zero_copies) {
      if (i >= value.sizes.size()) fail();
      sizes[i] = value.sizes[i];
    }
    if (sizes[i] == kImages) {
      if (images != sizes.size()) fail();
      images = i;
    } else if (sizes[i] == -1) {
      if (open != sizes.size()) fail();
      open = i;
    } else if (sizes[i] < 1 || sizes[i] > ToSigned(kMaxElements) ||
               (known *= sizes[i]) > ToSigned(kMaxElements)) {
      fail();
    }
  }
  if (images == sizes.size() && open != sizes.size() && known == features) {
    sizes[open] = kImages;
  } else {
    if (open != sizes.size()) {
      const std::int64_t all =
          images == sizes.size() ? features * std::max<std::int64_t>(images_, 1) : features;
      if (all % known != 0) fail();
      sizes[open] = all / known;
      known = all;
    }
    // A batch of a fixed size comes as a number.
    if (images == sizes.size() && images_ > 0 && !sizes.empty() && sizes[0] == images_ &&
        known == features * images_) {
      sizes[0] = kImages;
    } else if (known != features ||
               (images == sizes.size() &&
                (images_ != 1 || std::count_if(sizes.begin(), sizes.end(),
                                               [](auto size) { return size != 1; }) > 1))) {
      fail();
    }
  }
  SetSizes(node, value, std::move(sizes));
}

void Importer::Squeeze(Node& node) {
  const Value& value = NeedValue(node, 0);
  const std::size_t rank = value.sizes.size();
  Sizes axes = node.Ints("axes").value_or(Sizes{});
  if (node.HasInput(1)) axes = NeedConstant(node, 1).Integers();
  std::vector<bool> gone(rank, false);
  for (std::size_t i = 0; i < rank; ++i) gone[i] = axes.empty() && value.sizes[i] == 1;
  for (const std::int64_t axis : axes) gone[node.Axis(axis, rank)] = true;
  Sizes sizes;
  for (std::size_t i = 0; i < rank; ++i) {
    if (!gone[i]) sizes.push_back(value.sizes[i]);
    if (gone[i] && value.sizes[i] != 1 && !IsOneImage(value.sizes[i]))
      node.Fail(fmt::format("squeezes axis {} of {}, expected one of size 1", i, ValueText(value)));
  }
  SetSizes(node, value, std::move(sizes));
}

bool Importer::IsOneImage(std::int64_t size) const { return size == kImages && images_ == 1; }

void Importer::Unsqueeze(Node& node) {
  const Value& value = NeedValue(node, 0);
  Sizes axes = node.Ints("axes").value_or(Sizes{});
  if (node.HasInput(1)) axes = NeedConstant(node, 1).Integers();
  Sizes sizes = UnsqueezedShape(node, value.sizes, axes);
  const bool has_images = std::find(sizes.begin(), sizes.end(), kImages) != sizes.end();
  if (!has_images && !sizes.empty() && sizes[0] == 1) sizes[0] = kImages;
  SetSizes(node, value, std::move(sizes));
}

void Importer::Transpose(Node& node) {
  Value value = NeedPadded(node, 0);
  const std::size_t rank = value.sizes.size();
  Sizes all(rank);
  for (std::size_t i = 0; i < rank; ++i) all[i] = ToSigned(rank - 1 - i);
  const Sizes axes = node.Ints("perm").value_or(all);
  if (!std::is_permutation(axes.begin(), axes.end(), all.begin(), all.end()))
    node.Fail(fmt::format("found perm {}, expected each of {} axes", SizesText(axes), rank));
  Sizes one = value.sizes, sizes;
  std::replace(one.begin(), one.end(), kImages, std::int64_t{1});
  std::vector<std::size_t> permutation;
  for (const std::int64_t axis : axes) {
    permutation.push_back(ToSize(axis));
    sizes.push_back(value.sizes[ToSize(axis)]);
  }
  std::vector<std::size_t> order = TransposedOrder(one, permutation);
  if (!value.order.empty())
    for (std::size_t& element : order) element = value.order[element];
  if (!value.before.empty()) {
    const Sizes before = value.before, after = value.after;
    for (std::size_t i = 0; i < rank; ++i) {
      value.before[i] = before[permutation[i]];
      value.after[i] = after[permutation[i]];
    }
  }
  value.order = std::move(order);
  value.sizes = std::move(sizes);
  TidyOrder(value);
  SetValue(node, std::move(value));
}

void Importer::Shape(Node& node) {
  const Value& value = NeedPadded(node, 0);
  const std::int64_t rank = ToSigned(value.sizes.size());
  const auto bound = [&](std::int64_t at) {
    return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const std::int64_t start = bound(node.Int("start", 0)), end = bound(node.Int("end", rank));
  Array sizes{{std::max<std::int64_t>(end - start, 0)}, {}, true};
  for (std::int64_t i = start; i < end; ++i) {
    const std::size_t axis = ToSize(i);
    const std::int64_t size = value.sizes[axis],
                       padded = value.before.empty() ? 0 : value.before[axis] + value.after[axis];
    sizes.values.push_back(size != kImages ? static_cast<double>(size + padded)
                           : images_ != 0  ? static_cast<double>(images_)
                                           : std::nan(""));
  }
  SetConstant(node, std::move(sizes));
}

}  // namespace tercet::importer
