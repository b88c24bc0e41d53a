// SPDX-License-Identifier: Apache-2.0
#include "import/fold.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <utility>

namespace tercet::importer {
namespace {

/// Results that are larger than this and than all inputs are of no network.
constexpr std::size_t kMaxGrown = std::size_t{1} << 24;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Folder {
 public:
  Folder(Node& node, const Inputs& inputs) : node_(node), inputs_(inputs) {}

  Array Run() {
    const auto method = Methods().find(node_.Op());
    Array result = (this->*method->second)();
    node_.CheckAllRead();
    std::size_t given = 0;
    for (const auto& input : inputs_)
      if (input) given += input->values.size();
    if (result.values.size() > std::max(given, kMaxGrown)) Grown(result.values.size());
    if (!result.whole)
      for (double& value : result.values) value = static_cast<float>(value);
    return result;
  }

  using Method = Array (Folder::*)();
  static const std::map<std::string, Method>& Methods() {
    static const std::map<std::string, Method> methods = {
        {"Abs", &Folder::Unary},
        {"Add", &Folder::Binary},
        {"And", &Folder::Binary},
        {"BipolarQuant", &Folder::BipolarQuant},
        {"Cast", &Folder::Cast},
        {"Ceil", &Folder::Unary},
        {"Clip", &Folder::Clip},
        {"Concat", &Folder::Concat},
        {"ConstantOfShape", &Folder::ConstantOfShape},
        {"DequantizeLinear", &Folder::Dequantize},
        {"Div", &Folder::Binary},
        {"Equal", &Folder::Binary},
        {"Exp", &Folder::Unary},
        {"Expand", &Folder::Expand},
        {"Flatten", &Folder::Flatten},
        {"Floor", &Folder::Unary},
        {"Gather", &Folder::Gather},
        {"Greater", &Folder::Binary},
        {"GreaterOrEqual", &Folder::Binary},
        {"Identity", &Folder::Unary},
        {"Less", &Folder::Binary},
        {"LessOrEqual", &Folder::Binary},
        {"Max", &Folder::Binary},
        {"Min", &Folder::Binary},
        {"Mul", &Folder::Binary},
        {"Neg", &Folder::Unary},
        {"Not", &Folder::Unary},
        {"Or", &Folder::Binary},
        {"Pow", &Folder::Binary},
        {"Quant", &Folder::Quant},
        {"Range", &Folder::Range},
        {"Reciprocal", &Folder::Unary},
        {"ReduceMax", &Folder::Reduce},
        {"ReduceMean", &Folder::Reduce},
        {"ReduceProd", &Folder::Reduce},
        {"ReduceSum", &Folder::Reduce},
        {"Reshape", &Folder::Reshape},
        {"Round", &Folder::Unary},
        {"Shape", &Folder::Shape},
        {"Sign", &Folder::Unary},
        {"Slice", &Folder::Slice},
        {"Sqrt", &Folder::Unary},
        {"Squeeze", &Folder::Squeeze},
        {"Sub", &Folder::Binary},
        {"Sum", &Folder::Binary},
        {"Tanh", &Folder::Unary},
        {"Transpose", &Folder::Transpose},
        {"Unsqueeze", &Folder::Unsqueeze},
        {"Where", &Folder::Where}};
    return methods;
  }

 private:
  const Array& In(std::size_t i) const {
    if (i >= inputs_.size() || !inputs_[i]) node_.Fail(fmt::format("has no input {}", i));
    return *inputs_[i];
  }
  bool Has(std::size_t i) const { return i < inputs_.size() && inputs_[i]; }
  Sizes Integers(std::size_t i) const {
    Sizes integers;
    for (const double value : In(i).values) integers.push_back(ToInteger(value));
    return integers;
  }
  /// Of a tensor that is alike along the images: there a size of 1 broadcasts to the same.
  Sizes SizesOfOneImage(std::size_t i) const {
    Sizes sizes;
    for (const double value : In(i).values)
      sizes.push_back(std::isnan(value) ? 1 : ToInteger(value));
    return sizes;
  }
  std::int64_t ToInteger(double value) const {
    if (std::isnan(value))
      node_.Fail("takes the number of images for a size, expected fixed numbers");
    constexpr double kMost = 9007199254740992.0;  // 2^53
    return static_cast<std::int64_t>(std::clamp(value, -kMost, kMost));
  }
  /// Of an attribute, or since a later operator set of an input; empty where there are none.
  Sizes Axes(std::size_t input) {
    if (const auto axes = node_.Ints("axes")) return *axes;
    return Has(input) ? Integers(input) : Sizes{};
  }
  [[noreturn]] void Grown(std::size_t count) const {
    node_.Fail(fmt::format("makes {} values of constants, expected at most {}", count, kMaxGrown));
  }
  Array Made(Sizes shape, bool whole) const {
    const std::size_t count = CountOf(node_, shape);
    return {std::move(shape), std::vector<double>(count), whole};
  }
  Array Picked(const Array& from, Sizes shape, const std::vector<std::size_t>& order) const {
    Array to = Made(std::move(shape), from.whole);
    for (std::size_t i = 0; i < order.size(); ++i) to.values[i] = from.values[order[i]];
    return to;
  }

  Array Unary() {
    static const std::map<std::string, double (*)(double)> functions = {
        {"Abs", [](double x) { return std::abs(x); }},
        {"Ceil", [](double x) { return std::ceil(x); }},
        {"Exp", [](double x) { return std::exp(x); }},
        {"Floor", [](double x) { return std::floor(x); }},
        {"Identity", [](double x) { return x; }},
        {"Neg", [](double x) { return -x; }},
        {"Not", [](double x) { return x == 0 ? 1.0 : 0.0; }},
        {"Reciprocal", [](double x) { return 1 / x; }},
        {"Round", [](double x) { return std::nearbyint(x); }},
        {"Sign", [](double x) { return x > 0   ? 1.0
                                       : x < 0 ? -1.0
                                               : x; }},
        {"Sqrt", [](double x) { return std::sqrt(x); }},
        {"Tanh", [](double x) { return std::tanh(x); }}};
    Array x = In(0);
    const auto function = functions.at(node_.Op());
    for (double& value : x.values) value = function(value);
    return x;
  }

  /// Arithmetic on the number of images that may give another number.
  void CheckImages(double a, double b) const {
    const bool neutral = node_.Op() == "Mul" || node_.Op() == "Div"   ? a == 1 || b == 1
                         : node_.Op() == "Add" || node_.Op() == "Sub" ? a == 0 || b == 0
                                                                      : false;
    if (!neutral)
      node_.Fail("computes with the number of images, expected it only as a tensor's first size");
  }

  Array Binary() {
    using Function = double (*)(double, double);
    static const std::map<std::string, Function> functions = {
        {"Add", [](double a, double b) { return a + b; }},
        {"And", [](double a, double b) { return a != 0 && b != 0 ? 1.0 : 0.0; }},
        {"Div", [](double a, double b) { return a / b; }},
        {"Equal", [](double a, double b) { return a == b ? 1.0 : 0.0; }},
        {"Greater", [](double a, double b) { return a > b ? 1.0 : 0.0; }},
        {"GreaterOrEqual", [](double a, double b) { return a >= b ? 1.0 : 0.0; }},
        {"Less", [](double a, double b) { return a < b ? 1.0 : 0.0; }},
        {"LessOrEqual", [](double a, double b) { return a <= b ? 1.0 : 0.0; }},
        {"Max", [](double a, double b) { return std::max(a, b); }},
        {"Min", [](double a, double b) { return std::min(a, b); }},
        {"Mul", [](double a, double b) { return a * b; }},
        {"Or", [](double a, double b) { return a != 0 || b != 0 ? 1.0 : 0.0; }},
        {"Pow", [](double a, double b) { return std::pow(a, b); }},
        {"Sub", [](double a, double b) { return a - b; }},
        {"Sum", [](double a, double b) { return a + b; }}};
    const Function function = functions.at(node_.Op());
    Array result = In(0);
    for (std::size_t i = 1; i < inputs_.size(); ++i) {
      const Sizes shape = CommonShape(result.shape, In(i).shape);
      const bool whole = result.whole && In(i).whole;
      const Array a = Broadcast(node_, result, shape), b = Broadcast(node_, In(i), shape);
      result = Made(shape, whole);
      for (std::size_t e = 0; e < result.values.size(); ++e) {
        const double x = a.values[e], y = b.values[e];
        if (whole && (std::isnan(x) || std::isnan(y))) CheckImages(x, y);
        if (whole && y == 0 && node_.Op() == "Div") node_.Fail("divides an integer by 0");
        const double value = function(x, y);
        result.values[e] = whole && !std::isnan(value) ? std::trunc(value) : value;
      }
    }
    static const std::vector<std::string> comparisons = {
        "And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or"};
    if (std::find(comparisons.begin(), comparisons.end(), node_.Op()) != comparisons.end())
      result.whole = true;
    return result;
  }

  Sizes CommonShape(const Sizes& a, const Sizes& b) const {
    Sizes common(std::max(a.size(), b.size()), 1);
    for (std::size_t i = 0; i < common.size(); ++i) {
      const std::int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1;
      const std::int64_t y = i < b.size() ? b[b.size() - 1 - i] : 1;
      if (x != y && x != 1 && y != 1) {
        node_.Fail(fmt::format("found constants of shape {} and {}, which do not fit each other",
                               SizesText(a), SizesText(b)));
      }
      common[common.size() - 1 - i] = x == 1 ? y : x;
    }
    CountOf(node_, common);
    return common;
  }

  /// Types in ONNX's numbers: FLOAT, DOUBLE, FLOAT16 and BFLOAT16 are the real ones.
  static bool IsReal(std::int64_t type) {
    return type == 1 || type == 11 || type == 10 || type == 16;
  }

  Array Cast() {
    constexpr std::int64_t kBool = 9;
    const std::int64_t to = node_.Int("to", 1);
    node_.Ignore("saturate");
    Array x = In(0);
    x.whole = !IsReal(to);
    for (double& value : x.values) {
      if (x.whole && !std::isnan(value))
        value = to == kBool ? (value != 0 ? 1.0 : 0.0) : std::trunc(value);
    }
    return x;
  }

  Array Clip() {
    Array x = In(0);
    const double low =
        Has(1) ? Scalar(1) : node_.Float("min", -std::numeric_limits<float>::infinity());
    const double high =
        Has(2) ? Scalar(2) : node_.Float("max", std::numeric_limits<float>::infinity());
    for (double& value : x.values) value = std::min(std::max(value, low), high);
    return x;
  }
  double Scalar(std::size_t i) const {
    if (In(i).values.size() != 1)
      node_.Fail(fmt::format("found input {} of several values, expected one", i));
    return In(i).values[0];
  }

  Array Concat() {
    const std::size_t rank = In(0).shape.size();
    const std::size_t axis = node_.Axis(node_.Int("axis", 0), rank);
    Array all = In(0);
    for (std::size_t i = 1; i < inputs_.size(); ++i) {
      const Array& next = In(i);
      Sizes shape = all.shape;
      if (next.shape.size() == rank) shape[axis] = next.shape[axis];
      if (shape != next.shape)
        node_.Fail(fmt::format("found constants of shape {} and {}, which do not fit each other",
                               SizesText(all.shape), SizesText(next.shape)));
      const std::size_t before = Block(all.shape, axis), after = Block(next.shape, axis);
      shape[axis] += all.shape[axis];
      Array longer = Made(shape, all.whole && next.whole);
      const std::size_t rows = before + after == 0 ? 0 : longer.values.size() / (before + after);
      for (std::size_t r = 0; r < rows; ++r) {
        auto to = longer.values.begin() + ToSigned(r * (before + after));
        to = std::copy_n(all.values.begin() + ToSigned(r * before), before, to);
        std::copy_n(next.values.begin() + ToSigned(r * after), after, to);
      }
      all = std::move(longer);
    }
    return all;
  }
  /// Elements of an axis and those behind it.
  static std::size_t Block(const Sizes& shape, std::size_t axis) {
    std::size_t count = 1;
    for (std::size_t i = axis; i < shape.size(); ++i) count *= ToSize(shape[i]);
    return count;
  }

  Array ConstantOfShape() {
    double value = 0;
    bool whole = false;
    if (const auto* tensor = node_.Tensor("value")) {
      const Array array = Constant(*tensor, "value", node_.Place()).ToArray();
      if (array.values.size() != 1) node_.Fail("found a value of several numbers, expected one");
      value = array.values[0];
      whole = array.whole;
    }
    const Sizes shape = SizesOfOneImage(0);
    if (const std::size_t count = CountOf(node_, shape); count > kMaxGrown) Grown(count);
    Array all = Made(shape, whole);
    std::fill(all.values.begin(), all.values.end(), value);
    return all;
  }

  Array Expand() {
    const Sizes shape = CommonShape(In(0).shape, SizesOfOneImage(1));
    if (const std::size_t count = CountOf(node_, shape);
        count > std::max(kMaxGrown, In(0).values.size()))
      Grown(count);
    return Broadcast(node_, In(0), shape);
  }

  /// The array with `axis` split off as [before, size of the axis, behind].
  struct Split {
    std::size_t before = 1, size = 1, behind = 1;
  };
  Split SplitAt(const Sizes& shape, std::size_t axis) const {
    Split split;
    for (std::size_t i = 0; i < shape.size(); ++i)
      (i < axis ? split.before : i == axis ? split.size : split.behind) *= ToSize(shape[i]);
    return split;
  }

  Array Gather() {
    const Array& data = In(0);
    const std::size_t axis = node_.Axis(node_.Int("axis", 0), data.shape.size());
    Sizes shape(data.shape.begin(), data.shape.begin() + ToSigned(axis));
    shape.insert(shape.end(), In(1).shape.begin(), In(1).shape.end());
    shape.insert(shape.end(), data.shape.begin() + ToSigned(axis) + 1, data.shape.end());
    const Split split = SplitAt(data.shape, axis);
    std::vector<std::size_t> order;
    CountOf(node_, shape);
    for (std::size_t b = 0; b < split.before; ++b)
      for (const std::int64_t index : Integers(1)) {
        const std::size_t at = node_.Axis(index, split.size);
        for (std::size_t e = 0; e < split.behind; ++e)
          order.push_back((b * split.size + at) * split.behind + e);
      }
    return Picked(data, shape, order);
  }

  Array Range() {
    const double start = Scalar(0), limit = Scalar(1), step = Scalar(2);
    const double count = std::max(0.0, std::ceil((limit - start) / step));
    if (!(count < static_cast<double>(kMaxGrown))) node_.Fail("makes too many values of constants");
    Array all = Made({static_cast<std::int64_t>(count)}, In(0).whole);
    for (std::size_t i = 0; i < all.values.size(); ++i)
      all.values[i] = start + static_cast<double>(i) * step;
    return all;
  }

  Array Reduce() {
    Array x = In(0);
    Sizes axes = Axes(1);
    const bool keeps = node_.Int("keepdims", 1) != 0;
    if (axes.empty() && node_.Int("noop_with_empty_axes", 0) != 0) return x;
    if (axes.empty()) {
      axes.resize(x.shape.size());
      std::iota(axes.begin(), axes.end(), 0);
    }
    Sizes shape = x.shape;
    for (const std::int64_t signed_axis : axes) {
      const std::size_t axis = node_.Axis(signed_axis, shape.size());
      const Split split = SplitAt(shape, axis);
      shape[axis] = 1;
      Array less = Made(shape, x.whole);
      for (std::size_t b = 0; b < split.before; ++b)
        for (std::size_t e = 0; e < split.behind; ++e) {
          double all = node_.Op() == "ReduceProd" ? 1 : node_.Op() == "ReduceMax" ? -kInfinity : 0;
          for (std::size_t i = 0; i < split.size; ++i) {
            const double value = x.values[(b * split.size + i) * split.behind + e];
            if (x.whole && std::isnan(value)) CheckImages(value, value);
            all = node_.Op() == "ReduceProd"  ? all * value
                  : node_.Op() == "ReduceMax" ? std::max(all, value)
                                              : all + value;
          }
          if (node_.Op() == "ReduceMean") all /= static_cast<double>(split.size);
          less.values[b * split.behind + e] = all;
        }
      x = std::move(less);
    }
    if (!keeps) {
      std::vector<bool> gone(shape.size(), false);
      for (const std::int64_t axis : axes) gone[node_.Axis(axis, shape.size())] = true;
      x.shape.clear();
      for (std::size_t i = 0; i < shape.size(); ++i)
        if (!gone[i]) x.shape.push_back(shape[i]);
    }
    return x;
  }

  Array Reshape() {
    Array x = In(0);
    const bool zero_copies = node_.Int("allowzero", 0) == 0;
    Sizes shape = Integers(1);
    std::size_t known = 1, open = shape.size();
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == 0 && zero_copies && i < x.shape.size()) shape[i] = x.shape[i];
      if (shape[i] == -1 && open == shape.size()) {
        open = i;
        shape[i] = 1;
      }
    }
    known = CountOf(node_, shape);
    if (open < shape.size() && known > 0) shape[open] = ToSigned(x.values.size() / known);
    if (CountOf(node_, shape) != x.values.size()) {
      node_.Fail(fmt::format("found shape {} for a constant of shape {}", SizesText(Integers(1)),
                             SizesText(x.shape)));
    }
    x.shape = shape;
    return x;
  }

  Array Flatten() {
    Array x = In(0);
    const std::int64_t axis = node_.Int("axis", 1), rank = ToSigned(x.shape.size());
    const std::size_t at = axis == rank ? ToSize(rank) : node_.Axis(axis, x.shape.size());
    const std::size_t behind = Block(x.shape, at);
    x.shape = {ToSigned(behind == 0 ? 0 : x.values.size() / behind), ToSigned(behind)};
    return x;
  }

  Array Shape() {
    Sizes shape = In(0).shape;
    const std::int64_t rank = ToSigned(shape.size());
    const auto bound = [&](std::int64_t at) {
      return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank);
    };
    const std::int64_t start = bound(node_.Int("start", 0)), end = bound(node_.Int("end", rank));
    Array all = Made({std::max<std::int64_t>(end - start, 0)}, true);
    for (std::size_t i = 0; i < all.values.size(); ++i)
      all.values[i] = static_cast<double>(shape[ToSize(start) + i]);
    return all;
  }

  Array Slice() {
    Array x = In(0);
    const auto integers = [&](int i) {
      return Has(ToSize(i)) ? std::optional(Integers(ToSize(i))) : std::nullopt;
    };
    for (const auto& [axis, places] : SlicedPlaces(node_, x.shape, integers)) {
      const Split split = SplitAt(x.shape, axis);
      std::vector<std::size_t> order;
      for (std::size_t b = 0; b < split.before; ++b)
        for (const std::size_t at : places)
          for (std::size_t e = 0; e < split.behind; ++e)
            order.push_back((b * split.size + at) * split.behind + e);
      Sizes shape = x.shape;
      shape[axis] = ToSigned(places.size());
      x = Picked(x, shape, order);
    }
    return x;
  }

  Array Squeeze() {
    Array x = In(0);
    const Sizes axes = Axes(1);
    std::vector<bool> gone(x.shape.size(), false);
    for (std::size_t i = 0; i < x.shape.size(); ++i) gone[i] = axes.empty() && x.shape[i] == 1;
    for (const std::int64_t axis : axes) gone[node_.Axis(axis, x.shape.size())] = true;
    Sizes shape;
    for (std::size_t i = 0; i < x.shape.size(); ++i) {
      if (!gone[i]) shape.push_back(x.shape[i]);
      if (gone[i] && x.shape[i] != 1) node_.Fail("squeezes an axis of several elements");
    }
    x.shape = shape;
    return x;
  }

  Array Unsqueeze() {
    Array x = In(0);
    x.shape = UnsqueezedShape(node_, x.shape, Axes(1));
    return x;
  }

  Array Transpose() {
    const Array& x = In(0);
    const std::size_t rank = x.shape.size();
    Sizes all(rank);
    for (std::size_t i = 0; i < rank; ++i) all[i] = ToSigned(rank - 1 - i);
    const Sizes axes = node_.Ints("perm").value_or(all);
    std::vector<std::size_t> permutation;
    Sizes shape;
    for (const std::int64_t axis : axes) {
      permutation.push_back(node_.Axis(axis, rank));
      shape.push_back(x.shape[permutation.back()]);
    }
    if (!std::is_permutation(axes.begin(), axes.end(), all.begin(), all.end()))
      node_.Fail(fmt::format("found perm {}, expected each of {} axes", SizesText(axes), rank));
    return Picked(x, shape, TransposedOrder(x.shape, permutation));
  }

  Array Where() {
    const Sizes shape = CommonShape(CommonShape(In(0).shape, In(1).shape), In(2).shape);
    const Array condition = Broadcast(node_, In(0), shape);
    const Array a = Broadcast(node_, In(1), shape), b = Broadcast(node_, In(2), shape);
    Array chosen = Made(shape, a.whole && b.whole);
    for (std::size_t i = 0; i < chosen.values.size(); ++i)
      chosen.values[i] = condition.values[i] != 0 ? a.values[i] : b.values[i];
    return chosen;
  }

  /// scale * (x >= 0 ? 1 : -1)
  Array BipolarQuant() {
    Array x = In(0);
    const Array scale = Broadcast(node_, In(1), x.shape);
    for (std::size_t i = 0; i < x.values.size(); ++i)
      x.values[i] = x.values[i] >= 0 ? scale.values[i] : -scale.values[i];
    return x;
  }

  /// QONNX's: rounded to integers of some bits, and back.
  Array Quant() {
    Array x = In(0);
    const Array scale = Broadcast(node_, In(1), x.shape), zero = Broadcast(node_, In(2), x.shape);
    const bool is_signed = node_.Int("signed", 1) != 0, narrow = node_.Int("narrow", 0) != 0;
    const std::string mode = node_.String("rounding_mode", "ROUND");
    if (mode != "ROUND" && mode != "FLOOR" && mode != "CEIL")
      node_.Fail(fmt::format("found rounding_mode {}, expected ROUND, FLOOR or CEIL", mode));
    const double steps = std::exp2(Scalar(3));
    const double low = is_signed ? -steps / 2 + (narrow ? 1 : 0) : 0;
    const double high = is_signed ? steps / 2 - 1 : steps - (narrow ? 2 : 1);
    for (std::size_t i = 0; i < x.values.size(); ++i) {
      const double level = std::clamp(x.values[i] / scale.values[i] + zero.values[i], low, high);
      const double rounded = mode == "ROUND"   ? std::nearbyint(level)
                             : mode == "FLOOR" ? std::floor(level)
                                               : std::ceil(level);
      x.values[i] = (rounded - zero.values[i]) * scale.values[i];
    }
    return x;
  }

  Array Dequantize() {
    Array x = In(0);
    const std::int64_t axis = node_.Int("axis", 1);
    const auto spread = [&](const Array& array) {
      if (array.values.size() == 1) return Broadcast(node_, {{}, array.values, false}, x.shape);
      Sizes shape(x.shape.size(), 1);
      shape[node_.Axis(axis, x.shape.size())] = ToSigned(array.values.size());
      return Broadcast(node_, {shape, array.values, false}, x.shape);
    };
    const Array scale = spread(In(1));
    const Array zero = Has(2) ? spread(In(2)) : Made(x.shape, true);
    for (std::size_t i = 0; i < x.values.size(); ++i)
      x.values[i] = (x.values[i] - zero.values[i]) * scale.values[i];
    x.whole = false;
    return x;
  }

  Node& node_;
  const Inputs& inputs_;
};

}  // namespace

bool CanFold(const Node& node) {
  return node.IsStandard() == (node.Op() != "BipolarQuant" && node.Op() != "Quant") &&
         Folder::Methods().contains(node.Op());
}

Array Fold(Node& node, const Inputs& inputs) { return Folder(node, inputs).Run(); }

std::size_t CountOf(const Node& node, const Sizes& shape) {
  std::size_t count = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || ToSize(size) >= kMaxElements || (count *= ToSize(size)) >= kMaxElements)
      node.Fail(fmt::format("found shape {}, expected fewer than {} values", SizesText(shape),
                            kMaxElements));
  }
  return count;
}

Array Broadcast(const Node& node, const Array& array, const Sizes& shape) {
  const std::size_t rank = shape.size(), missing = rank - std::min(rank, array.shape.size());
  Array all{shape, std::vector<double>(CountOf(node, shape)), array.whole};
  if (array.values.size() == 1 && array.shape.size() <= rank) {
    std::fill(all.values.begin(), all.values.end(), array.values[0]);
    return all;
  }
  std::vector<std::size_t> steps(rank, 0);  // in the array, from one element of an axis to the next
  std::size_t step = 1;
  for (std::size_t i = rank; i-- > missing;) {
    const std::int64_t size = array.shape[i - missing];
    if (array.shape.size() > rank || (size != 1 && size != shape[i]))
      node.Fail(fmt::format("found a constant of shape {}, expected one that fits {}",
                            SizesText(array.shape), SizesText(shape)));
    if (size != 1) steps[i] = step;
    step *= ToSize(size);
  }
  if (array.shape.size() > rank)
    node.Fail(fmt::format("found a constant of shape {}, expected one that fits {}",
                          SizesText(array.shape), SizesText(shape)));
  std::vector<std::size_t> position(rank, 0);
  std::size_t at = 0;
  for (double& value : all.values) {
    value = array.values[at];
    for (std::size_t i = rank; i-- > 0;) {
      at += steps[i];
      if (++position[i] < ToSize(shape[i])) break;
      at -= steps[i] * position[i];
      position[i] = 0;
    }
  }
  return all;
}

std::map<std::size_t, std::vector<std::size_t>> SlicedPlaces(
    Node& node, const Sizes& shape, const std::function<std::optional<Sizes>(int)>& integers) {
  const auto read = [&](const char* attribute, int input) {  // until operator set 9, and since then
    const auto found = node.Ints(attribute);
    return found ? found : integers(input);
  };
  const Sizes starts = read("starts", 1).value_or(Sizes{});
  const Sizes ends = read("ends", 2).value_or(Sizes{});
  Sizes axes = read("axes", 3).value_or(Sizes{});
  if (axes.empty()) {
    axes.resize(starts.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  const Sizes steps = integers(4).value_or(Sizes(starts.size(), 1));
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    node.Fail("found starts, ends, axes and steps of different lengths");
  std::map<std::size_t, std::vector<std::size_t>> places;
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const std::size_t axis = node.Axis(axes[i], shape.size());
    // A step beyond every axis is as good as any larger one, and adds up without overflow.
    constexpr auto kMost = static_cast<std::int64_t>(kMaxElements);
    const std::int64_t size = shape[axis], step = std::clamp(steps[i], -kMost, kMost);
    if (step == 0) node.Fail("found a step of 0");
    if (!places.try_emplace(axis).second) node.Fail("found an axis twice");
    const auto bound = [&](std::int64_t at) {
      const std::int64_t from_begin = at < 0 ? at + size : at;
      return step > 0 ? std::clamp<std::int64_t>(from_begin, 0, size)
                      : std::clamp<std::int64_t>(from_begin, -1, size - 1);
    };
    const std::int64_t end = bound(ends[i]);
    for (std::int64_t at = bound(starts[i]); step > 0 ? at < end : at > end; at += step)
      places[axis].push_back(ToSize(at));
  }
  return places;
}

Sizes UnsqueezedShape(const Node& node, const Sizes& shape, const Sizes& axes) {
  const std::size_t rank = shape.size() + axes.size();
  std::vector<bool> is_new(rank, false);
  for (const std::int64_t axis : axes) is_new[node.Axis(axis, rank)] = true;
  Sizes all;
  std::size_t old = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    if (!is_new[i] && old == shape.size()) node.Fail("found an axis twice");
    all.push_back(is_new[i] ? 1 : shape[old++]);
  }
  return all;
}

std::vector<std::size_t> TransposedOrder(const Sizes& shape,
                                         const std::vector<std::size_t>& permutation) {
  const std::size_t rank = shape.size();
  std::vector<std::size_t> steps(rank, 1);
  std::size_t count = 1;
  for (std::size_t i = rank; i-- > 0;) {
    steps[i] = count;
    count *= ToSize(shape[i]);
  }
  std::vector<std::size_t> order(count), position(rank, 0);
  std::size_t at = 0;
  for (std::size_t& from : order) {
    from = at;
    for (std::size_t i = rank; i-- > 0;) {
      const std::size_t axis = permutation[i];
      at += steps[axis];
      if (++position[i] < ToSize(shape[axis])) break;
      at -= steps[axis] * position[i];
      position[i] = 0;
    }
  }
  return order;
}

}  // namespace tercet::importer
