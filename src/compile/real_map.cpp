// SPDX-License-Identifier: Apache-2.0
#include "compile/real_map.h"

#include <algorithm>
#include <numeric>

#include "nn/convolve.h"
#include "tercet/base/error.h"

namespace tercet::compile {
namespace {

using mpc::LinearShape;
using mpc::Shape3;

/// Columns of a dense matrix computed at a time.
constexpr std::size_t kColumns = 32;

/// The bias as one value per output element.
std::vector<double> BiasMap(const RealMap& map) {
  if (map.shape.bias_per_element) return map.bias;
  const mpc::Shape3 out = map.shape.Out();
  const std::size_t area = out.height * out.width;
  std::vector<double> all(out.Size());
  for (std::size_t e = 0; e < all.size(); ++e) all[e] = map.bias[e / area];
  return all;
}

/// Sets the bias from one value per element; those of a channel are all alike unless the shape has
/// a bias per element.
void SetBias(RealMap& map, const std::vector<double>& all) {
  const mpc::Shape3 out = map.shape.Out();
  const std::size_t area = out.height * out.width;
  if (map.shape.bias_per_element) {
    map.bias = all;
    return;
  }
  map.bias.resize(out.channels);
  for (std::size_t c = 0; c < out.channels; ++c) map.bias[c] = all[c * area];
}

/// What a map does along the rows or the columns.
struct SlidingAxis {
  std::size_t in, out, kernel, stride, before, after;
};
SlidingAxis Rows(const LinearShape& map) {
  return {map.in.height, map.Out().height, map.kernel_h,
          map.stride.h,  map.padding.top,  map.padding.bottom};
}
SlidingAxis Columns(const LinearShape& map) {
  return {map.in.width, map.Out().width,  map.kernel_w,
          map.stride.w, map.padding.left, map.padding.right};
}

/// Whether the outputs of `first` that would lie in the second map's padding see no input, along
/// one axis. Then they are zero without bias, and padding more before the first map does the same.
bool PaddingSeesNothing(const SlidingAxis& first, const SlidingAxis& second) {
  const bool before = second.before == 0 || first.kernel <= first.stride + first.before;
  const bool after = second.after == 0 || first.out * first.stride >= first.in + first.before;
  return before && after;
}

bool MakesConvolution(const LinearShape& first, const LinearShape& second) {
  return first.Out() == second.in && PaddingSeesNothing(Rows(first), Rows(second)) &&
         PaddingSeesNothing(Columns(first), Columns(second));
}

LinearShape ConvolutionShape(const LinearShape& a, const LinearShape& b) {
  return {.in = a.in,
          .out_channels = b.out_channels,
          .kernel_h = a.kernel_h + (b.kernel_h - 1) * a.stride.h,
          .kernel_w = a.kernel_w + (b.kernel_w - 1) * a.stride.w,
          .stride = {a.stride.h * b.stride.h, a.stride.w * b.stride.w},
          .padding = {a.padding.top + a.stride.h * b.padding.top,
                      a.padding.left + a.stride.w * b.padding.left,
                      a.padding.bottom + a.stride.h * b.padding.bottom,
                      a.padding.right + a.stride.w * b.padding.right},
          .groups = std::gcd(a.groups, b.groups)};
}

/// The weights of `product`, of which the shape is there.
void ComposeConvolution(const RealMap& first, const RealMap& second, RealMap& product) {
  const LinearShape& a = first.shape;
  const LinearShape& b = second.shape;
  const LinearShape& shape = product.shape;
  product.weight.assign(shape.WeightCount(), 0.0);

  const std::size_t a_in = a.in.channels / a.groups, b_in = b.in.channels / b.groups;
  const std::size_t a_out = a.out_channels / a.groups, b_out = b.out_channels / b.groups;
  const std::size_t group_in = a.in.channels / shape.groups;
  for (std::size_t o = 0; o < b.out_channels; ++o) {
    const std::size_t first_in = o / (b.out_channels / shape.groups) * group_in;
    double* to = product.weight.data() + o * shape.Depth();
    for (std::size_t m = 0; m < b_in; ++m) {
      const std::size_t middle = o / b_out * b_in + m;
      const double* wb = second.weight.data() + o * b.Depth() + m * b.kernel_h * b.kernel_w;
      for (std::size_t i = 0; i < a_in; ++i) {
        const std::size_t in = middle / a_out * a_in + i - first_in;
        const double* wa = first.weight.data() + middle * a.Depth() + i * a.kernel_h * a.kernel_w;
        for (std::size_t by = 0; by < b.kernel_h; ++by)
          for (std::size_t bx = 0; bx < b.kernel_w; ++bx)
            for (std::size_t ay = 0; ay < a.kernel_h; ++ay)
              for (std::size_t ax = 0; ax < a.kernel_w; ++ax)
                to[(in * shape.kernel_h + by * a.stride.h + ay) * shape.kernel_w + bx * a.stride.w +
                   ax] += wb[by * b.kernel_w + bx] * wa[ay * a.kernel_w + ax];
      }
    }
  }
}

void ComposeDense(const RealMap& first, const RealMap& second, RealMap& product) {
  const std::size_t in = first.shape.in.Size(), out = second.shape.Out().Size();
  product.weight.resize(in * out);
  // What the maps make of each unit vector is a column.
  for (std::size_t done = 0; done < in; done += kColumns) {
    const std::size_t columns = std::min(kColumns, in - done);
    std::vector<double> x(in * columns);
    for (std::size_t c = 0; c < columns; ++c) x[(done + c) * columns + c] = 1;
    const std::vector<double> y =
        nn::Convolve(second.shape, second.weight, {},
                     nn::Convolve(first.shape, first.weight, {}, x, columns), columns);
    for (std::size_t o = 0; o < out; ++o)
      for (std::size_t c = 0; c < columns; ++c)
        product.weight[o * in + done + c] = y[o * columns + c];
  }
}

}  // namespace

MapShape DepthwiseShape(const mpc::Shape3& in, const mpc::PerAxis& kernel,
                        const mpc::PerAxis& stride, const mpc::Sides& padding) {
  MapShape map;
  map.shape = {.in = in,
               .out_channels = in.channels,
               .kernel_h = kernel.h,
               .kernel_w = kernel.w,
               .stride = stride,
               .padding = padding,
               .groups = in.channels};
  return map;
}

void AddToBiasShape(MapShape& map, bool uneven) {
  map.shape.bias_per_element = map.shape.bias_per_element || uneven || !map.shape.padding.None();
  map.biased = true;
}

void AddBiasShape(MapShape& map, bool per_element) {
  map.shape.bias_per_element = map.shape.bias_per_element || per_element;
  map.biased = true;
}

std::optional<MapShape> ProductShape(const MapShape& first, const MapShape& second) {
  const LinearShape& a = first.shape;
  const LinearShape& b = second.shape;
  MapShape product;
  product.biased = first.biased || second.biased;
  if (MakesConvolution(a, b)) {
    product.shape = ConvolutionShape(a, b);
    if (product.shape.WeightCount() > kMostWeights) return std::nullopt;
    const bool uneven = first.biased && (a.bias_per_element || !b.padding.None());
    product.shape.bias_per_element = uneven || b.bias_per_element;
    return product;
  }
  const std::size_t in = a.in.Size(), out = b.Out().Size();
  TERCET_CHECK(a.Out().Size() == b.in.Size(), "maps of {} and {} values do not follow each other",
               a.Out().Size(), b.in.Size());
  if (in > kMostWeights / out) return std::nullopt;
  product.shape.in = {in, 1, 1};  // dense, with one output a channel
  product.shape.out_channels = out;
  return product;
}

RealMap DepthwiseMap(const mpc::Shape3& in, const mpc::PerAxis& kernel, const mpc::PerAxis& stride,
                     const mpc::Sides& padding, double weight) {
  RealMap map{DepthwiseShape(in, kernel, stride, padding), {}, {}};
  map.weight.assign(map.shape.WeightCount(), weight);
  map.bias.assign(in.channels, 0);
  return map;
}

void ScaleChannels(RealMap& map, const std::vector<double>& factor,
                   const std::vector<double>& shift) {
  const std::size_t depth = map.shape.Depth(), each = map.bias.size() / factor.size();
  for (std::size_t c = 0; c < factor.size(); ++c) {
    for (std::size_t i = 0; i < depth; ++i) map.weight[c * depth + i] *= factor[c];
    for (std::size_t i = 0; i < each; ++i) {
      double& bias = map.bias[c * each + i];
      bias = bias * factor[c] + shift[c];
    }
  }
  AddBiasShape(map, false);
}

void AddToBias(RealMap& map, const std::vector<double>& x, bool uneven) {
  const std::vector<double> all = nn::Convolve(map.shape, map.weight, map.bias, x, 1);
  AddToBiasShape(map, uneven);
  SetBias(map, all);
}

void AddBias(RealMap& map, const std::vector<double>& bias, bool per_element) {
  if (per_element && !map.shape.bias_per_element) map.bias = BiasMap(map);
  AddBiasShape(map, per_element);
  const std::size_t each = map.bias.size() / bias.size();
  for (std::size_t i = 0; i < map.bias.size(); ++i) map.bias[i] += bias[i / each];
}

std::optional<RealMap> Compose(const RealMap& first, const RealMap& second) {
  const std::optional<MapShape> shape = ProductShape(first, second);
  if (!shape) return std::nullopt;
  RealMap product{*shape, {}, {}};
  if (MakesConvolution(first.shape, second.shape)) {
    ComposeConvolution(first, second, product);
  } else {
    ComposeDense(first, second, product);
  }
  // The second map of the first one's bias.
  SetBias(product, nn::Convolve(second.shape, second.weight, second.bias, BiasMap(first), 1));
  return product;
}

}  // namespace tercet::compile
