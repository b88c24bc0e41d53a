#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tercet/mpc/suite.h"

/// Lookups that turn opened bits into their OR and into ring elements: what each party computes, no
/// messages (those are in steps.h). D is the helper, E1 and E2 the evaluators; `with_e1` is the
/// stream of k_{D+1}, which D shares with E1. All functions are thread safe, each stream belongs to
/// one thread at a time.
namespace tercet::protocols::dealer {

using Bits = Buffer<std::uint8_t>;  ///< a small number in each byte

/// Bytes of a bit table of `count` rows of 2^k bits.
constexpr std::size_t TableBytes(std::size_t count, unsigned k) { return ((count << k) + 7) / 8; }

/// The widest window that one lookup takes.
inline constexpr unsigned kMaxWindow = 8;

/// One lookup that takes the OR of `width` bits: row o of its output is the OR of the rows
/// `rows[o * width .. (o + 1) * width)` of its input. The last step of a layer gives ring elements,
/// the others bits.
struct OrStep {
  unsigned width = 1;
  std::vector<std::uint32_t> rows;
  bool last = true;
  std::size_t OutRows() const { return rows.size() / width; }
};

/// The steps from a layer's bits to its output in the next layer's ring: the max-pool, or one step
/// of width 1 without pool. Pools of up to kMaxWindow x kMaxWindow (the suite checks).
std::vector<OrStep> PoolSteps(const mpc::ActivationSpec& spec);

/// At D: rows of bits OR(v ^ rho) = [v != rho], v = 0..2^width-1.
Bytes OrRows(unsigned width, const Bits& rho);
/// At E1 and E2: the bits of each window of `step` side by side.
Bits GatherWindows(const OrStep& step, const Bits& bits, std::size_t batch);

/// A table of 2^k ring elements in {0, 1} for each of `count` elements, of which the entries
/// first..2^k-1 are dealt. With first = 1 entry 0 is what remains of the public sum of all entries,
/// 2^k - 1 (that of an OR), and is not sent.
struct ArithTable {
  std::size_t count = 0;
  unsigned k = 1;
  std::size_t first = 0;
  unsigned out_bits = 0;
  std::size_t Entries() const { return (std::size_t{1} << k) - first; }
};
/// At D: entries given by the bit table `rows`, minus the mask, packed.
template <ring::Word V>
Bytes DealArith(const ArithTable& table, const Bytes& rows, crypto::PrfStream& with_e1);
/// At E1: its share is the mask; at E2: its share is what D sent. Entry e of each element.
template <ring::Word V>
ring::Matrix<V> SelectMask(const ArithTable& table, std::span<const V> masks, const Bits& e,
                           std::size_t rows);
template <ring::Word V>
ring::Matrix<V> SelectDealt(const ArithTable& table, const Bytes& dealt, const Bits& e,
                            std::size_t rows);

}  // namespace tercet::protocols::dealer
