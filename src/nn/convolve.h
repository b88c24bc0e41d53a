// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "tercet/mpc/windows.h"

/// Layers in the clear, on activations features x batch, row-major. Sizes are the caller's
/// responsibility; all functions are thread safe.
namespace tercet::nn {

namespace convolve_internal {

template <class T>
void AddScaled(T* y, T w, const T* x, std::size_t n) {
  T* __restrict to = y;
  for (std::size_t i = 0; i < n; ++i) to[i] += w * x[i];
}

/// Four outputs that share one pass over the input.
template <class T>
void AddScaled(T* const y[4], const T w[4], const T* x, std::size_t n) {
  T* __restrict y0 = y[0];
  T* __restrict y1 = y[1];
  T* __restrict y2 = y[2];
  T* __restrict y3 = y[3];
  const T w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
  for (std::size_t i = 0; i < n; ++i) {
    const T v = x[i];
    y0[i] += w0 * v;
    y1[i] += w1 * v;
    y2[i] += w2 * v;
    y3[i] += w3 * v;
  }
}

/// Adds the products of one row of the outputs of kChannels channels from `channel` on to z.
template <std::size_t kChannels, class T>
void AddRow(const mpc::LinearShape& shape, const std::vector<T>& weight, const std::vector<T>& x,
            std::size_t batch, std::size_t channel, std::size_t row, std::vector<T>& z) {
  const mpc::Shape3 out = shape.Out();
  const std::size_t depth = shape.Depth();
  const std::size_t group = channel / (shape.out_channels / shape.groups);
  const std::size_t first_in = group * (shape.in.channels / shape.groups);
  for (std::size_t tap = 0; tap < depth; ++tap) {
    const std::size_t kx = tap % shape.kernel_w;
    const std::size_t ky = tap / shape.kernel_w % shape.kernel_h;
    const std::size_t stride = shape.stride.w, left = shape.padding.left, top = shape.padding.top;
    const std::size_t in_row = row * shape.stride.h + ky;  // counted with the padding
    const std::size_t right = left + shape.in.width;
    if (in_row < top || in_row >= top + shape.in.height || kx >= right) continue;
    // The outputs [begin, end) of the row for which this tap lies inside the input.
    const std::size_t begin = kx >= left ? 0 : (left - kx + stride - 1) / stride;
    const std::size_t end = std::min(out.width, (right - kx + stride - 1) / stride);
    if (begin >= end) continue;

    const std::size_t in_channel = first_in + tap / (shape.kernel_w * shape.kernel_h);
    const T* from = x.data() + ((in_channel * shape.in.height + in_row - top) * shape.in.width +
                                begin * stride + kx - left) *
                                   batch;
    T w[kChannels];
    T* y[kChannels];
    for (std::size_t j = 0; j < kChannels; ++j) {
      w[j] = weight[(channel + j) * depth + tap];
      y[j] = z.data() + (((channel + j) * out.height + row) * out.width + begin) * batch;
    }
    const bool dense = stride == 1;
    const std::size_t pieces = dense ? 1 : end - begin;
    const std::size_t length = dense ? (end - begin) * batch : batch;
    for (std::size_t piece = 0; piece < pieces; ++piece, from += stride * batch) {
      if constexpr (kChannels == 1) {
        AddScaled(y[0], w[0], from, length);
      } else {
        AddScaled(y, w, from, length);
      }
      for (T*& to : y) to += batch;
    }
  }
}

}  // namespace convolve_internal

/// W x + b. Starts from the bias and adds the products one by one, so it is exact for integers
/// whose partial sums the type holds. `bias` may be empty (zero). A batch of some tens keeps a row
/// of the output in the cache.
template <class T>
std::vector<T> Convolve(const mpc::LinearShape& shape, const std::vector<T>& weight,
                        const std::vector<T>& bias, const std::vector<T>& x, std::size_t batch) {
  using convolve_internal::AddRow;
  const mpc::Shape3 out = shape.Out();
  const std::size_t area = out.height * out.width;
  const std::size_t group_out = shape.out_channels / shape.groups;
  std::vector<T> z(out.Size() * batch);
  if (!bias.empty()) {
    for (std::size_t e = 0; e < out.Size(); ++e)
      std::fill_n(z.data() + e * batch, batch, bias[shape.bias_per_element ? e : e / area]);
  }
  for (std::size_t channel = 0; channel < shape.out_channels;) {
    const bool four = group_out - channel % group_out >= 4;
    for (std::size_t row = 0; row < out.height; ++row) {
      if (four) {
        AddRow<4>(shape, weight, x, batch, channel, row, z);
      } else {
        AddRow<1>(shape, weight, x, batch, channel, row, z);
      }
    }
    channel += four ? 4 : 1;
  }
  return z;
}

/// What a convolution with the number `around` around its map adds to one with zeros there, and its
/// bias: a value for each element. `bias` has one for each channel.
inline std::vector<double> BiasWithPadding(mpc::LinearShape shape,
                                           const std::vector<double>& weight,
                                           const std::vector<double>& bias, double around) {
  shape.bias_per_element = false;
  // All weights meet the number, but for those that meet the map.
  std::vector<double> inside =
      Convolve(shape, weight, {}, std::vector<double>(shape.in.Size(), 1), 1);
  const mpc::Shape3 out = shape.Out();
  const std::size_t area = out.height * out.width, depth = shape.Depth();
  for (std::size_t c = 0; c < out.channels; ++c) {
    double sum = 0;
    for (std::size_t i = 0; i < depth; ++i) sum += weight[c * depth + i];
    for (std::size_t e = c * area; e < (c + 1) * area; ++e)
      inside[e] = bias[c] + around * (sum - inside[e]);
  }
  return inside;
}

/// Folds each window of a max-pool with `combine(T, T)`, in row order.
template <class T, class F>
std::vector<T> Pool(const mpc::Shape3& in, const mpc::PoolShape& pool, const std::vector<T>& x,
                    std::size_t batch, F combine) {
  const mpc::Windows windows{in, pool.kernel, pool.stride, pool.padding, true};
  std::vector<T> y(windows.Out().Size() * batch);
  windows.ForEach([&](std::size_t output, std::size_t member, std::size_t input) {
    T* to = y.data() + output * batch;
    const T* from = x.data() + input * batch;
    for (std::size_t b = 0; b < batch; ++b) to[b] = member == 0 ? from[b] : combine(to[b], from[b]);
  });
  return y;
}

}  // namespace tercet::nn
