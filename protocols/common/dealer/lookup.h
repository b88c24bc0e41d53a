// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tercet/mpc/suite.h"

/// Lookups by opened bits: what each party computes, no messages (those are in steps.h). D is the
/// helper, E1 and E2 the evaluators. All functions are thread safe.
namespace tercet::protocols::dealer {

using Bits = Buffer<std::uint8_t>;  ///< a small number in each byte

/// Elements are dealt and looked up block by block, so that tables stay in the cache between their
/// steps; a multiple of 8, so that every block but the last fills whole bytes.
inline constexpr std::size_t kBlock = 4096;
/// About the size of one message of a large layer: it travels while the next is computed, and none
/// comes near what a link carries.
inline constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

/// Calls f(begin, count) for each range of at most `step` of `count` elements.
template <class F>
void ForRanges(std::size_t count, std::size_t step, F&& f) {
  for (std::size_t begin = 0; begin < count; begin += step) f(begin, std::min(step, count - begin));
}

/// How many elements of `bits` bits go in one message: a multiple of kBlock.
constexpr std::size_t PieceElements(std::size_t bits) {
  return std::max<std::size_t>(1, kPieceBytes / (kBlock / 8 * bits)) * kBlock;
}

/// Bytes of a bit table of `count` rows of 2^k bits.
constexpr std::size_t TableBytes(std::size_t count, unsigned k) { return ((count << k) + 7) / 8; }

/// A function of k bits, as a table: bit v is its value for v.
using BitFunction = std::vector<std::uint8_t>;
/// At D: rows of bits f(v ^ rho_i) ^ flip_i, v = 0..2^k-1, where f has 2^k values, k at most 8. No
/// branch or address depends on rho or flip.
Bytes PermutedRows(const BitFunction& f, unsigned k, std::span<const std::uint8_t> rho,
                   std::span<const std::uint8_t> flip);

/// The widest window that one lookup takes.
inline constexpr unsigned kMaxWindow = 8;

/// What suites with a dealer have: sign with or without max-pool, relu, square and tables with
/// truncation, of values of two bits or more, where at most `max_compared` bits are to be compared.
/// Throws UnsupportedError naming layer and suite otherwise.
void CheckSpec(const mpc::ActivationSpec& spec, const std::string& suite, unsigned max_compared);

/// One lookup that takes the OR of `width` bits: row o of its output is the OR of the rows
/// `rows[o * width .. (o + 1) * width)` of its input. A step gives bits, or where it is the last of
/// its layer and no selection follows, ring elements.
struct OrStep {
  unsigned width = 1;
  std::vector<std::uint32_t> rows;
  bool elements = true;
  std::size_t OutRows() const { return rows.size() / width; }
};

/// The steps from a layer's bits to its max-pool, in the next layer's ring where `elements`, else
/// as bits. Pools of up to kMaxWindow x kMaxWindow (the suite checks).
std::vector<OrStep> PoolSteps(const mpc::ActivationSpec& spec, bool elements);

/// At D: rows of bits OR(v ^ rho) = [v != rho], v = 0..2^width-1.
Bytes OrRows(unsigned width, std::span<const std::uint8_t> rho);
/// At E1 and E2: the bits of each window of `step` side by side.
Bits GatherWindows(const OrStep& step, const Bits& bits, std::size_t batch);

/// Tables of ring elements: for each of `count` opened numbers of `width` bits the entries
/// 1..2^width - 1. Entry 0 is what remains of the public sum of all, and is not sent.
struct EntryTable {
  std::size_t count = 0;
  unsigned width = 1;
  unsigned out_bits = 0;
  /// Ring elements dealt for one number.
  std::size_t Dealt() const { return (std::size_t{1} << width) - 1; }
};
/// At an evaluator: its shares of entry e of each window, of shares of those that were dealt; they
/// and the other evaluator's of all entries add up to `total` and its total. No branch or address
/// depends on e, whose masks D knows.
template <ring::Word V>
void SelectEntries(const EntryTable& table, std::span<const V> shares, const Bits& e, V total,
                   std::span<V> out);

/// At D: entries 1..2^k - 1 of a row whose entry v is f(v + offset mod 2^k), f given as all its 2^k
/// values. No branch or address depends on the offset.
template <ring::Word V>
void RotatedEntries(std::span<const V> f, std::uint8_t offset, V* out);

/// Entry e of each row of 2^k entries, row after row. No branch or address depends on e.
template <ring::Word V>
void SelectEntry(unsigned k, std::span<const V> rows, const Bits& e, std::span<V> out);

}  // namespace tercet::protocols::dealer
