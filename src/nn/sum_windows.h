// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "tercet/nn/integer_network.h"

namespace tercet::nn {

/// The sums of SumPool, of values or of shares (words wrap as the ring does). `x` is in.Size() rows
/// of `batch`, `y` takes pool.Out(in).Size() rows. Thread safe.
template <class T>
void SumWindows(const mpc::Shape3& in, const SumPool& pool, const T* x, std::size_t batch, T* y) {
  const mpc::Shape3 out = pool.Out(in);
  for (std::size_t c = 0; c < out.channels; ++c)
    for (std::size_t oy = 0; oy < out.height; ++oy)
      for (std::size_t ox = 0; ox < out.width; ++ox, y += batch) {
        std::fill_n(y, batch, T{0});
        for (std::size_t ky = 0; ky < pool.kernel; ++ky)
          for (std::size_t kx = 0; kx < pool.kernel; ++kx) {
            // Counted with the padding.
            const std::size_t row = oy * pool.stride + ky, col = ox * pool.stride + kx;
            if (row < pool.padding || row >= in.height + pool.padding || col < pool.padding ||
                col >= in.width + pool.padding)
              continue;
            const T* from =
                x + ((c * in.height + row - pool.padding) * in.width + col - pool.padding) * batch;
            for (std::size_t b = 0; b < batch; ++b) y[b] = static_cast<T>(y[b] + from[b]);
          }
      }
}

}  // namespace tercet::nn
