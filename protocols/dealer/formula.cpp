#include "dealer/formula.h"

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

template <ring::Word W, ring::Word V, class F>
void Formula::WithKind(F&& f) const {
  using Terms = std::array<V, 2>;  // what of D's a all entries of an element have in common
  using ring::Times;
  if (kind_ == ActivationKind::kRelu) {
    const V wrap = PowerOfTwo<V>(bits_ - 1 - shift_);
    const auto terms = [=, this](W a) {
      const V shifted = static_cast<V>((a & ring::LowMask<W>(bits_ - 1)) >> shift_);
      const V top = static_cast<V>(a >> (bits_ - 1) & 1);
      return Terms{static_cast<V>(shifted - Times(top, wrap)),
                   static_cast<V>(shifted - Times(static_cast<V>(top ^ 1), wrap))};
    };
    f(terms, [](const Terms& t, V s, V carry, V* out) {
      const V positive = static_cast<V>(V{0} - s);
      out[0] = s;
      out[1] = static_cast<V>((t[0] + carry) & positive);
      out[2] = static_cast<V>((t[1] + carry) & static_cast<V>(~positive));
    });
  } else if (kind_ == ActivationKind::kSquare) {
    const V wrap = PowerOfTwo<V>(bits_ - shift_);
    const auto terms = [=, this](W a) {
      return Terms{static_cast<V>(ring::Reduce(a, bits_) >> shift_), wrap};
    };
    f(terms, [](const Terms& t, V s, V carry, V* out) {
      const V u = static_cast<V>(t[0] + carry - Times(s, t[1]));
      out[0] = u;
      out[1] = Times(u, u);
    });
  } else {
    f([](W) { return Terms{}; }, [](const Terms&, V s, V, V* out) { out[0] = s; });
  }
}

template <ring::Word W, ring::Word V>
void Formula::Entries(std::span<const W> a, const V* s, const V* carry, V* out) const {
  const std::size_t elements = Elements();
  WithKind<W, V>([&](auto terms, auto entry) {
    for (std::size_t i = 0; i < a.size(); ++i)
      entry(terms(a[i]), s[i], carry[i], out + i * elements);
  });
}

template <ring::Word W, ring::Word V>
void Formula::FillTable(std::span<const W> a, unsigned k, std::size_t first, const Bytes& s,
                        const Bytes& carry, V* out) const {
  const std::size_t elements = Elements(), size = std::size_t{1} << k;
  const std::uint8_t* s_rows = s.data();
  const std::uint8_t* carry_rows = shift_ > 0 ? carry.data() : nullptr;
  WithKind<W, V>([&](auto terms, auto entry) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      const auto own = terms(a[i]);
      for (std::size_t v = first; v < size; ++v, out += elements) {
        const std::size_t at = i * size + v;
        const V bit = static_cast<V>(s_rows[at / 8] >> at % 8 & 1);
        const V low =
            carry_rows != nullptr ? static_cast<V>(carry_rows[at / 8] >> at % 8 & 1) : V{0};
        entry(own, bit, low, out);
      }
    }
  });
}

template <ring::Word W, ring::Word V>
void Formula::Finish(bool one, std::span<const W> b, std::span<const V> elements,
                     std::span<V> out) const {
  using ring::Times;
  const V* e = elements.data();
  if (kind_ == ActivationKind::kRelu) {
    // s, s (A_0 + carry), (1 - s) (A_1 + carry): b's top bit says which of the last two holds. It
    // chooses through masks, since D, which knows a, must not learn it by the time this takes.
    for (std::size_t i = 0; i < b.size(); ++i, e += 3) {
      const V shifted = static_cast<V>((b[i] & ring::LowMask<W>(bits_ - 1)) >> shift_);
      const V top = static_cast<V>(V{0} - static_cast<V>(SignFlip(b[i])));  // all bits or none
      const V sign = static_cast<V>((e[0] ^ top) - top + (V{one} & top));
      const V rest = static_cast<V>(e[1] ^ ((e[1] ^ e[2]) & top));
      out[i] = static_cast<V>(Times(sign, shifted) + rest);
    }
  } else if (kind_ == ActivationKind::kSquare) {
    // (B + u)^2 = B^2 + 2 B u + u^2.
    const V half = PowerOfTwo<V>(bits_ - 1 - shift_);
    for (std::size_t i = 0; i < b.size(); ++i, e += 2) {
      const W moved = ring::Reduce(static_cast<W>(b[i] ^ Top<W>()), bits_);
      const V own = static_cast<V>(static_cast<V>(moved >> shift_) - half);
      const V square = one ? Times(own, own) : V{0};
      out[i] = static_cast<V>(square + Times(static_cast<V>(own + own), e[0]) + e[1]);
    }
  } else {
    // Where b's top bit is set the sign flips: s becomes 1 - s.
    for (std::size_t i = 0; i < b.size(); ++i) {
      const V flip = SignFlip(b[i]);
      out[i] = static_cast<V>(Times(static_cast<V>(V{1} - 2 * flip), e[i]) + (one ? flip : V{0}));
    }
  }
}

#define TERCET_DEALER_FORMULA(W, V)                                                               \
  template void Formula::Entries<W, V>(std::span<const W>, const V*, const V*, V*) const;         \
  template void Formula::FillTable<W, V>(std::span<const W>, unsigned, std::size_t, const Bytes&, \
                                         const Bytes&, V*) const;                                 \
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
