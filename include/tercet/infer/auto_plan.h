// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tercet/infer/plan.h"
#include "tercet/net/wrappers.h"

/// Predicts how long a plan's messages take on a link, and chooses suites by it (suite `auto`).
/// All figures are whole nanoseconds and no clock is read, so that equal arguments give equal
/// results on every machine. All functions are thread safe.
namespace tercet::infer {

using mpc::ComputeModel;

/// One choice that `auto` has for a layer.
struct Candidate {
  mpc::SuiteChoice suite;
  mpc::ComputeFigures compute;
};
/// The variants with figures of all suites that are private and exact, in the order in which ties
/// are broken: first those whose helper can be away online, then those that compute least there.
std::vector<Candidate> AutoCandidates(const mpc::Registry& registry);

/// What every suite asks of the machines alike.
struct MachineModel {
  double hop_ns = 0;    ///< a message that is waited for: system calls, encryption, waking up
  ComputeModel linear;  ///< per multiplication of a linear map
};

enum class Objective : std::uint8_t {
  kOnline,  ///< the online time; among equal ones the least offline time
  kTotal,   ///< offline and online time together
  kHops,    ///< online hops of the whole query; among equal ones all bytes. Of no link
  kBytes,   ///< all bytes, offline and online; among equal ones the hops. Of no link
};
/// Their names, "online", "total", "hops", "bytes", in this order.
const std::vector<std::string>& ObjectiveNames();
/// ConfigError (`place`) for other texts.
Objective ParseObjective(const std::string& text, const std::string& place);

/// Nanoseconds of one query.
struct PredictedTime {
  std::int64_t offline_ns = 0, online_ns = 0;
  std::int64_t Total() const { return offline_ns + online_ns; }
  double OfflineSeconds() const { return static_cast<double>(offline_ns) / 1e9; }
  double OnlineSeconds() const { return static_cast<double>(online_ns) / 1e9; }
};

/// The time that a query's messages take on three equal links of two directions each, which work at
/// the same time: a message leaves when its sender has received what precedes it and the link's
/// direction is free, keeps that direction busy for bytes / rate, and arrives half a round trip
/// later. Without a rate this is hops * rtt / 2. With `computation`, what is dealt offline goes out
/// while more of it is computed, and what is sent online is computed before.
PredictedTime LinkTime(const mpc::Cost& cost, const net::LinkProfile& link,
                       const PredictedTime& computation = {});

/// The link with what `machine` takes for a message in its delay.
net::LinkProfile WithMessageTime(net::LinkProfile link, const MachineModel& machine);

/// Computation of each step of a plan's query (input, layers, output) in nanoseconds: that of the
/// activations, by those of `candidates` that the plan uses (0 for others), and of linear maps.
std::vector<PredictedTime> ModelledComputation(const Plan& plan,
                                               const std::vector<Candidate>& candidates,
                                               const MachineModel& machine = {});

/// How far the query has come in each phase after each step, `computation` of it included.
/// InternalError unless there is one for each step.
std::vector<PredictedTime> StepTimes(const Plan& plan,
                                     const std::vector<PredictedTime>& computation,
                                     const net::LinkProfile& link);

/// The whole query's time, with ModelledComputation but for linear maps, which are the same in
/// every suite.
PredictedTime PlanTime(const Plan& plan, const std::vector<Candidate>& candidates,
                       const net::LinkProfile& link);

/// What the choice of suites depends on.
struct AutoSettings {
  std::vector<Candidate> candidates;  ///< private suites only; the first wins where times are equal
  net::LinkProfile link;
  Objective objective = Objective::kOnline;
};

/// Names a suite for every layer with an activation that has none of its own, or `auto`: those with
/// which the objective is least for the whole query. Goes through the layers and drops combinations
/// after which nothing can be faster than after another one; at most 256 are followed at a time.
/// What a layer sends is taken to depend on earlier layers only, which holds where all candidates
/// of the next layer use rings of the same width, as those of one width of values do; whole plans
/// decide at the end. Throws UnsupportedError naming a layer that no candidate serves,
/// InternalError when a candidate is not private, and as MakePlan.
nn::PublicNetwork ChooseSuites(const nn::PublicNetwork& network, const mpc::Registry& registry,
                               const AutoSettings& settings, const mpc::Roles& roles,
                               std::size_t batch);

}  // namespace tercet::infer
