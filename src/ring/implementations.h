// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "tercet/ring/kernel_table.h"

/// The implementations behind tercet/ring/kernels.h. `highway` exists where TERCET_HIGHWAY_KERNELS
/// is defined, the others with vectors where TERCET_X86_KERNELS is; all of these hand the last few
/// elements of a table to the portable one.
namespace tercet::ring {

namespace portable {
extern const Kernels kKernels;
}  // namespace portable
namespace highway {
/// One table for each instruction set that was compiled and that this processor has, the widest
/// last.
std::vector<const Kernels*> AvailableKernels();
}  // namespace highway
namespace avx2 {
extern const Kernels kKernels;
}  // namespace avx2
namespace avx512 {
extern const Kernels kKernels;
}  // namespace avx512
namespace avx512vnni {
extern const Kernels kKernels;
}  // namespace avx512vnni

}  // namespace tercet::ring
