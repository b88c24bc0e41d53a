// SPDX-License-Identifier: Apache-2.0
// Packing of the Highway kernels, for one target of kernels_highway.cpp: the elements of a 64-bit
// word are squeezed together, or spread, in a step for each doubling of their number, many words at
// once; what remains is a stream of bits.

constexpr size_t kBlockWords = 64;

/// The low halves of the lanes of 2 * width bits.
template <unsigned width>
HWY_INLINE V<uint64_t> LowHalves() {
  const uint64_t half = (uint64_t{1} << width) - 1;
  const uint64_t mask = width == 32   ? half
                        : width == 16 ? half * 0x0000000100000001
                                      : half * 0x0001000100010001;
  return hn::Set(Tag<uint64_t>(), mask);
}

/// Elements of `width` bits, of which only the low `bits` may be set, move together at the low end
/// of each word.
template <unsigned width>
HWY_INLINE V<uint64_t> Squeeze(V<uint64_t> v, unsigned bits) {
  if constexpr (width < 64) {
    const V<uint64_t> low = LowHalves<width>();
    const int by = static_cast<int>(width - bits);
    v = hn::Or(hn::And(v, low), hn::ShiftRightSame(hn::AndNot(low, v), by));
    return Squeeze<2 * width>(v, 2 * bits);
  } else {
    return v;
  }
}

/// The reverse: elements of `bits` bits at the low end of each word move to their lanes of `width`
/// bits. What is above the last element of a word is shifted out or into other elements' upper
/// bits.
template <unsigned width>
HWY_INLINE V<uint64_t> Spread(V<uint64_t> v, unsigned bits) {
  if constexpr (width < 64) {
    v = Spread<2 * width>(v, 2 * bits);
    const V<uint64_t> low = LowHalves<width>();
    const V<uint64_t> shifted = hn::ShiftLeftSame(v, static_cast<int>(width - bits));
    return hn::Or(hn::And(v, low), hn::AndNot(low, shifted));
  } else {
    return v;
  }
}

template <class W>
void Pack(const W* in, size_t count, unsigned bits, uint8_t* out) {
  if (count == 0) return;
  if (bits == kWidth<W>) {
    __builtin_memcpy(out, in, count * sizeof(W));
    return;
  }
  const Tag<uint64_t> d;
  const V<uint64_t> mask = hn::Set(d, ElementMask<W>(bits));
  const size_t lanes = hn::Lanes(d);
  constexpr size_t kBlock = kBlockWords * kPerWord<W>;
  BitWriter writer{out};
  for (size_t i = 0; i < count; i += kBlock) {
    const size_t elements = Min(count - i, kBlock);
    HWY_ALIGN_MAX uint64_t words[kBlockWords] = {};
    __builtin_memcpy(words, in + i, elements * sizeof(W));
    const size_t used = (elements + kPerWord<W> - 1) / kPerWord<W>;
    for (size_t j = 0; j < used; j += lanes) {
      const V<uint64_t> masked = hn::And(hn::LoadU(d, words + j), mask);
      hn::StoreU(Squeeze<kWidth<W>>(masked, bits), d, words + j);
    }
    size_t left = elements;
    for (size_t j = 0; j < used; ++j, left -= Min(left, kPerWord<W>)) {
      writer.Write(words[j], static_cast<unsigned>(Min(left, kPerWord<W>) * bits));
    }
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
  const Tag<uint64_t> d;
  const V<uint64_t> mask = hn::Set(d, ElementMask<W>(bits));
  const size_t lanes = hn::Lanes(d);
  const size_t bytes = PackedBytes(count, bits);
  constexpr size_t kBlock = kBlockWords * kPerWord<W>;
  for (size_t i = 0; i < count; i += kBlock) {
    const size_t elements = Min(count - i, kBlock);
    const size_t used = (elements + kPerWord<W> - 1) / kPerWord<W>;
    HWY_ALIGN_MAX uint64_t words[kBlockWords];
    for (size_t j = 0; j < used; ++j) {
      const size_t at = (i + j * kPerWord<W>)*bits;
      const uint8_t* from = in + at / 8;
      uint8_t padded[9] = {};
      if (at / 8 + sizeof padded > bytes) {
        CopySmall(padded, from, bytes - at / 8);
        from = padded;
      }
      words[j] = LoadBits(from, at % 8);
    }
    // Whole vectors: what is behind the last word is spread too, and not copied.
    for (size_t j = used; j < (used + lanes - 1) / lanes * lanes; ++j) words[j] = 0;
    for (size_t j = 0; j < used; j += lanes) {
      hn::StoreU(hn::And(Spread<kWidth<W>>(hn::LoadU(d, words + j), bits), mask), d, words + j);
    }
    __builtin_memcpy(out + i, words, elements * sizeof(W));
  }
}
