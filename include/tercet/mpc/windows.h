// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "tercet/mpc/spec.h"

namespace tercet::mpc {

/// Windows over each channel of a map, with `padding` positions around it. The kernel must fit.
/// Thread safe.
///
///     Windows{in, 2, 2}.ForEach([&](std::size_t output, std::size_t member, std::size_t input) {
///       sums[output] += x[input];
///     });
struct Windows {
  Shape3 in;
  PerAxis kernel = 1, stride = 1;
  Sides padding = 0;
  /// The nearest position inside stands for one outside the map. It is a member of the window
  /// itself where the padding is smaller than the kernel.
  bool nearest = false;

  Shape3 Out() const { return Slide(in, kernel, stride, padding, in.channels); }

  /// Calls visit(output, member, input) for each member of each window that lies inside the map, or
  /// is taken from there: `output` counts the elements of Out(), `input` those of `in`, `member`
  /// the places of the window row by row. Window after window, in the order of `output` and then of
  /// `member`.
  template <class Visit>
  void ForEach(Visit visit) const {
    const Shape3 out = Out();
    std::size_t output = 0;
    for (std::size_t c = 0; c < out.channels; ++c)
      for (std::size_t oy = 0; oy < out.height; ++oy)
        for (std::size_t ox = 0; ox < out.width; ++ox, ++output)
          for (std::size_t member = 0; member < kernel.Area(); ++member) {
            // Counted with the padding.
            std::size_t row = oy * stride.h + member / kernel.w;
            std::size_t col = ox * stride.w + member % kernel.w;
            if (nearest) {
              row = std::clamp(row, padding.top, padding.top + in.height - 1);
              col = std::clamp(col, padding.left, padding.left + in.width - 1);
            } else if (row < padding.top || row >= in.height + padding.top || col < padding.left ||
                       col >= in.width + padding.left) {
              continue;
            }
            visit(output, member,
                  (c * in.height + row - padding.top) * in.width + col - padding.left);
          }
  }
};

/// Those of the max-pool that a layer has.
inline Windows PoolWindows(const ActivationSpec& spec) {
  return {spec.in, spec.pool->kernel, spec.pool->stride, spec.pool->padding, true};
}

}  // namespace tercet::mpc
