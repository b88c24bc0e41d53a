// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "tercet/files/data_options.h"
#include "tercet/mpc/spec.h"

namespace tercet::files {

/// Where the values of images stand in a file, counted in values.
struct Arrangement {
  mpc::Shape3 shape;  ///< of one image as the network takes it
  std::size_t image = 0, channel = 0, row = 0, column = 0;  ///< steps to the next

  bool IsAsWanted() const {
    return column == 1 && row == shape.width && channel == shape.height * shape.width &&
           image == shape.Size();
  }
};

/// That of an array of dimensions `sizes` behind the images' own, with these steps.
inline Arrangement Arrange(const std::array<std::size_t, 3>& sizes, std::size_t image_step,
                           const std::array<std::size_t, 3>& steps, Layout layout, bool transpose) {
  Arrangement a{{sizes[0], sizes[1], sizes[2]}, image_step, steps[0], steps[1], steps[2]};
  if (layout == Layout::kNhwc)
    a = {{sizes[2], sizes[0], sizes[1]}, image_step, steps[2], steps[0], steps[1]};
  if (transpose) {
    std::swap(a.shape.height, a.shape.width);
    std::swap(a.row, a.column);
  }
  return a;
}

/// That of images one after the other, the last dimension's values side by side.
inline Arrangement Arrange(const std::array<std::size_t, 3>& sizes, Layout layout, bool transpose) {
  return Arrange(sizes, sizes[0] * sizes[1] * sizes[2], {sizes[1] * sizes[2], sizes[2], 1}, layout,
                 transpose);
}

/// That of rows of values that are images of `shape` once they are arranged.
inline Arrangement ArrangeRows(mpc::Shape3 shape, Layout layout, bool transpose) {
  if (transpose) std::swap(shape.height, shape.width);
  const std::array<std::size_t, 3> sizes =
      layout == Layout::kNhwc ? std::array{shape.height, shape.width, shape.channels}
                              : std::array{shape.channels, shape.height, shape.width};
  return Arrange(sizes, layout, transpose);
}

/// `count` images in the order that the network takes, value by value from `pixel_at`, which is
/// given the value's place in the file, the image's number and the value's number in it.
template <class F>
std::vector<std::uint8_t> Arranged(const Arrangement& a, std::size_t count, F&& pixel_at) {
  std::vector<std::uint8_t> pixels;
  pixels.reserve(count * a.shape.Size());
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t value = 0;
    for (std::size_t c = 0; c < a.shape.channels; ++c)
      for (std::size_t y = 0; y < a.shape.height; ++y)
        for (std::size_t x = 0; x < a.shape.width; ++x)
          pixels.push_back(
              pixel_at(i * a.image + c * a.channel + y * a.row + x * a.column, i, value++));
  }
  return pixels;
}

}  // namespace tercet::files
