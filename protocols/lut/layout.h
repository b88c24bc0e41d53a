#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dealer/formula.h"
#include "dealer/lookup.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::lut {

using dealer::BitFunction;
using dealer::Formula;
using dealer::kBlock;
using dealer::TableBytes;

/// How one layer is computed; public, the same at all parties.
struct Layout {
  /// Widths of the pieces of the compared bits, most significant first.
  std::vector<unsigned> chunks;
  /// The carry of a formula is that of the chunks from here on; their number where it has none, or
  /// where it is `apart`.
  std::size_t low = 0;
  /// The carry has a comparison of its own, in the same chunks, as if there were as many elements
  /// again: for values so wide that too few chunks are left to have one end where the carry does.
  bool apart = false;
  /// The table that the comparison's flags index gives ring elements at once.
  bool arithmetic = false;

  bool HasCarry() const { return low < chunks.size(); }
  /// Comparisons of `count` elements.
  std::size_t Comparisons(std::size_t count) const { return apart ? 2 * count : count; }
  /// Bits of (greater, equal) flags per element: 2 for each chunk, 1 for the last.
  unsigned PackedBits() const { return 2 * static_cast<unsigned>(chunks.size()) - 1; }
  /// The same of the chunks from `low` on, which are the upper ones of all.
  unsigned CarryPackedBits() const { return PackedBits() - 2 * static_cast<unsigned>(low); }
  /// Bytes of all tables of bits of `count` comparisons.
  std::size_t CompareBytes(std::size_t count) const;
  /// The same of one block.
  std::size_t BlockBytes(std::size_t count) const;
  /// Comparisons that go in one message.
  std::size_t PieceElements() const {
    return dealer::PieceElements(BlockBytes(kBlock) / (kBlock / 8));
  }
  /// The ring elements looked up by the flags, where arithmetic.
  dealer::ArithTable Elements(const Formula& formula, std::size_t count, unsigned out_bits) const {
    return {count, PackedBits(), 0, out_bits, formula.Elements()};
  }
};

/// What is looked up after `chunks` chunks are compared: for the flags v it is the carry
/// greater_f ^ equal_f (greater_{f+1} ^ equal_{f+1} (...)) of the chunks from f = `from` on.
BitFunction CarryFunction(std::size_t chunks, std::size_t from = 0);

/// Chooses chunks and form: what `choice` asks for, else the fewest hops that cost no unreasonable
/// number of bytes and then the fewest bytes (README.md). Throws UnsupportedError or ConfigError as
/// Suite::Check.
Layout MakeLayout(const mpc::ActivationSpec& spec, const mpc::SuiteChoice& choice);

mpc::Cost LayoutCost(const Layout& layout, const mpc::ActivationSpec& spec,
                     const mpc::Roles& roles);

}  // namespace tercet::protocols::lut
