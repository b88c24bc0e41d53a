// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "common/dealer/activation.h"
#include "suites/lut/layout.h"
#include "tercet/ring/kernels.h"
#include "tercet/ring/pack.h"

// Activations by three-party 1-out-of-N oblivious transfer with shared output; the message flow,
// the symbols and who learns what are in README.md.
namespace tercet::protocols::lut {
namespace {

using dealer::Bits;
using dealer::Context;
using dealer::Ends;

using BlockBytes = std::array<std::uint8_t, kBlock>;

// Calls f(chunk, its lowest bit, its width) from the most significant chunk on.
template <class F>
void ForChunks(const Layout& layout, F&& f) {
  unsigned bit = std::accumulate(layout.chunks.begin(), layout.chunks.end(), 0U);
  for (std::size_t j = 0; j < layout.chunks.size(); ++j) {
    bit -= layout.chunks[j];
    f(j, bit, layout.chunks[j]);
  }
}

// Rows have at least 8 bits in memory.
unsigned RowWidth(unsigned width) { return std::max(width, 3U); }

// Bits [at, at + width) of each value ^ flip.
template <ring::Word W>
void Chunk(const W* values, std::size_t count, unsigned at, unsigned width, W flip,
           std::uint8_t* out) {
  const W low = ring::LowMask<W>(width);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = static_cast<std::uint8_t>(static_cast<W>((values[i] ^ flip) >> at) & low);
}

// Calls f(word type) with a word that is one row, for rows of which the last entry is left out.
template <class F>
void WithRowWord(unsigned width, F&& f) {
  ring::DispatchWord(std::max(8U, 1U << width), f);
}
bool LeavesOutLast(unsigned width) { return RowBits(width) < 1U << width; }

// Rows to what goes over the wire, and back; the number of bytes there.
std::size_t PackRows(const std::uint8_t* rows, std::size_t count, unsigned width,
                     std::uint8_t* out) {
  const std::size_t bytes = (count * RowBits(width) + 7) / 8;
  if (!LeavesOutLast(width)) {
    std::memcpy(out, rows, bytes);
    return bytes;
  }
  WithRowWord(width, [&]<ring::Word W>(W) {
    Buffer<W> words(count);
    std::memcpy(words.data(), rows, count * sizeof(W));
    ring::Pack(std::span<const W>(words), RowBits(width), {out, bytes});
  });
  return bytes;
}
std::size_t UnpackRows(const std::uint8_t* in, std::size_t count, unsigned width,
                       std::uint8_t* rows) {
  const std::size_t bytes = (count * RowBits(width) + 7) / 8;
  if (!LeavesOutLast(width)) {
    std::memcpy(rows, in, bytes);
    return bytes;
  }
  WithRowWord(width, [&]<ring::Word W>(W) {
    Buffer<W> words(count);
    ring::Unpack(ByteSpan(in, bytes), RowBits(width), std::span<W>(words));
    std::memcpy(rows, words.data(), count * sizeof(W));
  });
  return bytes;
}
// The last entry is 0 for D, so E1's share of it is 0.
void ClearLast(std::uint8_t* rows, std::size_t count, unsigned width) {
  if (!LeavesOutLast(width)) return;
  WithRowWord(width, [&]<ring::Word W>(W) {
    const W low = ring::LowMask<W>(RowBits(width));
    for (std::size_t i = 0; i < count; ++i) {
      W row;
      std::memcpy(&row, rows + i * sizeof(W), sizeof(W));
      row &= low;
      std::memcpy(rows + i * sizeof(W), &row, sizeof(W));
    }
  });
}

// out_i ^= bit where r_i has all of `product`.
void XorProduct(const std::uint8_t* r, std::size_t count, dealer::Monomial product,
                std::uint8_t bit, std::uint8_t* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] ^= dealer::Covers(r[i], product) & bit;
}

/// The comparison of a formula's numbers chunk by chunk (README.md, steps 2 and 3), as
/// dealer::Activation wants it. D is the helper, E1 and E2 the evaluators. Every draw happens
/// offline, in the same order at both holders.
class Comparison {
 public:
  static constexpr unsigned kMaxCompared = 32;
  static constexpr bool kPoints = false;

  Comparison(const mpc::ActivationSpec& spec, const mpc::OptionValues& options)
      : formula_(spec), layout_(MakeLayout(spec, options)) {
    if (layout_.arithmetic) {
      expansion_.emplace(formula_, layout_.Carries(), spec.out_bits);
    } else {
      polynomials_ = layout_.Polynomials(dealt_);
    }
  }

  /// What an evaluator keeps.
  struct Material {
    Bits rho;                           ///< its mask of the opened flags
    Bytes rows;                         ///< its shares of the rows and dealt bits
    dealer::Coefficients coefficients;  ///< of ring elements, where arithmetic
    void Visit(mpc::Archive& archive) { archive(rho)(rows)(coefficients); }
  };

  bool GivesElements() const { return layout_.arithmetic; }
  bool GivesProduct() const { return layout_.product; }

  /// At D, offline: one message to E2 for every PieceElements() elements, and the coefficients.
  /// What the evaluators' bits differ by from s and carry, where they are made as bits.
  template <ring::Word W>
  Bits Deal(Context& ctx, Ends& ends, std::span<const W> a, const dealer::Columns& columns) const {
    Bits rho = layout_.OpenedBits() > 0 ? dealer::DrawRho(ends, a.size(), layout_.OpenedBits())
                                        : Bits(a.size(), 0);
    Bits flips(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) flips[i] = formula_.Flip(a[i]);
    if (layout_.product)
      for (std::size_t i = 0; i < a.size(); ++i)
        rho[i] |= static_cast<std::uint8_t>(flips[i] * kOwn);
    const std::span<const std::uint8_t> masks(rho);
    dealer::ForRanges(a.size(), layout_.PieceElements(), [&](std::size_t begin, std::size_t n) {
      ctx.SendBytes(ends.E2(),
                    Piece<W>(ends, a.subspan(begin, n), masks.subspan(begin, n)));  // offline
    });
    if (layout_.arithmetic) {
      expansion_->Deal<W>(ctx, ends, a, masks, flips, columns);
      return {};
    }
    for (std::size_t k = 0; k < polynomials_.size(); ++k)
      for (const dealer::Monomial product : polynomials_[k].offset)
        XorProduct(rho.data(), rho.size(), product, static_cast<std::uint8_t>(1U << k),
                   flips.data());
    return flips;
  }

  /// At an evaluator, offline.
  Material Take(Context& ctx, Ends& ends, std::size_t count) const {
    Material material;
    if (layout_.OpenedBits() > 0)
      material.rho = dealer::DrawBits(ends.WithDealer(), count, layout_.OpenedBits());
    material.rows.resize(count * layout_.ElementBytes());
    if (ends.IsE1()) {
      dealer::ForRanges(count, kBlock, [&](std::size_t begin, std::size_t n) {
        DrawBlock(ends, n, material.rows.data() + begin * layout_.ElementBytes());
      });
    } else {
      dealer::ForRanges(
          count, layout_.PieceElements(), [&](std::size_t piece_begin, std::size_t m) {
            const Bytes piece = ctx.ReceiveBytes(ends.Dealer(), layout_.CompareBytes(m));
            const std::uint8_t* in = piece.data();
            dealer::ForRanges(m, kBlock, [&](std::size_t begin, std::size_t n) {
              std::uint8_t* rows =
                  material.rows.data() + (piece_begin + begin) * layout_.ElementBytes();
              for (const unsigned width : layout_.chunks) {
                in += UnpackRows(in, n, width, rows);
                rows += n * RowBytes(width);
              }
              for (std::size_t k = 0; 8 * k < dealt_.size(); ++k, rows += n) {
                const unsigned bits = BitsOfByte(dealt_.size(), k);
                const std::size_t bytes = ring::PackedBytes(n, bits);
                ring::Unpack(ByteSpan(in, bytes), bits, std::span<std::uint8_t>(rows, n));
                in += bytes;
              }
            });
          });
    }
    if (expansion_) material.coefficients = expansion_->Take(ctx, ends, count);
    return material;
  }

  /// At E1 and E2, online. 1 hop, 2 * OpenedBits() bits; no message where nothing is opened.
  template <ring::Word W>
  Bits CompareBits(Context& ctx, const Ends& ends, const Material& material,
                   std::span<const W> b) const {
    using Source = BitPolynomial::Source;
    Flags flags = CompareChunks(ends, material, b);
    Bits bits = std::move(flags.linear);
    if (layout_.OpenedBits() == 0) return bits;
    Bits tops(layout_.product ? kBlock : 0);
    const Bits opened = dealer::OpenBits(ctx, ends, std::move(flags.opened), material.rho,
                                         layout_.OpenedBits());  // 1 hop, 2q - 2 bits
    BlockBytes ones, sum;
    ones.fill(ends.IsE1() ? 1 : 0);
    dealer::ForRanges(b.size(), kBlock, [&](std::size_t begin, std::size_t n) {
      const std::uint8_t* c = opened.data() + begin;
      const std::uint8_t* masks = material.rho.data() + begin;
      const std::uint8_t* dealt = material.rows.data() + (begin + n) * layout_.ElementBytes() -
                                  n * ((dealt_.size() + 7) / 8);
      for (std::size_t i = 0; layout_.product && i < n; ++i)
        tops[i] = formula_.SignFlip(b[begin + i]);
      for (std::size_t k = 0; k < polynomials_.size(); ++k) {
        // Each coefficient is a bit of a byte; their XOR is the parity of what is added up here.
        std::fill_n(sum.data(), n, std::uint8_t{0});
        for (const auto& [product, source, at] : polynomials_[k].terms) {
          const std::uint8_t* from = source == Source::kOne    ? ones.data()
                                     : source == Source::kMask ? masks
                                                               : dealt + at / 8 * n;
          const auto bit = static_cast<std::uint8_t>(1U << at % 8);
          for (std::size_t i = 0; i < n; ++i)
            sum[i] ^= dealer::Covers(c[i], product) & from[i] & bit;
        }
        for (std::size_t i = 0; i < n; ++i) {
          auto parity = static_cast<std::uint8_t>(sum[i] ^ sum[i] >> 4);
          parity = static_cast<std::uint8_t>(parity ^ parity >> 2);
          parity = static_cast<std::uint8_t>(parity ^ parity >> 1) & 1;
          // The third is the carry's part of its product with s, which b_top settles.
          bits[begin + i] ^=
              static_cast<std::uint8_t>(k < 2 ? parity << k : (parity & tops[i]) << 1);
        }
      }
    });
    return bits;
  }

  template <ring::Word W, ring::Word V>
  Buffer<V> CompareElements(Context& ctx, const Ends& ends, const Material& material,
                            std::span<const W> b) const {
    const Bits c = OpenFlags(ctx, ends, material, b);  // 1 hop, 2q - 1 bits
    return expansion_->Evaluate<V>(ends, material.coefficients, c);
  }

  template <ring::Word W, ring::Word V>
  void CompareFused(Context& ctx, const Ends& ends, const Material& material, std::span<const W> b,
                    const Bits& flips, dealer::FusedSum<V>& sum) const {
    const Bits c = OpenFlags(ctx, ends, material, b);  // 1 hop, 2q - 1 bits
    expansion_->EvaluateFused<V>(material.coefficients, c, flips, sum);
  }

  void AddCost(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles) const {
    const std::size_t count = spec.Elements();
    dealer::ForRanges(count, layout_.PieceElements(), [&](std::size_t, std::size_t piece) {
      dealer::AddDealt(cost, roles, layout_.CompareBytes(piece));
    });
    if (layout_.OpenedBits() > 0)
      dealer::AddExchange(cost, roles, count, layout_.OpenedBits());  // open_bits
    if (expansion_) expansion_->AddCost(cost, roles, count);
  }

 private:
  /// Shares of all flags of each comparison.
  struct Flags {
    Bits opened;  ///< those that are opened
    Bits linear;  ///< the first "greater" of s and of carry, bit 0 and bit 1, where bits are made
  };
  /// At D and E1: E1's shares of the rows and dealt bits of one block.
  void DrawBlock(Ends& ends, std::size_t count, std::uint8_t* out) const {
    ends.WithE1().Fill({out, count * layout_.ElementBytes()});
    for (const unsigned width : layout_.chunks) {
      ClearLast(out, count, width);
      out += count * RowBytes(width);
    }
  }

  /// At D: E2's shares of one message, packed. Entry v of a chunk's row is [own > v].
  template <ring::Word W>
  Bytes Piece(Ends& ends, std::span<const W> a, std::span<const std::uint8_t> rho) const {
    const auto& kernels = ring::ActiveKernels();
    Bytes piece(layout_.CompareBytes(a.size()));
    Bytes block(std::min(a.size(), kBlock) * layout_.ElementBytes());
    std::uint8_t* out = piece.data();
    BlockBytes own;
    dealer::ForRanges(a.size(), kBlock, [&](std::size_t begin, std::size_t n) {
      DrawBlock(ends, n, block.data());
      std::uint8_t* rows = block.data();
      ForChunks(layout_, [&](std::size_t, unsigned bit, unsigned width) {
        Chunk<W>(a.data() + begin, n, bit, width, W{0}, own.data());
        kernels.xor_greater_rows(rows, own.data(), n, RowWidth(width));
        out += PackRows(rows, n, width, out);
        rows += n * RowBytes(width);
      });
      for (std::size_t k = 0; 8 * k < dealt_.size(); ++k, rows += n) {
        const unsigned count = BitsOfByte(dealt_.size(), k);
        for (unsigned i = 0; i < count; ++i)
          for (const dealer::Monomial product : dealt_[8 * k + i])
            XorProduct(rho.data() + begin, n, product, static_cast<std::uint8_t>(1U << i), rows);
        const std::size_t bytes = ring::PackedBytes(n, count);
        ring::Pack(std::span<const std::uint8_t>(rows, n), count, {out, bytes});
        out += bytes;
      }
    });
    return piece;
  }

  /// At E1 and E2, no message: greater = entry v, equal = entry v - 1 ^ entry v; entry -1 is 1, and
  /// the last is 0.
  template <ring::Word W>
  Flags CompareChunks(const Ends& ends, const Material& material, std::span<const W> b) const {
    const auto& kernels = ring::ActiveKernels();
    dealer::CheckSize("rows", material.rows.size(), b.size() * layout_.ElementBytes());
    Flags flags;
    flags.opened.assign(b.size(), 0);
    if (!layout_.arithmetic) flags.linear.assign(b.size(), 0);
    const bool first = layout_.OpensFirst();
    const std::uint8_t one = ends.IsE1() ? 1 : 0;
    const W complement = formula_.Complement<W>();
    BlockBytes index, before;
    dealer::ForRanges(b.size(), kBlock, [&](std::size_t begin, std::size_t n) {
      const std::uint8_t* rows = material.rows.data() + begin * layout_.ElementBytes();
      std::uint8_t* opened = flags.opened.data() + begin;
      ForChunks(layout_, [&](std::size_t j, unsigned bit, unsigned width) {
        const unsigned k = RowWidth(width);
        Chunk<W>(b.data() + begin, n, bit, width, complement, index.data());
        if (j > 0 || first)
          kernels.select_bits(opened, rows, index.data(), n, k, layout_.Greater(j));
        if (!first) {
          std::uint8_t* linear = flags.linear.data() + begin;
          if (j == 0) kernels.select_bits(linear, rows, index.data(), n, k, 0);
          if (j == layout_.low) kernels.select_bits(linear, rows, index.data(), n, k, 1);
        }
        if (j + 1 < layout_.chunks.size()) {
          const auto last = static_cast<std::uint8_t>((1U << width) - 1);
          const unsigned at = layout_.Equal(j);
          for (std::size_t i = 0; i < n; ++i) {
            before[i] = static_cast<std::uint8_t>(index[i] - 1) & last;
            opened[i] ^= static_cast<std::uint8_t>((dealer::ZeroMask(index[i]) & one) << at);
          }
          kernels.select_bits(opened, rows, index.data(), n, k, at);
          kernels.select_bits(opened, rows, before.data(), n, k, at);
        }
        rows += n * RowBytes(width);
      });
    });
    return flags;
  }

  /// At E1 and E2, where D's elements are made at once: the flags under their masks.
  template <ring::Word W>
  Bits OpenFlags(Context& ctx, const Ends& ends, const Material& material,
                 std::span<const W> b) const {
    return dealer::OpenBits(ctx, ends, CompareChunks(ends, material, b).opened, material.rho,
                            layout_.OpenedBits());
  }

  Formula formula_;
  Layout layout_;
  std::vector<DealtBit> dealt_;
  std::vector<BitPolynomial> polynomials_;      // of s and carry, where they are made as bits
  std::optional<dealer::Expansion> expansion_;  // of D's elements, where arithmetic
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  dealer::AddSuite<Comparison>(
      registry,
      {.name = "lut",
       .summary = "shared rows by three-party 1-out-of-N oblivious transfer with shared output; 2 "
                  "hops per activation where values are narrow (3 where both evaluators multiply), "
                  "else 4",
       .options = {{.name = "chunks",
                    .values = {"auto", "1", "2", "3", "4", "5"},
                    .meaning = "pieces that values are compared in; auto: fewest bytes"},
                   {.name = "form",
                    .values = {"auto", "arith", "bit"},
                    .meaning =
                        "arith (2 hops, or 3 where both evaluators multiply) or bit (4 hops, "
                        "fewer bytes); a max-pool of signs is always by bits, with bit also "
                        "its last step"}},
       .variants = {{"", {{{25, 8}, {145, 34}}}},
                    {"form=bit", {{{28, 8}, {160, 34}}}},
                    {"fuse=yes", {{{25, 8}, {145, 34}}}},
                    {"form=arith", {}},
                    {"chunks=2", {}},
                    {"chunks=3,form=bit", {}}}});
}

}  // namespace tercet::protocols::lut
