// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/boolean.h"

#include <algorithm>
#include <deque>

namespace tercet::mpc {

void XorProduct(std::uint64_t* out, BitRef x, BitRef y, std::size_t words) {
  for (std::size_t w = 0; w < words; ++w)
    out[w] ^= (x.mine[w] & (y.mine[w] ^ y.next[w])) ^ (x.next[w] & y.mine[w]);
}

ZeroBits::ZeroBits(Party& party, const std::string& purpose)
    : mine_(party.Keys().Open(party.Id(), purpose)),
      next_(party.Keys().Open(party.Next(), purpose)) {}

void ZeroBits::Mask(Planes& share) {
  Planes drawn(share.Rows(), share.Count());
  for (auto* stream : {&mine_, &next_}) {
    stream->Draw(drawn.All());
    share ^= drawn;
  }
}

PlaneShare Reshare(Context& ctx, ZeroBits& zero, Planes additive) {
  zero.Mask(additive);
  Bytes packed = Pack(additive);
  const std::size_t size = packed.size();
  ctx.SendBytes(ctx.Prev(), std::move(packed));  // 1 hop, 1 bit
  Planes next = Unpack(ctx.ReceiveBytes(ctx.Next(), size), additive.Rows(), additive.Count());
  return {std::move(additive), std::move(next)};
}

Planes SendToAll(Context& ctx, ZeroBits& zero, Planes additive) {
  zero.Mask(additive);
  const Bytes packed = Pack(additive);
  for (int peer : {ctx.Next(), ctx.Prev()}) ctx.SendBytes(peer, packed);  // 1 hop, 1 bit each
  return additive;
}

Planes ReceiveFromAll(Context& ctx, const Planes& mine) {
  Planes x = mine;
  const std::size_t bytes = ring::PackedBytes(x.Rows() * x.Count(), 1);
  for (int peer : {ctx.Next(), ctx.Prev()})
    x ^= Unpack(ctx.ReceiveBytes(peer, bytes), x.Rows(), x.Count());
  return x;
}

Planes AndTree(Context& ctx, ZeroBits& zero, std::vector<BitRef> terms, std::size_t count) {
  TERCET_CHECK(terms.size() >= 2, "AND of {} terms", terms.size());
  std::deque<PlaneShare> levels;  // keeps what `terms` refers to
  for (;;) {
    Planes products(terms.size() / 2, count);
    std::fill(products.All().begin(), products.All().end(), 0);
    for (std::size_t i = 0; i < products.Rows(); ++i)
      XorProduct(products[i], terms[2 * i], terms[2 * i + 1], products.Words());
    if (terms.size() == 2) return products;
    const auto& level =
        levels.emplace_back(Reshare(ctx, zero, std::move(products)));  // 1 hop, 3 bits a pair
    std::vector<BitRef> left;
    for (std::size_t i = 0; i < terms.size() / 2; ++i) left.push_back(level[i]);
    if (terms.size() % 2 != 0) left.push_back(terms.back());
    terms = std::move(left);
  }
}

std::vector<std::size_t> AndTreeLevels(std::size_t terms) {
  std::vector<std::size_t> levels;
  for (; terms > 2; terms = (terms + 1) / 2) levels.push_back(terms / 2);
  return levels;
}

}  // namespace tercet::mpc
