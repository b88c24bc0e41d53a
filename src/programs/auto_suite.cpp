// SPDX-License-Identifier: Apache-2.0
#include "programs/auto_suite.h"

#include <algorithm>

#include "programs/inputs.h"
#include "tercet/base/error.h"
#include "tercet/compile/announcement.h"
#include "tercet/compile/architecture.h"

namespace tercet::programs {

const infer::MachineModel kMachine{.hop_ns = 85'000, .linear = {0.06, 0.1}};

void AddObjective(CLI::App& app, std::string& objective) {
  app.add_option("--optimise", objective,
                 "What suite auto makes least: time online or in total, hops, or bytes")
      ->check(CLI::IsMember(infer::ObjectiveNames()))
      ->capture_default_str();
}

void ResolveAuto(nn::PublicNetwork& network, const mpc::Registry& registry,
                 const mpc::SuiteChoice& suite, const net::LinkProfile& link,
                 infer::Objective objective, const mpc::Roles& roles, std::size_t batch) {
  const bool unnamed = suite.name == nn::kAutoSuite;
  const auto asks = [&](const nn::PublicLayer& layer) {
    return compile::LeavesSuite(layer, suite);
  };
  if (std::none_of(network.layers.begin(), network.layers.end(), asks)) return;
  if (!unnamed)
    for (auto& layer : network.layers)
      if (layer.suite.empty() && layer.activation != mpc::ActivationKind::kNone)
        layer.suite = suite.Text();
  network = infer::ChooseSuites(
      network, registry,
      {infer::AutoCandidates(registry), infer::WithMessageTime(link, kMachine), objective}, roles,
      batch);
}

void CheckMaterialSuite(const infer::MaterialFile& material, const nn::NetworkSpec& spec,
                        const mpc::Registry& registry, const mpc::SuiteChoice& suite,
                        const net::LinkProfile& link, infer::Objective objective) {
  const auto& header = material.Header();
  const auto made = material.MakePlan(spec, registry);
  // The material's network names the suites that were chosen; the JSON those that are asked for.
  auto asked = made.network;
  const auto named = compile::Architecture(spec, asked.OnlyClass());
  for (std::size_t k = 0; k < asked.layers.size(); ++k)
    asked.layers[k].suite = named.layers[k].suite;
  ResolveAuto(asked, registry, suite, link, objective, header.roles, header.batch);
  const auto wanted = infer::MakePlan(asked, registry, suite, header.roles, header.batch);
  for (std::size_t k = 0; k < wanted.layers.size(); ++k) {
    const auto there = made.layers[k].suite.Text(), here = wanted.layers[k].suite.Text();
    if (there != here)
      throw ConfigError(material.File().string(),
                        fmt::format("was made for suite {}, this run has {} on link {}: layer {} "
                                    "has {} in the material, {} in this run",
                                    header.suite, suite.Text(), link.name,
                                    made.layers[k].layer.name, there, here));
  }
}

}  // namespace tercet::programs
