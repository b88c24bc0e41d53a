// SPDX-License-Identifier: Apache-2.0
#include "programs/plan_settings.h"

#include "programs/auto_suite.h"
#include "tercet/infer/auto_plan.h"

namespace tercet::programs {

std::vector<mpc::SuiteChoice> PlanSettings::Suites(const mpc::Registry& registry) const {
  std::vector<mpc::SuiteChoice> choices;
  for (const auto& suite : suites) choices.push_back(ParseSuite(suite, registry));
  if (!choices.empty()) return choices;
  for (const auto& candidate : infer::AutoCandidates(registry)) choices.push_back(candidate.suite);
  choices.push_back({nn::kAutoSuite, {}});
  return choices;
}

void AddPlanSettings(CLI::App& app, PlanSettings& settings) {
  OfferSuites(
      AddList(app, "--suite", settings.suites, "Suites to compare [all private ones and auto]"));
  AddLinear(app, settings.linear);
  AddObjective(app, settings.optimise);
  AddNumbers(app, "--batch", settings.batches, 1, kMaxBatch, "Images a query, one or several");
  OfferLinks(AddList(app, "--link", settings.links, "Predict times on these links"));
  app.add_option(
      "--measured", settings.measured,
      "Reports of `tercet run --json` without --link, of the same network, suite, batch and "
      "widths: computation is taken from them");
  settings.roles.AddTo(app);
}

}  // namespace tercet::programs
