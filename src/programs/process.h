// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <csignal>
#include <string>

/// The process as whoever started it left it, and as the programs need it.
namespace tercet::programs {

/// First thing in every program (GuardedMain does it). Opens descriptors 0 to 2 on /dev/null where
/// they are closed, so that no file or socket gets their number and what is printed. A reader that
/// goes away, or a file that reaches the limit of its size, becomes an error of that write instead
/// of a death; children are waited for though the parent ignored or blocked the signal of its own.
/// Core dumps are forbidden (core_dumps.h). Throws Error without /dev/null.
void PrepareProcess();

inline constexpr std::array<int, 3> kStopSignals{SIGINT, SIGTERM, SIGHUP};

/// The signals that ask a program to stop, without those that whoever started it had it ignore, as
/// nohup does with SIGHUP.
sigset_t StopSignals();

/// "stopped by a signal (Interrupt)".
std::string SignalText(int number);

/// Ends the process with kExitFailed and the error `reason` on stderr after `grace`, unless it has
/// ended by then: for a process that was asked to stop and may hang in output that nobody reads.
void EndSoon(std::chrono::milliseconds grace, const std::string& reason);

}  // namespace tercet::programs
