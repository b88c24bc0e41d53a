// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/ot3/bit_times.h"
#include "tercet/mpc/archive.h"

namespace tercet::protocols::cbnn {

using mpc::ArithShare;
using mpc::BitShare;
using mpc::Context;
using mpc::Matrix;
using mpc::Party;
using mpc::Word;
using ot3::BitTimes;
using ot3::BitToArith;

/// Room that a ring must leave above the values: r has at least kMinMaskBits bits.
inline constexpr unsigned kMinMaskBits = 8;

/// Bits of r: 0 < r < 2^RBits. Needs ring_bits >= value_bits + 1 + kMinMaskBits.
constexpr unsigned RBits(unsigned ring_bits, unsigned value_bits) {
  return ring_bits - 1 - value_bits;
}

/// What Algorithm 3 needs of the offline phase, for one query.
struct SignMask {
  BitShare beta;          ///< a random bit that nobody knows
  mpc::AnyShare product;  ///< (-1)^beta * r, r random with 0 < r < 2^RBits

  void Visit(mpc::Archive& archive) { archive(beta.mine)(beta.next)(product); }
};

/// MSB extraction (CBNN, Algorithm 3, repaired; README.md). Opens u = (-1)^beta * (2x + 1) * r to
/// ALL parties: the sign stays hidden behind beta, but u shows how large x is. Needs
/// -2^(value_bits-1) <= x < 2^(value_bits-1).
class MsbExtraction {
 public:
  MsbExtraction(Party& party, int p0, unsigned ring_bits, unsigned value_bits,
                const std::string& purpose);

  /// Offline. 4 hops, 7 * ring_bits per element.
  SignMask Prepare(Context& ctx, std::size_t rows, std::size_t cols);

  /// Online: the XOR share of [x < 0]. 2 hops, 6 * ring_bits per element.
  template <Word W>
  BitShare Run(Context& ctx, const SignMask& mask, const ArithShare<W>& x) {
    const ArithShare<W> odd = AddPublic(ctx.Id(), Scale(x, W{2}), W{1});  // 2x + 1: never zero
    TERCET_CHECK(mask.beta.mine.size() == odd.mine.size() &&
                     mask.beta.next.size() == odd.mine.size() &&
                     mask.product.mine.Rows() == odd.mine.shape()[0] &&
                     mask.product.mine.Cols() == odd.mine.shape()[1] &&
                     mask.product.next.Rows() == odd.mine.shape()[0] &&
                     mask.product.next.Cols() == odd.mine.shape()[1],
                 "a sign was prepared for another number of elements");
    const ArithShare<W> product{mask.product.mine.As<W>(), mask.product.next.As<W>(), ring_bits_};
    const ArithShare<W> u = Multiply(ctx, online_zero_, product, odd);  // 1 hop, 3 * ring_bits
    const Matrix<W> opened = Reveal(ctx, u);                            // 1 hop, 3 * ring_bits
    BitShare msb = mask.beta;
    Buffer<std::uint8_t>* zeroth = ctx.Is(0)   ? &msb.mine
                                   : ctx.Is(2) ? &msb.next
                                               : nullptr;  // both copies of b_0
    if (zeroth != nullptr)
      for (std::size_t i = 0; i < opened.size(); ++i)
        (*zeroth)[i] ^= static_cast<std::uint8_t>(opened.data()[i] >> (ring_bits_ - 1) & 1);
    return msb;
  }

  /// Adds what one query of `count` elements sends and its hops.
  static void AddCost(int p0, std::size_t count, unsigned ring_bits, mpc::Cost& cost);

 private:
  /// Elementwise product of replicated shares. 1 hop, 3 * bits per element.
  template <Word W>
  static ArithShare<W> Multiply(Context& ctx, mpc::ZeroSharing& zero, const ArithShare<W>& x,
                                const ArithShare<W>& y) {
    const Matrix<W> sum = x.mine + x.next;
    return Reshare(
        ctx, zero,
        mpc::AdditiveShare<W>{ring::Times(sum, y.mine) + ring::Times(x.mine, y.next), x.bits});
  }
  template <Word W>
  SignMask PrepareAs(Context& ctx, std::size_t rows, std::size_t cols);

  unsigned ring_bits_, value_bits_;
  mpc::RandomSharing beta_, r_;
  BitTimes convert_;
  mpc::ZeroSharing offline_zero_, online_zero_;
};

}  // namespace tercet::protocols::cbnn
