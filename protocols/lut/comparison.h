#pragma once

#include "dealer/activation.h"
#include "lut/layout.h"

namespace tercet::protocols::lut {

using dealer::Bits;
using dealer::Context;
using dealer::Ends;

/// The comparison of a formula's numbers chunk by chunk in tables (README.md, steps 2 and 3), as
/// dealer::Activation wants it. D is the helper, E1 and E2 the evaluators. Every draw happens
/// offline, in the same order at both holders.
class Comparison {
 public:
  Comparison(Layout layout, unsigned out_bits)
      : layout_(std::move(layout)),
        out_bits_(out_bits),
        s_(CarryFunction(layout_.chunks.size())),
        carry_(layout_.HasCarry() ? CarryFunction(layout_.chunks.size(), layout_.low)
                                  : BitFunction()) {}

  /// What an evaluator keeps.
  struct Material {
    Bits rho;                  ///< its mask of the flags
    Bytes tables;              ///< of bits; E1: their masks, E2: masked
    dealer::Entries elements;  ///< of the arithmetic table
    void Visit(mpc::Archive& archive) { archive(rho)(tables)(elements); }
  };

  bool GivesElements() const { return layout_.arithmetic; }
  /// At D, offline: one message to E2 for every PieceElements() elements, and the arithmetic table.
  template <ring::Word W>
  void Deal(Context& ctx, Ends& ends, const Formula& formula, std::span<const W> a) const;
  /// At an evaluator, offline.
  Material Take(Context& ctx, Ends& ends, const Formula& formula, std::size_t count) const;
  /// At E1 and E2, online. 1 hop, 2 * PackedBits() bits.
  template <ring::Word W>
  Bits CompareBits(Context& ctx, const Ends& ends, const Formula& formula, const Material& material,
                   std::span<const W> b) const;
  template <ring::Word W, ring::Word V>
  Buffer<V> CompareElements(Context& ctx, const Ends& ends, const Formula& formula,
                            const Material& material, std::span<const W> b) const;

 private:
  /// At D: the masked tables of one message; `rho` are the masks of the flags.
  template <ring::Word W>
  Bytes Tables(Ends& ends, const Formula& formula, std::span<const W> a,
               std::span<const std::uint8_t> rho) const;
  /// Where the carry is apart: the numbers that are compared for s, then those for it. `values` are
  /// a, or b with its complement; at D those for the carry have a top bit that flips nothing.
  template <ring::Word W>
  Buffer<W> WithLowBits(const Formula& formula, std::span<const W> values, W complement) const;
  /// At D, for the numbers compared.
  template <ring::Word W>
  void DealComparisons(Context& ctx, Ends& ends, const Formula& formula, std::span<const W> a,
                       std::span<const std::uint8_t> rho) const;
  /// At E1 and E2: the opened flags of each comparison. 1 hop.
  template <ring::Word W>
  Bits OpenFlags(Context& ctx, const Ends& ends, const Formula& formula, const Material& material,
                 std::span<const W> b) const;

  Layout layout_;
  unsigned out_bits_;
  BitFunction s_, carry_;  // of the flags
};

}  // namespace tercet::protocols::lut
