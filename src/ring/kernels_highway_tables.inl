// SPDX-License-Identifier: Apache-2.0
// Bit tables of the Highway kernels, for one target of kernels_highway.cpp. Secret indices select
// within registers only, by shuffles of bytes. The functions that return a number do so many
// elements; the portable kernels do the rest. `flip` is null where nothing is to be flipped.

/// The bytes of the table that 16 rows of `row_bytes` bytes take: whose they are, and with which
/// bit of the row they start.
template <size_t row_bytes>
struct RowPattern {
  uint8_t element[16 * row_bytes] = {};
  uint8_t first_bit[16 * row_bytes] = {};
  constexpr RowPattern() {
    for (size_t b = 0; b < 16 * row_bytes; ++b) {
      element[b] = static_cast<uint8_t>(b / row_bytes);
      first_bit[b] = static_cast<uint8_t>(b % row_bytes * 8);
    }
  }
};
template <size_t row_bytes>
constexpr RowPattern<row_bytes> kRowPattern;

/// Vectors that 16 rows are a multiple of.
template <size_t row_bytes>
using RowTag = hn::CappedTag<uint8_t, Min(16 * row_bytes, kMaxBytes)>;

template <class D>
HWY_INLINE void XorInto(uint8_t* table, D d, hn::Vec<D> rows) {
  hn::StoreU(hn::Xor(hn::LoadU(d, table), rows), d, table);
}

/// Rows of 2^k bits for k <= 3: looked up in a table of 2^k bytes, a byte an element, and squeezed
/// for k < 3.
template <unsigned k>
size_t XorByteRows(uint8_t* table, const uint8_t* index, const uint8_t* flip, size_t count,
                   const uint8_t* rows_by_index) {
  const Tag<uint8_t> d;
  const V<uint8_t> lookup = hn::LoadDup128(d, rows_by_index);
  const V<uint8_t> row_mask = hn::Set(d, SmallRowMask(k));
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    V<uint8_t> rows = hn::TableLookupBytes(lookup, hn::LoadU(d, index + i));
    if (flip != nullptr) {
      rows = hn::Xor(rows, hn::And(hn::Sub(hn::Zero(d), hn::LoadU(d, flip + i)), row_mask));
    }
    if constexpr (k == 3) {
      XorInto(table + i, d, rows);
    } else if constexpr (k == 2) {
      const Tag<uint16_t> d16;
      const hn::Rebind<uint8_t, Tag<uint16_t>> d8;
      const V<uint16_t> pairs = hn::BitCast(d16, rows);
      const V<uint16_t> squeezed = hn::Or(pairs, hn::ShiftRight<4>(pairs));
      XorInto(table + i / 2, d8, hn::TruncateTo(d8, squeezed));
    } else {
      const Tag<uint32_t> d32;
      const hn::Rebind<uint8_t, Tag<uint32_t>> d8;
      V<uint32_t> four = hn::BitCast(d32, rows);
      four = hn::Or(four, hn::ShiftRight<6>(four));
      four = hn::Or(four, hn::ShiftRight<12>(four));
      XorInto(table + i / 4, d8, hn::TruncateTo(d8, four));
    }
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

/// Byte b of a row has min(max(own - 8*b, 0), 8) ones.
template <unsigned k>
size_t XorGreaterBytes(uint8_t* table, const uint8_t* own, size_t count) {
  constexpr size_t kRowBytes = size_t{1} << (k - 3);
  constexpr const RowPattern<kRowBytes>& kPattern = kRowPattern<kRowBytes>;
  alignas(16) constexpr uint8_t kOnes[16] = {0, 1, 3, 7, 15, 31, 63, 127, 255};
  const RowTag<kRowBytes> d;
  const auto lookup = hn::LoadDup128(d, kOnes);
  const auto eight = hn::Set(d, uint8_t{8});
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const auto owns = hn::LoadDup128(d, own + i);
    for (size_t b = 0; b < 16 * kRowBytes; b += lanes, table += lanes) {
      const auto mine = hn::TableLookupBytes(owns, hn::LoadU(d, kPattern.element + b));
      const auto above = hn::SaturatedSub(mine, hn::LoadU(d, kPattern.first_bit + b));
      XorInto(table, d, hn::TableLookupBytes(lookup, hn::Min(above, eight)));
    }
  }
  return i;
}

void XorGreaterRows(uint8_t* table, const uint8_t* own, size_t count, unsigned k) {
  size_t done = 0;
  if (k <= 3) {
    uint8_t rows[16];
    for (unsigned j = 0; j < 16; ++j) rows[j] = static_cast<uint8_t>((1U << j) - 1);
    done = XorSmallRows(table, own, nullptr, count, k, rows);
  } else {
    constexpr decltype(&XorGreaterBytes<4>) kByWidth[] = {XorGreaterBytes<4>, XorGreaterBytes<5>,
                                                          XorGreaterBytes<6>, XorGreaterBytes<7>,
                                                          XorGreaterBytes<8>};
    done = kByWidth[k - 4](table, own, count);
  }
  portable::kKernels.xor_greater_rows(table + RowOffset(done, k), own + done, count - done, k);
}

/// entries[index] for entries of 2^k bytes: sixteen at a time, chosen by the index's upper bits.
template <unsigned k, class D>
HWY_INLINE hn::Vec<D> LookUpBytes(D d, const uint8_t* entries, hn::Vec<D> index) {
  if constexpr (k == 4) {
    const auto within = hn::And(index, hn::Set(d, uint8_t{15}));
    return hn::TableLookupBytes(hn::LoadDup128(d, entries), within);
  } else {
    constexpr size_t kHalf = size_t{1} << (k - 1);
    const auto upper = hn::TestBit(index, hn::Set(d, uint8_t{kHalf}));
    return hn::IfThenElse(upper, LookUpBytes<k - 1>(d, entries + kHalf, index),
                          LookUpBytes<k - 1>(d, entries, index));
  }
}

/// The byte of a row that starts with bit v is image[v ^ rho], where image[t] has f(t ^ u) as its
/// bits u: the images are public, and only which one is taken is secret.
template <unsigned k>
size_t XorPermutedBytes(uint8_t* table, const uint8_t* image, const uint8_t* rho,
                        const uint8_t* flip, size_t count) {
  constexpr size_t kRowBytes = size_t{1} << (k - 3);
  constexpr const RowPattern<kRowBytes>& kPattern = kRowPattern<kRowBytes>;
  const RowTag<kRowBytes> d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const auto rhos = hn::LoadDup128(d, rho + i);
    const auto flips = hn::Sub(hn::Zero(d), hn::LoadDup128(d, flip + i));
    for (size_t b = 0; b < 16 * kRowBytes; b += lanes, table += lanes) {
      const auto element = hn::LoadU(d, kPattern.element + b);
      const auto index =
          hn::Xor(hn::TableLookupBytes(rhos, element), hn::LoadU(d, kPattern.first_bit + b));
      const auto rows = LookUpBytes<k>(d, image, index);
      XorInto(table, d, hn::Xor(rows, hn::TableLookupBytes(flips, element)));
    }
  }
  return i;
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
  } else {
    uint8_t image[256];
    for (unsigned t = 0; t < 1U << k; ++t) {
      image[t] = static_cast<uint8_t>(PermuteBits(f[t / 8], t % 8));
    }
    constexpr decltype(&XorPermutedBytes<4>) kByWidth[] = {XorPermutedBytes<4>, XorPermutedBytes<5>,
                                                           XorPermutedBytes<6>, XorPermutedBytes<7>,
                                                           XorPermutedBytes<8>};
    done = kByWidth[k - 4](table, image, rho, flip, count);
  }
  portable::kKernels.xor_permuted_rows(table + RowOffset(done, k), f, rho + done, flip + done,
                                       count - done, k);
}

/// Rows of 2^k bits, k <= 3, one in the low bits of each byte; what is above them may be anything.
template <unsigned k>
HWY_INLINE V<uint8_t> LoadByteRows(const uint8_t* table) {
  const Tag<uint8_t> d;
  if constexpr (k == 3) {
    return hn::LoadU(d, table);
  } else if constexpr (k == 2) {
    const Tag<uint16_t> d16;
    const hn::Rebind<uint8_t, Tag<uint16_t>> d8;
    const V<uint16_t> pairs = hn::PromoteTo(d16, hn::LoadU(d8, table));
    return hn::BitCast(d, hn::Or(pairs, hn::ShiftLeft<4>(pairs)));
  } else {
    const Tag<uint32_t> d32;
    const hn::Rebind<uint8_t, Tag<uint32_t>> d8;
    V<uint32_t> four = hn::PromoteTo(d32, hn::LoadU(d8, table));
    four = hn::Or(four, hn::ShiftLeft<12>(four));
    return hn::BitCast(d, hn::Or(four, hn::ShiftLeft<6>(four)));
  }
}

alignas(16) constexpr uint8_t kPowers[16] = {1, 2, 4, 8, 16, 32, 64, 128};

template <unsigned k>
size_t SelectFromByteRows(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count,
                          unsigned shift) {
  const Tag<uint8_t> d;
  const V<uint8_t> lookup = hn::LoadDup128(d, kPowers);
  const V<uint8_t> value = hn::Set(d, static_cast<uint8_t>(1U << shift));
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const V<uint8_t> bit = hn::TableLookupBytes(lookup, hn::LoadU(d, index + i));
    const auto is_set = hn::TestBit(LoadByteRows<k>(table + RowOffset(i, k)), bit);
    XorInto(out + i, d, hn::IfThenElseZero(is_set, value));
  }
  return i;
}

/// Rows of 2^k bits, 4 <= k <= 6: of a row's bytes only the one that the index is in, and of it
/// only the bit, are left.
template <unsigned k>
size_t SelectFromBytes(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count,
                       unsigned shift) {
  constexpr size_t kRowBytes = size_t{1} << (k - 3);
  constexpr const RowPattern<kRowBytes>& kPattern = kRowPattern<kRowBytes>;
  using Row = std::conditional_t<k == 4, uint16_t, std::conditional_t<k == 5, uint32_t, uint64_t>>;
  using RowLanes = hn::Repartition<Row, RowTag<kRowBytes>>;
  const RowTag<kRowBytes> d;
  const RowLanes d_row;
  const hn::Rebind<uint8_t, RowLanes> d_out;
  const auto powers = hn::LoadDup128(d, kPowers);
  const auto eight = hn::Set(d, uint8_t{8});
  const auto value = hn::Set(d_row, static_cast<Row>(1U << shift));
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const auto indices = hn::LoadDup128(d, index + i);
    for (size_t b = 0; b < 16 * kRowBytes; b += lanes, table += lanes) {
      const auto mine = hn::TableLookupBytes(indices, hn::LoadU(d, kPattern.element + b));
      const auto bit = hn::Min(hn::Xor(mine, hn::LoadU(d, kPattern.first_bit + b)), eight);
      const auto left = hn::And(hn::LoadU(d, table), hn::TableLookupBytes(powers, bit));
      const auto is_set = hn::Ne(hn::BitCast(d_row, left), hn::Zero(d_row));
      const auto bits = hn::TruncateTo(d_out, hn::IfThenElseZero(is_set, value));
      XorInto(out + i + b / kRowBytes, d_out, bits);
    }
  }
  return i;
}

void SelectBits(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count, unsigned k,
                unsigned shift) {
  size_t done = 0;
  if (k <= 6) {  // wider rows have several words
    constexpr decltype(&SelectFromBytes<4>) kByWidth[] = {
        SelectFromByteRows<1>, SelectFromByteRows<2>, SelectFromByteRows<3>,
        SelectFromBytes<4>,    SelectFromBytes<5>,    SelectFromBytes<6>};
    done = kByWidth[k - 1](out, table, index, count, shift);
  }
  portable::kKernels.select_bits(out + done, table + RowOffset(done, k), index + done, count - done,
                                 k, shift);
}
