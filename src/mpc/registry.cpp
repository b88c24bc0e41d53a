// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/registry.h"

namespace tercet::mpc {
namespace {

template <class T>
std::vector<std::string> Names(const std::map<std::string, T>& all) {
  std::vector<std::string> names;
  for (const auto& [name, each] : all) names.push_back(name);
  return names;
}

template <class T>
const T& Find(const std::map<std::string, T>& all, const char* what, const std::string& name) {
  const auto found = all.find(name);
  if (found == all.end())
    throw UnsupportedError(fmt::format("there is no {0} \"{1}\"; known {0}s: {2}", what, name,
                                       fmt::join(Names(all), ", ")));
  return found->second;
}

}  // namespace

void Registry::AddSuite(SuiteInfo info, PlanFunction plan) {
  const std::string name = info.name;
  TERCET_CHECK(suites_.emplace(name, Suite(std::move(info), std::move(plan))).second,
               "suite \"{}\" is registered twice", name);
}

void Registry::AddLinear(LinearProtocol protocol) {
  const std::string name = protocol.name;
  TERCET_CHECK(linear_.emplace(name, std::move(protocol)).second,
               "linear protocol \"{}\" is registered twice", name);
}

void Registry::SetOracle(std::unique_ptr<Oracle> oracle) {
  TERCET_CHECK(oracle_ == nullptr, "an oracle is registered already");
  oracle_ = std::move(oracle);
}

const Suite& Registry::FindSuite(const std::string& name) const {
  return Find(suites_, "suite", name);
}

const LinearProtocol& Registry::FindLinear(const std::string& name) const {
  return Find(linear_, "linear protocol", name);
}

std::vector<std::string> Registry::SuiteNames() const { return Names(suites_); }

const Oracle& Registry::PlainOracle() const {
  TERCET_CHECK(oracle_ != nullptr, "no plain oracle is registered");
  return *oracle_;
}

}  // namespace tercet::mpc
