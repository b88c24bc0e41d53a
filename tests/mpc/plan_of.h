// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/registry.h"

/// Plans of built-in suites, for tests of one suite.
namespace tercet::mpc {

/// `choice` as in "lut:chunks=2".
inline OptionValues OptionsOf(const std::string& choice) {
  const SuiteChoice parsed = ParseSuiteChoice(choice, "test");
  return BuiltinProtocols().FindSuite(parsed.name).Options(parsed);
}
inline ActivationPlan PlanOf(const ActivationSpec& spec, const std::string& choice,
                             const Roles& roles = {}) {
  const SuiteChoice parsed = ParseSuiteChoice(choice, "test");
  return BuiltinProtocols().FindSuite(parsed.name).Plan(spec, parsed, roles);
}
/// What the suite says where it refuses; else "".
inline std::string RefusalOf(const ActivationSpec& spec, const std::string& choice) {
  try {
    PlanOf(spec, choice);
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

}  // namespace tercet::mpc
