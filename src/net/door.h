// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/ip/address.hpp>
#include <cstddef>
#include <list>
#include <memory>
#include <set>
#include <vector>

#include "net/greeting.h"

namespace tercet::net {

/// The connections that have come in and have not shown yet which party they are. Newcomers are
/// always let in; where there are too many the oldest must go: of one address, of all addresses
/// together, and apart from these of each host where a party is expected, so that strangers from
/// elsewhere never take a party's place. Network thread only.
class Door {
 public:
  static constexpr std::size_t kStrangers = 64;    ///< of all addresses where no party is expected
  static constexpr std::size_t kOfOneAddress = 8;  ///< of them
  static constexpr std::size_t kOfOneHost = 32;    ///< of an address where one is expected

  /// A party may come from this address.
  void Expect(const asio::ip::address& address);
  /// Takes the newcomer in and returns those that have to go for it, at most one.
  std::vector<std::shared_ptr<Greeting>> Enter(const std::shared_ptr<Greeting>& newcomer,
                                               const asio::ip::address& from);
  /// This one has ended.
  void Leave(const Greeting* guest);

 private:
  struct Guest {
    std::weak_ptr<Greeting> greeting;
    const Greeting* id;
    asio::ip::address from;
    bool expected;
  };
  std::list<Guest> guests_;  ///< in the order in which they came
  std::set<asio::ip::address> hosts_;
};

}  // namespace tercet::net
