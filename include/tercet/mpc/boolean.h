// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tercet/mpc/party.h"
#include "tercet/mpc/planes.h"

/// Boolean shares in bit-sliced form, and the steps that send them: what a protocol on bits is made
/// of. Shares are XORed: an *additive* share of x is x_i of x = x_0 ^ x_1 ^ x_2, a *replicated* one
/// (x_i, x_{i+1}).
namespace tercet::mpc {

/// One row of a replicated share, held elsewhere.
struct BitRef {
  const std::uint64_t* mine;
  const std::uint64_t* next;
};

struct PlaneShare {
  Planes mine, next;
  BitRef operator[](std::size_t row) const { return {mine[row], next[row]}; }
};

/// out ^= the party's additive share of x * y [Araki et al., CCS 2016]:
/// x_i y_i ^ x_i y_{i+1} ^ x_{i+1} y_i. Local.
void XorProduct(std::uint64_t* out, BitRef x, BitRef y, std::size_t words);

/// 3-out-of-3 randomness by XOR: alpha_i = F(k_{i+1}) ^ F(k_i). No message.
class ZeroBits {
 public:
  ZeroBits(Party& party, const std::string& purpose);
  /// Adds fresh alpha_i to each bit.
  void Mask(Planes& share);

 private:
  crypto::PrfStream mine_, next_;
};

/// An additive share becomes a replicated one: party i sends x_i ^ alpha_i to party i-1. 1 hop, 3
/// bits a bit; every message is masked by a key that the receiver lacks.
PlaneShare Reshare(Context& ctx, ZeroBits& zero, Planes additive);

/// Opens an additive share to all three: each sends x_i ^ alpha_i to both others; SendToAll returns
/// it for ReceiveFromAll, which returns x. In between, others may send in the same hop. 1 hop, 6
/// bits a bit. All learn x and nothing else.
Planes SendToAll(Context& ctx, ZeroBits& zero, Planes additive);
Planes ReceiveFromAll(Context& ctx, const Planes& mine);

/// The AND of several bits, as a tree. `terms` are rows of replicated shares of `count` bits; all
/// levels but the last are reshared (ceil(log2 terms) - 1 hops). Returns an additive share of the
/// last product, which is not masked yet. Needs two terms or more.
Planes AndTree(Context& ctx, ZeroBits& zero, std::vector<BitRef> terms, std::size_t count);
/// Bits that each level but the last reshares, per element.
std::vector<std::size_t> AndTreeLevels(std::size_t terms);

}  // namespace tercet::mpc
