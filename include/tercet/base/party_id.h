// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tercet {

/// One of the three parties, 0, 1 or 2. Indices of shares and keys are those of parties.
using PartyId = int;

constexpr bool IsParty(PartyId party) { return party >= 0 && party < 3; }
/// The parties after and before one, in a circle.
constexpr PartyId NextParty(PartyId party) { return (party + 1) % 3; }
constexpr PartyId PrevParty(PartyId party) { return (party + 2) % 3; }

}  // namespace tercet
