// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <mutex>
#include <string>
#include <variant>

#include "programs/failure.h"

/// What a party process tells its launcher through a pipe, a line of JSON an event.
namespace tercet::programs {

struct ProgressEvent {
  std::size_t done = 0, total = 0;  ///< images
};
struct ReportEvent {
  std::string json;  ///< ToJson(PartyReport)
};
using Event = std::variant<ProgressEvent, ReportEvent, Failure>;

/// One line, with its newline.
std::string EventToLine(const Event& event);
/// Throws ConfigError (place: `place`) when the line is no event.
Event EventFromLine(const std::string& line, const std::string& place);

/// The party's end. Events are dropped once the launcher is gone. Thread safe.
class EventPipe {
 public:
  explicit EventPipe(int fd) : fd_(fd) {}
  void Send(const Event& event);

 private:
  std::mutex mutex_;
  int fd_;
};

}  // namespace tercet::programs
