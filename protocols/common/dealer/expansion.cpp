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
    : carries_(carries),
      elements_(formula.Elements()),
      fan_out_(formula.FanOut()),
      out_bits_(out_bits) {
  const Sum one{0};
  const std::array<const Sum*, Formula::kBasis> sums{&one, &carries.s, &carries.carry,
                                                     &carries.both};
  if (formula.FirstIsS() && carries.s.size() == 1 && std::has_single_bit(carries.s[0]))
    implied_ = carries.s[0];
  std::set<Monomial> occurring;
  for (std::size_t j = 0; j < elements_; ++j) {
    Sum products;
    for (std::size_t k = 0; k < sums.size(); ++k)
      if (formula.Uses(j, k)) products.insert(products.end(), sums[k]->begin(), sums[k]->end());
    products.push_back(0);
    for (const Monomial product : Closure(products)) {
      if (j == 0 && implied_ != 0 && product == implied_) continue;
      terms_.push_back({j, product});
      occurring.insert(product);
    }
  }
  products_.assign(occurring.begin(), occurring.end());
}

std::uint64_t Expansion::DealtBytes(std::size_t count) const {
  return ring::PackedBytes(count * Dealt(), out_bits_);
}

// `out` gets term after term, n values each.
template <ring::Word W, ring::Word V>
void Expansion::Coefficients(const Formula& formula, std::span<const W> a, const std::uint8_t* rho,
                             const std::uint8_t* flips, V* out) const {
  const std::size_t n = a.size();
  const Run none{};
  Run s, carry, both;
  std::array<V, kRun * 3 * Formula::kBasis> factors;  // of element j and basis function k
  formula.Factors<W, V>(a, factors.data());
  for (const Monomial u : products_) {
    // s = flip + (1 - 2 flip) (sum of flags), and so is s * carry of carry and both.
    Coefficient(carries_.s, u, rho, flips, n, s.data());
    Coefficient(carries_.carry, u, rho, none.data(), n, carry.data());
    Coefficient(carries_.both, u, rho, flips, n, both.data());
    for (std::size_t i = 0; i < n; ++i) {
      const auto flipped = static_cast<std::uint8_t>(-flips[i]);
      both[i] = static_cast<std::uint8_t>(both[i] + (carry[i] & flipped));
    }
    if (u == 0)
      for (std::size_t i = 0; i < n; ++i) s[i] = static_cast<std::uint8_t>(s[i] + flips[i]);
    for (std::size_t t = 0; t < terms_.size(); ++t) {
      if (terms_[t].product != u) continue;
      V* to = out + t * n;
      const std::size_t j = terms_[t].element;
      const auto factor = [&](std::size_t k) {
        return factors.data() + (j * Formula::kBasis + k) * n;
      };
      const auto add = [&](std::size_t k, const Run& values) {
        if (!formula.Uses(j, k)) return;
        const V* by = factor(k);
        for (std::size_t i = 0; i < n; ++i)
          to[i] = static_cast<V>(to[i] + ring::Times(by[i], Signed<V>(values[i])));
      };
      std::fill_n(to, n, V{0});
      if (u == 0 && formula.Uses(j, 0)) std::copy_n(factor(0), n, to);
      add(1, s);
      add(2, carry);
      add(3, both);
    }
  }
}

template <ring::Word W>
void Expansion::Deal(Context& ctx, Ends& ends, const Formula& formula, std::span<const W> a,
                     std::span<const std::uint8_t> rho, std::span<const std::uint8_t> flips,
                     const Columns& columns) const {
  TERCET_CHECK(columns.FanOut() == fan_out_, "columns of {} outputs for a map of {}",
               columns.FanOut(), fan_out_);
  ring::DispatchWord(out_bits_, [&]<ring::Word V>(V) {
    Buffer<V> run(fan_out_ > 0 ? kRun * terms_.size() : 0);
    DealElements<V>(ctx, ends, a.size(), Dealt(), out_bits_,
                    [&](std::size_t begin, std::size_t size, V* values) {
                      ForRanges(size, kRun, [&](std::size_t at, std::size_t n) {
                        V* to = values + at * Dealt();
                        Coefficients<W, V>(formula, a.subspan(begin + at, n),
                                           rho.data() + begin + at, flips.data() + begin + at,
                                           fan_out_ > 0 ? run.data() : to);
                        for (std::size_t i = 0; fan_out_ > 0 && i < n; ++i) {
                          const V* column = columns.Of<V>(begin + at + i, a.size());
                          for (std::size_t t = 0; t < terms_.size(); ++t)
                            to = WithProducts(run[t * n + i], column, fan_out_, to);
                        }
                      });
                    });
  });
}

AnyMatrix Expansion::Take(Context& ctx, Ends& ends, std::size_t count) const {
  return TakeElements(ctx, ends, count, Dealt(), out_bits_);
}

template <ring::Word V>
Buffer<V> Expansion::Evaluate(const Ends& ends, const AnyMatrix& shares, const Bits& c) const {
  const std::size_t count = c.size();
  CheckSize("coefficients", shares.As<V>().size(), count * Dealt());
  const V* all = shares.As<V>().data();
  const V one = ends.IsE1() ? V{1} : V{0};
  Buffer<V> out(count * elements_);
  std::fill(out.begin(), out.end(), V{0});
  ForRanges(count, kRun, [&](std::size_t begin, std::size_t n) {
    const V* term = all + begin * Dealt();
    const std::uint8_t* bits = c.data() + begin;
    for (const auto& [element, product] : terms_) {
      V* to = out.data() + element * count + begin;
      for (std::size_t i = 0; i < n; ++i)
        to[i] = static_cast<V>(to[i] + (term[i] & Signed<V>(Covers(bits[i], product))));
      if (element == 0 && product == 0 && implied_ != 0)
        for (std::size_t i = 0; i < n; ++i)
          to[i] = static_cast<V>(to[i] + (static_cast<V>(one - term[i] - term[i]) &
                                          Signed<V>(Covers(bits[i], implied_))));
      term += n;
    }
  });
  return out;
}

// s_i is the sum of the coefficients x_t of those products of which all c are 1, and so
//
//     flip ^ s = flip + (1 - 2 flip) sum_t [c covers t] x_t,
//
// where a coefficient 1 - 2 x of a flag f is implied by the constant one x: x + (1 - 2 x) c_f.
template <ring::Word V>
void Expansion::EvaluateFused(const AnyMatrix& shares, const Bits& c, const Bits& flips,
                              FusedSum<V>& sum) const {
  CheckSize("products", shares.As<V>().size(), c.size() * Dealt());
  const V* dealt = shares.As<V>().data();
  Buffer<V> k(terms_.size());
  for (std::size_t i = 0; i < c.size(); ++i, dealt += Dealt()) {
    const V flip = static_cast<V>(flips[i] & 1), sign = static_cast<V>(1 - 2 * flip);
    const V flag = static_cast<V>(implied_ != 0 ? Covers(c[i], implied_) & 1 : 0);
    for (std::size_t t = 0; t < terms_.size(); ++t) {
      const V covered = static_cast<V>(Covers(c[i], terms_[t].product) & 1);
      const bool implies = implied_ != 0 && terms_[t].product == 0;
      k[t] = ring::Times(sign, static_cast<V>(implies ? covered - 2 * flag : covered));
    }
    sum.Add(i, static_cast<V>(flip + ring::Times(sign, flag)), k, dealt);
  }
}

#define TERCET_DEALER_DEAL(W)                                                                    \
  template void Expansion::Deal<W>(Context&, Ends&, const Formula&, std::span<const W>,          \
                                   std::span<const std::uint8_t>, std::span<const std::uint8_t>, \
                                   const Columns&) const;                                        \
  template void Expansion::EvaluateFused<W>(const AnyMatrix&, const Bits&, const Bits&,          \
                                            FusedSum<W>&) const;                                 \
  template Buffer<W> Expansion::Evaluate<W>(const Ends&, const AnyMatrix&, const Bits&) const;
TERCET_DEALER_DEAL(std::uint8_t)
TERCET_DEALER_DEAL(std::uint16_t)
TERCET_DEALER_DEAL(std::uint32_t)
TERCET_DEALER_DEAL(std::uint64_t)
#undef TERCET_DEALER_DEAL

// --- Selection.

Expansion SelectionExpansion(const Formula& formula, unsigned out_bits) {
  constexpr Monomial kS = 0b01, kCarry = 0b10;
  Carries carries;
  carries.s = {kS};
  if (formula.CarryBits() > 0) {
    carries.carry = {kCarry};
    carries.both = {kS | kCarry};
  }
  return {formula, carries, out_bits};
}

template <ring::Word W>
void DealSelection(Context& ctx, Ends& ends, const Formula& formula, std::span<const W> a,
                   const Bits& offsets, unsigned out_bits, const Columns& columns) {
  Bits rho = DrawRho(ends, a.size(), formula.SharedBits());
  for (std::size_t i = 0; i < rho.size(); ++i) rho[i] ^= offsets[i];
  SelectionExpansion(formula, out_bits)
      .Deal<W>(ctx, ends, formula, a, rho, Bits(a.size(), 0), columns);
}
template void DealSelection(Context&, Ends&, const Formula&, std::span<const std::uint8_t>,
                            const Bits&, unsigned, const Columns&);
template void DealSelection(Context&, Ends&, const Formula&, std::span<const std::uint16_t>,
                            const Bits&, unsigned, const Columns&);
template void DealSelection(Context&, Ends&, const Formula&, std::span<const std::uint32_t>,
                            const Bits&, unsigned, const Columns&);
template void DealSelection(Context&, Ends&, const Formula&, std::span<const std::uint64_t>,
                            const Bits&, unsigned, const Columns&);

Selection TakeSelection(Context& ctx, Ends& ends, const Formula& formula, std::size_t count,
                        unsigned out_bits) {
  Selection taken;
  taken.mask = DrawBits(ends.WithDealer(), count, formula.SharedBits());
  taken.coefficients = SelectionExpansion(formula, out_bits).Take(ctx, ends, count);
  return taken;
}

void AddSelection(mpc::Cost& cost, const Formula& formula, std::size_t count, unsigned out_bits,
                  const mpc::Roles& roles) {
  AddElements(cost, roles, count, SelectionExpansion(formula, out_bits).Dealt(), out_bits);
  AddExchange(cost, roles, count, formula.SharedBits());
}

}  // namespace tercet::protocols::dealer
