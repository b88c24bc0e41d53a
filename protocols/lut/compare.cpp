#include <algorithm>

#include "lut/steps.h"
#include "tercet/ring/kernels.h"

namespace tercet::protocols::lut {
namespace {

// Calls f(block_begin, block_count, block_bytes_begin) for each block.
template <class F>
void ForBlocks(const Layout& layout, std::size_t count, F&& f) {
  std::size_t at = 0;
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t n = std::min(kBlock, count - begin);
    f(begin, n, at);
    at += layout.BlockBytes(n);
  }
}

// Bits [at, at + width) of each value, or of its complement.
template <ring::Word W>
void Chunk(const W* values, std::size_t count, unsigned at, unsigned width, W flip,
           std::uint8_t* out) {
  const W low = ring::LowMask<W>(width);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = static_cast<std::uint8_t>(static_cast<W>((values[i] ^ flip) >> at) & low);
}

// a_top ^ 1: where D's own top bit leaves the sign as the carry says (see the README, step 2).
template <ring::Word W>
void FlippedTop(const W* a, std::size_t count, unsigned value_bits, std::uint8_t* out) {
  Chunk<W>(a, count, value_bits - 1, 1, static_cast<W>(~W{0}), out);
}

}  // namespace

template <ring::Word W>
Bytes DealCompare(const Layout& layout, unsigned value_bits, std::span<const W> a, const Bits& rho,
                  crypto::PrfStream& with_e1) {
  const auto& kernels = ring::ActiveKernels();
  Bytes tables(layout.CompareBytes(a.size()));
  const auto carry = CarryTable(layout.chunks.size());
  std::array<std::uint8_t, kBlock> own;
  ForBlocks(layout, a.size(), [&](std::size_t begin, std::size_t n, std::size_t at) {
    std::uint8_t* out = tables.data() + at;
    with_e1.Fill({out, layout.BlockBytes(n)});
    unsigned bit = value_bits - 1;
    for (std::size_t j = 0; j < layout.chunks.size(); ++j) {
      const unsigned width = layout.chunks[j];
      bit -= width;
      Chunk<W>(a.data() + begin, n, bit, width, W{0}, own.data());
      kernels.xor_greater_rows(out, own.data(), n, width);
      out += TableBytes(n, width);
      if (j + 1 == layout.chunks.size()) break;
      kernels.xor_equal_rows(out, own.data(), n, width);
      out += TableBytes(n, width);
    }
    if (layout.arithmetic) return;
    FlippedTop(a.data() + begin, n, value_bits, own.data());
    kernels.xor_permuted_rows(out, carry.data(), rho.data() + begin, own.data(), n,
                              layout.PackedBits());
  });
  return tables;
}

Bytes DrawCompareMasks(const Layout& layout, std::size_t count, crypto::PrfStream& with_e1) {
  Bytes masks(layout.CompareBytes(count));
  ForBlocks(layout, count, [&](std::size_t, std::size_t n, std::size_t at) {
    with_e1.Fill({masks.data() + at, layout.BlockBytes(n)});
  });
  return masks;
}

template <ring::Word W>
Bits LookUpFlags(const Layout& layout, unsigned value_bits, std::span<const W> b,
                 const Bytes& tables) {
  const auto& kernels = ring::ActiveKernels();
  Bits flags(b.size());
  std::fill(flags.begin(), flags.end(), std::uint8_t{0});
  std::array<std::uint8_t, kBlock> index;
  ForBlocks(layout, b.size(), [&](std::size_t begin, std::size_t n, std::size_t at) {
    const std::uint8_t* table = tables.data() + at;
    unsigned bit = value_bits - 1, flag = 0;
    for (std::size_t j = 0; j < layout.chunks.size(); ++j) {
      const unsigned width = layout.chunks[j];
      bit -= width;
      Chunk<W>(b.data() + begin, n, bit, width, static_cast<W>(~W{0}), index.data());
      const int planes = j + 1 < layout.chunks.size() ? 2 : 1;  // greater, equal
      for (int plane = 0; plane < planes; ++plane) {
        kernels.select_bits(flags.data() + begin, table, index.data(), n, width, flag++);
        table += TableBytes(n, width);
      }
    }
  });
  return flags;
}

Bits LookUpCarry(const Layout& layout, const Bits& e, const Bytes& tables) {
  const auto& kernels = ring::ActiveKernels();
  Bits carry(e.size());
  std::fill(carry.begin(), carry.end(), std::uint8_t{0});
  ForBlocks(layout, e.size(), [&](std::size_t begin, std::size_t n, std::size_t at) {
    const std::size_t rows = TableBytes(n, layout.PackedBits());
    kernels.select_bits(carry.data() + begin, tables.data() + at + layout.BlockBytes(n) - rows,
                        e.data() + begin, n, layout.PackedBits(), 0);
  });
  return carry;
}

template <ring::Word W>
Bytes CarryRows(const Layout& layout, unsigned value_bits, std::span<const W> a, const Bits& rho) {
  Bytes rows(TableBytes(a.size(), layout.PackedBits()));
  std::fill(rows.begin(), rows.end(), std::uint8_t{0});
  Bits flip(a.size());
  FlippedTop(a.data(), a.size(), value_bits, flip.data());
  ring::ActiveKernels().xor_permuted_rows(rows.data(), CarryTable(layout.chunks.size()).data(),
                                          rho.data(), flip.data(), a.size(), layout.PackedBits());
  return rows;
}

#define TERCET_LUT_COMPARE(W)                                                              \
  template Bytes DealCompare<W>(const Layout&, unsigned, std::span<const W>, const Bits&,  \
                                crypto::PrfStream&);                                       \
  template Bits LookUpFlags<W>(const Layout&, unsigned, std::span<const W>, const Bytes&); \
  template Bytes CarryRows<W>(const Layout&, unsigned, std::span<const W>, const Bits&);
TERCET_LUT_COMPARE(std::uint8_t)
TERCET_LUT_COMPARE(std::uint16_t)
TERCET_LUT_COMPARE(std::uint32_t)
TERCET_LUT_COMPARE(std::uint64_t)
#undef TERCET_LUT_COMPARE

}  // namespace tercet::protocols::lut
