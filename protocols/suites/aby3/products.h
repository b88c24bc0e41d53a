// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include "suites/aby3/opening.h"

/// What is multiplied, once bits are opened under masks: e = s ^ r is known to all, and of the
/// random bit r each party has a replicated share in the output ring. All but SendProduct and
/// ReceiveProduct is local. No branch or address depends on what is multiplied.
namespace tercet::protocols::aby3 {

/// Words in which elements are multiplied: 8- and 16-bit words would be promoted to int, which can
/// overflow.
template <Word W>
using Wide = std::conditional_t<(sizeof(W) < 4), std::uint32_t, W>;

/// `one` - v where the bit is set, else v: an XOR of a bit with another in their ring form.
template <Word V>
V Flipped(V v, V one, std::uint8_t bit) {
  const V all = static_cast<V>(V{0} - V{bit});
  return static_cast<V>((v ^ all) - all + (one & all));
}

/// Additive share of r * x, masked, to the party before; of r the first rows, as many as x has. 1
/// hop, the bits of the ring.
inline AnyShare SendProduct(Context& ctx, mpc::ZeroSharing& zero, const AnyShare& r,
                            const AnyShare& x) {
  const unsigned bits = x.mine.Bits();
  return ring::DispatchWord(bits, [&]<Word V>(V) {
    const auto &r0 = r.mine.As<V>(), &r1 = r.next.As<V>();
    const auto &x0 = x.mine.As<V>(), &x1 = x.next.As<V>();
    Matrix<V> share = zero.Draw<V>(x0.shape()[0], x0.shape()[1]);
    for (std::size_t i = 0; i < share.size(); ++i) {
      const Wide<V> p = r0.data()[i], q = r1.data()[i], u = x0.data()[i], v = x1.data()[i];
      share.data()[i] += static_cast<V>(p * (u + v) + q * u);
    }
    ctx.Send(ctx.Prev(), share, bits);
    return AnyShare{AnyMatrix(std::move(share), bits), {}};
  });
}

/// The other half of what SendProduct gave.
inline void ReceiveProduct(Context& ctx, AnyShare& product) {
  const unsigned bits = product.mine.Bits();
  ring::DispatchWord(bits, [&]<Word V>(V) {
    const auto& mine = product.mine.As<V>();
    product.next =
        AnyMatrix(ctx.Receive<V>(ctx.Next(), mine.shape()[0], mine.shape()[1], bits), bits);
  });
}

/// One half of the share: v, a half of r y, becomes e y + (1 - 2e) v. For Sign y = 1, which is
/// share 0 alone; for ReLU it is `x`, which is empty else.
template <Word V>
void Select(Matrix<V>& half, const Buffer<std::uint8_t>& e, bool zeroth, const AnyMatrix& x) {
  const V* factor = x.Empty() ? nullptr : x.As<V>().data();
  V* v = half.data();
  for (std::size_t i = 0; i < e.size(); ++i) {
    v[i] = Flipped<V>(v[i], factor != nullptr ? factor[i] : static_cast<V>(zeroth), e[i]);
  }
}

/// One half of the share: += s c, with s = e ^ r and c = f ^ q. `r` begins those of r, q, r q.
template <Word V>
void AddCarry(Matrix<V>& half, const Buffer<std::uint8_t>& e, const Buffer<std::uint8_t>& f,
              bool zeroth, const V* r) {
  const V *q = r + half.size(), *rq = q + half.size();
  V* to = half.data();
  for (std::size_t i = 0; i < half.size(); ++i) {
    const V rc = Flipped<V>(rq[i], r[i], f[i]);
    const V c = Flipped<V>(q[i], V{zeroth}, f[i]);
    to[i] = static_cast<V>(to[i] + Flipped<V>(rc, c, e[i]));
  }
}

/// One half of the share: += 2^power c, with c = f ^ q, or -= it.
template <Word V>
void AddBit(Matrix<V>& half, const Buffer<std::uint8_t>& f, bool zeroth, const V* q, unsigned power,
            bool minus) {
  if (power >= 8 * sizeof(V)) return;  // a multiple of the ring's size
  V* to = half.data();
  for (std::size_t i = 0; i < half.size(); ++i) {
    const V c = Flipped<V>(q[i], V{zeroth}, f[i]);
    const V term = static_cast<V>(Wide<V>{c} << power);
    to[i] = static_cast<V>(minus ? to[i] - term : to[i] + term);
  }
}

}  // namespace tercet::protocols::aby3
