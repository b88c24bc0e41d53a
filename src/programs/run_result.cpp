// SPDX-License-Identifier: Apache-2.0
#include "programs/run_result.h"

#include <algorithm>

#include "programs/cost_table.h"
#include "programs/inputs.h"
#include "tercet/base/error.h"
#include "tercet/infer/run_cost.h"
#include "tercet/infer/tolerance.h"
#include "tercet/nn/run_plain.h"

namespace tercet::programs {

void CompleteReport(report::RunReport& run, const infer::Plan& plan, const mpc::Registry& registry,
                    const mpc::SuiteChoice& suite, const infer::Schedule& schedule,
                    std::size_t images) {
  run.predictions = nn::Predictions(run.logits, run.classes);
  run.matches_plan = MatchesPlan(run, infer::RunCost(plan, registry, suite, images, schedule));
}

void CompareWithPlain(report::RunReport& run, const nn::IntegerNetwork& model,
                      const infer::Plan& plan, const mpc::Registry& registry,
                      const files::Images& images,
                      const std::function<void(std::size_t done, std::size_t total)>& on_progress) {
  const auto plain = PlainLogits(model, registry.PlainOracle(), images, nullptr, on_progress);
  TERCET_CHECK(plain.size() == run.logits.size(), "{} logits in the clear, {} from the run",
               plain.size(), run.logits.size());
  run.tolerance = infer::ResultTolerance(model, plan);
  std::size_t equal = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const auto [low, high] = std::minmax(plain[i], run.logits[i]);
    equal += static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) <= run.tolerance;
  }
  run.equal = equal;
}

}  // namespace tercet::programs
