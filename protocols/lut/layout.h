#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dealer/lookup.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::lut {

using dealer::OrStep;
using dealer::TableBytes;

/// Elements are dealt and looked up block by block, so that tables stay in the cache between their
/// steps; a multiple of 8, so that every block but the last fills whole bytes.
inline constexpr std::size_t kBlock = 4096;

/// How one layer is computed; public, the same at all parties.
struct Layout {
  std::vector<unsigned>
      chunks;  ///< widths of the pieces of the low value_bits-1 bits, most significant first
  bool arithmetic =
      false;  ///< the table of the comparison gives ring elements at once; then no OR steps follow
  std::vector<OrStep> steps;

  /// Bits of (greater, equal) flags per element: 2 for each chunk, 1 for the last.
  unsigned PackedBits() const { return 2 * static_cast<unsigned>(chunks.size()) - 1; }
  /// Bytes of all tables of bits of `count` elements' comparison.
  std::size_t CompareBytes(std::size_t count) const;
  /// The same of one block.
  std::size_t BlockBytes(std::size_t count) const;
};

/// The function looked up after the chunks are compared, as a table of 2^PackedBits bits: bit v is
/// the carry greater_0 ^ equal_0 (greater_1 ^ equal_1 (...)) of the flags v.
std::vector<std::uint8_t> CarryTable(std::size_t chunks);

/// Chooses chunks and form: what `choice` asks for, else the fewest hops and then the fewest bytes.
/// Throws UnsupportedError or ConfigError as Suite::Check.
Layout MakeLayout(const mpc::ActivationSpec& spec, const mpc::SuiteChoice& choice);

mpc::Cost LayoutCost(const Layout& layout, const mpc::ActivationSpec& spec,
                     const mpc::Roles& roles);

}  // namespace tercet::protocols::lut
