// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "tercet/ring/kernel_table.h"

/// The implementations behind tercet/ring/kernels.h. `highway` exists where TERCET_HIGHWAY_KERNELS
/// is defined, `avx...` where TERCET_X86_KERNELS is, `mixed` where both are; all of these hand the
/// last few elements of a table to the portable one.
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
/// Two of the tables behind highway::AvailableKernels, in the namespaces that Highway has for them.
namespace N_AVX2 {
extern const Kernels kKernels;
}  // namespace N_AVX2
namespace N_AVX3 {
extern const Kernels kKernels;
}  // namespace N_AVX3
namespace mixed {
/// Adds tables that have the faster of both for each kernel, where those by hand and Highway's for
/// the same instruction set are among `available`.
void AddTo(std::vector<const Kernels*>& available);
}  // namespace mixed

}  // namespace tercet::ring
