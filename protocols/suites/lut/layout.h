// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "common/dealer/expansion.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::lut {

using dealer::Formula;
using dealer::kBlock;

/// Chunks of wider values have rows of 2^width bits on the wire, the others leave out the last
/// entry, which is 0 for everybody.
constexpr unsigned RowBits(unsigned width) { return width <= 6 ? (1U << width) - 1 : 1U << width; }
/// Of the same row in memory.
constexpr std::size_t RowBytes(unsigned width) {
  return width <= 3 ? 1 : std::size_t{1} << (width - 3);
}

/// In products that D computes: its own part of s, which nobody else knows, beside the masks of
/// the flags.
inline constexpr dealer::Monomial kOwn = 0x80;

/// One bit that D deals: the XOR over `products` of the product of the masks rho of these flags.
using DealtBit = dealer::Sum;

/// An XOR-shared bit as a polynomial in opened bits c: the XOR of the coefficients of the products
/// that c covers. A coefficient is a sum of what E1 and E2 have shares of anyway, and of at most
/// one bit that D deals.
struct BitPolynomial {
  enum class Source { kOne, kMask, kDealt };
  struct Term {
    dealer::Monomial product;
    Source source;
    std::size_t index;  ///< of the flag whose mask it is, or of the dealt bit
  };
  std::vector<Term> terms;
  dealer::Sum offset;  ///< what D knows of it: sum of products of masks
};

/// How one layer is computed; public, the same at all parties.
///
/// Flags are numbered so that those that are opened come first: the "equal" of chunk j is 2j, the
/// "greater" of chunk j > 0 is 2j - 1, that of chunk 0 is the last.
struct Layout {
  /// Widths of the pieces of the compared bits, most significant first.
  std::vector<unsigned> chunks;
  /// The carry of a formula is that of the chunks from here on; their number where it has none.
  std::size_t low = 0;
  /// The flags give D's ring elements at once; else they give bits.
  bool arithmetic = false;
  /// Where they give bits: the second one is s * carry, not the carry.
  bool product = false;

  bool HasCarry() const { return low < chunks.size(); }
  unsigned Greater(std::size_t j) const {
    return static_cast<unsigned>(j == 0 ? 2 * chunks.size() - 2 : 2 * j - 1);
  }
  unsigned Equal(std::size_t j) const { return static_cast<unsigned>(2 * j); }
  /// Flags that are opened: the first chunk's "greater" enters bits linearly, so only ring elements
  /// and products need it opened.
  bool OpensFirst() const { return arithmetic || product; }
  unsigned OpenedBits() const {
    return static_cast<unsigned>(2 * chunks.size()) - (OpensFirst() ? 1 : 2);
  }
  /// [own > other] in the chunks first..end-1 as a sum of products of flags, greater_f ^ equal_f
  /// (greater_{f+1} ^ equal_{f+1} (...)) multiplied out; the first, which is a flag by itself,
  /// where `linear`.
  dealer::Sum CarryOf(std::size_t first, std::size_t end, bool linear) const;
  /// [own > other] in the chunks before `low`, and all of them equal.
  dealer::Sum UpperAndEqual() const;
  /// s and carry as sums of products of opened flags, where they are made as ring elements.
  dealer::Carries Carries() const;
  /// The same as polynomials in opened bits, where they are made as bits: s, and carry where there
  /// is one; s without the "greater" of chunk 0, the carry without that of chunk `low`. Where
  /// `product`: s, s * carry and carry, all of it, and D's own part of s is a factor of s * carry.
  /// `dealt` becomes the bits that D deals.
  std::vector<BitPolynomial> Polynomials(std::vector<DealtBit>& dealt) const;
  std::size_t DealtBits() const;

  /// Bytes of rows and dealt bits of `count` comparisons on the wire.
  std::size_t CompareBytes(std::size_t count) const;
  /// The same in memory, for each element.
  std::size_t ElementBytes() const;
  /// Elements that go in one message.
  std::size_t PieceElements() const {
    return dealer::PieceElements(CompareBytes(kBlock) / (kBlock / 8));
  }
};

/// Bytes hold up to eight dealt bits each; how many the k-th has.
constexpr unsigned BitsOfByte(std::size_t dealt, std::size_t k) {
  return static_cast<unsigned>(dealt - 8 * k < 8 ? dealt - 8 * k : 8);
}

/// Chooses chunks and form: what `choice` asks for, else the fewest hops that cost no unreasonable
/// number of bytes and then the fewest bytes (README.md). Throws UnsupportedError.
Layout MakeLayout(const mpc::ActivationSpec& spec, const mpc::OptionValues& options);

}  // namespace tercet::protocols::lut
