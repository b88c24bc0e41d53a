#include "tercet/mpc/registry.h"

namespace tercet::mpc {

void Registry::AddSuite(SuiteInfo info, PlanFunction plan) {
  const std::string name = info.name;
  TERCET_CHECK(suites_.emplace(name, Suite(std::move(info), std::move(plan))).second,
               "suite \"{}\" is registered twice", name);
}

void Registry::SetLinear(LinearFactory factory) {
  TERCET_CHECK(linear_ == nullptr, "a linear protocol is registered already");
  linear_ = factory;
}

void Registry::SetOracle(std::unique_ptr<Oracle> oracle) {
  TERCET_CHECK(oracle_ == nullptr, "an oracle is registered already");
  oracle_ = std::move(oracle);
}

const Suite& Registry::FindSuite(const std::string& name) const {
  const auto found = suites_.find(name);
  if (found == suites_.end())
    throw UnsupportedError(fmt::format("there is no suite \"{}\"; known suites: {}", name,
                                       fmt::join(SuiteNames(), ", ")));
  return found->second;
}

std::vector<std::string> Registry::SuiteNames() const {
  std::vector<std::string> names;
  for (const auto& [name, suite] : suites_) names.push_back(name);
  return names;
}

LinearFactory Registry::LinearMaker() const {
  TERCET_CHECK(linear_ != nullptr, "no linear protocol is registered");
  return linear_;
}

const Oracle& Registry::PlainOracle() const {
  TERCET_CHECK(oracle_ != nullptr, "no plain oracle is registered");
  return *oracle_;
}

}  // namespace tercet::mpc
