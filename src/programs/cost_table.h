// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tercet/infer/auto_plan.h"
#include "tercet/infer/plan.h"
#include "tercet/infer/run_cost.h"
#include "tercet/net/wrappers.h"
#include "tercet/report/run_report.h"

namespace tercet::programs {

/// The predicted times of a plan, and what they rest on.
struct Prediction {
  net::LinkProfile link;
  std::vector<infer::PredictedTime> steps;  ///< infer::StepTimes
  bool measured = false;  ///< computation is from a run, not from the built-in model
};

/// The prediction with computation as `reports` have measured it on unshaped links (files of
/// `tercet run --json`, the one of this network, suite and batch), else by the built-in model
/// (infer::AutoCandidates, kMachine). ConfigError names a file that is no such report.
Prediction Predict(const infer::Plan& plan, const mpc::SuiteChoice& suite,
                   const mpc::Registry& registry, const net::LinkProfile& link,
                   const std::vector<std::filesystem::path>& reports);

/// Refuses a report that can serve no prediction of `network` with one of these suites and batches:
/// ConfigError names the file and what is other (the network, suite, batch, link, a layer's width).
void CheckMeasured(const std::filesystem::path& report, const nn::PublicNetwork& network,
                   const std::vector<mpc::SuiteChoice>& suites,
                   const std::vector<std::size_t>& batches);

/// A plan as a table: shape, multiplications, width, suite, hops and bytes of one batch for each
/// layer, the sums, and about how much memory each party needs; with a prediction (may be null) the
/// time that each adds.
std::string DescribePlan(const infer::Plan& plan, const Prediction* prediction, bool utf8);

/// Whether the run's bytes, party by party, and hops are exactly those of the plan.
bool MatchesPlan(const report::RunReport& run, const infer::RunTotals& cost);

/// The plan with its prediction and its memory as JSON text, for `tercet plan --json`.
std::string PlanToJson(const infer::Plan& plan, const mpc::SuiteChoice& suite,
                       const Prediction& prediction, const std::vector<std::string>& warnings);
/// In its place: that the suite cannot do a layer of the network, and why.
std::string NoPlanToJson(const nn::PublicNetwork& network, const mpc::SuiteChoice& suite,
                         std::size_t batch, const net::LinkProfile& link, const std::string& why);
/// The same as lines of CSV, one a step and one for the whole; the head is PlanCsvHead().
std::string PlanToCsv(const infer::Plan& plan, const mpc::SuiteChoice& suite,
                      const Prediction& prediction);
/// One line, with the reason in place of the layer.
std::string NoPlanToCsv(const nn::PublicNetwork& network, const mpc::SuiteChoice& suite,
                        std::size_t batch, const net::LinkProfile& link, const std::string& why);
std::string PlanCsvHead();

}  // namespace tercet::programs
