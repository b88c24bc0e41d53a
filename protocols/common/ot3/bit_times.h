// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "common/ot3/ot3.h"
#include "tercet/mpc/sharing.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::ot3 {

using mpc::ArithShare;
using mpc::BitShare;

/// A replicated bit b times a factor that the sender knows, as a replicated arithmetic share, by
/// one transfer (CBNN, bit-to-arithmetic conversion, and one term of Algorithm 5). P0 is any party,
/// P1 and P2 follow it: P1 sends, P0 receives, P2 helps; both of the latter hold b_0. 3 hops, 4 *
/// bits per element. What each party receives is masked by a key it lacks.
///
/// A conversion runs in four stages that all parties call in order. Several conversions with
/// different P0 share the three hops when each stage is called for all of them before the next.
class BitTimes {
 public:
  BitTimes(Party& party, int p0, const std::string& purpose);

  bool AtSender(const Context& ctx) const { return ctx.Is(P1()); }

  /// `factor` is read at P1 only.
  template <Word W>
  void Offer(Context& ctx, const BitShare& b, const Matrix<W>& factor, std::size_t rows,
             std::size_t cols, unsigned bits) {
    share_ = {};
    if (!ctx.Is(P0()))
      second_value_ = mpc::AnyMatrix(second_->Draw<W>(rows, cols), bits);  // s_2, at P1 and P2
    if (!ctx.Is(P2()))
      first_value_ = mpc::AnyMatrix(first_->Draw<W>(rows, cols), bits);  // s_1, at P0 and P1
    if (!ctx.Is(P1())) return;
    const Matrix<W> drawn = first_value_.As<W>() + second_value_.As<W>();
    // m_i = (i ^ b_1 ^ b_2) * factor - s_1 - s_2
    Matrix<W> m0 = W{0} - drawn, m1 = W{0} - drawn;
    for (std::size_t i = 0; i < factor.size(); ++i) {
      const W bit = static_cast<W>(b.mine[i] ^ b.next[i]);
      m0.data()[i] += static_cast<W>(bit * Wide(factor.data()[i]));
      m1.data()[i] += static_cast<W>((bit ^ 1u) * Wide(factor.data()[i]));
    }
    transfer_.Offer(ctx, m0, m1, bits);
  }

  template <Word W>
  void Forward(Context& ctx, const BitShare& b, std::size_t rows, std::size_t cols, unsigned bits) {
    if (ctx.Is(P2())) transfer_.Forward<W>(ctx, b.next, rows, cols, bits);
  }

  /// P0 learns s_0 = b * factor - s_1 - s_2 (it lacks s_2) and passes it to P2 (which lacks s_1).
  template <Word W>
  void Take(Context& ctx, const BitShare& b, std::size_t rows, std::size_t cols, unsigned bits) {
    if (!ctx.Is(P0())) return;
    Matrix<W> s0 = transfer_.Take<W>(ctx, b.mine, rows, cols, bits);
    ctx.Send(P2(), s0, bits);  // 1 hop, bits
    share_ = mpc::AnyMatrix(std::move(s0), bits);
  }

  /// The share of b * factor.
  template <Word W>
  ArithShare<W> Finish(Context& ctx, std::size_t rows, std::size_t cols, unsigned bits) {
    if (ctx.Is(P0())) return {std::move(share_.As<W>()), std::move(first_value_.As<W>()), bits};
    if (ctx.Is(P1()))
      return {std::move(first_value_.As<W>()), std::move(second_value_.As<W>()), bits};
    return {std::move(second_value_.As<W>()), ctx.Receive<W>(P0(), rows, cols, bits), bits};
  }

  /// The three rounds of one conversion of `count` elements.
  static std::array<mpc::Round, 3> Rounds(int p0, std::size_t count, unsigned bits);
  static void AddCost(int p0, std::size_t count, unsigned bits, mpc::Phase phase, mpc::Cost& cost);

 private:
  /// Products of 8- and 16-bit words would be promoted to int, which can overflow.
  static std::uint64_t Wide(std::uint64_t x) { return x; }

  int P0() const { return p0_; }
  int P1() const { return NextParty(p0_); }
  int P2() const { return PrevParty(p0_); }

  int p0_;
  Transfer transfer_;
  std::optional<crypto::PrfStream> first_, second_;  // of k_1 and k_2
  mpc::AnyMatrix share_, first_value_, second_value_;
};

/// Bit to arithmetic (B2A): the share of b as a ring element. 3 hops, 4 * bits per element.
template <Word W>
ArithShare<W> BitToArith(Context& ctx, BitTimes& convert, const BitShare& b, std::size_t rows,
                         std::size_t cols, unsigned bits) {
  const Matrix<W> one =
      convert.AtSender(ctx) ? Matrix<W>(xt::ones<W>({rows, cols})) : ring::MakeMatrix<W>(0, 0);
  convert.Offer(ctx, b, one, rows, cols, bits);
  convert.Forward<W>(ctx, b, rows, cols, bits);
  convert.Take<W>(ctx, b, rows, cols, bits);
  return convert.Finish<W>(ctx, rows, cols, bits);
}

/// The share as an activation returns it.
template <Word W>
mpc::AnyShare ToAny(ArithShare<W> x) {
  return {mpc::AnyMatrix(std::move(x.mine), x.bits), mpc::AnyMatrix(std::move(x.next), x.bits)};
}

}  // namespace tercet::protocols::ot3
