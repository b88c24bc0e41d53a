// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "tercet/mpc/windows.h"
#include "tercet/nn/integer_network.h"

namespace tercet::nn {

/// The sums of SumPool, of values or of shares (words wrap as the ring does). `x` is in.Size() rows
/// of `batch`, `y` takes pool.Out(in).Size() rows. Thread safe.
template <class T>
void SumWindows(const mpc::Shape3& in, const SumPool& pool, const T* x, std::size_t batch, T* y) {
  std::fill_n(y, pool.Out(in).Size() * batch, T{0});
  mpc::Windows{in, pool.kernel, pool.stride, pool.padding}.ForEach(
      [&](std::size_t output, std::size_t, std::size_t input) {
        T* to = y + output * batch;
        const T* from = x + input * batch;
        for (std::size_t b = 0; b < batch; ++b) to[b] = static_cast<T>(to[b] + from[b]);
      });
  if (pool.counts_padding) return;
  const std::vector<std::size_t> factors = pool.Factors(in);
  const std::size_t outputs = pool.Out(in).Size();
  for (std::size_t output = 0; output < outputs; ++output) {
    const auto factor = static_cast<T>(factors[output % factors.size()]);
    T* to = y + output * batch;
    for (std::size_t b = 0; b < batch; ++b) to[b] = static_cast<T>(to[b] * factor);
  }
}

}  // namespace tercet::nn
