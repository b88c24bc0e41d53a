// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tercet/mpc/suite.h"

/// Sharing a secret, re-randomising and revealing. Costs are of the whole operation, all parties
/// together.
namespace tercet::mpc {

/// The owner's secret x becomes a replicated share: x_o and x_{o+1} are drawn from the keys, and
/// x_{o+2} = x - x_o - x_{o+1} goes to both others. 1 hop, 2 * bits per element.
/// Party o+1 lacks k_o, party o+2 lacks k_{o+1}: each receives a masked value.
class Sharing {
 public:
  Sharing(Party& party, int owner, const std::string& purpose);
  /// `secret` is read at the owner only. All parties pass the same shape.
  template <Word W>
  ArithShare<W> Share(Context& ctx, const Matrix<W>* secret, std::size_t rows, std::size_t cols,
                      unsigned bits) {
    ArithShare<W> x{ring::MakeMatrix<W>(0, 0), ring::MakeMatrix<W>(0, 0), bits};
    if (ctx.Is(owner_)) {
      x.mine = first_->Draw<W>(rows, cols);
      x.next = second_->Draw<W>(rows, cols);
      const Matrix<W> third = *secret - x.mine - x.next;
      ctx.Send(ctx.Next(), third, bits);  // 1 hop, bits
      ctx.Send(ctx.Prev(), third, bits);  // the same hop, bits
    } else if (ctx.Is(NextParty(owner_))) {
      x.mine = second_->Draw<W>(rows, cols);
      x.next = ctx.Receive<W>(owner_, rows, cols, bits);
    } else {
      x.mine = ctx.Receive<W>(owner_, rows, cols, bits);
      x.next = first_->Draw<W>(rows, cols);
    }
    return x;
  }

 private:
  int owner_;
  std::optional<crypto::PrfStream> first_, second_;  // of k_o and k_{o+1}
};

/// z_i + a_i goes from party i to party i-1: an additive share becomes a replicated one (CBNN,
/// Algorithm 2, last step). 1 hop, 3 * bits per element. Every message is masked by the 3-out-of-3
/// randomness.
template <Word W>
ArithShare<W> Reshare(Context& ctx, ZeroSharing& zero, const AdditiveShare<W>& z) {
  const std::size_t rows = z.value.shape()[0], cols = z.value.shape()[1];
  ArithShare<W> x{z.value + zero.Draw<W>(rows, cols), ring::MakeMatrix<W>(0, 0), z.bits};
  ctx.Send(ctx.Prev(), x.mine, z.bits);  // 1 hop, bits
  x.next = ctx.Receive<W>(ctx.Next(), rows, cols, z.bits);
  return x;
}

/// Opens x to all three: party i sends x_i to party i+1, which lacks it. 1 hop, 3 * bits per
/// element.
template <Word W>
Matrix<W> Reveal(Context& ctx, const ArithShare<W>& x) {
  ctx.Send(ctx.Next(), x.mine, x.bits);  // 1 hop, bits
  Matrix<W> sum = x.mine + x.next;
  sum += ctx.Receive<W>(ctx.Prev(), x.mine.shape()[0], x.mine.shape()[1], x.bits);
  for (auto& v : sum) v = ring::Reduce(v, x.bits);
  return sum;
}

/// Opens x to `receiver` alone, who lacks x_{receiver-1}: party receiver-1 sends it. 1 hop, bits
/// per element. Elsewhere empty.
template <Word W>
Matrix<W> RevealTo(Context& ctx, int receiver, const ArithShare<W>& x) {
  const int sender = PrevParty(receiver);
  if (ctx.Is(sender)) ctx.Send(receiver, x.mine, x.bits);  // 1 hop, bits
  if (!ctx.Is(receiver)) return ring::MakeMatrix<W>(0, 0);
  Matrix<W> sum = x.mine + x.next;
  sum += ctx.Receive<W>(sender, x.mine.shape()[0], x.mine.shape()[1], x.bits);
  for (auto& v : sum) v = ring::Reduce(v, x.bits);
  return sum;
}

/// The query's input, known to `data_owner`, as a share whose halves at the helper are known
/// offline. Where an evaluator owns it, the half that the helper holds with the other evaluator is
/// 0, the one it holds with the owner is drawn, and online the owner sends the third, masked by
/// that key, to the other evaluator: 1 hop, bits per element. Where the helper itself owns it, both
/// its halves are drawn, and online it sends the third to both evaluators, each of whom lacks one
/// of the keys: 1 hop, 2 * bits per element. Where clients own it, each evaluator has an additive
/// share from them, both halves at the helper are drawn, and online each evaluator sends the other
/// its share less the half that it holds with the helper, so masked by a key that the other lacks:
/// 1 hop, 2 * bits per element. Where one evaluator alone needs the input (`only_to`, not of
/// clients), the half that the helper holds with it is 0, the one it holds with the other evaluator
/// is drawn, and the owner sends it the third: 1 hop, bits per element; where it is the owner
/// itself, both are 0 and nothing is sent.
class InputSharing {
 public:
  InputSharing(Party& party, int helper, int data_owner, std::optional<PartyId> only_to = {});
  /// Offline: the halves that this party knows.
  AnyShare Prepare(std::size_t rows, std::size_t cols, unsigned bits);
  /// Online: completes the share. `secret` is read at the owner only; where clients own the input,
  /// at each evaluator, whose additive share it is.
  AnyShare Run(Context& ctx, AnyShare known, const AnyMatrix* secret, std::size_t rows,
               std::size_t cols, unsigned bits) const;

 private:
  AnyShare PrepareOfHelper(std::size_t rows, std::size_t cols, unsigned bits);
  AnyShare RunOfHelper(Context& ctx, AnyShare known, const AnyMatrix* secret, std::size_t rows,
                       std::size_t cols, unsigned bits) const;
  AnyShare RunOfClients(Context& ctx, AnyShare known, const AnyMatrix& share, unsigned bits) const;
  bool DrawsBoth() const { return owner_ == kClients || (owner_ == helper_ && !only_to_); }
  // The half of an evaluator, or of the helper's that it has in common with it.
  AnyMatrix& HalfOf(AnyShare& share, int evaluator) const;

  int helper_, owner_;
  std::optional<PartyId> only_to_;
  int target_;  // the evaluator that is sent the third, or has it; the other one's half is drawn
  int me_;
  std::optional<crypto::PrfStream> stream_;             // of the helper's key with that other one
  std::optional<crypto::PrfStream> with_e1_, with_e2_;  // where both halves are drawn
};

/// Opens an additive share to `receiver` alone: each other party sends its part masked by
/// 3-out-of-3 randomness, offline where it knows its part then (`known`, by party). 1 hop, 2 * bits
/// per element, of which as many parts offline as are known. Where clients receive it, the
/// evaluators keep one additive share each, masked alike, and the helper sends its part to
/// evaluator 1, who lacks one of its keys: 1 hop, or offline, bits per element; only the helper's
/// part may be known then.
class OutputReveal {
 public:
  OutputReveal(Party& party, int helper, int receiver, const std::array<bool, 3>& known);
  struct Material : Correlation {
    AnyMatrix mask;   // a_i; where it is known, with z_i
    AnyMatrix dealt;  // at the receiver: the sum of what others have sent, if anything
    void Visit(Archive& archive) override { archive(mask)(dealt); }
  };
  /// `z`: this party's part where it is known, else unused.
  std::unique_ptr<Material> Prepare(Context& ctx, const AnyMatrix* z, std::size_t rows,
                                    std::size_t cols, unsigned bits);
  /// The values at the receiver (row-major), empty elsewhere.
  std::vector<std::int64_t> Run(Context& ctx, std::unique_ptr<Material> material,
                                const AnyMatrix& z) const;
  /// Where clients receive the result: the share of it at an evaluator, empty at the helper.
  AnyMatrix RunForClients(Context& ctx, std::unique_ptr<Material> material,
                          const AnyMatrix& z) const;

 private:
  bool Knows(int party) const { return known_[static_cast<std::size_t>(party)]; }

  int helper_, receiver_;  // for clients evaluator 1
  std::array<bool, 3> known_;
  ZeroSharing zero_;
};

/// Opens bits to all three. 1 hop, 3 bits per bit.
Buffer<std::uint8_t> RevealBits(Context& ctx, const BitShare& x);

}  // namespace tercet::mpc
