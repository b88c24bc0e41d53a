// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "programs/options.h"
#include "tercet/mpc/registry.h"

namespace tercet::programs {

/// Which plans of a network are compared.
struct PlanSettings {
  std::vector<std::string> suites;  ///< none: all private ones and auto
  std::vector<std::filesystem::path> measured;
  std::vector<std::string> links{"none"};
  std::string linear = kByRoles, optimise = "online";
  std::vector<std::size_t> batches{1};
  RoleOptions roles;

  std::vector<mpc::SuiteChoice> Suites(const mpc::Registry& registry) const;
};

/// --suite, --linear, --optimise, --batch, --link, --measured and the roles.
void AddPlanSettings(CLI::App& app, PlanSettings& settings);

}  // namespace tercet::programs
