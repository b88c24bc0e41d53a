// SPDX-License-Identifier: Apache-2.0
#include "common/dealer/expansion.h"

#include <algorithm>
#include <array>
#include <bit>
#include <set>

#include "tercet/ring/pack.h"

namespace tercet::protocols::dealer {
namespace {

/// Elements whose coefficients are computed together, so that they stay in the first cache.
constexpr std::size_t kRun = 512;
static_assert(kBlock % kRun == 0);

using Run = std::array<std::uint8_t, kRun>;

/// The coefficient of the product u of opened bits in a sum of products of flags f = c ^ r, which
/// is the sum over its products p that contain u of (product of r over p \ u) * (product of 1 - 2 r
/// over u), negated where `negative` is 1. Two's complement.
void Coefficient(const Sum& sum, Monomial u, const std::uint8_t* r, const std::uint8_t* negative,
                 std::size_t n, std::uint8_t* out) {
  std::fill_n(out, n, std::uint8_t{0});
  for (const Monomial p : sum) {
    if ((p & u) != u) continue;
    const auto rest = static_cast<Monomial>(p & ~u);
    for (std::size_t i = 0; i < n; ++i)
      out[i] = static_cast<std::uint8_t>(out[i] - Covers(r[i], rest));
  }
  for (std::size_t i = 0; i < n; ++i) {
    auto parity = static_cast<std::uint8_t>(r[i] & u);
    parity = static_cast<std::uint8_t>(parity ^ parity >> 4);
    parity = static_cast<std::uint8_t>(parity ^ parity >> 2);
    parity = static_cast<std::uint8_t>((parity ^ parity >> 1 ^ negative[i]) & 1);
    const auto sign = static_cast<std::uint8_t>(-parity);
    out[i] = static_cast<std::uint8_t>((out[i] ^ sign) + parity);
  }
}

template <ring::Word V>
V Signed(std::uint8_t x) {
  return static_cast<V>(static_cast<std::int8_t>(x));
}

}  // namespace

Sum Product(const Sum& x, const Sum& y) {
  std::set<Monomial> all;
  for (const Monomial p : x)
    for (const Monomial q : y) all.insert(static_cast<Monomial>(p | q));
  return {all.begin(), all.end()};
}

Sum Closure(const Sum& products) {
  std::set<Monomial> all;
  for (const Monomial p : products)
    for (unsigned u = p;; u = (u - 1) & p) {
      all.insert(static_cast<Monomial>(u));
      if (u == 0) break;
    }
  return {all.begin(), all.end()};
}

Expansion::Expansion(const Formula& formula, const Carries& carries, unsigned out_bits)
    : formula_(formula), carries_(carries) {
  if (formula.FirstIsS() && carries.s.size() == 1 && std::has_single_bit(carries.s[0]))
    implied_ = carries.s[0];
  main_ = MakeGroup(0, formula.Elements(carries.settled), out_bits);
  if (formula.WrapBits(out_bits) > 0)
    wrap_ = MakeGroup(Formula::kWrap, 1, formula.WrapBits(out_bits));
}

bool Expansion::Group::Uses(const Formula& formula, std::size_t k) const {
  for (std::size_t j = first; j < first + elements; ++j)
    if (formula.Uses(j, k)) return true;
  return false;
}

Expansion::Group Expansion::MakeGroup(std::size_t first, std::size_t elements,
                                      unsigned bits) const {
  const Sum one{0};
  const std::array<const Sum*, Formula::kBasis> sums{&one, &carries_.s, &carries_.carry,
                                                     &carries_.both};
  Group group{first, elements, bits, {}, {}};
  std::set<Monomial> occurring;
  for (std::size_t j = first; j < first + elements; ++j) {
    Sum products;
    for (std::size_t k = 0; k < sums.size(); ++k)
      if (formula_.Uses(j, k)) products.insert(products.end(), sums[k]->begin(), sums[k]->end());
    products.push_back(0);
    for (const Monomial product : Closure(products)) {
      if (j == 0 && implied_ != 0 && product == implied_) continue;
      group.terms.push_back({j, product});
      occurring.insert(product);
    }
  }
  group.products.assign(occurring.begin(), occurring.end());
  return group;
}

std::uint64_t Expansion::DealtBytes(std::size_t count) const {
  return ring::PackedBytes(count * Dealt(main_), main_.bits) +
         (wrap_ ? ring::PackedBytes(count * Dealt(*wrap_), wrap_->bits) : 0);
}

void Expansion::AddCost(mpc::Cost& cost, const mpc::Roles& roles, std::size_t count) const {
  AddElements(cost, roles, count, Dealt(main_), main_.bits);
  if (wrap_) AddElements(cost, roles, count, Dealt(*wrap_), wrap_->bits);
}

// `out` gets term after term, n values each.
template <ring::Word W, ring::Word V>
void Expansion::CoefficientsOf(const Group& group, std::span<const W> a, const std::uint8_t* rho,
                               const std::uint8_t* flips, V* out) const {
  const std::size_t n = a.size();
  const Run none{};
  std::array<Run, Formula::kBasis> values;  // of s, carry and s * carry, as numbered there
  std::array<V, kRun * 3 * Formula::kBasis> factors;  // of element j and basis function k
  const auto factor = [&](std::size_t j, std::size_t k) {
    return factors.data() + ((j - group.first) * Formula::kBasis + k) * n;
  };
  for (std::size_t j = group.first; j < group.first + group.elements; ++j)
    formula_.Factors<W, V>(j, a, factor(j, 0));
  std::array<bool, Formula::kBasis> used{};
  for (std::size_t k = 0; k < used.size(); ++k) used[k] = group.Uses(formula_, k);
  for (const Monomial u : group.products) {
    auto &s = values[1], &carry = values[2], &both = values[3];
    // s = flip + (1 - 2 flip) (sum of flags), and so is s * carry of carry and both.
    if (used[1]) Coefficient(carries_.s, u, rho, flips, n, s.data());
    if (used[2] || used[3]) Coefficient(carries_.carry, u, rho, none.data(), n, carry.data());
    if (used[3]) Coefficient(carries_.both, u, rho, flips, n, both.data());
    for (std::size_t i = 0; used[3] && i < n; ++i) {
      const auto flipped = static_cast<std::uint8_t>(-flips[i]);
      both[i] = static_cast<std::uint8_t>(both[i] + (carry[i] & flipped));
    }
    for (std::size_t i = 0; used[1] && u == 0 && i < n; ++i)
      s[i] = static_cast<std::uint8_t>(s[i] + flips[i]);
    for (std::size_t t = 0; t < group.terms.size(); ++t) {
      if (group.terms[t].product != u) continue;
      V* to = out + t * n;
      const std::size_t j = group.terms[t].element;
      std::fill_n(to, n, V{0});
      if (u == 0 && formula_.Uses(j, 0)) std::copy_n(factor(j, 0), n, to);
      for (std::size_t k = 1; k < Formula::kBasis; ++k) {
        if (!formula_.Uses(j, k)) continue;
        const V* by = factor(j, k);
        const std::uint8_t* value = values[k].data();
        for (std::size_t i = 0; i < n; ++i)
          to[i] = static_cast<V>(to[i] + ring::Times(by[i], Signed<V>(value[i])));
      }
    }
  }
}

template <ring::Word W, ring::Word V>
void Expansion::DealGroup(Context& ctx, Ends& ends, const Group& group, std::span<const W> a,
                          std::span<const std::uint8_t> rho, std::span<const std::uint8_t> flips,
                          const Columns& columns) const {
  const std::size_t fan_out = formula_.FanOut(), terms = group.terms.size(), dealt = Dealt(group);
  Buffer<V> run(fan_out > 0 ? kRun * terms : 0);
  DealElements<V>(
      ctx, ends, a.size(), dealt, group.bits, [&](std::size_t begin, std::size_t size, V* values) {
        ForRanges(size, kRun, [&](std::size_t at, std::size_t n) {
          V* to = values + at * dealt;
          CoefficientsOf<W, V>(group, a.subspan(begin + at, n), rho.data() + begin + at,
                               flips.data() + begin + at, fan_out > 0 ? run.data() : to);
          for (std::size_t i = 0; fan_out > 0 && i < n; ++i) {
            const V* column = columns.Of<V>(begin + at + i, a.size());
            for (std::size_t t = 0; t < terms; ++t)
              to = WithProducts(run[t * n + i], column, fan_out, to);
          }
        });
      });
}

template <ring::Word W>
void Expansion::Deal(Context& ctx, Ends& ends, std::span<const W> a,
                     std::span<const std::uint8_t> rho, std::span<const std::uint8_t> flips,
                     const Columns& columns) const {
  TERCET_CHECK(columns.FanOut() == formula_.FanOut(), "columns of {} outputs for a map of {}",
               columns.FanOut(), formula_.FanOut());
  const auto deal = [&](const Group& group) {
    ring::DispatchWord(group.bits, [&]<ring::Word V>(V) {
      DealGroup<W, V>(ctx, ends, group, a, rho, flips, columns);
    });
  };
  deal(main_);
  if (wrap_) deal(*wrap_);
}

Coefficients Expansion::Take(Context& ctx, Ends& ends, std::size_t count) const {
  Coefficients taken;
  taken.elements = TakeElements(ctx, ends, count, Dealt(main_), main_.bits);
  if (wrap_) taken.wrap = TakeElements(ctx, ends, count, Dealt(*wrap_), wrap_->bits);
  return taken;
}

template <ring::Word V, ring::Word U>
void Expansion::AddUp(const Ends& ends, const Group& group, const AnyMatrix& shares, const Bits& c,
                      V* out) const {
  const std::size_t count = c.size(), dealt = Dealt(group);
  CheckSize("coefficients", shares.As<U>().size(), count * dealt);
  const U* all = shares.As<U>().data();
  const V one = ends.IsE1() ? V{1} : V{0};
  ForRanges(count, kRun, [&](std::size_t begin, std::size_t n) {
    const U* term = all + begin * dealt;
    const std::uint8_t* bits = c.data() + begin;
    for (const auto& [element, product] : group.terms) {
      V* to = out + (element - group.first) * count + begin;
      for (std::size_t i = 0; i < n; ++i)
        to[i] =
            static_cast<V>(to[i] + (static_cast<V>(term[i]) & Signed<V>(Covers(bits[i], product))));
      if (element == 0 && product == 0 && implied_ != 0)
        for (std::size_t i = 0; i < n; ++i) {
          const V r = static_cast<V>(term[i]);
          to[i] = static_cast<V>(
              to[i] + (static_cast<V>(one - r - r) & Signed<V>(Covers(bits[i], implied_))));
        }
      term += n;
    }
  });
}

template <ring::Word V>
Buffer<V> Expansion::Evaluate(const Ends& ends, const Coefficients& shares, const Bits& c) const {
  const std::size_t rows = main_.elements + (wrap_ ? 1 : 0);
  Buffer<V> out(c.size() * rows);
  std::fill(out.begin(), out.end(), V{0});
  AddUp<V, V>(ends, main_, shares.elements, c, out.data());
  if (wrap_)
    ring::DispatchWord(wrap_->bits, [&]<ring::Word U>(U) {
      if constexpr (sizeof(U) <= sizeof(V))
        AddUp<V, U>(ends, *wrap_, shares.wrap, c, out.data() + c.size() * main_.elements);
    });
  return out;
}

// s_i is the sum of the coefficients x_t of those products of which all c are 1, and so
//
//     flip ^ s = flip + (1 - 2 flip) sum_t [c covers t] x_t,
//
// where a coefficient 1 - 2 x of a flag f is implied by the constant one x: x + (1 - 2 x) c_f.
template <ring::Word V>
void Expansion::EvaluateFused(const Coefficients& shares, const Bits& c, const Bits& flips,
                              FusedSum<V>& sum) const {
  const auto& terms = main_.terms;
  const std::size_t size = Dealt(main_);
  CheckSize("products", shares.elements.As<V>().size(), c.size() * size);
  const V* dealt = shares.elements.As<V>().data();
  Buffer<V> k(terms.size());
  for (std::size_t i = 0; i < c.size(); ++i, dealt += size) {
    const V flip = static_cast<V>(flips[i] & 1), sign = static_cast<V>(1 - 2 * flip);
    const V flag = static_cast<V>(implied_ != 0 ? Covers(c[i], implied_) & 1 : 0);
    for (std::size_t t = 0; t < terms.size(); ++t) {
      const V covered = static_cast<V>(Covers(c[i], terms[t].product) & 1);
      const bool implies = implied_ != 0 && terms[t].product == 0;
      k[t] = ring::Times(sign, static_cast<V>(implies ? covered - 2 * flag : covered));
    }
    sum.Add(i, static_cast<V>(flip + ring::Times(sign, flag)), k, dealt);
  }
}

#define TERCET_DEALER_DEAL(W)                                                                    \
  template void Expansion::Deal<W>(Context&, Ends&, std::span<const W>,                          \
                                   std::span<const std::uint8_t>, std::span<const std::uint8_t>, \
                                   const Columns&) const;                                        \
  template void Expansion::EvaluateFused<W>(const Coefficients&, const Bits&, const Bits&,       \
                                            FusedSum<W>&) const;                                 \
  template Buffer<W> Expansion::Evaluate<W>(const Ends&, const Coefficients&, const Bits&) const;
TERCET_DEALER_DEAL(std::uint8_t)
TERCET_DEALER_DEAL(std::uint16_t)
TERCET_DEALER_DEAL(std::uint32_t)
TERCET_DEALER_DEAL(std::uint64_t)
#undef TERCET_DEALER_DEAL

// --- Selection.

Expansion SelectionExpansion(const Formula& formula, unsigned out_bits, bool product) {
  constexpr Monomial kS = 0b01, kSecond = 0b10;
  Carries carries;
  carries.settled = formula.HasTop();
  carries.s = {kS};
  if (formula.CarryBits() > 0) {
    if (!product) carries.carry = {kSecond};
    carries.both = {static_cast<Monomial>(product ? kSecond : kS | kSecond)};
  }
  return {formula, carries, out_bits};
}

template <ring::Word W>
void DealSelection(Context& ctx, Ends& ends, const Formula& formula, const Expansion& expansion,
                   std::span<const W> a, const Bits& offsets, const Columns& columns) {
  Bits rho = DrawRho(ends, a.size(), formula.SharedBits());
  for (std::size_t i = 0; i < rho.size(); ++i) rho[i] ^= offsets[i];
  expansion.Deal<W>(ctx, ends, a, rho, Bits(a.size(), 0), columns);
}
#define TERCET_DEALER_SELECTION(W)                                               \
  template void DealSelection(Context&, Ends&, const Formula&, const Expansion&, \
                              std::span<const W>, const Bits&, const Columns&);
TERCET_DEALER_SELECTION(std::uint8_t)
TERCET_DEALER_SELECTION(std::uint16_t)
TERCET_DEALER_SELECTION(std::uint32_t)
TERCET_DEALER_SELECTION(std::uint64_t)
#undef TERCET_DEALER_SELECTION

Selection TakeSelection(Context& ctx, Ends& ends, const Formula& formula,
                        const Expansion& expansion, std::size_t count) {
  Selection taken;
  taken.mask = DrawBits(ends.WithDealer(), count, formula.SharedBits());
  taken.coefficients = expansion.Take(ctx, ends, count);
  return taken;
}

void AddSelection(mpc::Cost& cost, const Formula& formula, const Expansion& expansion,
                  std::size_t count, const mpc::Roles& roles) {
  expansion.AddCost(cost, roles, count);
  AddExchange(cost, roles, count, formula.SharedBits());
}

}  // namespace tercet::protocols::dealer
