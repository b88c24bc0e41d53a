// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "conformance/pinned.h"
#include "tercet/infer/plan.h"
#include "tercet/infer/schedule.h"
#include "tercet/mpc/suite.h"

namespace tercet::conformance {

/// A small network, for queries under pinned keys: each layer has one weight a channel, so that
/// runs are many, and all messages are whole bytes.
struct QueryLayer {
  mpc::ActivationKind kind = mpc::ActivationKind::kSign;
  std::string suite;  ///< empty for the query's
  std::size_t pool = 0;
  unsigned shift = 0;
};
struct QueryCase {
  std::string suite = "lut";
  std::vector<QueryLayer> layers{{}};  ///< before the one that gives the logits
  mpc::Roles roles;
  std::size_t side = 1;  ///< of the input's maps, of which there are 8
  std::size_t batch = 1;
  std::size_t queries = 1;
  enum class Ends { kLogits, kClass } ends = Ends::kLogits;
  std::string linear;       ///< protocol of the linear layers; empty where the roles decide
  bool shortcut = false;    ///< from the input to the last layer, with weights
  std::size_t outputs = 0;  ///< of a fully connected last layer; 0: it has one weight a channel
};
void PrintTo(const QueryCase& c, std::ostream* out);

/// The whole of it after the keys' agreement: model, material, queries, result. Checks the result.
/// Image and weights differ between the two inputs, but for what the receiver owns and public
/// weights.
Scenario QueryScenario(const QueryCase& c, int receiver);

/// What the view of a party tells: of the first of the three that tells anything.
std::vector<std::string> FindingsOfAll(const std::function<Scenario(int receiver)>& scenario);
/// The same of a query with a layer by a mutant (mutants.h).
std::vector<std::string> FindingsOfMutant(const std::string& name);

/// How queries, or groups of a query's images, run side by side.
struct Side {
  infer::Schedule schedule = infer::InTurn{};
  std::size_t in_flight = 1;
};
/// With the helper's role going round over the images.
inline const Side kRotated{infer::HelperRotates{}, 1};
/// The same as QueryScenario with queries side by side, as sessions run them.
Scenario SideBySideScenario(const QueryCase& c, const Side& side, int receiver);
/// Without pinned keys: what is sent in setup that is as long as a key.
std::vector<Bytes> KeysAgreed(const QueryCase& c, const Side& side);

/// Leaves out each draw from the key that a party lacks, one after the other, if it changes
/// anything that the party sees, and expects that this is found; of `at_least` so many draws.
void ExpectEveryDrawIsMissed(const std::function<Scenario(int receiver)>& make,
                             std::size_t at_least);

}  // namespace tercet::conformance
