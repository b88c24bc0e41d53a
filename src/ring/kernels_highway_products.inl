// SPDX-License-Identifier: Apache-2.0
// Products of the Highway kernels, for one target of kernels_highway.cpp. Sums wrap around, so the
// order of additions is free and lanes wider than the word may collect anything above it.
//
// Arith<W> says how a vector of words is laid out as kParts vectors of lanes, with an accumulator
// each, so that one multiplication and one addition a part do all its products:
//   Lane       the lanes of accumulators,
//   LayOut     a vector of words -> kParts vectors,
//   Weights    the weight of one output, repeated over the vector,
//   Mac        accumulator + x * w for one part,
//   Finish     kParts accumulators -> a vector of words, in column order,
//   Dot, kDotParts, DotTotal
//              the same accumulation for x and w that both run along the depth, and its total.

/// sum + x * w, lane by lane.
template <class W>
HWY_INLINE V<W> MulAdd(V<W> sum, V<W> x, V<W> w) {
#if HWY_ARCH_ARM && HWY_HAVE_SCALABLE
  return svmla_x(svptrue_b8(), sum, x, w);
#else
#if HWY_TARGET == HWY_NEON
  if constexpr (sizeof(W) == 1) return V<W>(vmlaq_u8(sum.raw, x.raw, w.raw));
#endif
  if constexpr (sizeof(W) > 1) return hn::Add(sum, hn::Mul(x, w));
#endif
}

/// Lanes of half the number and twice the width, each the sum of two neighbours.
template <class Wide, class W>
HWY_INLINE V<Wide> SumPairs(V<W> v) {
  const Tag<Wide> d;
  const V<Wide> pairs = hn::BitCast(d, v);
  const auto low = static_cast<Wide>(static_cast<W>(~W{0}));
  return hn::Add(hn::And(pairs, hn::Set(d, low)), hn::ShiftRight<8 * sizeof(W)>(pairs));
}

/// The sum of all lanes.
template <class W>
HWY_INLINE W Total(V<W> v) {
  if constexpr (sizeof(W) == 1) {
    return static_cast<W>(Total<uint16_t>(SumPairs<uint16_t, W>(v)));
  } else if constexpr (sizeof(W) == 2) {
    return static_cast<W>(Total<uint32_t>(SumPairs<uint32_t, W>(v)));
  } else {
    const Tag<W> d;
#if HWY_TARGET == HWY_AVX3
    // In two halves: the compiler's reduction of 512 bits adds signed numbers, which must not wrap
    // around.
    const hn::Half<decltype(d)> half;
    const auto sum = hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v));
    return hn::GetLane(hn::SumOfLanes(half, sum));
#else
    return hn::GetLane(hn::SumOfLanes(d, v));
#endif
  }
}

/// Words that the target multiplies as they are.
template <class W>
struct Arith {
  using Lane = W;
  static constexpr size_t kVectorsIn = 2;
  static constexpr size_t kParts = 1;
  static constexpr size_t kDotParts = 1;

  static HWY_INLINE void LayOut(V<W> x, W* to) { hn::StoreU(x, Tag<W>(), to); }
  static HWY_INLINE V<W> Weights(const W* w) { return hn::Set(Tag<W>(), *w); }
  template <size_t part>
  static HWY_INLINE V<W> Mac(V<W> sum, V<W> x, V<W> w) {
    return MulAdd<W>(sum, x, w);
  }
  static HWY_INLINE V<W> Finish(const W* sums) { return hn::LoadU(Tag<W>(), sums); }
  template <size_t part>
  static HWY_INLINE V<W> Dot(V<W> sum, V<W> x, V<W> w) {
    return MulAdd<W>(sum, x, w);
  }
  static HWY_INLINE W DotTotal(const W* sums) { return Total<W>(hn::LoadU(Tag<W>(), sums)); }
};

#if !HWY_ARCH_ARM

// No multiplication of bytes: even and odd columns apart, in the low bytes of 16-bit lanes.
template <>
struct Arith<uint8_t> {
  using Lane = uint16_t;
  static constexpr size_t kVectorsIn = 1;
  static constexpr size_t kParts = 2;
  static constexpr size_t kDotParts = 1;

  static HWY_INLINE void LayOut(V<uint8_t> x, Lane* to) {
    const Tag<Lane> d;
    const V<Lane> pairs = hn::BitCast(d, x);
    hn::StoreU(pairs, d, to);
    hn::StoreU(hn::ShiftRight<8>(pairs), d, to + hn::Lanes(d));
  }
  static HWY_INLINE V<Lane> Weights(const uint8_t* w) { return hn::Set(Tag<Lane>(), *w); }
  template <size_t part>
  static HWY_INLINE V<Lane> Mac(V<Lane> sum, V<Lane> x, V<Lane> w) {
    return MulAdd<Lane>(sum, x, w);
  }
  static HWY_INLINE V<uint8_t> Finish(const Lane* sums) {
    const Tag<Lane> d;
    const V<Lane> even = hn::And(hn::LoadU(d, sums), hn::Set(d, 0xff));
    const V<Lane> odd = hn::ShiftLeft<8>(hn::LoadU(d, sums + hn::Lanes(d)));
    return hn::BitCast(Tag<uint8_t>(), hn::Or(even, odd));
  }
  template <size_t part>
  static HWY_INLINE V<Lane> Dot(V<Lane> sum, V<uint8_t> x, V<uint8_t> w) {
    const Tag<Lane> d;
    const V<Lane> xs = hn::BitCast(d, x);
    const V<Lane> ws = hn::BitCast(d, w);
    sum = MulAdd<Lane>(sum, xs, ws);
    return MulAdd<Lane>(sum, hn::ShiftRight<8>(xs), hn::ShiftRight<8>(ws));
  }
  static HWY_INLINE uint8_t DotTotal(const Lane* sums) {
    return static_cast<uint8_t>(Total<Lane>(hn::LoadU(Tag<Lane>(), sums)));
  }
};

#endif

#if HWY_TARGET == HWY_NEON || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_AVX2

// No multiplication of 64-bit words: x * w = low(x) * low(w) + 2^32 * (low(x) * high(w) + high(x) *
// low(w)). The first part collects the product of the low halves, the other one the two mixed
// products, in 32-bit lanes, as nothing above counts.
template <>
struct Arith<uint64_t> {
  using Lane = uint64_t;
  static constexpr size_t kVectorsIn = 1;
  static constexpr size_t kParts = 2;
  static constexpr size_t kDotParts = 2;

  static HWY_INLINE V<uint32_t> Halves(V<Lane> v) { return hn::BitCast(Tag<uint32_t>(), v); }
  static HWY_INLINE V<Lane> Swapped(V<Lane> v) {
    return hn::BitCast(Tag<Lane>(), hn::Shuffle2301(Halves(v)));
  }
  static HWY_INLINE void LayOut(V<Lane> x, Lane* to) {
    const Tag<Lane> d;
    hn::StoreU(x, d, to);
    hn::StoreU(Swapped(x), d, to + hn::Lanes(d));
  }
  static HWY_INLINE V<Lane> Weights(const Lane* w) { return hn::Set(Tag<Lane>(), *w); }
  template <size_t part>
  static HWY_INLINE V<Lane> Mac(V<Lane> sum, V<Lane> x, V<Lane> w) {
    if constexpr (part == 0) {
      return hn::Add(sum, hn::MulEven(Halves(x), Halves(w)));
    } else {
      return hn::BitCast(Tag<Lane>(), MulAdd<uint32_t>(Halves(sum), Halves(x), Halves(w)));
    }
  }
  static HWY_INLINE V<Lane> Finish(const Lane* sums) {
    const Tag<Lane> d;
    const V<Lane> mixed = hn::LoadU(d, sums + hn::Lanes(d));
    const V<Lane> both = hn::Add(mixed, hn::ShiftRight<32>(mixed));
    return hn::Add(hn::LoadU(d, sums), hn::ShiftLeft<32>(both));
  }
  template <size_t part>
  static HWY_INLINE V<Lane> Dot(V<Lane> sum, V<Lane> x, V<Lane> w) {
    return Mac<part>(sum, part == 0 ? x : Swapped(x), w);
  }
  static HWY_INLINE Lane DotTotal(const Lane* sums) { return Total<Lane>(Finish(sums)); }
};

#endif

// A panel is a slice of x, one column block wide, laid out for Mac. It stays in the first cache and
// is used by all outputs before the next is made.
constexpr size_t kPanelBytes = 32768;

template <class W>
using LaneOf = typename Arith<W>::Lane;

/// Accumulators of one output.
template <class W>
constexpr size_t kVectors = Arith<W>::kVectorsIn* Arith<W>::kParts;

// Outputs in one tile: as many as the registers (16 or 32) hold accumulators for.
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_AVX2
constexpr size_t kAccumulators = 8;
#else
constexpr size_t kAccumulators = 24;
#endif
template <class W>
constexpr size_t kTileOutputs = kAccumulators / kVectors<W>;

/// Lays out rows[0..depth) at columns [first, first + cols) in `panel`, with zeros for what is
/// missing.
template <class W, bool whole>
HWY_INLINE void FillPanel(const W* const* rows, size_t depth, size_t first, size_t cols,
                          LaneOf<W>* panel) {
  using A = Arith<W>;
  const Tag<W> d;
  const size_t part_lanes = hn::Lanes(Tag<LaneOf<W>>());
  for (size_t k = 0; k < depth; ++k) {
    const W* const row = rows[k];
    for (size_t v = 0; v < A::kVectorsIn; ++v, panel += A::kParts * part_lanes) {
      const size_t at = v * hn::Lanes(d);
      if (row == nullptr || (!whole && at >= cols)) {
        A::LayOut(hn::Zero(d), panel);
      } else if (whole || at + hn::Lanes(d) <= cols) {
        A::LayOut(hn::LoadU(d, row + first + at), panel);
      } else {
        A::LayOut(LoadPartial(row + first + at, cols - at), panel);
      }
    }
  }
}

/// Accumulator i, which belongs to output i / kVectors, += w[m*stride + 0..depth) times the panel;
/// all are then stored. Vectors of some targets cannot be in arrays, but they can be arguments.
template <class W, size_t... i, class... Acc>
HWY_INLINE void Tile(Indices<i...>, const LaneOf<W>* panel, size_t depth, const W* w, size_t stride,
                     LaneOf<W>* sums, Acc... acc) {
  using A = Arith<W>;
  constexpr size_t n = kVectors<W>;
  const Tag<LaneOf<W>> d;
  const size_t lanes = hn::Lanes(d);
  for (size_t k = 0; k < depth; ++k, panel += n * lanes, ++w) {
    ((acc = A::template Mac<i % A::kParts>(acc, hn::LoadU(d, panel + i % n * lanes),
                                           A::Weights(w + i / n * stride))),
     ...);
  }
  (hn::StoreU(acc, d, sums + i * lanes), ...);
}

template <class W, size_t... i>
HWY_INLINE void TileFromZero(Indices<i...> indices, const LaneOf<W>* panel, size_t depth,
                             const W* w, size_t stride, LaneOf<W>* sums) {
  Tile<W>(indices, panel, depth, w, stride, sums,
          (static_cast<void>(i), hn::Zero(Tag<LaneOf<W>>()))...);
}

/// TileFromZero for a number of outputs known at run time, 1 <= outputs <= kTileOutputs.
template <class W, size_t most = kTileOutputs<W>>
void TileOf(size_t outputs, const LaneOf<W>* panel, size_t depth, const W* w, size_t stride,
            LaneOf<W>* sums) {
  if constexpr (most > 1) {
    if (outputs < most) return TileOf<W, most - 1>(outputs, panel, depth, w, stride, sums);
  }
  TileFromZero<W>(typename IndicesBelow<most * kVectors<W>>::Type{}, panel, depth, w, stride, sums);
}

template <class W>
void ProductByPanels(W* const* y, size_t outputs, size_t cols, const W* w, const W* const* rows,
                     size_t depth) {
  using A = Arith<W>;
  constexpr size_t kMost = kTileOutputs<W>;
  const Tag<W> d;
  const size_t lanes = hn::Lanes(d);
  const size_t part_lanes = hn::Lanes(Tag<LaneOf<W>>());
  const size_t panel_depth = kPanelBytes / (lanes * sizeof(W)) / kVectors<W>;
  const size_t panel_cols = A::kVectorsIn * lanes;
  HWY_ALIGN_MAX LaneOf<W> panel[kPanelBytes / sizeof(LaneOf<W>)];
  HWY_ALIGN_MAX LaneOf<W> sums[kAccumulators * kMaxBytes / sizeof(LaneOf<W>)];
  for (size_t k = 0; k < depth; k += panel_depth) {
    const size_t slice = Min(depth - k, panel_depth);
    for (size_t first = 0; first < cols; first += panel_cols) {
      const size_t width = Min(cols - first, panel_cols);
      const bool whole = width == panel_cols;
      if (whole) {
        FillPanel<W, true>(rows + k, slice, first, width, panel);
      } else {
        FillPanel<W, false>(rows + k, slice, first, width, panel);
      }
      for (size_t m = 0; m < outputs;) {
        // Tiles of even size: a lonely last output would wait for each of its additions.
        const size_t tiles = (outputs - m + kMost - 1) / kMost;
        const size_t n = (outputs - m + tiles - 1) / tiles;
        TileOf<W>(n, panel, slice, w + m * depth + k, depth, sums);
        const LaneOf<W>* from = sums;
        for (size_t t = 0; t < n; ++t, ++m) {
          for (size_t v = 0; v < A::kVectorsIn; ++v, from += A::kParts * part_lanes) {
            const size_t at = v * lanes;
            W* const to = y[m] + first + at;
            if (at + lanes <= width) {
              hn::StoreU(hn::Add(hn::LoadU(d, to), A::Finish(from)), d, to);
            } else if (at < width) {
              StorePartial(hn::Add(LoadPartial(to, width - at), A::Finish(from)), to, width - at);
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
template <class W>  // not a power of two, for the cache
constexpr size_t kNarrowStride = kNarrowDepth<W> + kMaxBytes / sizeof(W);

/// y[m][first + c] += w[m*stride + 0..depth) . x[c], for `outputs` x `cols` results. Accumulator i
/// is a part of result i / kDotParts, which is output i / kDotParts / cols.
template <class W, size_t outputs, size_t cols, size_t... i, class... Acc>
HWY_INLINE void Dots(Indices<i...>, W* const* y, size_t first, const W* w, size_t stride,
                     const W* x, size_t depth, Acc... acc) {
  using A = Arith<W>;
  constexpr size_t n = A::kDotParts;
  const Tag<W> d;
  const Tag<LaneOf<W>> d_lane;
  const size_t lanes = hn::Lanes(d);
  const size_t whole = depth / lanes * lanes;
  if (whole < depth) {
    ((acc = A::template Dot<i % n>(acc, hn::LoadU(d, x + i / n % cols * kNarrowStride<W> + whole),
                                   LoadPartial(w + i / n / cols * stride + whole, depth - whole))),
     ...);
  }
  for (size_t k = 0; k < whole; k += lanes) {
    ((acc = A::template Dot<i % n>(acc, hn::LoadU(d, x + i / n % cols * kNarrowStride<W> + k),
                                   hn::LoadU(d, w + i / n / cols * stride + k))),
     ...);
  }
  HWY_ALIGN_MAX LaneOf<W> sums[sizeof...(i) * kMaxBytes / sizeof(LaneOf<W>)];
  (hn::StoreU(acc, d_lane, sums + i * hn::Lanes(d_lane)), ...);
  for (size_t r = 0; r < outputs * cols; ++r) {
    W& to = y[r / cols][first + r % cols];
    to = static_cast<W>(to + A::DotTotal(sums + r * n * hn::Lanes(d_lane)));
  }
}

template <class W, size_t outputs, size_t cols, size_t... i>
HWY_INLINE void DotsFromZero(Indices<i...> indices, W* const* y, size_t first, const W* w,
                             size_t stride, const W* x, size_t depth) {
  Dots<W, outputs, cols>(indices, y, first, w, stride, x + first * kNarrowStride<W>, depth,
                         (static_cast<void>(i), hn::Zero(Tag<LaneOf<W>>()))...);
}

template <class W, size_t outputs>
void DotsOf(W* const* y, size_t cols, const W* w, size_t stride, const W* x, size_t depth) {
  constexpr size_t n = Arith<W>::kDotParts * outputs;
  size_t c = 0;
  for (; c + 4 <= cols; c += 4) {
    DotsFromZero<W, outputs, 4>(typename IndicesBelow<4 * n>::Type{}, y, c, w, stride, x, depth);
  }
  for (; c + 2 <= cols; c += 2) {
    DotsFromZero<W, outputs, 2>(typename IndicesBelow<2 * n>::Type{}, y, c, w, stride, x, depth);
  }
  if (c < cols) {
    DotsFromZero<W, outputs, 1>(typename IndicesBelow<1 * n>::Type{}, y, c, w, stride, x, depth);
  }
}

template <class W>
void ProductByDots(W* const* y, size_t outputs, size_t cols, const W* w, const W* const* rows,
                   size_t depth) {
  constexpr size_t kOutputs = Min(4, kAccumulators / 4 / Arith<W>::kDotParts);
  const Tag<W> d;
  HWY_ALIGN_MAX W x[kNarrowCols * kNarrowStride<W>];
  for (size_t k = 0; k < depth; k += kNarrowDepth<W>) {
    const size_t slice = Min(depth - k, kNarrowDepth<W>);
    for (size_t i = 0; i < slice; ++i) {
      const W* const row = rows[k + i];
      for (size_t c = 0; c < cols; ++c) {
        x[c * kNarrowStride<W> + i] = row == nullptr ? W{0} : row[c];
      }
    }
    for (size_t c = 0; c < cols; ++c) {
      hn::StoreU(hn::Zero(d), d, x + c * kNarrowStride<W> + slice);
    }
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
