// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <type_traits>

#include "ring/implementations.h"
#include "tercet/ring/word.h"

namespace tercet::ring::portable {
namespace {

using std::size_t;
using std::uint64_t;
using std::uint8_t;

template <class W>
void Product(W* const* y, size_t outputs, size_t cols, const W* w, const W* const* rows,
             size_t depth) {
  // Narrow words would be promoted to int, whose overflow is undefined.
  using Wide = std::conditional_t<sizeof(W) < 4, std::uint32_t, W>;
  for (size_t m = 0; m < outputs; ++m) {
    W* const sums = y[m];
    for (size_t k = 0; k < depth; ++k) {
      const W* const x = rows[k];
      if (x == nullptr) continue;
      const Wide factor = w[m * depth + k];
      for (size_t c = 0; c < cols; ++c) sums[c] = static_cast<W>(sums[c] + factor * x[c]);
    }
  }
}

/// All ones where `condition` holds; secrets choose through such masks and never through branches.
uint64_t Mask(bool condition) { return uint64_t{0} - static_cast<uint64_t>(condition); }

/// 64-bit words that a row of 2^k bits is worked on in; below k = 6 the row is the low end of one
/// word.
size_t RowWords(unsigned k) { return k <= 6 ? 1 : size_t{1} << (k - 6); }

uint64_t RowMask(unsigned k) { return LowMask<uint64_t>(std::min(64U, 1U << k)); }

/// XORs word `j` of row `i`. The word has no bits above the row.
void XorRowWord(uint8_t* table, size_t i, unsigned k, size_t j, uint64_t word) {
  if (k < 3) {
    const size_t bit = i << k;
    table[bit / 8] ^= static_cast<uint8_t>(word << (bit % 8));
    return;
  }
  const size_t row_bytes = size_t{1} << (k - 3);
  uint8_t* const bytes = table + i * row_bytes + 8 * j;
  for (size_t b = 0; b < std::min<size_t>(row_bytes, 8); ++b) {
    bytes[b] ^= static_cast<uint8_t>(word >> (8 * b));
  }
}

void XorGreaterRows(uint8_t* table, const uint8_t* own, size_t count, unsigned k) {
  for (size_t i = 0; i < count; ++i) {
    const size_t last = own[i] / 64;
    const uint64_t low = (uint64_t{1} << (own[i] % 64)) - 1;
    for (size_t j = 0; j < RowWords(k); ++j) {
      XorRowWord(table, i, k, j, Mask(j < last) | (Mask(j == last) & low));
    }
  }
}

/// The word whose bit u is bit u ^ rho of `word`, rho < 64: a butterfly with one swap for each bit
/// of rho.
uint64_t PermuteWord(uint64_t word, unsigned rho) {
  constexpr uint64_t kUpper[6] = {0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f,
                                  0x00ff00ff00ff00ff, 0x0000ffff0000ffff, 0x00000000ffffffff};
  for (unsigned s = 0; s < 6; ++s) {
    const unsigned distance = 1U << s;
    const uint64_t swapped = ((word >> distance) & kUpper[s]) | ((word & kUpper[s]) << distance);
    word ^= (word ^ swapped) & Mask((rho >> s & 1) != 0);
  }
  return word;
}

void XorPermutedRows(uint8_t* table, const uint8_t* f, const uint8_t* rho, const uint8_t* flip,
                     size_t count, unsigned k) {
  const size_t words = RowWords(k);
  uint64_t function[4] = {};
  for (size_t b = 0; b < ((size_t{1} << k) + 7) / 8; ++b) {
    function[b / 8] |= static_cast<uint64_t>(f[b]) << (b % 8 * 8);
  }
  for (size_t i = 0; i < count; ++i) {
    const uint64_t flips = Mask(flip[i] != 0);
    for (size_t j = 0; j < words; ++j) {
      const size_t wanted = j ^ (rho[i] / 64);
      uint64_t word = 0;
      for (size_t t = 0; t < words; ++t) word |= function[t] & Mask(t == wanted);
      XorRowWord(table, i, k, j, (PermuteWord(word, rho[i] % 64) ^ flips) & RowMask(k));
    }
  }
}

/// Word `j` of row `i` of a table of 2^k bits a row; what follows a row that is shorter than the
/// word may be anything.
template <unsigned k>
uint64_t RowWord(const uint8_t* table, size_t i, size_t j) {
  if constexpr (k < 3) {
    const size_t bit = i << k;
    return table[bit / 8] >> (bit % 8);
  } else {
    constexpr size_t kRowBytes = size_t{1} << (k - 3);
    const uint8_t* const bytes = table + i * kRowBytes + 8 * j;
    uint64_t word = 0;
    for (size_t b = 0; b < std::min<size_t>(kRowBytes, 8); ++b)
      word |= static_cast<uint64_t>(bytes[b]) << (8 * b);
    return word;
  }
}

template <unsigned k>
void SelectFromRows(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count,
                    unsigned shift) {
  for (size_t i = 0; i < count; ++i) {
    uint64_t word = 0;
    if constexpr (k <= 6) {
      word = RowWord<k>(table, i, 0);
    } else {
      for (size_t j = 0; j < size_t{1} << (k - 6); ++j)
        word |= RowWord<k>(table, i, j) & Mask(j == index[i] / 64U);
    }
    out[i] ^= static_cast<uint8_t>((word >> (index[i] % 64) & 1) << shift);
  }
}

void SelectBits(uint8_t* out, const uint8_t* table, const uint8_t* index, size_t count, unsigned k,
                unsigned shift) {
  constexpr decltype(&SelectFromRows<1>) kByWidth[] = {
      SelectFromRows<1>, SelectFromRows<2>, SelectFromRows<3>, SelectFromRows<4>,
      SelectFromRows<5>, SelectFromRows<6>, SelectFromRows<7>, SelectFromRows<8>};
  kByWidth[k - 1](out, table, index, count, shift);
}

template <class W>
void Pack(const W* in, size_t count, unsigned bits, uint8_t* out) {
  unsigned fill = 0;
  unsigned byte = 0;
  for (size_t i = 0; i < count; ++i) {
    uint64_t value = Reduce<uint64_t>(in[i], bits);
    for (unsigned left = bits; left > 0;) {
      const unsigned taken = std::min(8 - fill, left);
      byte |= static_cast<unsigned>(value & LowMask<uint8_t>(taken)) << fill;
      value >>= taken;
      left -= taken;
      fill += taken;
      if (fill == 8) {
        *out++ = static_cast<uint8_t>(byte);
        byte = 0;
        fill = 0;
      }
    }
  }
  if (fill > 0) *out = static_cast<uint8_t>(byte);
}

template <class W>
void Unpack(const uint8_t* in, size_t count, unsigned bits, W* out) {
  unsigned used = 0;
  for (size_t i = 0; i < count; ++i) {
    uint64_t value = 0;
    for (unsigned got = 0; got < bits;) {
      const unsigned taken = std::min(8 - used, bits - got);
      value |= static_cast<uint64_t>(*in >> used & LowMask<uint8_t>(taken)) << got;
      got += taken;
      used += taken;
      if (used == 8) {
        ++in;
        used = 0;
      }
    }
    out[i] = static_cast<W>(value);
  }
}

}  // namespace

constinit const Kernels kKernels = {
    "portable",
    Product<std::uint8_t>,
    Product<std::uint16_t>,
    Product<std::uint32_t>,
    Product<std::uint64_t>,
    XorGreaterRows,
    XorPermutedRows,
    SelectBits,
    Pack<std::uint8_t>,
    Pack<std::uint16_t>,
    Pack<std::uint32_t>,
    Pack<std::uint64_t>,
    Unpack<std::uint8_t>,
    Unpack<std::uint16_t>,
    Unpack<std::uint32_t>,
    Unpack<std::uint64_t>,
};

}  // namespace tercet::ring::portable
