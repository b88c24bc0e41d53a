// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tercet/base/party_id.h"
#include "tercet/net/meter.h"

/// Who does what, and what is sent.
namespace tercet::mpc {

using net::Phase;

/// In place of a party: clients outside, who share their images among the evaluators themselves and
/// get a share of the result from each.
inline constexpr PartyId kClients = -1;

/// Who does what; public. The helper deals correlated randomness. It may have the other roles too;
/// where it owns the input or receives the result it has to be there online.
struct Roles {
  PartyId helper = 0;
  PartyId data_owner = 1;
  PartyId model_owner = 2;
  PartyId receiver = 1;

  PartyId Evaluator1() const { return NextParty(helper); }
  PartyId Evaluator2() const { return PrevParty(helper); }
  /// Images come from clients and results go to them; shares of the model are there already, and
  /// its owner is not.
  static Roles ForClients(PartyId helper) { return {helper, kClients, helper, kClients}; }
  bool AreForClients() const { return data_owner == kClients && receiver == kClients; }
  /// The model's owner where it is one of the evaluators and has the weights themselves.
  std::optional<PartyId> ModelEvaluator() const {
    if (AreForClients() || model_owner == helper) return std::nullopt;
    return model_owner;
  }
  /// Of an evaluator, the other one.
  PartyId OtherEvaluator(PartyId evaluator) const { return 3 - helper - evaluator; }
  bool operator==(const Roles&) const = default;
};
/// Throws ConfigError (place `place`) that names the role, unless each is a party's number. One
/// party may have any of them, or all.
void CheckRoles(const Roles& roles, const std::string& place);
/// "helper 0, data owner 1, model owner 2, receiver 1".
std::string RolesText(const Roles& roles);

/// One message of a cost.
struct Transmission {
  PartyId from = 0, to = 0;
  std::uint64_t bytes = 0;
};
/// Messages that are all sent before any of them is received.
using Round = std::vector<Transmission>;
/// Every party sends `bytes` to the one before it, as when it reshares.
Round ReshareRound(std::uint64_t bytes);
/// Every party sends `bytes` to both others.
Round OpenRound(std::uint64_t bytes);

/// What one query (one batch), or a part of it, sends: rounds of messages in the order in which
/// each party sends and receives them. Bytes by party and hops follow from that. Hops are the
/// longest chain of dependent messages, so where a party need not wait for a message before it
/// sends the next, two parts together take fewer than the sum.
class Cost {
 public:
  /// Throws InternalError unless each message goes from one party to another.
  void Add(Phase phase, Round round);
  Cost& operator+=(const Cost& other);

  /// Payload bytes sent by each party.
  const std::array<std::uint64_t, 3>& OfflineBytes() const { return offline_.bytes; }
  const std::array<std::uint64_t, 3>& OnlineBytes() const { return online_.bytes; }
  std::uint64_t OfflineTotal() const { return Sum(offline_.bytes); }
  std::uint64_t OnlineTotal() const { return Sum(online_.bytes); }
  std::uint32_t OfflineHops() const { return Hops(offline_); }
  std::uint32_t OnlineHops() const { return Hops(online_); }
  /// The rounds of a query's phase, offline or online.
  const std::vector<Round>& Rounds(Phase phase) const {
    return phase == Phase::kOffline ? offline_.rounds : online_.rounds;
  }

 private:
  struct Part {
    std::vector<Round> rounds;
    std::array<std::uint64_t, 3> bytes{};
  };
  static std::uint64_t Sum(const std::array<std::uint64_t, 3>& b) { return b[0] + b[1] + b[2]; }
  static std::uint32_t Hops(const Part& part);

  Part offline_, online_;
};

/// What one party receives in a phase of a query: of each message, how long a chain of dependent
/// messages ends with it; by step (the input, the layers, the output), sender and number within the
/// step.
using Depths = std::vector<std::array<std::vector<std::uint32_t>, 3>>;
/// `steps`: what each step costs, in their order.
Depths DepthsAt(PartyId party, Phase phase, const std::vector<const Cost*>& steps);

}  // namespace tercet::mpc
