// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/cost.h"

#include <utility>

#include "mpc/hops.h"
#include "tercet/base/error.h"

namespace tercet::mpc {

Round ReshareRound(std::uint64_t bytes) {
  Round round;
  for (const PartyId from : {0, 1, 2}) round.push_back({from, PrevParty(from), bytes});
  return round;
}

Round OpenRound(std::uint64_t bytes) {
  Round round;
  for (const PartyId from : {0, 1, 2})
    for (const PartyId to : {NextParty(from), PrevParty(from)}) round.push_back({from, to, bytes});
  return round;
}

void Cost::Add(Phase phase, Round round) {
  TERCET_CHECK(phase != Phase::kSetup, "a query's cost is offline or online");
  for (const auto& message : round)
    TERCET_CHECK(IsParty(message.from) && IsParty(message.to) && message.from != message.to,
                 "a message from party {} to party {}, expected two of 0, 1 and 2", message.from,
                 message.to);
  Part& part = phase == Phase::kOffline ? offline_ : online_;
  for (const auto& message : round)
    part.bytes[static_cast<std::size_t>(message.from)] += message.bytes;
  part.rounds.push_back(std::move(round));
}

Cost& Cost::operator+=(const Cost& other) {
  for (const auto& round : other.offline_.rounds) Add(Phase::kOffline, round);
  for (const auto& round : other.online_.rounds) Add(Phase::kOnline, round);
  return *this;
}

std::uint32_t Cost::Hops(const Part& part) {
  HopCounter counter;
  for (const auto& round : part.rounds) counter.Add(round);
  return counter.Hops();
}

Depths DepthsAt(PartyId party, Phase phase, const std::vector<const Cost*>& steps) {
  Depths depths(steps.size());
  HopCounter counter;
  for (std::size_t s = 0; s < steps.size(); ++s) {
    for (const auto& round : steps[s]->Rounds(phase)) {
      for (const auto& message : round)
        if (message.to == party)
          depths[s][static_cast<std::size_t>(message.from)].push_back(counter.At(message.from) + 1);
      counter.Add(round);
    }
  }
  return depths;
}

void CheckRoles(const Roles& roles, const std::string& place) {
  const auto check = [&](const char* role, int party) {
    if (!IsParty(party))
      throw ConfigError(
          place, fmt::format("{} {} found, a party's number, 0, 1 or 2, expected", role, party));
  };
  check("helper", roles.helper);
  check("data owner", roles.data_owner);
  check("model owner", roles.model_owner);
  check("receiver", roles.receiver);
}

std::string RolesText(const Roles& roles) {
  return fmt::format("helper {}, data owner {}, model owner {}, receiver {}", roles.helper,
                     roles.data_owner, roles.model_owner, roles.receiver);
}

}  // namespace tercet::mpc
