// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "common/dealer/fused.h"
#include "common/dealer/lookup.h"

namespace tercet::protocols::dealer {

/// How an activation follows from z = a + b mod 2^n, with a known to D and b to E1 and E2, and from
/// two carries of that addition: `s`, the sign, and `carry`, that of the lowest `shift` bits. D
/// gives, for each value of the two, ring elements; of those that hold, the evaluators have
/// additive shares, and the rest is theirs to compute. README.md derives the formulas. Exact in
/// every output ring. Stateless but for the layer's widths; thread safe.
///
///     s for sign and relu: 1 ^ a_top ^ [a_low + b_low >= 2^(n-1)], so [z >= 0] = s ^ b_top; where
///     it is `settled` the evaluators have added b_top, which they know: s = [z >= 0];
///     s for square: [a + b' >= 2^n], with b' = b + 2^(n-1);
///     s for a table: the carry of the lowest `shift` bits; the formula gives the index, in a ring
///     of its bits.
class Formula {
 public:
  explicit Formula(const mpc::ActivationSpec& spec)
      : kind_(spec.kind),
        bits_(spec.value_bits),
        shift_(spec.shift),
        fan_out_(dealer::FanOut(spec)) {}

  /// Low bits of a and of b or b', whose sum decides s: n - 1, of square n, of a table `shift`.
  unsigned ComparedBits() const {
    return kind_ == mpc::ActivationKind::kTable    ? shift_
           : kind_ == mpc::ActivationKind::kSquare ? bits_
                                                   : bits_ - 1;
  }
  /// Bits of the second carry, 0 where there is none.
  unsigned CarryBits() const { return kind_ == mpc::ActivationKind::kTable ? 0 : shift_; }
  /// Bits that are shared of each element before D's elements are looked up: s, then carry, or s *
  /// carry.
  unsigned SharedBits() const { return CarryBits() > 0 ? 2 : 1; }
  /// Whether b_top settles s, as it does for sign and relu.
  bool HasTop() const {
    return kind_ == mpc::ActivationKind::kSign || kind_ == mpc::ActivationKind::kRelu;
  }
  /// Whether D's elements have the carry in products with the settled s alone, so that the product
  /// of the two serves in its place.
  bool TakesProduct() const { return kind_ == mpc::ActivationKind::kRelu && CarryBits() > 0; }
  /// Ring elements that D gives for one value of s and carry, but for the wrap.
  std::size_t Elements(bool settled) const {
    return kind_ == mpc::ActivationKind::kRelu     ? (settled ? 2 : 3)
           : kind_ == mpc::ActivationKind::kSquare ? 2
                                                   : 1;
  }
  /// The wrap is one element more, by which a sum of n - shift bits differs from what it is in an
  /// output ring of more: these are its bits, 0 where there is none.
  unsigned WrapBits(unsigned out_bits) const {
    return kind_ == mpc::ActivationKind::kRelu && out_bits > bits_ - shift_
               ? out_bits - (bits_ - shift_)
               : 0;
  }
  static constexpr std::size_t kWrap = 3;  ///< its number
  /// Outputs of the map that a sign is fused with, else 0: D deals each element with as many
  /// products (fused.h).
  std::size_t FanOut() const { return fan_out_; }
  /// D's elements are sums of these functions of s and carry, with factors that depend on a: 1, s,
  /// carry, s * carry.
  static constexpr std::size_t kBasis = 4;
  /// Whether element j has basis function k.
  bool Uses(std::size_t j, std::size_t k) const;
  /// Whether element 0 is s itself.
  bool FirstIsS() const { return HasTop(); }

  /// a carry is [a > b ^ Complement()] in the bits that are added: the complement of b, or of b'.
  template <ring::Word W>
  W Complement() const {
    const W all = static_cast<W>(~W{0});
    return kind_ == mpc::ActivationKind::kSquare ? static_cast<W>(all ^ Top<W>()) : all;
  }
  /// At D: s ^ [a_compared > complement of b_compared], where s is not settled.
  template <ring::Word W>
  std::uint8_t Flip(W a) const {
    return HasTop() ? static_cast<std::uint8_t>(~(a >> (bits_ - 1)) & 1) : 0;
  }
  /// At E1 and E2: b_top, or 0 where it settles nothing.
  template <ring::Word W>
  std::uint8_t SignFlip(W b) const {
    return HasTop() ? static_cast<std::uint8_t>(b >> (bits_ - 1) & 1) : 0;
  }

  /// At D: the factor of basis function k in element j, for each a_i, at out[k * a.size() + i];
  /// those that are not used are left alone. No branch or address depends on a.
  template <ring::Word W, ring::Word V>
  void Factors(std::size_t j, std::span<const W> a, V* out) const;
  /// At D: element j for a_i, s_i and carry_i, bits in words.
  template <ring::Word W, ring::Word V>
  void Entries(std::size_t j, std::span<const W> a, const V* s, const V* carry, V* out) const;
  /// At E1 (`one`) and E2: an additive share of the activation, from b and shares of D's elements,
  /// element j of all at j * b.size(), the wrap after them where there is one. No branch or address
  /// depends on them.
  template <ring::Word W, ring::Word V>
  void Finish(bool one, bool settled, std::span<const W> b, std::span<const V> elements,
              std::span<V> out) const;

 private:
  template <ring::Word W>
  W Top() const {
    return static_cast<W>(W{1} << (bits_ - 1));
  }

  mpc::ActivationKind kind_;
  unsigned bits_, shift_;
  std::size_t fan_out_;
};

}  // namespace tercet::protocols::dealer
