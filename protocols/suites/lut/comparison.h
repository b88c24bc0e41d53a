// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "common/dealer/activation.h"
#include "suites/lut/layout.h"

namespace tercet::protocols::lut {

using dealer::Bits;
using dealer::Context;
using dealer::Ends;

/// The comparison of a formula's numbers chunk by chunk (README.md, steps 2 and 3), as
/// dealer::Activation wants it. D is the helper, E1 and E2 the evaluators. Every draw happens
/// offline, in the same order at both holders.
class Comparison {
 public:
  Comparison(Layout layout, const Formula& formula, unsigned out_bits);

  /// What an evaluator keeps.
  struct Material {
    Bits rho;                        ///< its mask of the opened flags
    Bytes rows;                      ///< its shares of the rows and dealt bits
    dealer::AnyMatrix coefficients;  ///< of ring elements, where arithmetic
    void Visit(mpc::Archive& archive) { archive(rho)(rows)(coefficients); }
  };

  bool GivesElements() const { return layout_.arithmetic; }
  /// At D, offline: one message to E2 for every PieceElements() elements, and the coefficients.
  /// What the evaluators' bits differ by from s and carry, where they are made as bits.
  template <ring::Word W>
  Bits Deal(Context& ctx, Ends& ends, const Formula& formula, std::span<const W> a) const;
  /// At an evaluator, offline.
  Material Take(Context& ctx, Ends& ends, const Formula& formula, std::size_t count) const;
  /// At E1 and E2, online. 1 hop, 2 * OpenedBits() bits; no message where nothing is opened.
  template <ring::Word W>
  Bits CompareBits(Context& ctx, const Ends& ends, const Formula& formula, const Material& material,
                   std::span<const W> b) const;
  template <ring::Word W, ring::Word V>
  Buffer<V> CompareElements(Context& ctx, const Ends& ends, const Formula& formula,
                            const Material& material, std::span<const W> b) const;

 private:
  /// Shares of all flags of each comparison.
  struct Flags {
    Bits opened;  ///< those that are opened
    Bits linear;  ///< the first "greater" of s and of carry, bit 0 and bit 1, where bits are made
  };
  /// At D and E1: E1's shares of the rows and dealt bits of one block.
  void DrawBlock(Ends& ends, std::size_t count, std::uint8_t* out) const;
  /// At D: E2's shares of one message, packed.
  template <ring::Word W>
  Bytes Piece(Ends& ends, const Formula& formula, std::span<const W> a,
              std::span<const std::uint8_t> rho) const;
  /// At E1 and E2. No message.
  template <ring::Word W>
  Flags CompareChunks(const Ends& ends, const Formula& formula, const Material& material,
                      std::span<const W> b) const;

  Layout layout_;
  std::vector<DealtBit> dealt_;
  std::vector<BitPolynomial> polynomials_;      // of s and carry, where they are made as bits
  std::optional<dealer::Expansion> expansion_;  // of D's elements, where arithmetic
};

}  // namespace tercet::protocols::lut
