// SPDX-License-Identifier: Apache-2.0
// The vector kernels, compiled once for each instruction set. The including source defines
//   TERCET_ISA           the namespace of this implementation,
//   TERCET_ISA_NAME      its name as a string,
//   TERCET_VECTOR_BYTES  32 (AVX2 and BMI2) or 64 (AVX-512 F, BW, DQ, VL and BMI2),
//   TERCET_VNNI          1 where AVX512-VNNI may be used.
// Everything has internal linkage, and no header with inline functions of its own is included: the
// linker might otherwise take this source's copy of a shared function for processors that cannot
// run it.

#include <immintrin.h>

#include "ring/implementations.h"

namespace tercet::ring::TERCET_ISA {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr size_t kBytes = TERCET_VECTOR_BYTES;

template <class W>
constexpr size_t kLanes = kBytes / sizeof(W);

#include "ring/kernels_scalar.inl"

// -------------------------------------------------------------------------------------------------
// Vectors. The two widths differ in the names of the intrinsics and in how masks look.

#if TERCET_VECTOR_BYTES == 64

using V = __m512i;

inline V Zero() { return _mm512_setzero_si512(); }
inline V Load(const void* p) { return _mm512_loadu_si512(p); }
inline void Store(void* p, V v) { _mm512_storeu_si512(p, v); }
/// The first `bytes` bytes and zeros; reads nothing else. For bytes >= kBytes the whole vector.
inline V LoadPartial(const void* p, size_t bytes) {
  return _mm512_maskz_loadu_epi8(_bzhi_u64(~uint64_t{0}, static_cast<unsigned>(Min(bytes, kBytes))),
                                 p);
}
inline void StorePartial(void* p, V v, size_t bytes) {
  _mm512_mask_storeu_epi8(p, _bzhi_u64(~uint64_t{0}, static_cast<unsigned>(Min(bytes, kBytes))), v);
}
/// The same 16 bytes in each 128-bit lane.
inline V Repeat16(const uint8_t* p) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline V Set8(uint8_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }
inline V Set16(uint16_t x) { return _mm512_set1_epi16(static_cast<short>(x)); }
inline V Set32(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
inline V Set64(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }

inline V And(V a, V b) { return _mm512_and_si512(a, b); }
inline V Or(V a, V b) { return _mm512_or_si512(a, b); }
inline V Xor(V a, V b) { return _mm512_xor_si512(a, b); }
/// Per 128-bit lane: byte index[j] of `bytes`, or 0 where index[j] >= 128.
inline V Shuffle(V bytes, V index) { return _mm512_shuffle_epi8(bytes, index); }
inline V Unpack8Low(V a, V b) { return _mm512_unpacklo_epi8(a, b); }
inline V Unpack8High(V a, V b) { return _mm512_unpackhi_epi8(a, b); }
inline V Unpack16Low(V a, V b) { return _mm512_unpacklo_epi16(a, b); }
inline V Unpack16High(V a, V b) { return _mm512_unpackhi_epi16(a, b); }
inline V Pack32To16(V a, V b) { return _mm512_packus_epi32(a, b); }
inline V Pack16To8(V a, V b) { return _mm512_packus_epi16(a, b); }
inline V Multiply16Pairs(V a, V b) { return _mm512_madd_epi16(a, b); }
inline V ShiftLeft16(V v, unsigned by) { return _mm512_slli_epi16(v, by); }
inline V ShiftRight16(V v, unsigned by) { return _mm512_srli_epi16(v, by); }
inline V ShiftRight32(V v, unsigned by) { return _mm512_srli_epi32(v, by); }
inline V ShiftRight64(V v, unsigned by) { return _mm512_srli_epi64(v, by); }
/// Counts of the lane's width and more give 0.
inline V ShiftLeft32By(V v, V by) { return _mm512_sllv_epi32(v, by); }
inline V ShiftLeft64By(V v, V by) { return _mm512_sllv_epi64(v, by); }
inline V SubtractSaturated8(V a, V b) { return _mm512_subs_epu8(a, b); }
inline V WidenTo16(const uint8_t* p) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline V WidenTo32(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline V WidenTo64(__m128i bytes) { return _mm512_cvtepu8_epi64(bytes); }
/// `value` in the bytes where v is not 0, else 0.
inline V WhereNonZero8(V v, V value) {
  return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(v, v), value);
}
inline V WhereEqual64(V a, V b, V value) {
  return _mm512_maskz_mov_epi64(_mm512_cmpeq_epi64_mask(a, b), value);
}
/// One bit a lane: whether it is not 0.
inline uint64_t NonZeroMask16(V v) { return _mm512_test_epi16_mask(v, v); }
/// One bit a lane: its top bit.
inline uint64_t SignMask32(V v) { return _mm512_movepi32_mask(v); }
inline uint64_t SignMask64(V v) { return _mm512_movepi64_mask(v); }
/// Sums that wrap around: the reductions of the headers add signed numbers, which must not.
inline uint32_t Sum32(V v) {
  const __m256i by8 = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  __m128i by4 = _mm_add_epi32(_mm256_castsi256_si128(by8), _mm256_extracti128_si256(by8, 1));
  by4 = _mm_add_epi32(by4, _mm_shuffle_epi32(by4, 0x4e));
  by4 = _mm_add_epi32(by4, _mm_shuffle_epi32(by4, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(by4));
}
inline uint64_t Sum64(V v) {
  const __m256i by4 = _mm256_add_epi64(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  __m128i by2 = _mm_add_epi64(_mm256_castsi256_si128(by4), _mm256_extracti128_si256(by4, 1));
  by2 = _mm_add_epi64(by2, _mm_shuffle_epi32(by2, 0x4e));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(by2));
}

/// Eight 64-bit entries (or 32-bit ones), looked up in registers by the low three bits of each
/// lane.
struct Lookup64 {
  V entries;
  Lookup64() = default;
  explicit Lookup64(const uint64_t* table) : entries(Load(table)) {}
  V operator()(V index) const { return _mm512_permutexvar_epi64(index, entries); }
};
struct Lookup32 {
  V entries;
  explicit Lookup32(const uint32_t* table)
      : entries(
            _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(table)))) {}
  V operator()(V index) const { return _mm512_permutexvar_epi32(index, entries); }
};

#else

using V = __m256i;

inline V Zero() { return _mm256_setzero_si256(); }
inline V Load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i_u*>(p)); }
inline void Store(void* p, V v) { _mm256_storeu_si256(static_cast<__m256i_u*>(p), v); }
/// The first `bytes` bytes and zeros; reads nothing else. For bytes >= kBytes the whole vector.
inline V LoadPartial(const void* p, size_t bytes) {
  alignas(kBytes) uint8_t padded[kBytes] = {};
  CopySmall(padded, p, Min(bytes, kBytes));
  return Load(padded);
}
inline void StorePartial(void* p, V v, size_t bytes) {
  alignas(kBytes) uint8_t padded[kBytes];
  Store(padded, v);
  CopySmall(p, padded, Min(bytes, kBytes));
}
/// The same 16 bytes in each 128-bit lane.
inline V Repeat16(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline V Set8(uint8_t x) { return _mm256_set1_epi8(static_cast<char>(x)); }
inline V Set16(uint16_t x) { return _mm256_set1_epi16(static_cast<short>(x)); }
inline V Set32(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
inline V Set64(uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }

inline V And(V a, V b) { return _mm256_and_si256(a, b); }
inline V Or(V a, V b) { return _mm256_or_si256(a, b); }
inline V Xor(V a, V b) { return _mm256_xor_si256(a, b); }
/// Per 128-bit lane: byte index[j] of `bytes`, or 0 where index[j] >= 128.
inline V Shuffle(V bytes, V index) { return _mm256_shuffle_epi8(bytes, index); }
inline V Unpack16Low(V a, V b) { return _mm256_unpacklo_epi16(a, b); }
inline V Unpack16High(V a, V b) { return _mm256_unpackhi_epi16(a, b); }
inline V Pack32To16(V a, V b) { return _mm256_packus_epi32(a, b); }
inline V Multiply16Pairs(V a, V b) { return _mm256_madd_epi16(a, b); }
inline V ShiftLeft16(V v, unsigned by) { return _mm256_slli_epi16(v, static_cast<int>(by)); }
inline V ShiftRight16(V v, unsigned by) { return _mm256_srli_epi16(v, static_cast<int>(by)); }
inline V ShiftRight32(V v, unsigned by) { return _mm256_srli_epi32(v, static_cast<int>(by)); }
inline V ShiftRight64(V v, unsigned by) { return _mm256_srli_epi64(v, static_cast<int>(by)); }
/// Counts of the lane's width and more give 0.
inline V ShiftLeft32By(V v, V by) { return _mm256_sllv_epi32(v, by); }
inline V ShiftLeft64By(V v, V by) { return _mm256_sllv_epi64(v, by); }
inline V SubtractSaturated8(V a, V b) { return _mm256_subs_epu8(a, b); }
inline V WidenTo16(const uint8_t* p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline V WidenTo32(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(Load64(p))));
}
inline V WidenTo64(__m128i bytes) { return _mm256_cvtepu8_epi64(bytes); }
/// `value` in the bytes where v is not 0, else 0.
inline V WhereNonZero8(V v, V value) {
  return _mm256_andnot_si256(_mm256_cmpeq_epi8(v, Zero()), value);
}
inline V WhereEqual64(V a, V b, V value) { return And(_mm256_cmpeq_epi64(a, b), value); }
/// One bit a lane: whether it is not 0.
inline uint64_t NonZeroMask16(V v) {
  const auto zero = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi16(v, Zero())));
  return _pext_u32(~zero, 0x55555555U);
}
/// One bit a lane: its top bit.
inline uint64_t SignMask32(V v) {
  return static_cast<uint64_t>(_mm256_movemask_ps(_mm256_castsi256_ps(v)));
}
inline uint64_t SignMask64(V v) {
  return static_cast<uint64_t>(_mm256_movemask_pd(_mm256_castsi256_pd(v)));
}
inline uint32_t Sum32(V v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(s));
}
inline uint64_t Sum64(V v) {
  __m128i s = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi64(s, _mm_shuffle_epi32(s, 0x4e));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(s));
}

/// Eight 64-bit entries (or 32-bit ones), looked up in registers by the low three bits of each
/// lane.
struct Lookup64 {
  V low, high;
  Lookup64() = default;
  explicit Lookup64(const uint64_t* table) {
    uint32_t halves[2][8];
    for (size_t r = 0; r < 8; ++r) {
      halves[0][r] = static_cast<uint32_t>(table[r]);
      halves[1][r] = static_cast<uint32_t>(table[r] >> 32);
    }
    low = Load(halves[0]);
    high = Load(halves[1]);
  }
  V operator()(V index) const {
    const V both = _mm256_shuffle_epi32(index, 0xa0);
    return _mm256_blend_epi32(_mm256_permutevar8x32_epi32(low, both),
                              _mm256_permutevar8x32_epi32(high, both), 0xaa);
  }
};
struct Lookup32 {
  V entries;
  explicit Lookup32(const uint32_t* table) : entries(Load(table)) {}
  V operator()(V index) const { return _mm256_permutevar8x32_epi32(entries, index); }
};

#endif

template <class W>
struct LanesOf {
  typedef W Type __attribute__((vector_size(kBytes)));  // `using` takes no dependent attribute
};

template <class W>
inline V Add(V a, V b) {
  using Lanes = typename LanesOf<W>::Type;
  return reinterpret_cast<V>(reinterpret_cast<Lanes>(a) + reinterpret_cast<Lanes>(b));
}

template <class W>
inline V Subtract(V a, V b) {
  using Lanes = typename LanesOf<W>::Type;
  return reinterpret_cast<V>(reinterpret_cast<Lanes>(a) - reinterpret_cast<Lanes>(b));
}

template <class W>
inline V Multiply(V a, V b) {
  using Lanes = typename LanesOf<W>::Type;
  return reinterpret_cast<V>(reinterpret_cast<Lanes>(a) * reinterpret_cast<Lanes>(b));
}

// -------------------------------------------------------------------------------------------------
// Products. Sums wrap around, so the order of additions is free and lanes wider than the word may
// collect anything above it.
//
// Arith<W> says how a group of kRows rows of x, kCols columns wide, is laid out as kVectors vectors
// (one accumulator each), such that one multiply-and-add per vector does all the group's products:
//   Interleave  the rows' kVectorsIn vectors -> the layout,
//   Weights     the group's weights of one output, repeated over the vector,
//   Mac         accumulator + x * w,
//   Finish      kVectors accumulators -> kVectorsIn vectors of words, in column order,
//   Dot         the same accumulation for x and w that both run along the depth, and Sum, its
//   total.

template <class W>
struct Arith;

template <>
struct Arith<uint16_t> {
  static constexpr size_t kRows = 2;
  static constexpr size_t kVectorsIn = 1;
  static constexpr size_t kVectors = 2;

  static void Interleave(const V (&in)[kRows][kVectorsIn], V* out) {
    out[0] = Unpack16Low(in[0][0], in[1][0]);
    out[1] = Unpack16High(in[0][0], in[1][0]);
  }
  static V Weights(const uint16_t* w) {
    uint32_t pair;
    __builtin_memcpy(&pair, w, sizeof pair);
    return Set32(pair);
  }
  static V Mac(V sum, V x, V w) {
#if TERCET_VNNI
    return _mm512_dpwssd_epi32(sum, x, w);
#else
    return Add<uint32_t>(sum, Multiply16Pairs(x, w));
#endif
  }
  static void Finish(const V* sums, V* out) {
    const V low = Set32(0xffff);
    out[0] = Pack32To16(And(sums[0], low), And(sums[1], low));
  }
  static V Dot(V sum, V x, V w) { return Mac(sum, x, w); }
  static uint16_t Sum(V sum) { return static_cast<uint16_t>(Sum32(sum)); }
};

#if TERCET_VNNI

template <>
struct Arith<uint8_t> {
  static constexpr size_t kRows = 4;
  static constexpr size_t kVectorsIn = 1;
  static constexpr size_t kVectors = 4;

  static void Interleave(const V (&in)[kRows][kVectorsIn], V* out) {
    const V low01 = Unpack8Low(in[0][0], in[1][0]);
    const V high01 = Unpack8High(in[0][0], in[1][0]);
    const V low23 = Unpack8Low(in[2][0], in[3][0]);
    const V high23 = Unpack8High(in[2][0], in[3][0]);
    out[0] = Unpack16Low(low01, low23);
    out[1] = Unpack16High(low01, low23);
    out[2] = Unpack16Low(high01, high23);
    out[3] = Unpack16High(high01, high23);
  }
  static V Weights(const uint8_t* w) {
    uint32_t four;
    __builtin_memcpy(&four, w, sizeof four);
    return Set32(four);
  }
  // One factor counts as signed; modulo 2^8 that is the same.
  static V Mac(V sum, V x, V w) { return _mm512_dpbusd_epi32(sum, x, w); }
  static void Finish(const V* sums, V* out) {
    const V low = Set32(0xff);
    out[0] = Pack16To8(Pack32To16(And(sums[0], low), And(sums[1], low)),
                       Pack32To16(And(sums[2], low), And(sums[3], low)));
  }
  static V Dot(V sum, V x, V w) { return Mac(sum, x, w); }
  static uint8_t Sum(V sum) { return static_cast<uint8_t>(Sum32(sum)); }
};

#else

// No multiplication of bytes: even and odd columns apart, in the low bytes of 16-bit lanes.
template <>
struct Arith<uint8_t> {
  static constexpr size_t kRows = 1;
  static constexpr size_t kVectorsIn = 1;
  static constexpr size_t kVectors = 2;

  static void Interleave(const V (&in)[kRows][kVectorsIn], V* out) {
    out[0] = in[0][0];
    out[1] = ShiftRight16(in[0][0], 8);
  }
  static V Weights(const uint8_t* w) { return Set16(*w); }
  static V Mac(V sum, V x, V w) { return Add<uint16_t>(sum, Multiply<uint16_t>(x, w)); }
  static void Finish(const V* sums, V* out) {
    out[0] = Or(And(sums[0], Set16(0xff)), ShiftLeft16(sums[1], 8));
  }
  static V Dot(V sum, V x, V w) {
    return Mac(Mac(sum, x, w), ShiftRight16(x, 8), ShiftRight16(w, 8));
  }
  static uint8_t Sum(V sum) { return static_cast<uint8_t>(Sum32(Multiply16Pairs(sum, Set16(1)))); }
};

#endif

template <class W>
struct ArithOfWideWords {
  static constexpr size_t kRows = 1;
  static constexpr size_t kVectorsIn = 2;
  static constexpr size_t kVectors = 2;

  static void Interleave(const V (&in)[kRows][kVectorsIn], V* out) {
    out[0] = in[0][0];
    out[1] = in[0][1];
  }
  static V Weights(const W* w) {
    if constexpr (sizeof(W) == 4) {
      return Set32(*w);
    } else {
      return Set64(*w);
    }
  }
  static V Mac(V sum, V x, V w) { return Add<W>(sum, Multiply<W>(x, w)); }
  static void Finish(const V* sums, V* out) {
    out[0] = sums[0];
    out[1] = sums[1];
  }
  static V Dot(V sum, V x, V w) { return Mac(sum, x, w); }
  static W Sum(V sum) {
    if constexpr (sizeof(W) == 4) {
      return Sum32(sum);
    } else {
      return Sum64(sum);
    }
  }
};

template <>
struct Arith<uint32_t> : ArithOfWideWords<uint32_t> {};
template <>
struct Arith<uint64_t> : ArithOfWideWords<uint64_t> {};

// A panel is a slice of x, one column block wide, laid out for Mac. It stays in the first cache
// (512 vectors of 64 bytes are 32 KiB) and is used by all outputs before the next is made.
constexpr size_t kPanelVectors = 512;

template <class W>
constexpr size_t kPanelDepth = kPanelVectors / Arith<W>::kVectors* Arith<W>::kRows;
template <class W>
constexpr size_t kPanelCols = Arith<W>::kVectorsIn* kLanes<W>;

// Outputs in one tile: as many as the registers hold accumulators for.
template <class W>
constexpr size_t kTileOutputs = (kBytes == 64 ? 24 : 8) / Arith<W>::kVectors;

/// Lays out rows[0..depth) at columns [first, first + cols) in `panel`, with zeros for what is
/// missing. Of a whole panel, what lies `ahead` columns further is fetched into the second cache:
/// rows lie too far apart for processors to foresee it.
template <class W, bool whole>
void FillPanel(const W* const* rows, size_t depth, size_t first, size_t cols, size_t ahead,
               V* panel) {
  using A = Arith<W>;
  for (size_t k = 0; k < depth; k += A::kRows, panel += A::kVectors) {
    V in[A::kRows][A::kVectorsIn];
    for (size_t r = 0; r < A::kRows; ++r) {
      const W* const row = k + r < depth ? rows[k + r] : nullptr;
      for (size_t v = 0; v < A::kVectorsIn; ++v) {
        const size_t at = v * kLanes<W>;
        if (row == nullptr || (!whole && at >= cols)) {
          in[r][v] = Zero();
        } else if (whole) {
          in[r][v] = Load(row + first + at);
          __builtin_prefetch(row + first + at + ahead, 0, 2);
        } else {
          in[r][v] = LoadPartial(row + first + at, (cols - at) * sizeof(W));
        }
      }
    }
    A::Interleave(in, panel);
  }
}

/// sums[m] = w[m*stride + 0..depth) times the panel. Accumulator i belongs to output i / kVectors.
template <class W, size_t outputs, size_t... i>
void Tile(Indices<i...>, const V* panel, size_t depth, const W* w, size_t stride,
          V (*sums)[Arith<W>::kVectorsIn]) {
  using A = Arith<W>;
  constexpr size_t n = A::kVectors;
  V acc[sizeof...(i)];
  ((acc[i] = Zero()), ...);
  const size_t groups = depth / A::kRows;
  // The incomplete group comes first: with anything but the sums behind the main loop, compilers
  // write the accumulators to memory in every round.
  if (depth % A::kRows != 0) {
    W last[outputs][A::kRows] = {};
    for (size_t m = 0; m < outputs; ++m) {
      for (size_t k = groups * A::kRows; k < depth; ++k) last[m][k % A::kRows] = w[m * stride + k];
    }
    const V* const x = panel + groups * n;
    ((acc[i] = A::Mac(acc[i], x[i % n], A::Weights(last[i / n]))), ...);
  }
  for (size_t g = 0; g < groups; ++g, panel += n, w += A::kRows) {
    ((acc[i] = A::Mac(acc[i], panel[i % n], A::Weights(w + i / n * stride))), ...);
  }
  const V done[] = {acc[i]...};
  for (size_t m = 0; m < outputs; ++m) A::Finish(done + m * n, sums[m]);
}

/// Tile for a number of outputs known at run time, 1 <= outputs <= kTileOutputs.
template <class W, size_t most = kTileOutputs<W>>
void TileOf(size_t outputs, const V* panel, size_t depth, const W* w, size_t stride,
            V (*sums)[Arith<W>::kVectorsIn]) {
  if constexpr (most > 1) {
    if (outputs < most) return TileOf<W, most - 1>(outputs, panel, depth, w, stride, sums);
  }
  Tile<W, most>(typename IndicesBelow<most * Arith<W>::kVectors>::Type{}, panel, depth, w, stride,
                sums);
}

template <class W>
void ProductByPanels(W* const* y, size_t outputs, size_t cols, const W* w, const W* const* rows,
                     size_t depth) {
  using A = Arith<W>;
  constexpr size_t kMost = kTileOutputs<W>;
  V panel[kPanelVectors];
  for (size_t k = 0; k < depth; k += kPanelDepth<W>) {
    const size_t slice = Min(depth - k, kPanelDepth<W>);
    for (size_t first = 0; first < cols; first += kPanelCols<W>) {
      const size_t width = Min(cols - first, kPanelCols<W>);
      const bool whole = width == kPanelCols<W>;
      if (whole) {
        const bool another = first + 2 * kPanelCols<W> <= cols;
        FillPanel<W, true>(rows + k, slice, first, width, another ? kPanelCols<W> : 0, panel);
      } else {
        FillPanel<W, false>(rows + k, slice, first, width, 0, panel);
      }
      for (size_t m = 0; m < outputs;) {
        // Tiles of even size: a lonely last output would wait for each of its additions.
        const size_t tiles = (outputs - m + kMost - 1) / kMost;
        const size_t n = (outputs - m + tiles - 1) / tiles;
        V sums[kMost][A::kVectorsIn];
        TileOf<W>(n, panel, slice, w + m * depth + k, depth, sums);
        for (size_t t = 0; t < n; ++t, ++m) {
          for (size_t v = 0; v < A::kVectorsIn && v * kLanes<W> < width; ++v) {
            W* const to = y[m] + first + v * kLanes<W>;
            if (whole) {
              Store(to, Add<W>(Load(to), sums[t][v]));
            } else {
              const size_t bytes = (width - v * kLanes<W>)*sizeof(W);
              StorePartial(to, Add<W>(LoadPartial(to, bytes), sums[t][v]), bytes);
            }
          }
        }
      }
    }
  }
}

// With few columns the lanes run along the depth instead: x is gathered column by column, and each
// result is one dot product.
constexpr size_t kNarrowCols = 8;
constexpr size_t kNarrowBytes = 2048;
template <class W>
constexpr size_t kNarrowDepth = kNarrowBytes / sizeof(W);
template <class W>
constexpr size_t kNarrowStride = kNarrowDepth<W> + kLanes<W>;  // not a power of two, for the cache

/// y[m][first + c] += w[m*stride + 0..depth) . x[c], for `outputs` x `cols` results. Accumulator i
/// belongs to output i / cols and column i % cols.
template <class W, size_t outputs, size_t cols, size_t... i>
void Dots(Indices<i...>, W* const* y, size_t first, const W* w, size_t stride, const W* x,
          size_t depth) {
  using A = Arith<W>;
  V acc[sizeof...(i)];
  ((acc[i] = Zero()), ...);
  const size_t whole = depth / kLanes<W> * kLanes<W>;
  if (whole < depth) {  // first, as in Tile
    V last[outputs];
    for (size_t m = 0; m < outputs; ++m) {
      last[m] = LoadPartial(w + m * stride + whole, (depth - whole) * sizeof(W));
    }
    ((acc[i] = A::Dot(acc[i], Load(x + i % cols * kNarrowStride<W> + whole), last[i / cols])), ...);
  }
  for (size_t k = 0; k < whole; k += kLanes<W>) {
    ((acc[i] = A::Dot(acc[i], Load(x + i % cols * kNarrowStride<W> + k),
                      Load(w + i / cols * stride + k))),
     ...);
  }
  ((y[i / cols][first + i % cols] = static_cast<W>(y[i / cols][first + i % cols] + A::Sum(acc[i]))),
   ...);
}

template <class W, size_t outputs>
void DotsOf(W* const* y, size_t cols, const W* w, size_t stride, const W* x, size_t depth) {
  size_t c = 0;
  for (; c + 4 <= cols; c += 4) {
    Dots<W, outputs, 4>(typename IndicesBelow<4 * outputs>::Type{}, y, c, w, stride,
                        x + c * kNarrowStride<W>, depth);
  }
  for (; c + 2 <= cols; c += 2) {
    Dots<W, outputs, 2>(typename IndicesBelow<2 * outputs>::Type{}, y, c, w, stride,
                        x + c * kNarrowStride<W>, depth);
  }
  if (c < cols)
    Dots<W, outputs, 1>(typename IndicesBelow<1 * outputs>::Type{}, y, c, w, stride,
                        x + c * kNarrowStride<W>, depth);
}

template <class W>
void ProductByDots(W* const* y, size_t outputs, size_t cols, const W* w, const W* const* rows,
                   size_t depth) {
  constexpr size_t kOutputs = kBytes == 64 ? 4 : 2;
  alignas(kBytes) W x[kNarrowCols * kNarrowStride<W>];
  for (size_t k = 0; k < depth; k += kNarrowDepth<W>) {
    const size_t slice = Min(depth - k, kNarrowDepth<W>);
    for (size_t i = 0; i < slice; ++i) {
      const W* const row = rows[k + i];
      for (size_t c = 0; c < cols; ++c) {
        x[c * kNarrowStride<W> + i] = row == nullptr ? W{0} : row[c];
      }
    }
    for (size_t c = 0; c < cols; ++c) Store(x + c * kNarrowStride<W> + slice, Zero());
    size_t m = 0;
    for (; m + kOutputs <= outputs; m += kOutputs) {
      DotsOf<W, kOutputs>(y + m, cols, w + m * depth + k, depth, x, slice);
    }
    for (; m < outputs; ++m) DotsOf<W, 1>(y + m, cols, w + m * depth + k, depth, x, slice);
  }
}

template <class W>
void Product(W* const* y, size_t outputs, size_t cols, const W* w, const W* const* rows,
             size_t depth) {
  if (cols <= kNarrowCols) {
    ProductByDots(y, outputs, cols, w, rows, depth);
  } else {
    ProductByPanels(y, outputs, cols, w, rows, depth);
  }
}

// -------------------------------------------------------------------------------------------------
// Bit tables. Secret indices select within registers only (byte shuffles, permutations, variable
// shifts). Rows<...> functions do whole vectors and return the number of elements done; the
// portable kernels do the rest. `flip` is null where nothing is to be flipped.

/// Rows of 2^k bits for k <= 3: looked up in a table of 2^k bytes, a byte an element, and squeezed
/// for k < 3.
template <unsigned k>
size_t XorByteRows(uint8_t* table, const uint8_t* index, const uint8_t* flip, size_t count,
                   const uint8_t* rows_by_index) {
  const V lookup = Repeat16(rows_by_index);
  const V row_mask = Set8(SmallRowMask(k));
  size_t i = 0;
  for (; i + kBytes <= count; i += kBytes) {
    V rows = Shuffle(lookup, Load(index + i));
    if (flip != nullptr) rows = Xor(rows, And(Subtract<uint8_t>(Zero(), Load(flip + i)), row_mask));
    if constexpr (k == 3) {
      Store(table + i, Xor(Load(table + i), rows));
    } else {
      alignas(kBytes) uint8_t bytes[kBytes];
      Store(bytes, rows);
      constexpr size_t kGroup = size_t{1} << k;  // bytes that eight rows share
      uint8_t* to = table + i / 8 * kGroup;
      for (size_t g = 0; g < kBytes; g += 8, to += kGroup) {
        uint64_t old = 0;
        __builtin_memcpy(&old, to, kGroup);
        old ^= _pext_u64(Load64(bytes + g), SmallRowMask(k) * kEachByte);
        __builtin_memcpy(to, &old, kGroup);
      }
    }
  }
  return i;
}

/// 16-bit entries for indices below 16, the two bytes apart.
struct Lookup16 {
  V low, high;
  explicit Lookup16(const uint16_t* table) {
    uint8_t bytes[2][16];
    for (size_t j = 0; j < 16; ++j) {
      bytes[0][j] = static_cast<uint8_t>(table[j]);
      bytes[1][j] = static_cast<uint8_t>(table[j] >> 8);
    }
    low = Repeat16(bytes[0]);
    high = Repeat16(bytes[1]);
  }
  V operator()(V index) const {
    return Or(Shuffle(low, Or(index, Set16(0x8000))),
              Shuffle(high, Or(ShiftLeft16(index, 8), Set16(0x0080))));
  }
};

size_t XorRows16(uint8_t* table, const uint8_t* index, const uint8_t* flip, size_t count,
                 const uint16_t* rows_by_index) {
  const Lookup16 lookup(rows_by_index);
  size_t i = 0;
  for (; i + kLanes<uint16_t> <= count; i += kLanes<uint16_t>) {
    V rows = lookup(WidenTo16(index + i));
    if (flip != nullptr) rows = Xor(rows, Subtract<uint16_t>(Zero(), WidenTo16(flip + i)));
    Store(table + 2 * i, Xor(Load(table + 2 * i), rows));
  }
  return i;
}

/// `rows_of` maps a vector of indices, one a 32-bit lane, to rows.
template <class RowsOf>
size_t XorRows32(uint8_t* table, const uint8_t* index, const uint8_t* flip, size_t count,
                 RowsOf rows_of) {
  size_t i = 0;
  for (; i + kLanes<uint32_t> <= count; i += kLanes<uint32_t>) {
    V rows = rows_of(WidenTo32(index + i));
    if (flip != nullptr) rows = Xor(rows, Subtract<uint32_t>(Zero(), WidenTo32(flip + i)));
    Store(table + 4 * i, Xor(Load(table + 4 * i), rows));
  }
  return i;
}

/// Elements per vector where a row takes `words` lanes of 64 bits.
template <size_t words>
constexpr size_t kRowsPerVector = kLanes<uint64_t> / words;

/// Byte e of `p` in the 64-bit lanes e*words .. e*words + words - 1.
template <size_t words>
V SpreadTo64(const uint8_t* p) {
  uint64_t bytes = 0;
  __builtin_memcpy(&bytes, p, kRowsPerVector<words>);
  const __m128i packed = _mm_cvtsi64_si128(static_cast<long long>(bytes));
  if constexpr (words == 1) {
    return WidenTo64(packed);
  } else if constexpr (words == 2) {
    return WidenTo64(_mm_unpacklo_epi8(packed, packed));
  } else {
    const __m128i twice = _mm_unpacklo_epi8(packed, packed);
    return WidenTo64(_mm_unpacklo_epi16(twice, twice));
  }
}

/// Which word of its row each lane is.
template <size_t words>
V WordNumbers() {
  uint64_t numbers[kLanes<uint64_t>];
  for (size_t j = 0; j < kLanes<uint64_t>; ++j) numbers[j] = j % words;
  return Load(numbers);
}

/// `rows_of` maps a vector of indices, as SpreadTo64 lays them out, to the words of the rows.
template <size_t words, class RowsOf>
size_t XorRows64(uint8_t* table, const uint8_t* index, const uint8_t* flip, size_t count,
                 RowsOf rows_of) {
  constexpr size_t kStep = kRowsPerVector<words>;
  size_t i = 0;
  for (; i + kStep <= count; i += kStep, table += kBytes) {
    V rows = rows_of(SpreadTo64<words>(index + i));
    if (flip != nullptr) rows = Xor(rows, Subtract<uint64_t>(Zero(), SpreadTo64<words>(flip + i)));
    Store(table, Xor(Load(table), rows));
  }
  return i;
}

size_t XorSmallRows(uint8_t* table, const uint8_t* index, const uint8_t* flip, size_t count,
                    unsigned k, const uint8_t* rows_by_index) {
  switch (k) {
    case 1:
      return XorByteRows<1>(table, index, flip, count, rows_by_index);
    case 2:
      return XorByteRows<2>(table, index, flip, count, rows_by_index);
    default:
      return XorByteRows<3>(table, index, flip, count, rows_by_index);
  }
}

template <size_t words>
size_t XorGreaterRows64(uint8_t* table, const uint8_t* own, size_t count) {
  const V base = Multiply<uint64_t>(WordNumbers<words>(), Set64(64));
  const V one = Set64(1);
  return XorRows64<words>(table, own, nullptr, count, [=](V index) {
    // Below the word the count is 0 and gives no bits; from 64 on the shift gives 0 and so all of
    // them.
    return Subtract<uint64_t>(ShiftLeft64By(one, SubtractSaturated8(index, base)), one);
  });
}

void XorGreaterRows(uint8_t* table, const uint8_t* own, size_t count, unsigned k) {
  size_t done = 0;
  if (k <= 4) {
    uint8_t bytes[16];
    uint16_t rows[16];
    for (unsigned j = 0; j < 16; ++j) {
      rows[j] = static_cast<uint16_t>((1U << j) - 1);
      bytes[j] = static_cast<uint8_t>(rows[j]);
    }
    done = k == 4 ? XorRows16(table, own, nullptr, count, rows)
                  : XorSmallRows(table, own, nullptr, count, k, bytes);
  } else if (k == 5) {
    const V one = Set32(1);
    done = XorRows32(table, own, nullptr, count,
                     [=](V index) { return Subtract<uint32_t>(ShiftLeft32By(one, index), one); });
  } else {
    done = k == 6   ? XorGreaterRows64<1>(table, own, count)
           : k == 7 ? XorGreaterRows64<2>(table, own, count)
                    : XorGreaterRows64<4>(table, own, count);
  }
  portable::kKernels.xor_greater_rows(table + RowOffset(done, k), own + done, count - done, k);
}

/// Bytes 0..15 counted within each 128-bit lane.
V ByteNumbers() {
  uint8_t numbers[16];
  for (unsigned j = 0; j < 16; ++j) numbers[j] = static_cast<uint8_t>(j);
  return Repeat16(numbers);
}

/// The lowest byte of each lane of `width` bytes in all bytes of it.
template <unsigned width>
V LowBytePattern() {
  uint8_t from[16];
  for (unsigned j = 0; j < 16; ++j) from[j] = static_cast<uint8_t>(j / width * width);
  return Repeat16(from);
}

// The low three bits of rho permute the bits within bytes, and there are only eight such images of
// f: they are looked up. The next bits permute the bytes within a word, the highest ones the words
// of a row.

size_t XorPermutedRows32(uint8_t* table, const uint8_t* f, const uint8_t* rho, const uint8_t* flip,
                         size_t count) {
  uint32_t function;
  __builtin_memcpy(&function, f, sizeof function);
  uint32_t images[8];
  for (unsigned r = 0; r < 8; ++r) images[r] = static_cast<uint32_t>(PermuteBits(function, r));
  const Lookup32 lookup(images);
  const V numbers = ByteNumbers();
  const V low_byte = LowBytePattern<4>();
  return XorRows32(table, rho, flip, count, [=](V index) {
    const V bytes = Xor(numbers, Shuffle(ShiftRight32(index, 3), low_byte));
    return Shuffle(lookup(index), bytes);
  });
}

template <size_t words>
struct Lookup64Of {
  Lookup64 tables[words];
  explicit Lookup64Of(const uint64_t (&images)[words][8]) {
    for (size_t t = 0; t < words; ++t) tables[t] = Lookup64(images[t]);
  }
};

template <size_t words>
size_t XorPermutedRows64(uint8_t* table, const uint8_t* f, const uint8_t* rho, const uint8_t* flip,
                         size_t count) {
  uint64_t images[words][8];
  for (size_t t = 0; t < words; ++t) {
    for (unsigned r = 0; r < 8; ++r) images[t][r] = PermuteBits(Load64(f + 8 * t), r);
  }
  const Lookup64Of<words> lookups(images);
  const V numbers = ByteNumbers();
  const V low_byte = LowBytePattern<8>();
  const V word_numbers = WordNumbers<words>();
  return XorRows64<words>(table, rho, flip, count, [=](V index) {
    V image = lookups.tables[0](index);
    if constexpr (words > 1) {
      const V wanted = Xor(word_numbers, ShiftRight64(index, 6));
      image = WhereEqual64(wanted, Zero(), image);
      for (size_t t = 1; t < words; ++t) {
        image = Or(image, WhereEqual64(wanted, Set64(t), lookups.tables[t](index)));
      }
    }
    const V byte = And(ShiftRight64(index, 3), Set64(7));
    return Shuffle(image, Xor(numbers, Shuffle(byte, low_byte)));
  });
}

void XorPermutedRows(uint8_t* table, const uint8_t* f, const uint8_t* rho, const uint8_t* flip,
                     size_t count, unsigned k) {
  size_t done = 0;
  if (k <= 3) {
    uint8_t rows[16];
    for (unsigned r = 0; r < 16; ++r) {
      rows[r] = static_cast<uint8_t>(PermuteBits(*f, r & ((1U << k) - 1)) & SmallRowMask(k));
    }
    done = XorSmallRows(table, rho, flip, count, k, rows);
  } else if (k == 4) {
    const auto function = static_cast<uint16_t>(f[0] | f[1] << 8);
    uint16_t rows[16];
    for (unsigned r = 0; r < 16; ++r) rows[r] = static_cast<uint16_t>(PermuteBits(function, r));
    done = XorRows16(table, rho, flip, count, rows);
  } else if (k == 5) {
    done = XorPermutedRows32(table, f, rho, flip, count);
  } else {
    done = k == 6   ? XorPermutedRows64<1>(table, f, rho, flip, count)
           : k == 7 ? XorPermutedRows64<2>(table, f, rho, flip, count)
                    : XorPermutedRows64<4>(table, f, rho, flip, count);
  }
  portable::kKernels.xor_permuted_rows(table + RowOffset(done, k), f, rho + done, flip + done,
                                       count - done, k);
}

/// out[g] ^= bit g of `bits` << shift, for `count` (a multiple of 8) bits.
void XorMask(uint8_t* out, uint64_t bits, size_t count, unsigned shift) {
  for (size_t g = 0; g < count; g += 8, bits >>= 8) {
    Store64(out + g, Load64(out + g) ^ _pdep_u64(bits, kEachByte) << shift);
  }
}

template <unsigned k>
size_t SelectFromByteRows(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count,
                          unsigned shift) {
  uint8_t powers[16];
  for (unsigned j = 0; j < 16; ++j) powers[j] = static_cast<uint8_t>(1U << (j & 7));
  const V lookup = Repeat16(powers);
  const V value = Set8(static_cast<uint8_t>(1U << shift));
  size_t i = 0;
  for (; i + kBytes <= count; i += kBytes) {
    V rows;
    if constexpr (k == 3) {
      rows = Load(table + i);
    } else {
      constexpr size_t kGroup = size_t{1} << k;
      alignas(kBytes) uint8_t bytes[kBytes];
      const uint8_t* from = table + i / 8 * kGroup;
      for (size_t g = 0; g < kBytes; g += 8, from += kGroup) {
        uint64_t packed = 0;
        __builtin_memcpy(&packed, from, kGroup);
        Store64(bytes + g, _pdep_u64(packed, SmallRowMask(k) * kEachByte));
      }
      rows = Load(bytes);
    }
    const V bits = And(rows, Shuffle(lookup, Load(index + i)));
    Store(out + i, Xor(Load(out + i), WhereNonZero8(bits, value)));
  }
  return i;
}

size_t SelectFromRows16(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count,
                        unsigned shift) {
  constexpr size_t kStep = kLanes<uint16_t>;
  uint16_t powers[16];
  for (unsigned j = 0; j < 16; ++j) powers[j] = static_cast<uint16_t>(1U << j);
  const Lookup16 lookup(powers);
  size_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    const V bits = And(Load(table + 2 * i), lookup(WidenTo16(index + i)));
    XorMask(out + i, NonZeroMask16(bits), kStep, shift);
  }
  return i;
}

size_t SelectFromRows32(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count,
                        unsigned shift) {
  constexpr size_t kStep = kLanes<uint32_t>;
  const V top = Set32(31);
  size_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    const V by = Subtract<uint32_t>(top, WidenTo32(index + i));
    XorMask(out + i, SignMask32(ShiftLeft32By(Load(table + 4 * i), by)), kStep, shift);
  }
  return i;
}

size_t SelectFromRows64(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count,
                        unsigned shift) {
  const V top = Set64(63);
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    uint64_t bits = 0;
    for (size_t j = 0; j < 8; j += kLanes<uint64_t>) {
      const V by = Subtract<uint64_t>(top, SpreadTo64<1>(index + i + j));
      bits |= SignMask64(ShiftLeft64By(Load(table + 8 * (i + j)), by)) << j;
    }
    XorMask(out + i, bits, 8, shift);
  }
  return i;
}

void SelectBits(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count, unsigned k,
                unsigned shift) {
  size_t done = 0;
  switch (k) {
    case 1:
      done = SelectFromByteRows<1>(out, table, index, count, shift);
      break;
    case 2:
      done = SelectFromByteRows<2>(out, table, index, count, shift);
      break;
    case 3:
      done = SelectFromByteRows<3>(out, table, index, count, shift);
      break;
    case 4:
      done = SelectFromRows16(out, table, index, count, shift);
      break;
    case 5:
      done = SelectFromRows32(out, table, index, count, shift);
      break;
    case 6:
      done = SelectFromRows64(out, table, index, count, shift);
      break;
    default:
      break;  // rows of several words
  }
  portable::kKernels.select_bits(out + done, table + RowOffset(done, k), index + done, count - done,
                                 k, shift);
}

// -------------------------------------------------------------------------------------------------
// Packing. One pext squeezes, one pdep spreads, all the elements of a 64-bit word.

template <class W>
void Pack(const W* in, size_t count, unsigned bits, uint8_t* out) {
  if (count == 0) return;
  if (bits == kWidth<W>) {
    __builtin_memcpy(out, in, count * sizeof(W));
    return;
  }
  const uint64_t mask = ElementMask<W>(bits);
  size_t i = 0;
  if constexpr (sizeof(W) <= 2) {
    // Eight elements at a time give whole bytes, stored in one or two words that run over into what
    // the next ones overwrite; the last few are left to the stream.
    constexpr size_t kStored = 8 * sizeof(W);
    for (size_t left = PackedBytes(count, bits); i + 8 <= count && left >= kStored;
         i += 8, left -= bits, out += bits) {
      const uint64_t low = _pext_u64(Load64(in + i), mask);
      if constexpr (sizeof(W) == 1) {
        Store64(out, low);
      } else {
        const uint64_t high = _pext_u64(Load64(in + i + 4), mask);
        Store64(out, low | high << (4 * bits));
        Store64(out + 8, high >> (64 - 4 * bits));
      }
    }
  }
  BitWriter writer{out};
  const auto chunk = static_cast<unsigned>(kPerWord<W> * bits);
  for (; i + kPerWord<W> <= count; i += kPerWord<W>) {
    writer.Write(_pext_u64(Load64(in + i), mask), chunk);
  }
  if (i < count) {
    uint64_t last = 0;
    CopySmall(&last, in + i, (count - i) * sizeof(W));
    writer.Write(_pext_u64(last, mask), static_cast<unsigned>((count - i) * bits));
  }
  writer.Flush();
}

template <class W>
void Unpack(const uint8_t* in, size_t count, unsigned bits, W* out) {
  if (count == 0) return;
  if (bits == kWidth<W>) {
    __builtin_memcpy(out, in, count * sizeof(W));
    return;
  }
  const uint64_t mask = ElementMask<W>(bits);
  const size_t bytes = PackedBytes(count, bits);
  size_t i = 0;
  if constexpr (sizeof(W) <= 2) {
    const size_t read = sizeof(W) == 1 ? 8 : bits / 2 + 8;
    for (size_t at = 0; i + 8 <= count && at + read <= bytes; i += 8, at += bits) {
      Store64(out + i, _pdep_u64(Load64(in + at), mask));
      if constexpr (sizeof(W) == 2) {
        Store64(out + i + 4, _pdep_u64(Load64(in + at + bits / 2) >> (bits % 2 * 4), mask));
      }
    }
  }
  for (; i < count; i += kPerWord<W>) {
    const size_t at = i * bits;
    const uint8_t* from = in + at / 8;
    uint8_t padded[9] = {};
    if (at / 8 + sizeof padded > bytes) {
      CopySmall(padded, from, bytes - at / 8);
      from = padded;
    }
    const uint64_t spread = _pdep_u64(LoadBits(from, at % 8), mask);
    if (i + kPerWord<W> <= count) {
      Store64(out + i, spread);
    } else {
      CopySmall(out + i, &spread, (count - i) * sizeof(W));
    }
  }
}

}  // namespace

constinit const Kernels kKernels = {
    TERCET_ISA_NAME,   Product<uint8_t>, Product<uint16_t>, Product<uint32_t>,
    Product<uint64_t>, XorGreaterRows,   XorPermutedRows,   SelectBits,
    Pack<uint8_t>,     Pack<uint16_t>,   Pack<uint32_t>,    Pack<uint64_t>,
    Unpack<uint8_t>,   Unpack<uint16_t>, Unpack<uint32_t>,  Unpack<uint64_t>,
};

}  // namespace tercet::ring::TERCET_ISA
