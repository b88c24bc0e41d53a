// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tercet/base/bytes.h"
#include "tercet/ring/matrix.h"

/// Shares as types, so that one kind cannot be taken for another. Party i = 0, 1, 2; indices are
/// modulo 3. The local operations below need no message and reveal nothing.
namespace tercet::mpc {

using ring::AnyMatrix;
using ring::Matrix;
using ring::Word;

/// z_i of z = z_0 + z_1 + z_2 mod 2^bits.
template <Word W>
struct AdditiveShare {
  Matrix<W> value;
  unsigned bits = 0;
};

/// (x_i, x_{i+1}) of x = x_0 + x_1 + x_2 mod 2^bits: a 2-out-of-3 replicated share.
template <Word W>
struct ArithShare {
  Matrix<W> mine, next;
  unsigned bits = 0;
};

/// (b_i, b_{i+1}) of bits b = b_0 ^ b_1 ^ b_2, one bit (0 or 1) a byte.
struct BitShare {
  Buffer<std::uint8_t> mine, next;
};

/// A replicated share between layers, its word type chosen at run time. While a query is prepared
/// offline, a half that this party does not know yet is empty (AnyMatrix::Empty).
struct AnyShare {
  AnyMatrix mine, next;
};

template <Word W>
ArithShare<W> Add(const ArithShare<W>& x, const ArithShare<W>& y) {
  TERCET_CHECK(x.bits == y.bits && x.mine.shape() == y.mine.shape(),
               "adding shares of different rings or shapes");
  return {x.mine + y.mine, x.next + y.next, x.bits};
}

template <Word W>
ArithShare<W> Negate(const ArithShare<W>& x) {
  return {W{0} - x.mine, W{0} - x.next, x.bits};
}

/// c * x for a public c.
template <Word W>
ArithShare<W> Scale(const ArithShare<W>& x, W c) {
  const auto scaled = [c](Matrix<W> m) {
    for (auto& v : m) v = ring::Times(v, c);
    return m;
  };
  return {scaled(x.mine), scaled(x.next), x.bits};
}

/// x + c for a public c: share 0, held by parties 0 and 2, takes the constant.
template <Word W>
ArithShare<W> AddPublic(int party, ArithShare<W> x, W c) {
  if (party == 0) x.mine += c;
  if (party == 2) x.next += c;
  return x;
}

/// A share of which x_0 = c is public, x_1 = x_2 = 0.
template <Word W>
ArithShare<W> PublicShare(int party, const Matrix<W>& c, unsigned bits) {
  ArithShare<W> x{xt::zeros_like(c), xt::zeros_like(c), bits};
  if (party == 0) x.mine = c;
  if (party == 2) x.next = c;
  return x;
}

/// x_i alone: an additive share of the same value.
template <Word W>
AdditiveShare<W> ToAdditive(const ArithShare<W>& x) {
  return {x.mine, x.bits};
}

inline BitShare Xor(const BitShare& x, const BitShare& y) {
  TERCET_CHECK(x.mine.size() == y.mine.size(), "XOR of shares of {} and {} bits", x.mine.size(),
               y.mine.size());
  BitShare z = x;
  for (std::size_t i = 0; i < z.mine.size(); ++i) {
    z.mine[i] ^= y.mine[i];
    z.next[i] ^= y.next[i];
  }
  return z;
}

/// x ^ c for a public bit c.
inline BitShare XorPublic(int party, BitShare x, std::uint8_t c) {
  if (party == 0)
    for (auto& b : x.mine) b ^= c;
  if (party == 2)
    for (auto& b : x.next) b ^= c;
  return x;
}

}  // namespace tercet::mpc
