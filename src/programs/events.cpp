// SPDX-License-Identifier: Apache-2.0
#include "programs/events.h"

#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/json.h"
#include "tercet/base/error.h"

namespace tercet::programs {
namespace {

using nlohmann::json;

json ToJsonValue(const ProgressEvent& event) {
  return {{"event", "progress"}, {"done", event.done}, {"total", event.total}};
}
json ToJsonValue(const ReportEvent& event) { return {{"event", "report"}, {"report", event.json}}; }
json ToJsonValue(const Failure& event) {
  return {{"event", "failure"}, {"kind", FailureKindName(event.kind)}, {"text", event.text}};
}

}  // namespace

std::string EventToLine(const Event& event) {
  const json value = std::visit([](const auto& each) { return ToJsonValue(each); }, event);
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

Event EventFromLine(const std::string& line, const std::string& place) {
  try {
    const json value = ReadJson(line, place, JsonLimits::UpTo(line.size()));
    const auto kind = value.at("event").get<std::string>();
    if (kind == "progress")
      return ProgressEvent{value.at("done").get<std::size_t>(),
                           value.at("total").get<std::size_t>()};
    if (kind == "report") return ReportEvent{value.at("report").get<std::string>()};
    if (kind == "failure")
      return Failure{FailureKindFromName(value.at("kind").get<std::string>()),
                     value.at("text").get<std::string>()};
    throw ConfigError(place, fmt::format("unknown event \"{}\"", kind));
  } catch (const json::exception& e) {
    throw ConfigError(place, fmt::format("no event: {}", e.what()));
  }
}

void EventPipe::Send(const Event& event) {
  const std::string line = EventToLine(event);
  const std::lock_guard lock(mutex_);
  std::string_view rest = line;
  while (!rest.empty() && fd_ >= 0) {
    const ssize_t count = ::write(fd_, rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      fd_ = -1;
    } else {
      rest.remove_prefix(static_cast<std::size_t>(count));
    }
  }
}

}  // namespace tercet::programs
