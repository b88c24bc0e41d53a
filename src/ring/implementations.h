// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tercet/ring/kernel_table.h"

/// The implementations behind tercet/ring/kernels.h. The vector ones exist where
/// TERCET_X86_KERNELS is defined and hand the last few elements of a table to the portable one.
namespace tercet::ring {

namespace portable {
extern const Kernels kKernels;
}  // namespace portable
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
