// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "common/dealer/expansion.h"
#include "suites/lut/rows.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::lut {

using dealer::Formula;
using dealer::kBlock;

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

/// Flags that are opened together: at most eight, bits of a byte.
struct Plane {
  unsigned opened = 0;
  std::vector<BitPolynomial> polynomials;  ///< in them, of what they are combined to
  std::vector<DealtBit> dealt;             ///< what D deals for the polynomials
};
/// Without the polynomials.
struct PlaneSize {
  unsigned opened = 0;
  std::size_t dealt = 0;
  std::size_t DealtBytes() const { return (dealt + 7) / 8; }
};

/// How one layer is computed; public, the same at all parties.
///
/// The compared bits are cut into chunks. Each is a *part*, or as many as a group has are one: then
/// the chunks' flags are opened first, a group's in a plane of their own, and give those of the
/// groups. The parts' flags are the last plane.
///
/// Flags of parts are numbered so that those that are opened come first: the "equal" of part j is
/// 2j, the "greater" of part j > 0 is 2j - 1, that of part 0 is the last; and so are those of the
/// chunks of a group.
struct Layout {
  /// Widths of the pieces of the compared bits, most significant first.
  std::vector<unsigned> chunks;
  /// Chunks of each group, most significant first; empty where each chunk is a part.
  std::vector<std::size_t> groups{};
  /// The carry of a formula is that of the parts from here on; their number where it has none.
  std::size_t low = 0;
  /// The flags give D's ring elements at once; else they give bits.
  bool arithmetic = false;
  /// Where they give bits: the second one is s * carry, not the carry.
  bool product = false;

  /// The group of a chunk and its place in there, where there are groups.
  std::pair<std::size_t, std::size_t> GroupOf(std::size_t chunk) const {
    std::size_t group = 0;
    while (chunk >= groups[group]) chunk -= groups[group++];
    return {group, chunk};
  }
  std::size_t Parts() const { return groups.empty() ? chunks.size() : groups.size(); }
  bool HasCarry() const { return low < Parts(); }
  unsigned Greater(std::size_t j) const {
    return static_cast<unsigned>(j == 0 ? 2 * Parts() - 2 : 2 * j - 1);
  }
  unsigned Equal(std::size_t j) const { return static_cast<unsigned>(2 * j); }
  /// Flags of parts that are opened: the first part's "greater" enters bits linearly, so only ring
  /// elements and products need it opened.
  bool OpensFirst() const { return arithmetic || product; }
  unsigned OpenedBits() const {
    return static_cast<unsigned>(2 * Parts()) - (OpensFirst() ? 1 : 2);
  }
  /// [own > other] in the parts first..end-1 as a sum of products of flags, greater_f ^ equal_f
  /// (greater_{f+1} ^ equal_{f+1} (...)) multiplied out; the first, which is a flag by itself,
  /// where `linear`.
  dealer::Sum CarryOf(std::size_t first, std::size_t end, bool linear) const;
  /// [own > other] in the parts before `low`, and all of them equal.
  dealer::Sum UpperAndEqual() const;
  /// s and carry as sums of products of opened flags, where they are made as ring elements.
  dealer::Carries Carries() const;
  /// Planes of the groups, then that of the parts. In the latter s and carry are polynomials, where
  /// they are made as bits: s, and carry where there is one; s without the "greater" of part 0, the
  /// carry without that of part `low`. Where `product`: s, s * carry and carry, all of it, and D's
  /// own part of s is a factor of s * carry.
  std::vector<Plane> Planes() const;
  std::vector<PlaneSize> Sizes() const;

  /// Bytes of rows and dealt bits of `count` comparisons on the wire.
  std::size_t CompareBytes(std::size_t count) const;
  /// The same in memory, for each element.
  std::size_t ElementBytes() const;
  /// Elements that go in one message.
  std::size_t PieceElements() const {
    return dealer::PieceElements(CompareBytes(kBlock) / (kBlock / 8));
  }
};

/// The plane of one group of `chunks` chunks. Its polynomials are its "greater", without that of
/// its first chunk, and where `equal` its "equal": none where the group is one chunk.
Plane GroupPlane(std::size_t chunks, bool equal);

/// Bytes hold up to eight dealt bits each; how many the k-th has.
constexpr unsigned BitsOfByte(std::size_t dealt, std::size_t k) {
  return static_cast<unsigned>(dealt - 8 * k < 8 ? dealt - 8 * k : 8);
}

/// Chooses chunks and form: what `choice` asks for, else the fewest hops that cost no unreasonable
/// number of bytes and then the fewest bytes (README.md). Throws UnsupportedError.
Layout MakeLayout(const mpc::ActivationSpec& spec, const mpc::OptionValues& options);

}  // namespace tercet::protocols::lut
