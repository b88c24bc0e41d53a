#include "lut/comparison.h"

#include <algorithm>
#include <array>

#include "tercet/ring/kernels.h"

namespace tercet::protocols::lut {
namespace {

// Calls f(block_begin, block_count, block_bytes_begin) for each block.
template <class F>
void ForBlocks(const Layout& layout, std::size_t count, F&& f) {
  std::size_t at = 0;
  dealer::ForRanges(count, kBlock, [&](std::size_t begin, std::size_t n) {
    f(begin, n, at);
    at += layout.BlockBytes(n);
  });
}

// Calls f(chunk, its lowest bit, its width) from the most significant chunk on.
template <class F>
void ForChunks(const Layout& layout, const Formula& formula, F&& f) {
  unsigned bit = formula.ComparedBits();
  for (std::size_t j = 0; j < layout.chunks.size(); ++j) {
    bit -= layout.chunks[j];
    f(j, bit, layout.chunks[j]);
  }
}

// Bits [at, at + width) of each value ^ flip.
template <ring::Word W>
void Chunk(const W* values, std::size_t count, unsigned at, unsigned width, W flip,
           std::uint8_t* out) {
  const W low = ring::LowMask<W>(width);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = static_cast<std::uint8_t>(static_cast<W>((values[i] ^ flip) >> at) & low);
}

template <ring::Word W>
void Flips(const Formula& formula, std::span<const W> a, std::uint8_t* out) {
  for (std::size_t i = 0; i < a.size(); ++i) out[i] = formula.Flip(a[i]);
}

}  // namespace

template <ring::Word W>
Bytes Comparison::Tables(Ends& ends, const Formula& formula, std::span<const W> a,
                         std::span<const std::uint8_t> rho) const {
  const auto& kernels = ring::ActiveKernels();
  Bytes tables(layout_.CompareBytes(a.size()));
  // Of the carry's table: D's masks of its flags, and no flips.
  const unsigned skipped = layout_.PackedBits() - layout_.CarryPackedBits();
  const BitFunction low_carry =
      layout_.HasCarry() ? CarryFunction(layout_.chunks.size() - layout_.low) : BitFunction();
  std::array<std::uint8_t, kBlock> own, none{};
  ForBlocks(layout_, a.size(), [&](std::size_t begin, std::size_t n, std::size_t at) {
    std::uint8_t* out = tables.data() + at;
    ends.WithE1().Fill({out, layout_.BlockBytes(n)});
    ForChunks(layout_, formula, [&](std::size_t j, unsigned bit, unsigned width) {
      Chunk<W>(a.data() + begin, n, bit, width, W{0}, own.data());
      kernels.xor_greater_rows(out, own.data(), n, width);
      out += TableBytes(n, width);
      if (j + 1 == layout_.chunks.size()) return;
      kernels.xor_equal_rows(out, own.data(), n, width);
      out += TableBytes(n, width);
    });
    if (layout_.arithmetic) return;
    Flips(formula, a.subspan(begin, n), own.data());
    kernels.xor_permuted_rows(out, s_.data(), rho.data() + begin, own.data(), n,
                              layout_.PackedBits());
    if (!layout_.HasCarry()) return;
    out += TableBytes(n, layout_.PackedBits());
    for (std::size_t i = 0; i < n; ++i)
      own[i] = static_cast<std::uint8_t>(rho[begin + i] >> skipped);
    kernels.xor_permuted_rows(out, low_carry.data(), own.data(), none.data(), n,
                              layout_.CarryPackedBits());
  });
  return tables;
}

template <ring::Word W>
Buffer<W> Comparison::WithLowBits(const Formula& formula, std::span<const W> values,
                                  W complement) const {
  // Above the carry's bits D has zeros, and so has the complement at the evaluators: nothing there
  // is greater. D's top bit is not compared where it flips the sign's bit.
  const W low = ring::LowMask<W>(formula.CarryBits());
  const W above = complement == 0 ? formula.TopWithoutFlip<W>() : W{0};
  Buffer<W> all(2 * values.size());
  std::copy(values.begin(), values.end(), all.begin());
  for (std::size_t i = 0; i < values.size(); ++i)
    all[values.size() + i] =
        static_cast<W>((((values[i] ^ complement) & low) ^ complement) | above);
  return all;
}

template <ring::Word W>
void Comparison::DealComparisons(Context& ctx, Ends& ends, const Formula& formula,
                                 std::span<const W> a, std::span<const std::uint8_t> rho) const {
  dealer::ForRanges(a.size(), layout_.PieceElements(), [&](std::size_t begin, std::size_t n) {
    ctx.SendBytes(ends.E2(),
                  Tables<W>(ends, formula, a.subspan(begin, n), rho.subspan(begin, n)));  // offline
  });
}

template <ring::Word W>
void Comparison::Deal(Context& ctx, Ends& ends, const Formula& formula,
                      std::span<const W> a) const {
  const Bits rho = dealer::DrawRho(ends, layout_.Comparisons(a.size()), layout_.PackedBits());
  const std::span<const std::uint8_t> masks(rho);
  if (layout_.apart) {
    const Buffer<W> numbers = WithLowBits<W>(formula, a, W{0});
    return DealComparisons<W>(ctx, ends, formula, numbers, masks);
  }
  DealComparisons<W>(ctx, ends, formula, a, masks);
  if (!layout_.arithmetic) return;
  const unsigned k = layout_.PackedBits();
  ring::DispatchWord(out_bits_, [&]<ring::Word V>(V) {
    dealer::DealTables<V>(
        ctx, ends, layout_.Elements(formula, a.size(), out_bits_),
        [&](std::size_t begin, std::size_t n, V* values) {
          Bits flips(n);
          Flips(formula, a.subspan(begin, n), flips.data());
          const Bytes s = dealer::PermutedRows(s_, k, masks.subspan(begin, n), flips);
          Bytes carry;
          if (layout_.HasCarry()) {
            std::fill(flips.begin(), flips.end(), std::uint8_t{0});
            carry = dealer::PermutedRows(carry_, k, masks.subspan(begin, n), flips);
          }
          formula.FillTable<W, V>(a.subspan(begin, n), k, 0, s, carry, values);
        });
  });
}

Comparison::Material Comparison::Take(Context& ctx, Ends& ends, const Formula& formula,
                                      std::size_t count) const {
  Material material;
  const std::size_t comparisons = layout_.Comparisons(count);
  material.rho = dealer::DrawBits(ends.WithDealer(), comparisons, layout_.PackedBits());
  if (ends.IsE1()) {
    material.tables.resize(layout_.CompareBytes(comparisons));
    ForBlocks(layout_, comparisons, [&](std::size_t, std::size_t n, std::size_t at) {
      ends.WithE1().Fill({material.tables.data() + at, layout_.BlockBytes(n)});
    });
  } else {
    material.tables = dealer::TakePieces(ctx, ends, comparisons, layout_.PieceElements(),
                                         [&](std::size_t n) { return layout_.CompareBytes(n); });
  }
  if (layout_.arithmetic)
    material.elements = dealer::TakeEntries(ctx, ends, layout_.Elements(formula, count, out_bits_));
  return material;
}

template <ring::Word W>
Bits Comparison::OpenFlags(Context& ctx, const Ends& ends, const Formula& formula,
                           const Material& material, std::span<const W> b) const {
  const auto& kernels = ring::ActiveKernels();
  Bits flags(b.size());
  std::fill(flags.begin(), flags.end(), std::uint8_t{0});
  std::array<std::uint8_t, kBlock> index;
  const W complement = formula.Complement<W>();
  dealer::CheckSize("tables", material.tables.size(), layout_.CompareBytes(b.size()));
  ForBlocks(layout_, b.size(), [&](std::size_t begin, std::size_t n, std::size_t at) {
    const std::uint8_t* table = material.tables.data() + at;
    unsigned flag = 0;
    ForChunks(layout_, formula, [&](std::size_t j, unsigned bit, unsigned width) {
      Chunk<W>(b.data() + begin, n, bit, width, complement, index.data());
      const int planes = j + 1 < layout_.chunks.size() ? 2 : 1;  // greater, equal
      for (int plane = 0; plane < planes; ++plane) {
        kernels.select_bits(flags.data() + begin, table, index.data(), n, width, flag++);
        table += TableBytes(n, width);
      }
    });
  });
  return dealer::OpenBits(ctx, ends, std::move(flags), material.rho,
                          layout_.PackedBits());  // 1 hop, 2q - 1 bits
}

template <ring::Word W>
Bits Comparison::CompareBits(Context& ctx, const Ends& ends, const Formula& formula,
                             const Material& material, std::span<const W> b) const {
  const auto& kernels = ring::ActiveKernels();
  Bits e;
  if (layout_.apart) {
    const Buffer<W> numbers = WithLowBits<W>(formula, b, formula.Complement<W>());
    e = OpenFlags<W>(ctx, ends, formula, material, numbers);
  } else {
    e = OpenFlags<W>(ctx, ends, formula, material, b);
  }
  Bits bits(e.size());
  std::fill(bits.begin(), bits.end(), std::uint8_t{0});
  const unsigned packed = layout_.PackedBits(), carry_packed = layout_.CarryPackedBits();
  ForBlocks(layout_, e.size(), [&](std::size_t begin, std::size_t n, std::size_t at) {
    const std::uint8_t* table = material.tables.data() + at + layout_.BlockBytes(n);
    if (layout_.HasCarry()) table -= TableBytes(n, carry_packed);
    kernels.select_bits(bits.data() + begin, table - TableBytes(n, packed), e.data() + begin, n,
                        packed, 0);
    if (!layout_.HasCarry()) return;
    for (std::size_t i = begin; i < begin + n; ++i) e[i] >>= packed - carry_packed;
    kernels.select_bits(bits.data() + begin, table, e.data() + begin, n, carry_packed, 1);
  });
  if (layout_.apart) {
    for (std::size_t i = 0; i < b.size(); ++i)
      bits[i] |= static_cast<std::uint8_t>(bits[b.size() + i] << 1);
    bits.resize(b.size());
  }
  return bits;
}

template <ring::Word W, ring::Word V>
Buffer<V> Comparison::CompareElements(Context& ctx, const Ends& ends, const Formula& formula,
                                      const Material& material, std::span<const W> b) const {
  const Bits e = OpenFlags(ctx, ends, formula, material, b);
  const auto table = layout_.Elements(formula, b.size(), out_bits_);
  Buffer<V> elements(table.count * table.elements);
  dealer::SelectEntries<V>(ends, table, material.elements, e, elements);
  return elements;
}

#define TERCET_LUT_ELEMENTS(W, V)                                                             \
  template Buffer<V> Comparison::CompareElements<W, V>(Context&, const Ends&, const Formula&, \
                                                       const Material&, std::span<const W>) const;
#define TERCET_LUT_COMPARE(W)                                                                      \
  template void Comparison::Deal<W>(Context&, Ends&, const Formula&, std::span<const W>) const;    \
  template Bits Comparison::CompareBits<W>(Context&, const Ends&, const Formula&, const Material&, \
                                           std::span<const W>) const;                              \
  TERCET_LUT_ELEMENTS(W, std::uint8_t)                                                             \
  TERCET_LUT_ELEMENTS(W, std::uint16_t)                                                            \
  TERCET_LUT_ELEMENTS(W, std::uint32_t)                                                            \
  TERCET_LUT_ELEMENTS(W, std::uint64_t)
TERCET_LUT_COMPARE(std::uint8_t)
TERCET_LUT_COMPARE(std::uint16_t)
TERCET_LUT_COMPARE(std::uint32_t)
TERCET_LUT_COMPARE(std::uint64_t)
#undef TERCET_LUT_COMPARE
#undef TERCET_LUT_ELEMENTS

}  // namespace tercet::protocols::lut
