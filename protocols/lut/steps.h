#pragma once

#include "lut/layout.h"
#include "tercet/mpc/party.h"

/// The comparison, as one function for each role; the other steps are those of all suites with a
/// dealer (dealer/steps.h). D is the helper, E1 and E2 the evaluators; `with_e1` is the stream of
/// k_{D+1}, which D shares with E1. Every draw happens offline, in the same order at both holders.
namespace tercet::protocols::lut {

using dealer::Bits;

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

}  // namespace tercet::protocols::lut
