// SPDX-License-Identifier: Apache-2.0
#include "programs/build_identity.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/json.h"
#include "programs/commit.h"
#include "tercet/base/error.h"

namespace tercet::programs {
namespace {

// What another machine says of itself stands in a table, in one line.
constexpr std::size_t kMaxText = 200;

}  // namespace

std::string ProcessorName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

std::string MachineText() {
  return fmt::format("{}, {} threads", ProcessorName(), std::thread::hardware_concurrency());
}

BuildIdentity OwnIdentity() { return {TERCET_VERSION, kCommit, TERCET_BUILD, MachineText()}; }

std::string ToJson(const BuildIdentity& identity) {
  return nlohmann::json{{"version", identity.version},
                        {"commit", identity.commit},
                        {"build", identity.build},
                        {"machine", identity.machine}}
      .dump();
}

BuildIdentity IdentityFromJson(const std::string& text, const std::string& place) {
  const auto document = ReadJson(text, place, {.values = 16, .string_length = kMaxText});
  BuildIdentity identity;
  try {
    for (auto [key, value] :
         {std::pair{"version", &identity.version}, std::pair{"commit", &identity.commit},
          std::pair{"build", &identity.build}, std::pair{"machine", &identity.machine}})
      *value = Printable(document.at(key).get<std::string>());
  } catch (const nlohmann::json::exception& e) {
    throw ConfigError(place, fmt::format("does not say what it is: {}", e.what()));
  }
  return identity;
}

}  // namespace tercet::programs
