// SPDX-License-Identifier: Apache-2.0
// On x86 the kernels by hand, but Highway's for what these do faster: products of 64-bit words on
// AVX2, and on all instruction sets tables of the narrowest rows, comparisons with rows of 128 bits
// and more, and selection from rows of 16 bits (docs/measurements.md has the figures).
#include <algorithm>

#include "ring/implementations.h"

namespace tercet::ring::mixed {
namespace {

using std::size_t;
using std::uint8_t;

template <const Kernels& by_hand, const Kernels& highway>
void XorGreaterRows(uint8_t* table, const uint8_t* own, size_t count, unsigned k) {
  const Kernels& faster = k <= 2 || k >= 7 ? highway : by_hand;
  faster.xor_greater_rows(table, own, count, k);
}

template <const Kernels& by_hand, const Kernels& highway>
void XorPermutedRows(uint8_t* table, const uint8_t* f, const uint8_t* rho, const uint8_t* flip,
                     size_t count, unsigned k) {
  const Kernels& faster = k <= 2 ? highway : by_hand;
  faster.xor_permuted_rows(table, f, rho, flip, count, k);
}

template <const Kernels& by_hand, const Kernels& highway>
void SelectBits(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count, unsigned k,
                unsigned shift) {
  const Kernels& faster = k <= 2 || k == 4 ? highway : by_hand;
  faster.select_bits(out, table, index, count, k, shift);
}

template <const Kernels& by_hand, const Kernels& highway>
Kernels Mixed(const char* name) {
  Kernels kernels = by_hand;
  kernels.name = name;
  kernels.xor_greater_rows = XorGreaterRows<by_hand, highway>;
  kernels.xor_permuted_rows = XorPermutedRows<by_hand, highway>;
  kernels.select_bits = SelectBits<by_hand, highway>;
  return kernels;
}

const Kernels& Avx2() {
  static const Kernels kernels = [] {
    Kernels mixed = Mixed<avx2::kKernels, N_AVX2::kKernels>("mixed_avx2");
    mixed.product64 = N_AVX2::kKernels.product64;
    return mixed;
  }();
  return kernels;
}

const Kernels& Avx512() {
  static const Kernels kernels = Mixed<avx512::kKernels, N_AVX3::kKernels>("mixed_avx512");
  return kernels;
}

const Kernels& Avx512Vnni() {
  static const Kernels kernels = Mixed<avx512vnni::kKernels, N_AVX3::kKernels>("mixed_avx512vnni");
  return kernels;
}

}  // namespace

void AddTo(std::vector<const Kernels*>& available) {
  const auto has = [&](const Kernels& kernels) {
    return std::find(available.begin(), available.end(), &kernels) != available.end();
  };
  if (has(avx2::kKernels) && has(N_AVX2::kKernels)) available.push_back(&Avx2());
  if (has(avx512::kKernels) && has(N_AVX3::kKernels)) available.push_back(&Avx512());
  if (has(avx512vnni::kKernels) && has(N_AVX3::kKernels)) available.push_back(&Avx512Vnni());
}

}  // namespace tercet::ring::mixed
