// SPDX-License-Identifier: Apache-2.0
// Vector kernels for every instruction set that Highway has vectors for. foreach_target.h includes
// this source once for each of its targets, with the target's instructions switched on for what is
// between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE only. Everything there has internal linkage,
// and what it takes from outside is Highway's own code, which is in the target's namespace as well,
// so that the linker never takes a function for processors that cannot run it.

// Older relatives of targets that are compiled, and fixed lengths of the scalable one.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE_256 | HWY_SVE2_128 | HWY_AVX3_DL)

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ring/implementations.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ring/kernels_highway.cpp"
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"

#if HWY_TARGET == HWY_SSE4
#define TERCET_TARGET_NAME "sse4"
#elif HWY_TARGET == HWY_AVX2
#define TERCET_TARGET_NAME "highway_avx2"
#elif HWY_TARGET == HWY_AVX3
#define TERCET_TARGET_NAME "highway_avx512"
#elif HWY_TARGET == HWY_NEON
#define TERCET_TARGET_NAME "neon"
#elif HWY_TARGET == HWY_SVE
#define TERCET_TARGET_NAME "sve"
#elif HWY_TARGET == HWY_SVE2
#define TERCET_TARGET_NAME "sve2"
#endif

#ifdef TERCET_TARGET_NAME  // not for targets without vectors

HWY_BEFORE_NAMESPACE();
namespace tercet::ring::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

#include "ring/kernels_scalar.inl"

/// No vector is longer, even where the processor could have longer ones.
constexpr size_t kMaxBytes = Min(HWY_MAX_BYTES, 256);

template <class W>
using Tag = hn::CappedTag<W, kMaxBytes / sizeof(W)>;
template <class W>
using V = hn::Vec<Tag<W>>;

/// The first `count` words, at most a vector, and zeros; reads nothing else.
template <class W>
HWY_INLINE V<W> LoadPartial(const W* p, size_t count) {
  const Tag<W> d;
  count = Min(count, hn::Lanes(d));
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN_MAX W padded[kMaxBytes / sizeof(W)] = {};
  CopySmall(padded, p, count * sizeof(W));
  return hn::Load(d, padded);
#else
  return hn::MaskedLoad(hn::FirstN(d, count), d, p);
#endif
}

/// The first `count` words, at most a vector; writes nothing else.
template <class W>
HWY_INLINE void StorePartial(V<W> v, W* p, size_t count) {
  const Tag<W> d;
  count = Min(count, hn::Lanes(d));
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN_MAX W padded[kMaxBytes / sizeof(W)];
  hn::Store(v, d, padded);
  CopySmall(p, padded, count * sizeof(W));
#else
  hn::BlendedStore(v, hn::FirstN(d, count), d, p);
#endif
}

#include "ring/kernels_highway_packing.inl"
#include "ring/kernels_highway_products.inl"
#include "ring/kernels_highway_tables.inl"

}  // namespace

constinit const Kernels kKernels = {
    TERCET_TARGET_NAME, Product<uint8_t>, Product<uint16_t>, Product<uint32_t>,
    Product<uint64_t>,  XorGreaterRows,   XorPermutedRows,   SelectBits,
    Pack<uint8_t>,      Pack<uint16_t>,   Pack<uint32_t>,    Pack<uint64_t>,
    Unpack<uint8_t>,    Unpack<uint16_t>, Unpack<uint32_t>,  Unpack<uint64_t>,
};

}  // namespace tercet::ring::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#undef TERCET_TARGET_NAME
#endif

#if HWY_ONCE

namespace tercet::ring::highway {

std::vector<const Kernels*> AvailableKernels() {
  std::vector<const Kernels*> available;
  [[maybe_unused]] const auto supported = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_SSE4
  if ((supported & HWY_SSE4) != 0) available.push_back(&N_SSE4::kKernels);
#endif
#if HWY_TARGETS & HWY_AVX2
  if ((supported & HWY_AVX2) != 0) available.push_back(&N_AVX2::kKernels);
#endif
#if HWY_TARGETS & HWY_AVX3
  if ((supported & HWY_AVX3) != 0) available.push_back(&N_AVX3::kKernels);
#endif
#if HWY_TARGETS & HWY_NEON
  // All 64-bit processors have NEON. Highway looks for AES too, which nothing here uses.
  if (HWY_ARCH_ARM_A64 || (supported & HWY_NEON) != 0) available.push_back(&N_NEON::kKernels);
#endif
#if HWY_TARGETS & HWY_SVE
  if ((supported & HWY_SVE) != 0) available.push_back(&N_SVE::kKernels);
#endif
#if HWY_TARGETS & HWY_SVE2
  if ((supported & HWY_SVE2) != 0) available.push_back(&N_SVE2::kKernels);
#endif
  return available;
}

}  // namespace tercet::ring::highway

#endif  // HWY_ONCE
