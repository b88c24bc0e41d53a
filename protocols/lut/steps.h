#pragma once

#include <optional>

#include "lut/layout.h"
#include "tercet/mpc/party.h"

/// The steps of the protocol, each as one function for each role. D is the helper, E1 and E2 the
/// evaluators; `with_e1` is the stream of k_{D+1}, which D shares with E1, and `with_e2` that of
/// k_D, which D shares with E2. Every draw happens offline, in the same order at both holders.
namespace tercet::protocols::lut {

using Bits = Buffer<std::uint8_t>;  ///< a small number in each byte

// ------------------------------------------------------------------------------------------------
// comparison
/// At D: masked tables for the comparison of a_low with ~b_low and for the carry, for values a
/// (their low value_bits bits). `rho` are the masks of the flags, PackedBits each. The mask of the
/// tables comes from with_e1.
template <ring::Word W>
Bytes DealCompare(const Layout& layout, unsigned value_bits, std::span<const W> a, const Bits& rho,
                  crypto::PrfStream& with_e1);
/// At E1: the masks alone.
Bytes DrawCompareMasks(const Layout& layout, std::size_t count, crypto::PrfStream& with_e1);
/// At E1 and E2: XOR shares of the flags of each element, looked up at the chunks of ~b_low.
template <ring::Word W>
Bits LookUpFlags(const Layout& layout, unsigned value_bits, std::span<const W> b,
                 const Bytes& tables);
/// At E1 and E2: XOR shares of the carry from the opened flags e; only where !layout.arithmetic.
Bits LookUpCarry(const Layout& layout, const Bits& e, const Bytes& tables);
/// At D, where layout.arithmetic: the rows of bits that the arithmetic table encodes, s = carry(e ^
/// rho) ^ a_top ^ 1.
template <ring::Word W>
Bytes CarryRows(const Layout& layout, unsigned value_bits, std::span<const W> a, const Bits& rho);

// ------------------------------------------------------------------------------------------------
// OR of bits
/// At D: rows of bits OR(v ^ rho) = [v != rho], v = 0..2^width-1.
Bytes OrRows(unsigned width, const Bits& rho);
/// At E1 and E2: the bits of each window of `step` side by side.
Bits GatherWindows(const OrStep& step, const Bits& bits, std::size_t batch);

// ------------------------------------------------------------------------------------------------
// arithmetic lookup
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

}  // namespace tercet::protocols::lut
