// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <utility>

#include "base/clock.h"
#include "programs/output.h"
#include "tercet/report/table.h"

namespace tercet::programs {

/// How far something is, on stderr: one line that is rewritten on a terminal, elsewhere a line
/// every five seconds. Silent in the first second. Not thread-safe.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what = "images") : what_(std::move(what)) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void Show(std::size_t done, std::size_t total) {
    const auto now = Clock::now();
    const double passed = Seconds(now - start_);
    const auto wait = terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(5000);
    if (passed < 1 || (shown_ && done < total && now - last_ < wait)) return;
    const double speed = static_cast<double>(done) / passed;
    const std::string left =
        done > 0 ? report::FormatSeconds(static_cast<double>(total - done) / speed) + " left" : "";
    Put(fmt::format("{} of {} {}, {:.1f} images/s{}{}", done, total, what_, speed,
                    left.empty() ? "" : ", ", left));
  }
  /// Any text, at once on a terminal and else as seldom as the others.
  void Show(const std::string& text) {
    if (terminal_ || !shown_ || Clock::now() - last_ >= std::chrono::milliseconds(5000)) Put(text);
  }
  /// Ends the line, before something else is printed.
  void End() {
    if (shown_ && terminal_) PrintProgress("\r\033[K");
  }
  ~ProgressLine() {
    if (shown_ && terminal_) PrintProgress("\n");
  }

 private:
  void Put(const std::string& text) {
    PrintProgress(fmt::format("{}{}{}", terminal_ ? "\r\033[K" : "", text, terminal_ ? "" : "\n"));
    last_ = Clock::now();
    shown_ = true;
  }

  std::string what_;
  const bool terminal_ = ::isatty(STDERR_FILENO) != 0;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_;
  bool shown_ = false;
};

}  // namespace tercet::programs
