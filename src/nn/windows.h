// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "tercet/mpc/spec.h"

/// Which weights of a convolution meet the input, and which only the padding around it.
namespace tercet::nn {

/// The output positions of a linear map, sorted by the part of the kernel that lies inside the
/// input there. Without padding there is one such pattern; with it a few, at the borders. Thread
/// safe.
///
///   const WindowPatterns patterns(shape);
///   const std::vector<double> sums = patterns.Sums<double>([&](std::size_t i) { return weights[i];
///   }); double at_position = sums[patterns.Of(row * out_width + column)];
class WindowPatterns {
 public:
  explicit WindowPatterns(const mpc::LinearShape& shape)
      : depth_(shape.Depth()),
        kernel_h_(shape.kernel_h),
        kernel_w_(shape.kernel_w),
        rows_(shape.in.height, shape.kernel_h, shape.stride.h, shape.padding.top,
              shape.Out().height),
        columns_(shape.in.width, shape.kernel_w, shape.stride.w, shape.padding.left,
                 shape.Out().width) {}

  std::size_t Count() const { return rows_.distinct.size() * columns_.distinct.size(); }

  /// The pattern of a position, counted row by row within a channel.
  std::size_t Of(std::size_t position) const {
    const std::size_t width = columns_.pattern.size();
    return rows_.pattern[position / width] * columns_.distinct.size() +
           columns_.pattern[position % width];
  }

  /// For each pattern the sum of `value(i)` over the weights i of one output channel that meet the
  /// input.
  template <class T, class F>
  std::vector<T> Sums(F value) const {
    const std::size_t taps = kernel_h_ * kernel_w_;
    std::vector<T> over_channels(taps, T{0});
    for (std::size_t i = 0; i < depth_; ++i) over_channels[i % taps] += value(i);
    std::vector<T> sums;
    sums.reserve(Count());
    for (const Range& rows : rows_.distinct) {
      for (const Range& columns : columns_.distinct) {
        T sum{0};
        for (std::size_t y = rows.begin; y < rows.end; ++y)
          for (std::size_t x = columns.begin; x < columns.end; ++x)
            sum += over_channels[y * kernel_w_ + x];
        sums.push_back(sum);
      }
    }
    return sums;
  }

 private:
  /// Kernel positions [begin, end) that lie inside the input.
  struct Range {
    std::size_t begin, end;
    bool operator==(const Range&) const = default;
  };

  struct Axis {
    Axis(std::size_t in, std::size_t kernel, std::size_t stride, std::size_t padding,
         std::size_t out) {
      for (std::size_t o = 0; o < out; ++o) {
        const std::size_t first = o * stride;  // of the window, counted with the padding
        const std::size_t begin = first >= padding ? 0 : std::min(padding - first, kernel);
        const std::size_t end = padding + in <= first ? 0 : std::min(padding + in - first, kernel);
        const Range range{begin, std::max(begin, end)};
        std::size_t index = 0;
        while (index < distinct.size() && distinct[index] != range) ++index;
        if (index == distinct.size()) distinct.push_back(range);
        pattern.push_back(index);
      }
    }
    std::vector<Range> distinct;
    std::vector<std::size_t> pattern;  // index into `distinct` of each output coordinate
  };

  std::size_t depth_, kernel_h_, kernel_w_;
  Axis rows_, columns_;
};

}  // namespace tercet::nn
