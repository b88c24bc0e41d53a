// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <numeric>
#include <optional>
#include <vector>

#include "common/dealer/activation.h"
#include "suites/lut/layout.h"
#include "suites/lut/rows.h"
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
      : formula_(spec),
        layout_(MakeLayout(spec, options)),
        planes_(layout_.Planes()),
        element_bytes_(layout_.ElementBytes()) {
    for (const Plane& plane : planes_) widths_.push_back(plane.opened);
    if (layout_.arithmetic) expansion_.emplace(formula_, layout_.Carries(), spec.out_bits);
  }

  /// What an evaluator keeps.
  struct Material {
    std::vector<Bits> rho;              ///< its masks of the opened flags, plane by plane
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
    std::vector<Bits> rho;
    for (const unsigned width : widths_)
      rho.push_back(width > 0 ? dealer::DrawRho(ends, a.size(), width) : Bits(a.size(), 0));
    Bits flips(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) flips[i] = formula_.Flip(a[i]);
    Bits& last = rho.back();
    if (layout_.product)
      for (std::size_t i = 0; i < a.size(); ++i)
        last[i] |= static_cast<std::uint8_t>(flips[i] * kOwn);
    dealer::ForRanges(a.size(), layout_.PieceElements(), [&](std::size_t begin, std::size_t n) {
      ctx.SendBytes(ends.E2(), Piece<W>(ends, a.subspan(begin, n), rho, begin));  // offline
    });
    if (layout_.arithmetic) {
      expansion_->Deal<W>(ctx, ends, a, last, flips, columns);
      return {};
    }
    const auto& polynomials = planes_.back().polynomials;
    for (std::size_t k = 0; k < polynomials.size(); ++k)
      for (const dealer::Monomial product : polynomials[k].offset)
        XorProduct(last.data(), last.size(), product, static_cast<std::uint8_t>(1U << k),
                   flips.data());
    return flips;
  }

  /// At an evaluator, offline.
  Material Take(Context& ctx, Ends& ends, std::size_t count) const {
    Material material;
    for (const unsigned width : widths_)
      material.rho.push_back(width > 0 ? dealer::DrawBits(ends.WithDealer(), count, width)
                                       : Bits());
    material.rows.resize(count * element_bytes_);
    if (ends.IsE1()) {
      dealer::ForRanges(count, kBlock, [&](std::size_t begin, std::size_t n) {
        DrawBlock(ends, n, material.rows.data() + begin * element_bytes_);
      });
    } else {
      dealer::ForRanges(count, layout_.PieceElements(), [&](std::size_t begin, std::size_t m) {
        const Bytes piece = ctx.ReceiveBytes(ends.Dealer(), layout_.CompareBytes(m));
        Unpack(piece, m, material.rows.data() + begin * element_bytes_);
      });
    }
    if (expansion_) material.coefficients = expansion_->Take(ctx, ends, count);
    return material;
  }

  /// At E1 and E2, online. 1 hop, or 2 where there are groups; none where nothing is opened.
  template <ring::Word W>
  Bits CompareBits(Context& ctx, const Ends& ends, const Material& material,
                   std::span<const W> b) const {
    Flags flags = CompareChunks(ends, material, b);
    if (!layout_.groups.empty()) CombineGroups(ctx, ends, material, flags);
    Bits bits = std::move(flags.linear);
    const Plane& plane = planes_.back();
    if (plane.opened == 0) return bits;
    const Bits opened = dealer::OpenBits(ctx, ends, std::move(flags.opened.back()),
                                         material.rho.back(), plane.opened);  // 1 hop
    BlockBytes sum, tops;
    dealer::ForRanges(b.size(), kBlock, [&](std::size_t begin, std::size_t n) {
      for (std::size_t i = 0; layout_.product && i < n; ++i)
        tops[i] = formula_.SignFlip(b[begin + i]);
      for (std::size_t k = 0; k < plane.polynomials.size(); ++k) {
        Parities(ends, material, planes_.size() - 1, k, opened, begin, n, sum.data());
        // The third is the carry's part of its product with s, which b_top settles.
        for (std::size_t i = 0; i < n; ++i)
          bits[begin + i] ^=
              static_cast<std::uint8_t>(k < 2 ? sum[i] << k : (sum[i] & tops[i]) << 1);
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
    dealer::AddExchanges(cost, roles, count, GroupWidths());         // open_bits of groups
    dealer::AddExchanges(cost, roles, count, {&widths_.back(), 1});  // of parts
    if (expansion_) expansion_->AddCost(cost, roles, count);
  }

 private:
  /// Shares of all flags of each comparison.
  struct Flags {
    std::vector<Bits> opened;  ///< those that are opened, plane by plane
    Bits linear;  ///< the first "greater" of s and of carry, bit 0 and bit 1, where bits are made
  };
  /// Where a flag's share goes: a bit of a plane, or of Flags::linear.
  struct Place {
    std::size_t plane;
    unsigned bit;
  };
  static constexpr std::size_t kLinear = SIZE_MAX;
  static std::uint8_t* At(Flags& flags, const Place& place, std::size_t begin) {
    return (place.plane == kLinear ? flags.linear : flags.opened[place.plane]).data() + begin;
  }

  std::span<const unsigned> GroupWidths() const {
    return std::span<const unsigned>(widths_).first(layout_.groups.size());
  }

  /// Places of the "greater" of a part.
  std::vector<Place> GreaterOfPart(std::size_t part) const {
    std::vector<Place> places;
    if (part > 0 || layout_.OpensFirst())
      places.push_back({planes_.size() - 1, layout_.Greater(part)});
    if (layout_.OpensFirst()) return places;
    if (part == 0) places.push_back({kLinear, 0});
    if (part == layout_.low) places.push_back({kLinear, 1});
    return places;
  }
  /// Of its "equal": nowhere, of the last part.
  std::vector<Place> EqualOfPart(std::size_t part) const {
    if (part + 1 == layout_.Parts()) return {};
    return {{planes_.size() - 1, layout_.Equal(part)}};
  }

  /// At D and E1: E1's shares of the rows and dealt bits of one block.
  void DrawBlock(Ends& ends, std::size_t count, std::uint8_t* out) const {
    ends.WithE1().Fill({out, count * element_bytes_});
    for (const unsigned width : layout_.chunks) {
      ClearLast(out, count, width);
      out += count * RowBytes(width);
    }
  }

  /// At D: E2's shares of one message, packed; `a` begins with element `first`. Entry v of a
  /// chunk's row is [own > v].
  template <ring::Word W>
  Bytes Piece(Ends& ends, std::span<const W> a, const std::vector<Bits>& rho,
              std::size_t first) const {
    const auto& kernels = ring::ActiveKernels();
    Bytes piece(layout_.CompareBytes(a.size()));
    Bytes block(std::min(a.size(), kBlock) * element_bytes_);
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
      ForDealt([&](std::size_t p, std::size_t at, unsigned count) {
        const std::uint8_t* masks = rho[p].data() + first + begin;
        for (unsigned i = 0; i < count; ++i)
          for (const dealer::Monomial product : planes_[p].dealt[at + i])
            XorProduct(masks, n, product, static_cast<std::uint8_t>(1U << i), rows);
        const std::size_t bytes = ring::PackedBytes(n, count);
        ring::Pack(std::span<const std::uint8_t>(rows, n), count, {out, bytes});
        out += bytes;
        rows += n;
      });
    });
    return piece;
  }

  /// At E2: one message, of `count` elements, as it is kept.
  void Unpack(const Bytes& piece, std::size_t count, std::uint8_t* rows) const {
    const std::uint8_t* in = piece.data();
    dealer::ForRanges(count, kBlock, [&](std::size_t, std::size_t n) {
      for (const unsigned width : layout_.chunks) {
        in += UnpackRows(in, n, width, rows);
        rows += n * RowBytes(width);
      }
      ForDealt([&](std::size_t, std::size_t, unsigned bits) {
        const std::size_t bytes = ring::PackedBytes(n, bits);
        ring::Unpack(ByteSpan(in, bytes), bits, std::span<std::uint8_t>(rows, n));
        in += bytes;
        rows += n;
      });
    });
  }

  /// Calls f(plane, first dealt bit, bits) for each byte of dealt bits.
  template <class F>
  void ForDealt(F&& f) const {
    for (std::size_t p = 0; p < planes_.size(); ++p)
      for (std::size_t at = 0; at < planes_[p].dealt.size(); at += 8)
        f(p, at, BitsOfByte(planes_[p].dealt.size(), at / 8));
  }

  /// At E1 and E2, no message: greater = entry v, equal = entry v - 1 ^ entry v; entry -1 is 1, and
  /// the last is 0.
  template <ring::Word W>
  Flags CompareChunks(const Ends& ends, const Material& material, std::span<const W> b) const {
    const auto& kernels = ring::ActiveKernels();
    dealer::CheckSize("rows", material.rows.size(), b.size() * element_bytes_);
    dealer::CheckSize("masks", material.rho.size(), planes_.size());
    Flags flags;
    for (const unsigned width : widths_) flags.opened.emplace_back(width > 0 ? b.size() : 0, 0);
    if (!layout_.arithmetic) flags.linear.assign(b.size(), 0);
    const std::uint8_t one = ends.IsE1() ? 1 : 0;
    const W complement = formula_.Complement<W>();
    BlockBytes index, before;
    dealer::ForRanges(b.size(), kBlock, [&](std::size_t begin, std::size_t n) {
      const std::uint8_t* rows = material.rows.data() + begin * element_bytes_;
      ForChunks(layout_, [&](std::size_t j, unsigned bit, unsigned width) {
        const unsigned k = RowWidth(width);
        Chunk<W>(b.data() + begin, n, bit, width, complement, index.data());
        for (const Place& place : GreaterOfChunk(j))
          kernels.select_bits(At(flags, place, begin), rows, index.data(), n, k, place.bit);
        for (const Place& place : EqualOfChunk(j)) {
          std::uint8_t* to = At(flags, place, begin);
          const auto last = static_cast<std::uint8_t>((1U << width) - 1);
          for (std::size_t i = 0; i < n; ++i) {
            before[i] = static_cast<std::uint8_t>(index[i] - 1) & last;
            to[i] ^= static_cast<std::uint8_t>((dealer::ZeroMask(index[i]) & one) << place.bit);
          }
          kernels.select_bits(to, rows, index.data(), n, k, place.bit);
          kernels.select_bits(to, rows, before.data(), n, k, place.bit);
        }
        rows += n * RowBytes(width);
      });
    });
    return flags;
  }

  /// Where the "greater" and "equal" of chunk j go: into the plane of its group; the first
  /// "greater" of a group is a summand of the group's own, and so is all of a group of one chunk.
  std::vector<Place> GreaterOfChunk(std::size_t j) const {
    if (layout_.groups.empty()) return GreaterOfPart(j);
    const auto [group, at] = layout_.GroupOf(j);
    if (at == 0) return GreaterOfPart(group);
    return {{group, static_cast<unsigned>(2 * at - 1)}};
  }
  std::vector<Place> EqualOfChunk(std::size_t j) const {
    if (layout_.groups.empty()) return EqualOfPart(j);
    const auto [group, at] = layout_.GroupOf(j);
    if (layout_.groups[group] == 1) return EqualOfPart(group);
    const bool last = at + 1 == layout_.groups[group] && group + 1 == layout_.Parts();
    if (last) return {};
    return {{group, static_cast<unsigned>(2 * at)}};
  }

  /// At E1 and E2, online: the flags of chunks, opened, give those of the groups. 1 hop.
  void CombineGroups(Context& ctx, const Ends& ends, const Material& material, Flags& flags) const {
    std::vector<Bits> own(std::make_move_iterator(flags.opened.begin()),
                          std::make_move_iterator(flags.opened.end() - 1));
    const auto opened =
        dealer::OpenPlanes(ctx, ends, std::move(own), material.rho, GroupWidths());  // 1 hop
    BlockBytes sum;
    for (std::size_t g = 0; g < layout_.groups.size(); ++g)
      for (std::size_t k = 0; k < planes_[g].polynomials.size(); ++k)
        dealer::ForRanges(opened[g].size(), kBlock, [&](std::size_t begin, std::size_t n) {
          Parities(ends, material, g, k, opened[g], begin, n, sum.data());
          for (const Place& place : k == 0 ? GreaterOfPart(g) : EqualOfPart(g)) {
            std::uint8_t* to = At(flags, place, begin);
            for (std::size_t i = 0; i < n; ++i)
              to[i] ^= static_cast<std::uint8_t>(sum[i] << place.bit);
          }
        });
  }

  /// At E1 and E2: shares of polynomial k of a plane in its opened bits, for n elements of one
  /// block.
  void Parities(const Ends& ends, const Material& material, std::size_t plane, std::size_t k,
                const Bits& opened, std::size_t begin, std::size_t n, std::uint8_t* sum) const {
    using Source = BitPolynomial::Source;
    BlockBytes ones;
    ones.fill(ends.IsE1() ? 1 : 0);
    const std::uint8_t* c = opened.data() + begin;
    const std::uint8_t* masks = material.rho[plane].data() + begin;
    std::size_t bytes = 0;  // of each element's dealt bits, of this plane and those after it
    for (std::size_t p = plane; p < planes_.size(); ++p) bytes += (planes_[p].dealt.size() + 7) / 8;
    const std::uint8_t* dealt = material.rows.data() + (begin + n) * element_bytes_ - n * bytes;
    // Each coefficient is a bit of a byte; their XOR is the parity of what is added up here.
    std::fill_n(sum, n, std::uint8_t{0});
    for (const auto& [product, source, at] : planes_[plane].polynomials[k].terms) {
      const std::uint8_t* from = source == Source::kOne    ? ones.data()
                                 : source == Source::kMask ? masks
                                                           : dealt + at / 8 * n;
      const auto bit = static_cast<std::uint8_t>(1U << at % 8);
      for (std::size_t i = 0; i < n; ++i) sum[i] ^= dealer::Covers(c[i], product) & from[i] & bit;
    }
    for (std::size_t i = 0; i < n; ++i) {
      auto parity = static_cast<std::uint8_t>(sum[i] ^ sum[i] >> 4);
      parity = static_cast<std::uint8_t>(parity ^ parity >> 2);
      sum[i] = static_cast<std::uint8_t>(parity ^ parity >> 1) & 1;
    }
  }

  /// At E1 and E2, where D's elements are made at once: the flags under their masks.
  template <ring::Word W>
  Bits OpenFlags(Context& ctx, const Ends& ends, const Material& material,
                 std::span<const W> b) const {
    return dealer::OpenBits(ctx, ends, std::move(CompareChunks(ends, material, b).opened.back()),
                            material.rho.back(), widths_.back());
  }

  Formula formula_;
  Layout layout_;
  std::vector<Plane> planes_;
  std::vector<unsigned> widths_;  // opened bits, plane by plane
  std::size_t element_bytes_;
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
                    .values = {"auto", "arith", "bit", "tree"},
                    .meaning =
                        "arith (2 hops, or 3 where both evaluators multiply), bit (4 hops, fewer "
                        "bytes) or tree (flags are combined in two rounds: 4 hops, or 5 where both "
                        "evaluators multiply, fewest bytes); a max-pool of signs is always by "
                        "bits, with bit and tree also its last step"}},
       .variants = {{"", {{{25, 8}, {145, 34}}}},
                    {"form=bit", {{{28, 8}, {160, 34}}}},
                    {"form=tree", {{{30, 10}, {170, 38}}}},
                    {"fuse=yes", {{{25, 8}, {145, 34}, {3.7, 3.2}}}},
                    {"form=arith", {}},
                    {"chunks=2", {}},
                    {"chunks=3,form=bit", {}}}});
}

}  // namespace tercet::protocols::lut
