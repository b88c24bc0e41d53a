// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace tercet {

/// Of all that measures or waits.
using Clock = std::chrono::steady_clock;

/// A duration of any unit in seconds.
inline double Seconds(std::chrono::duration<double> duration) { return duration.count(); }
inline double SecondsSince(Clock::time_point start) { return Seconds(Clock::now() - start); }

/// What the calendar says, for certificates.
inline std::chrono::sys_seconds Now() {
  return std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
}

}  // namespace tercet
