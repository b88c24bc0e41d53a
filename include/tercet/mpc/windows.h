// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "tercet/mpc/spec.h"

namespace tercet::mpc {

/// kernel x kernel windows over each channel of a map, with `padding` positions around it. The
/// kernel must fit. Thread safe.
///
///     Windows{in, 2, 2}.ForEach([&](std::size_t output, std::size_t member, std::size_t input) {
///       sums[output] += x[input];
///     });
struct Windows {
  Shape3 in;
  std::size_t kernel = 1, stride = 1, padding = 0;

  Shape3 Out() const {
    return {in.channels, (in.height + 2 * padding - kernel) / stride + 1,
            (in.width + 2 * padding - kernel) / stride + 1};
  }

  /// Calls visit(output, member, input) for each member of each window that lies inside the map:
  /// `output` counts the elements of Out(), `input` those of `in`, `member` the places of the
  /// window row by row. Window after window, in the order of `output` and then of `member`.
  template <class Visit>
  void ForEach(Visit visit) const {
    const Shape3 out = Out();
    std::size_t output = 0;
    for (std::size_t c = 0; c < out.channels; ++c)
      for (std::size_t oy = 0; oy < out.height; ++oy)
        for (std::size_t ox = 0; ox < out.width; ++ox, ++output)
          for (std::size_t member = 0; member < kernel * kernel; ++member) {
            // Counted with the padding.
            const std::size_t row = oy * stride + member / kernel;
            const std::size_t col = ox * stride + member % kernel;
            if (row < padding || row >= in.height + padding || col < padding ||
                col >= in.width + padding)
              continue;
            visit(output, member, (c * in.height + row - padding) * in.width + col - padding);
          }
  }
};

/// Those of the max-pool that a layer has.
inline Windows PoolWindows(const ActivationSpec& spec) {
  return {spec.in, spec.pool->kernel, spec.pool->stride};
}

}  // namespace tercet::mpc
