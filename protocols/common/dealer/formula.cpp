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
  constexpr std::array<std::uint8_t, 4> kRelu{0b0010, 0b1010, 0b0101, 0b0010};
  constexpr std::array<std::uint8_t, 2> kSquare{0b0111, 0b1111};
  constexpr std::array<std::uint8_t, 1> kTable{0b0011};
  const std::uint8_t used = kind_ == ActivationKind::kRelu     ? kRelu[j]
                            : kind_ == ActivationKind::kSquare ? kSquare[j]
                            : kind_ == ActivationKind::kTable  ? kTable[j]
                                                               : kSign[j];
  return (used >> k & 1) != 0 && (CarryBits() > 0 || k < 2);
}

template <ring::Word W, ring::Word V>
void Formula::Factors(std::size_t j, std::span<const W> a, V* out) const {
  const std::size_t n = a.size();
  const auto at = [=](std::size_t k) { return out + k * n; };
  const auto fill = [&](std::size_t k, V value) {
    if (Uses(j, k)) std::fill_n(at(k), n, value);
  };
  // A = a >> f.
  const auto fill_shifted = [&](std::size_t k) {
    for (std::size_t i = 0; i < n; ++i)
      at(k)[i] = static_cast<V>(ring::Reduce(a[i], bits_) >> shift_);
  };
  if (kind_ == ActivationKind::kRelu) {
    // s; s (A + carry); A + carry; the wrap, s a_top.
    if (j == 0) {
      fill(1, V{1});
    } else if (j == kWrap) {
      for (std::size_t i = 0; i < n; ++i) at(1)[i] = static_cast<V>(a[i] >> (bits_ - 1) & 1);
    } else {
      fill_shifted(j == 1 ? 1 : 0);
      fill(j == 1 ? 3 : 2, V{1});
    }
  } else if (kind_ == ActivationKind::kSquare) {
    // u = A + carry - s 2^(n-f) and u^2.
    const V wrap = PowerOfTwo<V>(bits_ - shift_);
    fill_shifted(0);
    fill(1, static_cast<V>(V{0} - wrap));
    fill(2, V{1});
    if (j == 0) return;
    fill(3, static_cast<V>(V{0} - wrap - wrap));
    for (std::size_t i = 0; i < n; ++i) {
      const V own = at(0)[i];
      at(0)[i] = ring::Times(own, own);
      at(1)[i] = static_cast<V>(ring::Times(wrap, static_cast<V>(wrap - own - own)));
      if (shift_ > 0) at(2)[i] = static_cast<V>(own + own + 1);
    }
  } else {
    fill(1, V{1});
    if (kind_ == ActivationKind::kTable) fill_shifted(0);
  }
}

template <ring::Word W, ring::Word V>
void Formula::Entries(std::size_t j, std::span<const W> a, const V* s, const V* carry,
                      V* out) const {
  using ring::Times;
  const std::size_t n = a.size();
  Buffer<V> factors(kBasis * n);
  Factors<W, V>(j, a, factors.data());
  std::fill_n(out, n, V{0});
  for (std::size_t k = 0; k < kBasis; ++k) {
    if (!Uses(j, k)) continue;
    const V* factor = factors.data() + k * n;
    for (std::size_t i = 0; i < n; ++i) {
      const V basis = k == 0 ? V{1} : k == 1 ? s[i] : k == 2 ? carry[i] : Times(s[i], carry[i]);
      out[i] = static_cast<V>(out[i] + Times(factor[i], basis));
    }
  }
}

template <ring::Word W, ring::Word V>
void Formula::Finish(bool one, bool settled, std::span<const W> b, std::span<const V> elements,
                     std::span<V> out) const {
  using ring::Times;
  const std::size_t n = b.size();
  const V* e = elements.data();
  if (kind_ == ActivationKind::kRelu) {
    // b's top bit chooses through masks, since D, which knows a, must not learn it by the time
    // that this takes.
    const std::size_t rows = Elements(settled);
    const V* third = settled ? nullptr : e + 2 * n;
    const V* wrap = elements.size() > rows * n ? e + rows * n : nullptr;
    const V whole = PowerOfTwo<V>(bits_ - shift_);
    for (std::size_t i = 0; i < n; ++i) {
      const V top = static_cast<V>(V{0} - static_cast<V>(SignFlip(b[i])));  // all bits or none
      const V shifted =
          static_cast<V>(static_cast<V>(ring::Reduce(b[i], bits_) >> shift_) - (whole & top));
      V sign = e[i], rest = e[n + i];
      if (third != nullptr) {
        sign = static_cast<V>((sign ^ top) - top + (V{one} & top));
        rest = static_cast<V>((rest ^ top) - top + (third[i] & top));
      }
      if (wrap != nullptr)
        rest = static_cast<V>(rest - (Times(whole, wrap[i]) & static_cast<V>(~top)));
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
  } else if (settled) {
    std::copy_n(e, n, out.begin());
  } else {
    // Where b's top bit is set the sign flips: s becomes 1 - s.
    for (std::size_t i = 0; i < n; ++i) {
      const V flip = SignFlip(b[i]);
      out[i] = static_cast<V>(Times(static_cast<V>(V{1} - 2 * flip), e[i]) + (one ? flip : V{0}));
    }
  }
}

#define TERCET_DEALER_FORMULA(W, V)                                                             \
  template void Formula::Entries<W, V>(std::size_t, std::span<const W>, const V*, const V*, V*) \
      const;                                                                                    \
  template void Formula::Factors<W, V>(std::size_t, std::span<const W>, V*) const;              \
  template void Formula::Finish<W, V>(bool, bool, std::span<const W>, std::span<const V>,       \
                                      std::span<V>) const;
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
