#include "cbnn/select.h"

namespace tercet::protocols::cbnn {

BitTimes::BitTimes(Party& party, int p0, const std::string& purpose)
    : p0_(p0),
      transfer_(party, {.sender = (p0 + 1) % 3, .receiver = p0, .helper = (p0 + 2) % 3},
                purpose + "/ot") {
  // Key 1 is held by P0 and P1, key 2 by P1 and P2.
  if (party.Id() != P2()) first_ = party.Keys().Open(P1(), purpose + "/s1");
  if (party.Id() != P0()) second_ = party.Keys().Open(P2(), purpose + "/s2");
}

void BitTimes::AddBytes(int p0, std::size_t count, unsigned bits,
                        std::array<std::uint64_t, 3>& bytes) {
  const std::uint64_t message = ring::PackedBytes(count, bits);
  bytes[static_cast<std::size_t>((p0 + 1) % 3)] +=
      2 * message;                                           // P1: both messages of the transfer
  bytes[static_cast<std::size_t>((p0 + 2) % 3)] += message;  // P2: the chosen one
  bytes[static_cast<std::size_t>(p0)] += message;            // P0: its share
}

}  // namespace tercet::protocols::cbnn
