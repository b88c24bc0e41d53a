// SPDX-License-Identifier: Apache-2.0
#include "net/door.h"

#include <algorithm>

namespace tercet::net {
namespace {

// An IPv4 address as a socket for both families shows it, and as itself.
asio::ip::address Plain(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
  return address;
}

}  // namespace

void Door::Expect(const asio::ip::address& address) { hosts_.insert(Plain(address)); }

std::vector<std::shared_ptr<Greeting>> Door::Enter(const std::shared_ptr<Greeting>& newcomer,
                                                   const asio::ip::address& from) {
  const asio::ip::address address = Plain(from);
  const bool expected = hosts_.contains(address);
  std::vector<std::shared_ptr<Greeting>> gone;
  // Of those that `counts` counts, when they are `limit`, the oldest that has not shown who it is,
  // or of as many that have the oldest.
  const auto make_room = [&](std::size_t limit, auto counts) {
    if (!gone.empty()) return;
    const auto count = std::count_if(guests_.begin(), guests_.end(), counts);
    if (static_cast<std::size_t>(count) < limit) return;
    auto oldest = std::find_if(guests_.begin(), guests_.end(), [&](const Guest& guest) {
      const auto greeting = guest.greeting.lock();
      return counts(guest) && !(greeting && greeting->KnowsPeer());
    });
    if (oldest == guests_.end()) oldest = std::find_if(guests_.begin(), guests_.end(), counts);
    if (const auto greeting = oldest->greeting.lock()) gone.push_back(greeting);
    guests_.erase(oldest);
  };
  if (expected) {
    make_room(kOfOneHost, [&](const Guest& guest) { return guest.from == address; });
  } else {
    make_room(kOfOneAddress, [&](const Guest& guest) { return guest.from == address; });
    make_room(kStrangers, [](const Guest& guest) { return !guest.expected; });
  }
  guests_.push_back({newcomer, newcomer.get(), address, expected});
  return gone;
}

void Door::Leave(const Greeting* guest) {
  guests_.remove_if([guest](const Guest& each) { return each.id == guest; });
}

}  // namespace tercet::net
