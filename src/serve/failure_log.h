// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <utility>

#include "base/clock.h"

namespace tercet::serve {

/// Lines about requests that failed, a few in a while: clients decide how many requests there are,
/// and where a disk is full each fails. Thread safe.
class FailureLog {
 public:
  using Now = std::function<Clock::time_point()>;
  static constexpr std::size_t kLines = 5;
  static constexpr Clock::duration kWhile = std::chrono::seconds(10);

  explicit FailureLog(std::function<void(const std::string&)> log, Now now = &Clock::now)
      : log_(std::move(log)), now_(std::move(now)) {}

  /// Logs the line, with how many were left out before it; or leaves it out, where kLines came in
  /// this while.
  void Say(std::string line) {
    {
      const std::lock_guard lock(mutex_);
      const auto now = now_();
      if (lines_ == 0 || now - begin_ >= kWhile) {
        begin_ = now;
        lines_ = 0;
      }
      if (lines_ == kLines) {
        ++left_out_;
        return;
      }
      ++lines_;
      if (left_out_ > 0) line += fmt::format(" ({} such lines were left out before)", left_out_);
      left_out_ = 0;
    }
    log_(line);
  }

 private:
  const std::function<void(const std::string&)> log_;
  const Now now_;
  std::mutex mutex_;
  Clock::time_point begin_;
  std::size_t lines_ = 0, left_out_ = 0;
};

}  // namespace tercet::serve
