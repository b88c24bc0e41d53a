// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

#include "tercet/ring/kernel_table.h"

/// The inner loops that decide the speed, behind one table of functions with several
/// implementations: "portable" (the reference); "sse4", "highway_avx2", "highway_avx512", "neon",
/// "sve" and "sve2", which are one source on top of Highway and missing where Tercet is built
/// without it; by hand "avx2", "avx512" and "avx512vnni"; and "mixed_avx2", "mixed_avx512" and
/// "mixed_avx512vnni", which take the faster of both for each kernel. The best that the processor
/// supports is chosen at the first use; the environment variable TERCET_KERNELS=NAME forces one.
/// All are bit-identical. No branch and no memory address depends on the contents of any operand
/// except where said.
///
///     const Kernels& kernels = ActiveKernels();
///     ProductOf<std::uint16_t>(kernels)(y.data(), outputs, cols, w, rows.data(), depth);
namespace tercet::ring {

/// The implementation in use. Throws ConfigError when TERCET_KERNELS names one that is unknown or
/// that this processor cannot run. Thread safe.
const Kernels& ActiveKernels();

/// Every implementation that this processor can run, "portable" first, the fastest last; for tests
/// and benchmarks. Thread safe.
std::vector<const Kernels*> AvailableKernels();

/// The implementation of that name. Throws ConfigError, with the names of those available, when it
/// is unknown or this processor cannot run it. Thread safe.
const Kernels& KernelsByName(std::string_view name);

/// The entry of `kernels` for word W.
template <class W>
ProductKernel<W> ProductOf(const Kernels& kernels) {
  if constexpr (sizeof(W) == 1) {
    return kernels.product8;
  } else if constexpr (sizeof(W) == 2) {
    return kernels.product16;
  } else if constexpr (sizeof(W) == 4) {
    return kernels.product32;
  } else {
    return kernels.product64;
  }
}

}  // namespace tercet::ring
