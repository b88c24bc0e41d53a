// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "conformance/pinned.h"
#include "tercet/mpc/dealer.h"
#include "tercet/mpc/local.h"
#include "tercet/mpc/registry.h"
#include "tercet/net/wrappers.h"

/// Runs one activation layer of any suite at three parties in one process, and checks what holds
/// for all suites.
namespace tercet::conformance {

using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;
using net::Phase;
using Values = std::vector<std::int64_t>;
using Shares = std::array<AnyMatrix, 3>;  ///< additive, by party

/// A suite with options, and who helps.
struct Subject {
  std::string choice;
  int helper;
};
std::ostream& operator<<(std::ostream& out, const Subject& subject);
std::string SubjectName(const testing::TestParamInfo<Subject>& info);

/// Built-in protocols and the examples outside protocols/.
const mpc::Registry& AllProtocols();
/// Built-in protocols and suites with faulty masks (mutants.h).
const mpc::Registry& Mutants();
/// Of all of them.
const mpc::Suite& FindSuite(const std::string& name);
/// The built-in suites that are private.
std::vector<std::string> PrivateSuites();
/// Every variant of every suite, for each helper.
std::vector<Subject> Subjects();
mpc::Roles RolesWith(int helper);

/// One layer done by one suite.
struct Layer {
  const mpc::Suite* suite;
  mpc::SuiteChoice choice;
  mpc::Roles roles;
  ActivationSpec spec;
  mpc::ActivationPlan plan;
};

/// The layer with the suite's ring for its values; nothing when the suite refuses it. A refusal
/// must be an UnsupportedError that names the layer (checked). A table gets random entries.
std::optional<Layer> MakeLayer(const Subject& subject, ActivationSpec spec);

/// The same layer where `multiplier`, an evaluator, alone multiplies what comes online, in one or
/// both of the ways that the spec says so (known_at, where dealt, and only_to).
Layer WithMultiplier(const Layer& layer, PartyId multiplier, bool known, bool only);

/// The same layer with public weights before it (opened), for suites that take it so.
Layer WithOpened(const Layer& layer);

/// Additive shares of `values` (rows x cols), drawn with `seed`. Bits above the ring's width are
/// random too, as they may be between operations.
Shares ShareOut(const Values& values, std::size_t rows, std::size_t cols, unsigned bits,
                std::uint64_t seed);
/// Of an opened layer: both evaluators' shares are the sum of what they were.
Shares Joined(const Shares& shares, const mpc::Roles& roles);
/// The elements, reduced.
std::vector<std::uint64_t> Elements(const AnyMatrix& m);
/// x_0 + x_1 + x_2 of a replicated share, reduced; checks that the two copies of each share agree.
std::vector<std::uint64_t> Open(const std::array<AnyShare, 3>& x);
/// x_0 + x_1 + x_2 of additive shares, reduced.
std::vector<std::uint64_t> OpenAdditive(const std::array<AnyMatrix, 3>& x);
/// `choice` with the layer fused with the map that follows; nothing where the suite cannot.
std::optional<std::string> Fused(const std::string& choice);
/// What the oracle says, as ring elements of the layer's output; of a fused layer, of the map that
/// follows.
std::vector<std::uint64_t> Expected(const ActivationSpec& spec, const Values& z);

struct Query {
  /// By party. Halves that the spec says to be 0 or not needed are as if they were not.
  std::array<AnyShare, 3> output, known;
  std::array<AnyMatrix, 3> next;                               ///< fused: of the map that follows
  std::array<std::uint32_t, 3> offline_hops{}, online_hops{};  ///< by party
};
struct Session {
  std::vector<Query> queries;
  std::array<std::array<std::uint64_t, 3>, 3> offline_bytes{}, online_bytes{};  ///< [from][to]
  std::array<std::vector<net::Recorded>, 3>
      views;  ///< by party, setup left out; empty unless recorded
};
struct Options {
  bool record = false;  ///< not together with `pinned`
  crypto::PrfLedger* ledger = nullptr;
  bool archive = false;  ///< correlations pass through an archive between Prepare and Run
  PinnedSession* pinned = nullptr;  ///< gives the parties their keys
};
/// Prepares all queries, then runs them. A fused layer with the linear layer that follows, whose
/// weights are random.
Session RunLayer(const Layer& layer, const std::vector<Shares>& queries,
                 const Options& options = {});

/// What must hold in every session: bytes and hops are those of the plan, shares agree, halves
/// known offline are those that Run returns, a helper that deals gets nothing online.
void CheckSession(const Layer& layer, const Session& session);

/// The output is the oracle's, or as near as the plan says.
void ExpectOutput(const Layer& layer, const std::array<AnyShare, 3>& output, const Values& z);
/// The same of a layer that may be fused.
void ExpectOutput(const Layer& layer, const Query& query, const Values& z);

/// ShareOut, RunLayer, CheckSession, ExpectOutput; and with a multiplier, and opened, where that
/// makes a difference.
void CheckAgainstOracle(const Layer& layer, const Values& z, std::uint64_t seed);

/// `count` values: those given, repeated as often as fits, all in -2^(bits-1) .. 2^(bits-1) - 1.
Values Repeat(const Values& values, std::size_t count);
/// Every value of `bits` bits.
Values WholeRing(unsigned bits);
/// 0, -1, the ends, every power of two and its neighbours, both signs, and as many random ones.
Values BordersAndRandom(unsigned bits, std::uint64_t seed);

}  // namespace tercet::conformance
