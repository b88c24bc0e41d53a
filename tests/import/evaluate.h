// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

/// ONNX's operators as their specification has them, one number after the other in doubles and
/// without anything of the importer.
namespace tercet::reference {

using Dims = std::vector<std::int64_t>;

struct Tensor {
  Dims dims;
  std::vector<double> values;
};

inline std::int64_t Count(const Dims& dims) {
  std::int64_t count = 1;
  for (const std::int64_t dim : dims) count *= dim;
  return count;
}

/// Calls f with each index of a tensor, in order.
inline void ForEach(const Dims& dims, const std::function<void(const Dims&)>& f) {
  Dims index(dims.size(), 0);
  for (std::int64_t i = 0; i < Count(dims); ++i) {
    f(index);
    for (std::size_t a = dims.size(); a-- > 0;) {
      if (++index[a] < dims[a]) break;
      index[a] = 0;
    }
  }
}

inline std::size_t Offset(const Dims& dims, const Dims& index) {
  std::int64_t offset = 0;
  for (std::size_t a = 0; a < dims.size(); ++a) offset = offset * dims[a] + index[a];
  return static_cast<std::size_t>(offset);
}

/// The element that broadcasting has at an index of a tensor of as many axes or more.
inline double At(const Tensor& t, const Dims& index) {
  Dims own(t.dims.size());
  for (std::size_t a = 0; a < own.size(); ++a)
    own[a] = t.dims[a] == 1 ? 0 : index[index.size() - own.size() + a];
  return t.values.at(Offset(t.dims, own));
}

inline Dims CommonDims(const Dims& a, const Dims& b) {
  Dims common(std::max(a.size(), b.size()), 1);
  for (const Dims* dims : {&a, &b})
    for (std::size_t i = 0; i < dims->size(); ++i) {
      std::int64_t& size = common[common.size() - dims->size() + i];
      if ((*dims)[i] != 1) size = (*dims)[i];
    }
  return common;
}

class Evaluator {
 public:
  explicit Evaluator(const onnx::GraphProto& graph) : graph_(graph) {}

  Tensor Run(const std::string& input, const Tensor& x) {
    for (const auto& tensor : graph_.initializer()) tensors_[tensor.name()] = Read(tensor);
    tensors_[input] = x;
    for (const auto& node : graph_.node()) Compute(node);
    return tensors_.at(graph_.output(0).name());
  }

 private:
  static Tensor Read(const onnx::TensorProto& proto) {
    Tensor t{{proto.dims().begin(), proto.dims().end()}, {}};
    t.values.assign(proto.float_data().begin(), proto.float_data().end());
    t.values.insert(t.values.end(), proto.double_data().begin(), proto.double_data().end());
    t.values.insert(t.values.end(), proto.int64_data().begin(), proto.int64_data().end());
    return t;
  }

  static const onnx::AttributeProto* Find(const onnx::NodeProto& node, const std::string& name) {
    for (const auto& attribute : node.attribute())
      if (attribute.name() == name) return &attribute;
    return nullptr;
  }
  static std::int64_t Int(const onnx::NodeProto& node, const std::string& name,
                          std::int64_t otherwise) {
    const auto* attribute = Find(node, name);
    return attribute == nullptr ? otherwise : attribute->i();
  }
  static double Float(const onnx::NodeProto& node, const std::string& name, double otherwise) {
    const auto* attribute = Find(node, name);
    return attribute == nullptr ? otherwise : attribute->f();
  }
  static Dims Ints(const onnx::NodeProto& node, const std::string& name, const Dims& otherwise) {
    const auto* attribute = Find(node, name);
    if (attribute == nullptr) return otherwise;
    return {attribute->ints().begin(), attribute->ints().end()};
  }

  bool Has(const onnx::NodeProto& node, int i) const {
    return i < node.input_size() && !node.input(i).empty();
  }
  const Tensor& In(const onnx::NodeProto& node, int i) const { return tensors_.at(node.input(i)); }
  // Tensors hold doubles, in which the largest integers are 2^63: those stand for what is largest.
  Dims Integers(const onnx::NodeProto& node, int i) const {
    constexpr double kBeyond = 9223372036854775808.0;
    Dims integers;
    for (const double v : In(node, i).values)
      integers.push_back(v >= kBeyond    ? std::numeric_limits<std::int64_t>::max()
                         : v <= -kBeyond ? std::numeric_limits<std::int64_t>::min()
                                         : static_cast<std::int64_t>(v));
    return integers;
  }
  Dims Axes(const onnx::NodeProto& node, int input) const {
    return Has(node, input) ? Integers(node, input) : Ints(node, "axes", {});
  }

  template <class F>
  static Tensor Make(const Dims& dims, F value) {
    Tensor t{dims, {}};
    ForEach(dims, [&](const Dims& index) { t.values.push_back(value(index)); });
    return t;
  }

  void Compute(const onnx::NodeProto& node) {
    const std::string& op = node.op_type();
    Tensor& out = tensors_[node.output(0)];
    static const std::map<std::string, double (*)(double)> unary = {
        {"Abs", [](double x) { return std::abs(x); }},
        {"Cast", [](double x) { return x; }},
        {"Identity", [](double x) { return x; }},
        {"Dropout", [](double x) { return x; }},
        {"Elu", [](double x) { return x > 0 ? x : std::exp(x) - 1; }},
        {"Celu", [](double x) { return x > 0 ? x : std::exp(x) - 1; }},
        {"Erf", [](double x) { return std::erf(x); }},
        {"Gelu", [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
        {"HardSwish", [](double x) { return x * std::max(0.0, std::min(1.0, (x + 3) / 6)); }},
        {"Mish", [](double x) { return x * std::tanh(std::log(1 + std::exp(x))); }},
        {"Selu", [](double x) { return 1.0507010 * (x > 0 ? x : 1.6732632 * (std::exp(x) - 1)); }},
        {"Softplus", [](double x) { return std::log(1 + std::exp(x)); }},
        {"Neg", [](double x) { return -x; }},
        {"Not", [](double x) { return x == 0 ? 1.0 : 0.0; }},
        {"Relu", [](double x) { return std::max(x, 0.0); }},
        {"Sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }},
        {"Sign", [](double x) { return x > 0   ? 1.0
                                       : x < 0 ? -1.0
                                               : 0.0; }},
        {"Sqrt", [](double x) { return std::sqrt(x); }},
        {"Tanh", [](double x) { return std::tanh(x); }}};
    static const std::map<std::string, double (*)(double, double)> binary = {
        {"Add", [](double a, double b) { return a + b; }},
        {"Div", [](double a, double b) { return a / b; }},
        {"Greater", [](double a, double b) { return a > b ? 1.0 : 0.0; }},
        {"GreaterOrEqual", [](double a, double b) { return a >= b ? 1.0 : 0.0; }},
        {"Less", [](double a, double b) { return a < b ? 1.0 : 0.0; }},
        {"LessOrEqual", [](double a, double b) { return a <= b ? 1.0 : 0.0; }},
        {"Max", [](double a, double b) { return std::max(a, b); }},
        {"Min", [](double a, double b) { return std::min(a, b); }},
        {"Mul", [](double a, double b) { return a * b; }},
        {"Pow", [](double a, double b) { return std::pow(a, b); }},
        {"Sub", [](double a, double b) { return a - b; }}};
    if (const auto f = unary.find(op); f != unary.end()) {
      const Tensor& x = In(node, 0);
      out = Make(x.dims, [&](const Dims& index) { return f->second(At(x, index)); });
    } else if (const auto g = binary.find(op); g != binary.end()) {
      const Tensor &a = In(node, 0), &b = In(node, 1);
      out = Make(CommonDims(a.dims, b.dims),
                 [&](const Dims& index) { return g->second(At(a, index), At(b, index)); });
    } else if (op == "Sum") {
      out = In(node, 0);
      for (int k = 1; k < node.input_size(); ++k) {
        const Tensor a = out;
        const Tensor& b = In(node, k);
        out = Make(CommonDims(a.dims, b.dims), [&](const Dims& i) { return At(a, i) + At(b, i); });
      }
    } else if (op == "Where") {
      const Tensor &c = In(node, 0), &a = In(node, 1), &b = In(node, 2);
      out = Make(CommonDims(CommonDims(a.dims, b.dims), c.dims), [&](const Dims& index) {
        return At(c, index) != 0 ? At(a, index) : At(b, index);
      });
    } else if (op == "Constant") {
      Constant(node, out);
    } else if (op == "ConstantOfShape") {
      const double value = Read(Find(node, "value")->t()).values[0];
      out = Make(Integers(node, 0), [&](const Dims&) { return value; });
    } else if (op == "Expand") {
      const Tensor& x = In(node, 0);
      out = Make(CommonDims(x.dims, Integers(node, 1)), [&](const Dims& i) { return At(x, i); });
    } else if (op == "Clip") {
      const double low = Has(node, 1) ? In(node, 1).values[0] : Float(node, "min", -1e30);
      const double high = Has(node, 2) ? In(node, 2).values[0] : Float(node, "max", 1e30);
      const Tensor& x = In(node, 0);
      out = Make(x.dims, [&](const Dims& i) { return std::min(std::max(At(x, i), low), high); });
    } else if (op == "HardSigmoid") {
      const double alpha = Float(node, "alpha", 0.2), beta = Float(node, "beta", 0.5);
      const Tensor& x = In(node, 0);
      out = Make(x.dims, [&](const Dims& i) {
        return std::max(0.0, std::min(1.0, alpha * At(x, i) + beta));
      });
    } else if (op == "LeakyRelu" || op == "PRelu") {
      const Tensor& x = In(node, 0);
      out = Make(x.dims, [&](const Dims& i) {
        const double slope = op == "PRelu" ? At(In(node, 1), i) : Float(node, "alpha", 0.01);
        return At(x, i) < 0 ? slope * At(x, i) : At(x, i);
      });
    } else if (op == "BipolarQuant") {
      const Tensor &x = In(node, 0), &scale = In(node, 1);
      out =
          Make(x.dims, [&](const Dims& i) { return At(x, i) >= 0 ? At(scale, i) : -At(scale, i); });
    } else if (op == "MultiThreshold") {
      const Tensor &x = In(node, 0), &t = In(node, 1);
      out = Make(x.dims, [&](const Dims& i) {
        double sum = 0;
        for (std::int64_t k = 0; k < t.dims[1]; ++k)
          sum += At(x, i) >= t.values[Offset(t.dims, {t.dims[0] == 1 ? 0 : i[1], k})] ? 1 : 0;
        return Float(node, "out_scale", 1) * sum + Float(node, "out_bias", 0);
      });
    } else if (op == "Quant") {
      const Tensor &x = In(node, 0), &scale = In(node, 1), &zero = In(node, 2);
      const double levels = std::pow(2, In(node, 3).values[0]);
      const bool is_signed = Int(node, "signed", 1) != 0, narrow = Int(node, "narrow", 0) != 0;
      const double low = is_signed ? -levels / 2 + (narrow ? 1 : 0) : 0;
      const double high = is_signed ? levels / 2 - 1 : levels - (narrow ? 2 : 1);
      const auto* attribute = Find(node, "rounding_mode");
      const std::string mode = attribute == nullptr ? "ROUND" : attribute->s();
      out = Make(x.dims, [&](const Dims& i) {
        const double level = At(x, i) / At(scale, i) + At(zero, i);
        const double rounded = mode == "ROUND"   ? std::nearbyint(level)
                               : mode == "FLOOR" ? std::floor(level)
                                                 : std::ceil(level);
        return (std::min(std::max(rounded, low), high) - At(zero, i)) * At(scale, i);
      });
    } else if (op == "Concat") {
      const auto axis = static_cast<std::size_t>(Int(node, "axis", 0));
      Dims dims = In(node, 0).dims;
      for (int k = 1; k < node.input_size(); ++k) dims[axis] += In(node, k).dims[axis];
      out = Make(dims, [&](Dims i) {
        int k = 0;
        for (; i[axis] >= In(node, k).dims[axis]; ++k) i[axis] -= In(node, k).dims[axis];
        return In(node, k).values[Offset(In(node, k).dims, i)];
      });
    } else if (op == "BatchNormalization") {
      const Tensor& x = In(node, 0);
      const double eps = Float(node, "epsilon", 1e-5);
      out = Make(x.dims, [&](const Dims& i) {
        const auto c = static_cast<std::size_t>(i[1]);
        return In(node, 1).values[c] * (At(x, i) - In(node, 3).values[c]) /
                   std::sqrt(In(node, 4).values[c] + eps) +
               In(node, 2).values[c];
      });
    } else if (op == "Conv" || op == "MaxPool" || op == "AveragePool") {
      Slide(node, out);
    } else if (op.starts_with("Global") || op.starts_with("Reduce")) {
      Reduce(node, out);
    } else if (op == "MatMul" || op == "Gemm") {
      Multiply(node, out);
    } else if (op == "Pad") {
      Pad(node, out);
    } else {
      Reshape(node, out);
    }
  }

  static void Constant(const onnx::NodeProto& node, Tensor& out) {
    if (const auto* value = Find(node, "value")) {
      out = Read(value->t());
    } else if (const auto* floats = Find(node, "value_floats")) {
      out = {{floats->floats_size()}, {floats->floats().begin(), floats->floats().end()}};
    } else if (const auto* ints = Find(node, "value_ints")) {
      out = {{ints->ints_size()}, {ints->ints().begin(), ints->ints().end()}};
    } else if (const auto* integer = Find(node, "value_int")) {
      out = {{}, {static_cast<double>(integer->i())}};
    } else {
      out = {{}, {Find(node, "value_float")->f()}};
    }
  }

  void Slide(const onnx::NodeProto& node, Tensor& out) const {
    const Tensor& x = In(node, 0);
    const std::string& op = node.op_type();
    const std::size_t axes = x.dims.size() - 2;
    Dims kernel = Ints(node, "kernel_shape", {});
    if (op == "Conv") kernel = {In(node, 1).dims.begin() + 2, In(node, 1).dims.end()};
    const Dims strides = Ints(node, "strides", Dims(axes, 1));
    const Dims dilations = Ints(node, "dilations", Dims(axes, 1));
    Dims pads = Ints(node, "pads", Dims(2 * axes, 0));
    const auto* automatic = Find(node, "auto_pad");
    const std::int64_t groups = Int(node, "group", 1), ceils = Int(node, "ceil_mode", 0);
    Dims dims = {x.dims[0], op == "Conv" ? In(node, 1).dims[0] : x.dims[1]};
    for (std::size_t a = 0; a < axes; ++a) {
      const std::int64_t in = x.dims[a + 2], reach = (kernel[a] - 1) * dilations[a] + 1;
      if (automatic != nullptr && automatic->s().starts_with("SAME")) {
        const std::int64_t size = (in + strides[a] - 1) / strides[a];
        const std::int64_t all = std::max<std::int64_t>((size - 1) * strides[a] + reach - in, 0);
        pads[a] = automatic->s() == "SAME_UPPER" ? all / 2 : all - all / 2;
        pads[axes + a] = all - pads[a];
      }
      const std::int64_t free = in + pads[a] + pads[axes + a] - reach;
      std::int64_t size = free / strides[a] + 1;
      if (ceils != 0 && free % strides[a] != 0 && size * strides[a] < in + pads[a]) ++size;
      dims.push_back(size);
    }
    out = Make(dims, [&](const Dims& index) {
      double sum = 0, most = -std::numeric_limits<double>::infinity();
      std::int64_t members = 0;
      const std::int64_t depth = op == "Conv" ? In(node, 1).dims[1] : 1;
      const std::int64_t first = op == "Conv" ? index[1] / (dims[1] / groups) * depth : index[1];
      ForEach(kernel, [&](const Dims& k) {
        Dims at = index;
        bool inside = true;
        for (std::size_t a = 0; a < axes; ++a) {
          at[a + 2] = index[a + 2] * strides[a] + k[a] * dilations[a] - pads[a];
          inside = inside && at[a + 2] >= 0 && at[a + 2] < x.dims[a + 2];
        }
        if (!inside) return;
        ++members;
        for (std::int64_t c = 0; c < depth; ++c) {
          at[1] = first + c;
          double value = x.values[Offset(x.dims, at)];
          most = std::max(most, value);
          if (op == "Conv") {
            Dims w = {index[1], c};
            w.insert(w.end(), k.begin(), k.end());
            value *= In(node, 1).values[Offset(In(node, 1).dims, w)];
          }
          sum += value;
        }
      });
      if (op == "MaxPool") return most;
      if (op == "AveragePool")
        return sum / static_cast<double>(Int(node, "count_include_pad", 0) != 0 ? Count(kernel)
                                                                                : members);
      return sum + (Has(node, 2) ? In(node, 2).values[static_cast<std::size_t>(index[1])] : 0);
    });
  }

  void Reduce(const onnx::NodeProto& node, Tensor& out) const {
    const Tensor& x = In(node, 0);
    const std::string& op = node.op_type();
    const auto rank = static_cast<std::int64_t>(x.dims.size());
    Dims axes = op.starts_with("Reduce") ? Axes(node, 1) : Dims{};
    if (op.starts_with("Global"))
      for (std::int64_t a = 2; a < rank; ++a) axes.push_back(a);
    if (axes.empty())
      for (std::int64_t a = 0; a < rank; ++a) axes.push_back(a);
    Dims all = x.dims;
    std::int64_t members = 1;
    for (std::int64_t& axis : axes) {
      if (axis < 0) axis += rank;
      all[static_cast<std::size_t>(axis)] = 1;
      members *= x.dims[static_cast<std::size_t>(axis)];
    }
    const bool max = op.ends_with("Max") || op.ends_with("MaxPool");
    Tensor reduced = Make(all, [&](const Dims&) { return max ? -1e300 : 0.0; });
    ForEach(x.dims, [&](const Dims& index) {
      Dims to = index;
      for (const std::int64_t axis : axes) to[static_cast<std::size_t>(axis)] = 0;
      double& value = reduced.values[Offset(all, to)];
      const double member = x.values[Offset(x.dims, index)];
      value = max ? std::max(value, member) : value + member;
    });
    if (op.find("Mean") != std::string::npos || op == "GlobalAveragePool")
      for (double& value : reduced.values) value /= static_cast<double>(members);
    if (op.starts_with("Reduce") && Int(node, "keepdims", 1) == 0) {
      reduced.dims.clear();
      for (std::int64_t a = 0; a < rank; ++a)
        if (std::find(axes.begin(), axes.end(), a) == axes.end())
          reduced.dims.push_back(x.dims[static_cast<std::size_t>(a)]);
    }
    out = std::move(reduced);
  }

  static Tensor Transposed(const Tensor& x, const Dims& perm) {
    Dims dims;
    for (const std::int64_t axis : perm) dims.push_back(x.dims[static_cast<std::size_t>(axis)]);
    return Make(dims, [&](const Dims& index) {
      Dims from(index.size());
      for (std::size_t a = 0; a < perm.size(); ++a)
        from[static_cast<std::size_t>(perm[a])] = index[a];
      return x.values[Offset(x.dims, from)];
    });
  }

  void Multiply(const onnx::NodeProto& node, Tensor& out) const {
    Tensor a = In(node, 0), b = In(node, 1);
    if (Int(node, "transA", 0) != 0) a = Transposed(a, {1, 0});
    if (Int(node, "transB", 0) != 0) b = Transposed(b, {1, 0});
    const std::size_t a_rank = a.dims.size(), b_rank = b.dims.size();
    const Dims batch =
        CommonDims({a.dims.begin(), a.dims.end() - 2}, {b.dims.begin(), b.dims.end() - 2});
    Dims dims = batch;
    dims.push_back(a.dims[a_rank - 2]);
    dims.push_back(b.dims[b_rank - 1]);
    out = Make(dims, [&](const Dims& index) {
      double sum = 0;
      for (std::int64_t k = 0; k < a.dims[a_rank - 1]; ++k) {
        Dims ai = index, bi = index;
        ai.back() = k;
        bi[bi.size() - 2] = k;
        sum += At(a, ai) * At(b, bi);
      }
      sum *= Float(node, "alpha", 1);
      if (node.op_type() == "Gemm" && Has(node, 2))
        sum += Float(node, "beta", 1) * At(In(node, 2), index);
      return sum;
    });
  }

  void Pad(const onnx::NodeProto& node, Tensor& out) const {
    const Tensor& x = In(node, 0);
    const Dims pads = Has(node, 1) ? Integers(node, 1) : Ints(node, "pads", {});
    const double value = Has(node, 2) ? In(node, 2).values[0] : Float(node, "value", 0);
    Dims dims = x.dims;
    for (std::size_t a = 0; a < dims.size(); ++a) dims[a] += pads[a] + pads[dims.size() + a];
    out = Make(dims, [&](const Dims& index) {
      Dims at = index;
      for (std::size_t a = 0; a < at.size(); ++a) {
        at[a] -= pads[a];
        if (at[a] < 0 || at[a] >= x.dims[a]) return value;
      }
      return x.values[Offset(x.dims, at)];
    });
  }

  /// What gives the same numbers in another shape or order, and sizes.
  void Reshape(const onnx::NodeProto& node, Tensor& out) {
    const std::string& op = node.op_type();
    const Tensor& x = In(node, 0);
    out = x;
    const auto rank = static_cast<std::int64_t>(x.dims.size());
    if (op == "Flatten") {
      const std::int64_t axis = Int(node, "axis", 1);
      const std::int64_t first =
          Count({x.dims.begin(), x.dims.begin() + (axis < 0 ? axis + rank : axis)});
      out.dims = {first, Count(x.dims) / first};
    } else if (op == "Reshape") {
      out.dims = Integers(node, 1);
      for (std::size_t a = 0; a < out.dims.size(); ++a)
        if (out.dims[a] == 0) out.dims[a] = x.dims[a];
      const std::int64_t known = Count(out.dims);
      for (std::int64_t& dim : out.dims)
        if (dim == -1) dim = Count(x.dims) / -known;
    } else if (op == "Squeeze" || op == "Unsqueeze") {
      Dims axes = Axes(node, 1);
      const bool less = op == "Squeeze";
      for (std::int64_t& axis : axes)
        if (axis < 0) axis += rank + (less ? 0 : static_cast<std::int64_t>(axes.size()));
      std::sort(axes.begin(), axes.end());
      if (less) std::reverse(axes.begin(), axes.end());
      for (const std::int64_t axis : axes) {
        if (less) {
          out.dims.erase(out.dims.begin() + axis);
        } else {
          out.dims.insert(out.dims.begin() + axis, 1);
        }
      }
    } else if (op == "Transpose") {
      Dims perm;
      for (std::int64_t a = rank; a-- > 0;) perm.push_back(a);
      out = Transposed(x, Ints(node, "perm", perm));
    } else if (op == "Shape") {
      out = {{rank}, {x.dims.begin(), x.dims.end()}};
    } else if (op == "Gather") {
      const Tensor& indices = In(node, 1);
      const auto axis = static_cast<std::ptrdiff_t>(Int(node, "axis", 0));
      const auto behind = axis + static_cast<std::ptrdiff_t>(indices.dims.size());
      Dims dims = x.dims;
      dims.erase(dims.begin() + axis);
      dims.insert(dims.begin() + axis, indices.dims.begin(), indices.dims.end());
      out = Make(dims, [&](const Dims& index) {
        const auto i =
            static_cast<std::int64_t>(At(indices, {index.begin() + axis, index.begin() + behind}));
        Dims from(index.begin(), index.begin() + axis);
        from.push_back(i < 0 ? i + x.dims[static_cast<std::size_t>(axis)] : i);
        from.insert(from.end(), index.begin() + behind, index.end());
        return x.values.at(Offset(x.dims, from));
      });
    } else if (op == "Slice") {
      const Dims starts = Integers(node, 1), ends = Integers(node, 2), axes = Axes(node, 3);
      const Dims steps = Has(node, 4) ? Integers(node, 4) : Dims(starts.size(), 1);
      Dims first(x.dims.size(), 0), step(x.dims.size(), 1);
      for (std::size_t i = 0; i < starts.size(); ++i) {
        const auto a = static_cast<std::size_t>(axes[i]);
        const std::int64_t size = x.dims[a], end = ends[i] < 0 ? ends[i] + size : ends[i];
        first[a] = std::min(starts[i] < 0 ? starts[i] + size : starts[i], size - 1);
        step[a] = steps[i];
        const std::int64_t reach = step[a] > 0 ? std::min(end, size) - first[a]
                                               : first[a] - std::max(end, std::int64_t{-1});
        out.dims[a] = (reach - 1) / std::abs(step[a]) + 1;
      }
      out = Make(out.dims, [&](Dims index) {
        for (std::size_t a = 0; a < index.size(); ++a) index[a] = first[a] + index[a] * step[a];
        return x.values.at(Offset(x.dims, index));
      });
    } else if (op == "Split") {
      const auto axis = static_cast<std::size_t>(Int(node, "axis", 0));
      const std::int64_t count = node.output_size(), size = (x.dims[axis] + count - 1) / count;
      std::int64_t begin = 0;
      for (int o = 0; o < node.output_size(); ++o) {
        Dims dims = x.dims;
        dims[axis] = Has(node, 1) ? Integers(node, 1)[static_cast<std::size_t>(o)]
                                  : std::min(size, x.dims[axis] - begin);
        tensors_[node.output(o)] = Make(dims, [&](Dims index) {
          index[axis] += begin;
          return x.values.at(Offset(x.dims, index));
        });
        begin += dims[axis];
      }
    } else if (op == "Concat") {
      // Of vectors alone.
      for (int i = 1; i < node.input_size(); ++i)
        out.values.insert(out.values.end(), In(node, i).values.begin(), In(node, i).values.end());
      out.dims = {static_cast<std::int64_t>(out.values.size())};
    } else {
      throw std::logic_error("the reference has no " + op);
    }
  }

  const onnx::GraphProto& graph_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace tercet::reference
