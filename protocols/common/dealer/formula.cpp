// SPDX-License-Identifier: Apache-2.0
#include "common/dealer/formula.h"

#include <algorithm>
#include <array>

namespace tercet::protocols::dealer {
namespace {

using mpc::ActivationKind;

// 2^exponent in a word, 0 where it is a multiple of the word's ring.
template <ring::Word V>
V PowerOfTwo(unsigned exponent) {
  return exponent < 64 ? static_cast<V>(std::uint64_t{1} << exponent) : V{0};
}

}  // namespace

bool Formula::Uses(std::size_t j, std::size_t k) const {
  // By kind and element, a bit for each basis function.
  constexpr std::array<std::uint8_t, 1> kSign{0b0010};
  constexpr std::array<std::uint8_t, 3> kRelu{0b0010, 0b1010, 0b1111};
  constexpr std::array<std::uint8_t, 2> kSquare{0b0111, 0b1111};
  constexpr std::array<std::uint8_t, 1> kTable{0b0011};
  const std::uint8_t used = kind_ == ActivationKind::kRelu     ? kRelu[j]
                            : kind_ == ActivationKind::kSquare ? kSquare[j]
                            : kind_ == ActivationKind::kTable  ? kTable[j]
                                                               : kSign[j];
  return (used >> k & 1) != 0 && (CarryBits() > 0 || k < 2);
}

template <ring::Word W, ring::Word V>
void Formula::Factors(std::span<const W> a, V* out) const {
  const std::size_t n = a.size();
  const auto at = [=](std::size_t j, std::size_t k) { return out + (j * kBasis + k) * n; };
  const auto fill = [&](std::size_t j, std::size_t k, V value) {
    if (Uses(j, k)) std::fill_n(at(j, k), n, value);
  };
  if (kind_ == ActivationKind::kRelu) {
    // s; s (A_0 + carry); (1 - s) (A_1 + carry).
    const V wrap = PowerOfTwo<V>(bits_ - 1 - shift_);
    fill(0, 1, V{1});
    fill(1, 3, V{1});
    fill(2, 2, V{1});
    fill(2, 3, static_cast<V>(-1));
    V *first = at(1, 1), *second = at(2, 0), *minus = at(2, 1);
    for (std::size_t i = 0; i < n; ++i) {
      const V shifted = static_cast<V>((a[i] & ring::LowMask<W>(bits_ - 1)) >> shift_);
      const V top = static_cast<V>(V{0} - static_cast<V>(a[i] >> (bits_ - 1) & 1));
      first[i] = static_cast<V>(shifted - (wrap & top));
      second[i] = static_cast<V>(shifted - (wrap & static_cast<V>(~top)));
      minus[i] = static_cast<V>(V{0} - second[i]);
    }
  } else if (kind_ == ActivationKind::kSquare) {
    // u = A + carry - s 2^(n-f) and u^2, with A = a >> f.
    const V wrap = PowerOfTwo<V>(bits_ - shift_);
    fill(0, 1, static_cast<V>(V{0} - wrap));
    fill(0, 2, V{1});
    fill(1, 3, static_cast<V>(V{0} - wrap - wrap));
    for (std::size_t i = 0; i < n; ++i) {
      const V own = static_cast<V>(ring::Reduce(a[i], bits_) >> shift_);
      at(0, 0)[i] = own;
      at(1, 0)[i] = ring::Times(own, own);
      at(1, 1)[i] = static_cast<V>(ring::Times(wrap, static_cast<V>(wrap - own - own)));
      if (shift_ > 0) at(1, 2)[i] = static_cast<V>(own + own + 1);
    }
  } else {
    fill(0, 1, V{1});
    for (std::size_t i = 0; kind_ == ActivationKind::kTable && i < n; ++i)
      at(0, 0)[i] = static_cast<V>(ring::Reduce(a[i], bits_) >> shift_);
  }
}

template <ring::Word W, ring::Word V>
void Formula::Entries(std::span<const W> a, const V* s, const V* carry, V* out) const {
  using ring::Times;
  const std::size_t n = a.size();
  Buffer<V> factors(Elements() * kBasis * n);
  Factors<W, V>(a, factors.data());
  for (std::size_t j = 0; j < Elements(); ++j) {
    V* to = out + j * n;
    std::fill_n(to, n, V{0});
    for (std::size_t k = 0; k < kBasis; ++k) {
      if (!Uses(j, k)) continue;
      const V* factor = factors.data() + (j * kBasis + k) * n;
      for (std::size_t i = 0; i < n; ++i) {
        const V basis = k == 0 ? V{1} : k == 1 ? s[i] : k == 2 ? carry[i] : Times(s[i], carry[i]);
        to[i] = static_cast<V>(to[i] + Times(factor[i], basis));
      }
    }
  }
}

template <ring::Word W, ring::Word V>
void Formula::Finish(bool one, std::span<const W> b, std::span<const V> elements,
                     std::span<V> out) const {
  using ring::Times;
  const std::size_t n = b.size();
  const V* e = elements.data();
  if (kind_ == ActivationKind::kRelu) {
    // s, s (A_0 + carry), (1 - s) (A_1 + carry): b's top bit says which of the last two holds. It
    // chooses through masks, since D, which knows a, must not learn it by the time this takes.
    for (std::size_t i = 0; i < n; ++i) {
      const V shifted = static_cast<V>((b[i] & ring::LowMask<W>(bits_ - 1)) >> shift_);
      const V top = static_cast<V>(V{0} - static_cast<V>(SignFlip(b[i])));  // all bits or none
      const V sign = static_cast<V>((e[i] ^ top) - top + (V{one} & top));
      const V rest = static_cast<V>(e[n + i] ^ ((e[n + i] ^ e[2 * n + i]) & top));
      out[i] = static_cast<V>(Times(sign, shifted) + rest);
    }
  } else if (kind_ == ActivationKind::kSquare) {
    // (B + u)^2 = B^2 + 2 B u + u^2.
    const V half = PowerOfTwo<V>(bits_ - 1 - shift_);
    for (std::size_t i = 0; i < n; ++i) {
      const W moved = ring::Reduce(static_cast<W>(b[i] ^ Top<W>()), bits_);
      const V own = static_cast<V>(static_cast<V>(moved >> shift_) - half);
      const V square = one ? Times(own, own) : V{0};
      out[i] = static_cast<V>(square + Times(static_cast<V>(own + own), e[i]) + e[n + i]);
    }
  } else if (kind_ == ActivationKind::kTable) {
    // (a >> f) + (b >> f) + s.
    for (std::size_t i = 0; i < n; ++i) {
      const V own = static_cast<V>(ring::Reduce(b[i], bits_) >> shift_);
      out[i] = static_cast<V>(e[i] + (one ? own : V{0}));
    }
  } else {
    // Where b's top bit is set the sign flips: s becomes 1 - s.
    for (std::size_t i = 0; i < n; ++i) {
      const V flip = SignFlip(b[i]);
      out[i] = static_cast<V>(Times(static_cast<V>(V{1} - 2 * flip), e[i]) + (one ? flip : V{0}));
    }
  }
}

#define TERCET_DEALER_FORMULA(W, V)                                                               \
  template void Formula::Entries<W, V>(std::span<const W>, const V*, const V*, V*) const;         \
  template void Formula::Factors<W, V>(std::span<const W>, V*) const;                             \
  template void Formula::Finish<W, V>(bool, std::span<const W>, std::span<const V>, std::span<V>) \
      const;
#define TERCET_DEALER_FORMULA_OF(W)       \
  TERCET_DEALER_FORMULA(W, std::uint8_t)  \
  TERCET_DEALER_FORMULA(W, std::uint16_t) \
  TERCET_DEALER_FORMULA(W, std::uint32_t) \
  TERCET_DEALER_FORMULA(W, std::uint64_t)
TERCET_DEALER_FORMULA_OF(std::uint8_t)
TERCET_DEALER_FORMULA_OF(std::uint16_t)
TERCET_DEALER_FORMULA_OF(std::uint32_t)
TERCET_DEALER_FORMULA_OF(std::uint64_t)
#undef TERCET_DEALER_FORMULA_OF
#undef TERCET_DEALER_FORMULA

}  // namespace tercet::protocols::dealer
