#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "tercet/net/wrappers.h"
#include "tercet/nn/plan.h"
#include "tercet/report/run_report.h"

namespace tercet::app {

/// A plan as a table: shape, multiplications, width, suite, hops and bytes of one batch for each
/// layer, and the sums.
std::string DescribePlan(const nn::Plan& plan, bool utf8);

/// The time that latency and bytes alone take on a link: hops * rtt / 2, plus the bytes of the
/// party that sends most at the link's rate.
double LinkSeconds(std::uint32_t hops, const std::array<std::uint64_t, 3>& bytes,
                   const net::LinkProfile& link);

/// What a run sends, by party, and the hops of one batch.
struct RunTotals {
  std::array<std::uint64_t, 3> offline_bytes{}, online_bytes{};
  std::uint32_t offline_hops = 0, online_hops = 0;
};

/// The cost of a run of `images` images in batches of plan.batch, the last one perhaps smaller.
RunTotals RunCost(const nn::Plan& plan, const mpc::Registry& registry,
                  const mpc::SuiteChoice& suite, std::size_t images);

/// Whether the run's bytes, party by party, and hops are exactly those of the plan.
bool MatchesPlan(const report::RunReport& run, const RunTotals& cost);

/// The plan as JSON text, for `tercet plan --json`.
std::string PlanToJson(const nn::Plan& plan, const mpc::SuiteChoice& suite,
                       const net::LinkProfile& link);

}  // namespace tercet::app
