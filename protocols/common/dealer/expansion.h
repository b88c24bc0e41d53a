// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/dealer/formula.h"
#include "common/dealer/steps.h"

/// D's elements of a formula as polynomials in opened bits (README.md, "Masked monomials").
namespace tercet::protocols::dealer {

/// A product of flags: bit i is set where flag i is a factor; 0 is the empty product, 1.
using Monomial = std::uint8_t;
/// A sum of different products.
using Sum = std::vector<Monomial>;

/// 0xff where x is 0, else 0, by arithmetic: no compiler makes a branch on a secret of it.
inline std::uint8_t ZeroMask(std::uint8_t x) {
  return static_cast<std::uint8_t>((static_cast<std::uint32_t>(x) - 1) >> 8);
}
/// 0xff where `bits` has all of `product`, else 0; likewise.
inline std::uint8_t Covers(std::uint8_t bits, Monomial product) {
  return ZeroMask(static_cast<std::uint8_t>(~bits & product));
}

/// The product of two sums, as flags are 0 or 1: f f = f. Each product comes once.
Sum Product(const Sum& x, const Sum& y);
/// Every subset of a product, once, in ascending order.
Sum Closure(const Sum& products);

/// What a formula's s and carry are in terms of flags. The products of one sum exclude each other,
/// so the sum is the same in every ring and as XOR.
struct Carries {
  Sum s, carry;  ///< no carry, or the product alone: empty
  Sum both;      ///< s * carry, where neither flips
  bool settled = false;
};

/// What an evaluator keeps of an Expansion: its shares of the coefficients, and where it is fused
/// of their products.
struct Coefficients {
  AnyMatrix elements, wrap;
  void Visit(mpc::Archive& archive) { archive(elements)(wrap); }
};

/// E1 and E2 have opened bits c_i = f_i ^ rho_i, D knows rho. A product of flags is a polynomial in
/// the c_i, whose coefficients D knows, and so are D's elements. D deals the coefficients; the
/// evaluators add up those of the products whose bits are all 1. No message online, and no branch
/// or address depends on rho, on c or on shares. Thread safe.
class Expansion {
 public:
  Expansion(const Formula& formula, const Carries& carries, unsigned out_bits);

  /// Bytes of the messages for `count` elements.
  std::uint64_t DealtBytes(std::size_t count) const;
  /// The messages themselves.
  void AddCost(mpc::Cost& cost, const mpc::Roles& roles, std::size_t count) const;

  /// At D, offline, for the masks `rho` of the flags; where flip_i is 1, s is the complement of its
  /// sum of flags.
  template <ring::Word W>
  void Deal(Context& ctx, Ends& ends, std::span<const W> a, std::span<const std::uint8_t> rho,
            std::span<const std::uint8_t> flips, const Columns& columns) const;
  /// At an evaluator, offline.
  Coefficients Take(Context& ctx, Ends& ends, std::size_t count) const;
  /// At an evaluator, online: additive shares of the elements, element j of all at j * count, and
  /// the wrap after them where there is one.
  template <ring::Word V>
  Buffer<V> Evaluate(const Ends& ends, const Coefficients& shares, const Bits& c) const;
  /// The same of a fused layer's one element, s, of which flips_i ^ s_i is added up.
  template <ring::Word V>
  void EvaluateFused(const Coefficients& shares, const Bits& c, const Bits& flips,
                     FusedSum<V>& sum) const;

 private:
  /// A coefficient of one of D's elements.
  struct Term {
    std::size_t element;
    Monomial product;
  };
  /// Elements of one ring.
  struct Group {
    std::size_t first = 0, elements = 0;
    unsigned bits = 0;
    std::vector<Term> terms;
    std::vector<Monomial> products;  // all that occur, each once
    bool Uses(const Formula& formula, std::size_t k) const;
  };
  Group MakeGroup(std::size_t first, std::size_t elements, unsigned bits) const;
  /// Ring elements that D deals for one element of the layer: coefficients, and of a fused layer
  /// their products.
  std::size_t Dealt(const Group& group) const {
    return group.terms.size() * (1 + formula_.FanOut());
  }
  template <ring::Word W, ring::Word V>
  void DealGroup(Context& ctx, Ends& ends, const Group& group, std::span<const W> a,
                 std::span<const std::uint8_t> rho, std::span<const std::uint8_t> flips,
                 const Columns& columns) const;
  template <ring::Word W, ring::Word V>
  void CoefficientsOf(const Group& group, std::span<const W> a, const std::uint8_t* rho,
                      const std::uint8_t* flips, V* out) const;
  /// Adds up into rows of `count`, one for each element of the group.
  template <ring::Word V, ring::Word U>
  void AddUp(const Ends& ends, const Group& group, const AnyMatrix& shares, const Bits& c,
             V* out) const;

  Formula formula_;
  Carries carries_;
  /// Where element 0 is s, and s is one flag, it is r + (1 - 2 r) c: one coefficient serves for
  /// both. That flag, else 0.
  Monomial implied_ = 0;
  Group main_;
  std::optional<Group> wrap_;
};

// ------------------------------------------------------------------------------------------------
// selection: XOR-shared bits become shares of D's elements of a formula. The bits are s, which is
// settled, and carry, or where `product` their product. 1 hop, 2 * SharedBits() bits.
/// The expansion of the layer's elements in both bits.
Expansion SelectionExpansion(const Formula& formula, unsigned out_bits, bool product);
/// What an evaluator keeps.
struct Selection {
  Bits mask;  ///< of the bits
  Coefficients coefficients;
  void Visit(mpc::Archive& archive) { archive(mask)(coefficients); }
};
/// At D, offline; `offsets` are by what the bits differ from those that the evaluators share.
template <ring::Word W>
void DealSelection(Context& ctx, Ends& ends, const Formula& formula, const Expansion& expansion,
                   std::span<const W> a, const Bits& offsets, const Columns& columns);
/// At an evaluator, offline.
Selection TakeSelection(Context& ctx, Ends& ends, const Formula& formula,
                        const Expansion& expansion, std::size_t count);
/// At E1 and E2, online: `bits` are XOR shares of s, and of carry or the product in the second bit.
template <ring::Word V>
Buffer<V> RunSelection(Context& ctx, const Ends& ends, const Formula& formula,
                       const Expansion& expansion, const Selection& selection, Bits bits) {
  const Bits c =
      OpenBits(ctx, ends, std::move(bits), selection.mask, formula.SharedBits());  // 1 hop
  return expansion.Evaluate<V>(ends, selection.coefficients, c);
}
/// The same of a fused layer, whose bits are s.
template <ring::Word V>
void RunFusedSelection(Context& ctx, const Ends& ends, const Expansion& expansion,
                       const Selection& selection, Bits bits, FusedSum<V>& sum) {
  const Bits c = OpenBits(ctx, ends, std::move(bits), selection.mask, 1);  // 1 hop, 1 bit
  expansion.EvaluateFused<V>(selection.coefficients, c, Bits(c.size(), 0), sum);
}
/// Of `count` elements, after what is sent before.
void AddSelection(mpc::Cost& cost, const Formula& formula, const Expansion& expansion,
                  std::size_t count, const mpc::Roles& roles);

}  // namespace tercet::protocols::dealer
