#include "tercet/mpc/suite.h"

#include "mpc/hops.h"

namespace tercet::mpc {

void Cost::Add(Phase phase, Round round) {
  TERCET_CHECK(phase != Phase::kSetup, "a query's cost is offline or online");
  for (const auto& message : round)
    TERCET_CHECK(IsParty(message.from) && IsParty(message.to) && message.from != message.to,
                 "a message from party {} to party {}, expected two of 0, 1 and 2", message.from,
                 message.to);
  Part& part = phase == Phase::kOffline ? offline_ : online_;
  for (const auto& message : round)
    part.bytes[static_cast<std::size_t>(message.from)] += message.bytes;
  part.rounds.push_back(std::move(round));
}

Cost& Cost::operator+=(const Cost& other) {
  for (const auto& round : other.offline_.rounds) Add(Phase::kOffline, round);
  for (const auto& round : other.online_.rounds) Add(Phase::kOnline, round);
  return *this;
}

std::uint32_t Cost::Hops(const Part& part) {
  HopCounter counter;
  for (const auto& round : part.rounds) counter.Add(round);
  return counter.Hops();
}

void CheckRoles(const Roles& roles, const std::string& place) {
  const auto check = [&](const char* role, int party) {
    if (!IsParty(party))
      throw ConfigError(
          place, fmt::format("{} {} found, a party's number, 0, 1 or 2, expected", role, party));
  };
  check("helper", roles.helper);
  check("data owner", roles.data_owner);
  check("model owner", roles.model_owner);
  check("receiver", roles.receiver);
}

std::string SuiteChoice::Text() const {
  std::string text = name;
  char separator = ':';
  for (const auto& [key, value] : options) {
    text += fmt::format("{}{}={}", separator, key, value);
    separator = ',';
  }
  return text;
}

SuiteChoice ParseSuiteChoice(std::string_view text, const std::string& place) {
  SuiteChoice choice;
  const auto colon = text.find(':');
  choice.name = text.substr(0, colon);
  if (choice.name.empty())
    throw ConfigError(place, "a suite's name is expected, for example \"lut\" or \"lut:chunks=3\"");
  if (colon == std::string_view::npos) return choice;
  for (auto rest = text.substr(colon + 1);;) {
    const auto comma = rest.find(',');
    const auto item = rest.substr(0, comma);
    const auto equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == item.size())
      throw ConfigError(
          place, fmt::format("\"{}\" in \"{}\" is not of the form option=value", item, text));
    if (!choice.options.emplace(item.substr(0, equals), item.substr(equals + 1)).second)
      throw ConfigError(
          place, fmt::format("option \"{}\" stands twice in \"{}\"", item.substr(0, equals), text));
    if (comma == std::string_view::npos) return choice;
    rest = rest.substr(comma + 1);
  }
}

void Registry::AddSuite(std::unique_ptr<Suite> suite) {
  const std::string name = suite->Info().name;
  TERCET_CHECK(suites_.emplace(name, std::move(suite)).second, "suite \"{}\" is registered twice",
               name);
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
  return *found->second;
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
