// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "tercet/mpc/party.h"

/// Oblivious transfer among three parties, one of which helps: only additions, no public-key
/// operation. Building blocks for suites. Objects are used by one thread at a time and live through
/// many queries.
namespace tercet::protocols::ot3 {

using mpc::Context;
using mpc::Matrix;
using mpc::Party;
using mpc::Word;

/// The three different parties of a transfer.
struct TransferRoles {
  int sender = 0, receiver = 1, helper = 2;
};

/// The index of the key that two different parties both hold (it is held by no third).
constexpr int SharedKey(int p, int q) { return NextParty(p) == q ? q : p; }

/// 1-out-of-2 transfer [CBNN, Algorithm 1]: the sender has messages m_0, m_1; receiver and helper
/// both know the choice bits; the receiver gets m_choice. The sender learns nothing, the helper
/// sees masked messages only, the receiver nothing of the other message. 2 hops, 3 * bits per
/// element.
///
/// Each party calls the one function of its role. They are separate so that transfers can run side
/// by side.
///
///     ot3::Transfer ot(party, {.sender = 1, .receiver = 0, .helper = 2}, "act1/ot");
///     if (ctx.Is(1)) ot.Offer(ctx, m0, m1, bits);
///     if (ctx.Is(2)) ot.Forward<W>(ctx, choice, rows, cols, bits);
///     if (ctx.Is(0)) m = ot.Take<W>(ctx, choice, rows, cols, bits);
class Transfer {
 public:
  /// Opens the key of sender and receiver for `purpose`. Throws InternalError when roles are not
  /// all different.
  Transfer(Party& party, TransferRoles roles, const std::string& purpose);

  /// Sender: both messages, masked, to the helper.
  template <Word W>
  void Offer(Context& ctx, const Matrix<W>& m0, const Matrix<W>& m1, unsigned bits) {
    const std::size_t rows = m0.shape()[0], cols = m0.shape()[1];
    TERCET_CHECK(m0.shape() == m1.shape(), "messages of different shapes: {} x {} and {} x {}",
                 rows, cols, m1.shape()[0], m1.shape()[1]);
    const Matrix<W> masked0 = m0 + Masks().template Draw<W>(rows, cols);
    const Matrix<W> masked1 = m1 + Masks().template Draw<W>(rows, cols);
    ctx.Send(roles_.helper, masked0, bits);  // 1 hop, bits
    ctx.Send(roles_.helper, masked1, bits);  // the same hop, bits
  }

  /// Helper: passes the chosen masked message on.
  template <Word W>
  void Forward(Context& ctx, std::span<const std::uint8_t> choice, std::size_t rows,
               std::size_t cols, unsigned bits) {
    Matrix<W> chosen = ctx.Receive<W>(roles_.sender, rows, cols, bits);
    Choose(chosen, ctx.Receive<W>(roles_.sender, rows, cols, bits), choice);
    ctx.Send(roles_.receiver, chosen, bits);  // 1 hop, bits
  }

  /// Receiver: the chosen message, unmasked.
  template <Word W>
  Matrix<W> Take(Context& ctx, std::span<const std::uint8_t> choice, std::size_t rows,
                 std::size_t cols, unsigned bits) {
    Matrix<W> mask = Masks().template Draw<W>(rows, cols);
    Choose(mask, Masks().template Draw<W>(rows, cols), choice);
    return ctx.Receive<W>(roles_.helper, rows, cols, bits) - mask;
  }

 private:
  /// first[i] = choice[i] ? second[i] : first[i] without a branch on the (secret) choice.
  template <Word W>
  static void Choose(Matrix<W>& first, const Matrix<W>& second,
                     std::span<const std::uint8_t> choice) {
    TERCET_CHECK(choice.size() == first.size(), "{} choice bits for {} messages", choice.size(),
                 first.size());
    W* p = first.data();
    const W* q = second.data();
    for (std::size_t i = 0; i < choice.size(); ++i)
      p[i] = static_cast<W>(p[i] ^ ((p[i] ^ q[i]) & (W{0} - W{choice[i]})));
  }
  crypto::PrfStream& Masks();

  TransferRoles roles_;
  std::optional<crypto::PrfStream> masks_;  // of the key of sender and receiver
};

}  // namespace tercet::protocols::ot3
