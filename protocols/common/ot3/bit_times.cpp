// SPDX-License-Identifier: Apache-2.0
#include "common/ot3/bit_times.h"

namespace tercet::protocols::ot3 {

BitTimes::BitTimes(Party& party, int p0, const std::string& purpose)
    : p0_(p0),
      transfer_(party, {.sender = NextParty(p0), .receiver = p0, .helper = PrevParty(p0)},
                purpose + "/ot") {
  // Key 1 is held by P0 and P1, key 2 by P1 and P2.
  if (party.Id() != P2()) first_ = party.Keys().Open(P1(), purpose + "/s1");
  if (party.Id() != P0()) second_ = party.Keys().Open(P2(), purpose + "/s2");
}

std::array<mpc::Round, 3> BitTimes::Rounds(int p0, std::size_t count, unsigned bits) {
  const std::uint64_t bytes = ring::PackedBytes(count, bits);
  const int p1 = NextParty(p0), p2 = PrevParty(p0);
  return {mpc::Round{{p1, p2, bytes}, {p1, p2, bytes}},  // both messages of the transfer
          mpc::Round{{p2, p0, bytes}},                   // the chosen one
          mpc::Round{{p0, p2, bytes}}};                  // the receiver's share
}

void BitTimes::AddCost(int p0, std::size_t count, unsigned bits, mpc::Phase phase,
                       mpc::Cost& cost) {
  for (auto& round : Rounds(p0, count, bits)) cost.Add(phase, std::move(round));
}

}  // namespace tercet::protocols::ot3
