// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/sharing.h"

namespace tercet::mpc {

Sharing::Sharing(Party& party, int owner, const std::string& purpose) : owner_(owner) {
  const int second = NextParty(owner);
  if (party.Keys().Holds(owner)) first_ = party.Keys().Open(owner, purpose);
  if (party.Keys().Holds(second)) second_ = party.Keys().Open(second, purpose);
}

InputSharing::InputSharing(Party& party, int helper, int data_owner, std::optional<PartyId> only_to)
    : helper_(helper),
      owner_(data_owner),
      only_to_(only_to),
      target_(only_to.value_or(3 - helper - data_owner)),
      me_(party.Id()) {
  if (DrawsBoth()) {
    const int e1 = NextParty(helper);
    if (party.Keys().Holds(e1)) with_e1_ = party.Keys().Open(e1, "input");
    if (party.Keys().Holds(helper)) with_e2_ = party.Keys().Open(helper, "input");
    return;
  }
  // k_{D+1} is held by D and E1 = D+1, k_D by D and E2 = D+2.
  const int key = target_ == NextParty(helper) ? helper : NextParty(helper);
  if (me_ != target_ && owner_ != target_) stream_ = party.Keys().Open(key, "input");
}

// Seen from D, mine = x_D is held with E2 and next = x_{D+1} with E1; E1 holds x_{D+1} as mine, E2
// holds x_D as next.
AnyMatrix& InputSharing::HalfOf(AnyShare& share, int evaluator) const {
  return (me_ == helper_) != (evaluator == NextParty(helper_)) ? share.mine : share.next;
}

// x_D is drawn from k_D, held with E2, and x_{D+1} from k_{D+1}, held with E1.
AnyShare InputSharing::PrepareOfHelper(std::size_t rows, std::size_t cols, unsigned bits) {
  return ring::DispatchWord(bits, [&]<Word W>(W) {
    const auto draw = [&](crypto::PrfStream& stream) {
      return AnyMatrix(stream.Draw<W>(rows, cols), bits);
    };
    AnyShare known;
    if (with_e1_) (me_ == helper_ ? known.next : known.mine) = draw(*with_e1_);
    if (with_e2_) (me_ == helper_ ? known.mine : known.next) = draw(*with_e2_);
    return known;
  });
}

AnyShare InputSharing::RunOfHelper(Context& ctx, AnyShare known, const AnyMatrix* secret,
                                   std::size_t rows, std::size_t cols, unsigned bits) const {
  return ring::DispatchWord(bits, [&]<Word W>(W) {
    if (me_ == helper_) {
      const Matrix<W> third = secret->As<W>() - known.mine.As<W>() - known.next.As<W>();
      ctx.Send(ctx.Next(), third, bits);  // 1 hop, bits
      ctx.Send(ctx.Prev(), third, bits);  // the same hop, bits
    } else {
      (known.mine.Empty() ? known.mine : known.next) =
          AnyMatrix(ctx.Receive<W>(helper_, rows, cols, bits), bits);
    }
    return std::move(known);
  });
}

AnyShare InputSharing::RunOfClients(Context& ctx, AnyShare known, const AnyMatrix& share,
                                    unsigned bits) const {
  if (me_ == helper_) return known;
  const int other = 3 - helper_ - ctx.Id();
  return ring::DispatchWord(bits, [&]<Word W>(W) {
    const bool i_am_e1 = ctx.Id() == NextParty(helper_);
    Matrix<W> third = share.As<W>() - (i_am_e1 ? known.mine : known.next).As<W>();
    ctx.Send(other, third, bits);  // 1 hop, bits; the other evaluator's crosses it
    third += ctx.Receive<W>(other, third.shape()[0], third.shape()[1], bits);
    (i_am_e1 ? known.next : known.mine) = AnyMatrix(std::move(third), bits);
    return std::move(known);
  });
}

AnyShare InputSharing::Prepare(std::size_t rows, std::size_t cols, unsigned bits) {
  if (DrawsBoth()) return PrepareOfHelper(rows, cols, bits);
  const int other = 3 - helper_ - target_;
  AnyShare known;
  if (me_ != other) HalfOf(known, target_) = AnyMatrix::Zero(bits);
  if (stream_) {
    HalfOf(known, other) = ring::DispatchWord(
        bits, [&]<Word W>(W) { return AnyMatrix(stream_->Draw<W>(rows, cols), bits); });
  } else if (me_ != target_) {
    HalfOf(known, other) = AnyMatrix::Zero(bits);
  }
  return known;
}

AnyShare InputSharing::Run(Context& ctx, AnyShare known, const AnyMatrix* secret, std::size_t rows,
                           std::size_t cols, unsigned bits) const {
  if (owner_ == kClients) return RunOfClients(ctx, std::move(known), *secret, bits);
  if (DrawsBoth()) return RunOfHelper(ctx, std::move(known), secret, rows, cols, bits);
  if (me_ != owner_ && me_ != target_) return known;
  return ring::DispatchWord(bits, [&]<Word W>(W) {
    Matrix<W> third;
    if (me_ == owner_) {
      third = secret->As<W>();
      if (me_ != target_) {
        third -= HalfOf(known, 3 - helper_ - target_).As<W>();
        ctx.Send(target_, third, bits);  // 1 hop, bits
      }
    } else {
      third = ctx.Receive<W>(owner_, rows, cols, bits);
    }
    if (me_ != helper_)
      (me_ == NextParty(helper_) ? known.next : known.mine) = AnyMatrix(std::move(third), bits);
    return std::move(known);
  });
}

OutputReveal::OutputReveal(Party& party, int helper, int receiver, const std::array<bool, 3>& known)
    : helper_(helper),
      receiver_(receiver == kClients ? NextParty(helper) : receiver),
      known_(known),
      zero_(party, "output") {}

std::unique_ptr<OutputReveal::Material> OutputReveal::Prepare(Context& ctx, const AnyMatrix* z,
                                                              std::size_t rows, std::size_t cols,
                                                              unsigned bits) {
  auto material = std::make_unique<Material>();
  ring::DispatchWord(bits, [&](auto word) {
    using W = decltype(word);
    auto mask = zero_.Draw<W>(rows, cols);
    if (Knows(ctx.Id())) {
      mask += z->As<W>();
      if (!ctx.Is(receiver_)) ctx.Send(receiver_, mask, bits);  // offline, bits
    }
    for (const int from : {ctx.Next(), ctx.Prev()}) {
      if (!ctx.Is(receiver_) || !Knows(from)) continue;
      auto part = ctx.Receive<W>(from, rows, cols, bits);
      if (!material->dealt.Empty()) part += material->dealt.As<W>();
      material->dealt = AnyMatrix(std::move(part), bits);
    }
    material->mask = AnyMatrix(std::move(mask), bits);
  });
  return material;
}

std::vector<std::int64_t> OutputReveal::Run(Context& ctx, std::unique_ptr<Material> material,
                                            const AnyMatrix& z) const {
  const bool known_here = Knows(ctx.Id());  // z is in the mask already
  if (known_here && !ctx.Is(receiver_)) return {};
  const unsigned bits = material->mask.Bits();
  return ring::DispatchWord(bits, [&](auto word) -> std::vector<std::int64_t> {
    using W = decltype(word);
    auto& sum = material->mask.As<W>();
    if (!known_here) sum += z.As<W>();
    if (!ctx.Is(receiver_)) {
      ctx.Send(receiver_, sum, bits);  // 1 hop, bits
      return {};
    }
    if (!material->dealt.Empty()) sum += material->dealt.As<W>();
    for (const int from : {ctx.Next(), ctx.Prev()})
      if (!Knows(from)) sum += ctx.Receive<W>(from, sum.shape()[0], sum.shape()[1], bits);
    std::vector<std::int64_t> values(sum.size());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = ring::Decode(sum.data()[i], bits);
    return values;
  });
}

AnyMatrix OutputReveal::RunForClients(Context& ctx, std::unique_ptr<Material> material,
                                      const AnyMatrix& z) const {
  const bool helper = ctx.Is(helper_);
  if (helper && Knows(helper_)) return {};  // z is in the mask already, and sent
  const unsigned bits = material->mask.Bits();
  return ring::DispatchWord(bits, [&]<Word W>(W) -> AnyMatrix {
    auto& sum = material->mask.As<W>();
    sum += z.As<W>();
    if (helper) {
      ctx.Send(receiver_, sum, bits);  // 1 hop, bits
      return {};
    }
    if (ctx.Is(receiver_)) {
      if (Knows(helper_)) {
        sum += material->dealt.As<W>();
      } else {
        sum += ctx.Receive<W>(helper_, sum.shape()[0], sum.shape()[1], bits);
      }
    }
    return std::move(material->mask);
  });
}

Buffer<std::uint8_t> RevealBits(Context& ctx, const BitShare& x) {
  const std::size_t count = x.mine.size();
  ctx.Send(ctx.Next(), std::span<const std::uint8_t>(x.mine), 1);  // 1 hop, 1 bit
  Buffer<std::uint8_t> value(count);
  ctx.Receive(ctx.Prev(), std::span<std::uint8_t>(value), 1);
  for (std::size_t i = 0; i < count; ++i) value[i] ^= x.mine[i] ^ x.next[i];
  return value;
}

}  // namespace tercet::mpc
