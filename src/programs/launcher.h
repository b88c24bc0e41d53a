// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "programs/owned_fd.h"
#include "programs/process.h"
#include "tercet/base/error.h"
#include "tercet/infer/party_report.h"

namespace tercet::programs {

/// A socket that listens on 127.0.0.1 on a port that the system chose. NetworkError when there is
/// none to be had.
std::pair<OwnedFd, std::uint16_t> ListenOnLoopback();

struct LaunchSettings {
  /// tercet-party.
  std::filesystem::path program;
  /// Without --id, --listen-fd and --report-fd.
  std::array<std::vector<std::string>, 3> arguments;
  /// A party that is not started.
  std::optional<int> absent;
  /// Handed to the party where there is one.
  std::array<OwnedFd, 3> listening;
  /// Descriptors that the party keeps (AnonymousFile).
  std::array<std::vector<int>, 3> inherited;
  /// Called with how far the slowest party is.
  std::function<void(std::size_t done, std::size_t total)> on_progress;
};

/// A signal of StopSignals came; the process ends soon.
class StoppedBySignal : public Error {
 public:
  using Error::Error;
};

/// Runs the party processes and waits for them; of one that is not started the report says just
/// that. When one fails, or a signal of StopSignals comes, the others are stopped; then the failure
/// that is most likely the cause is thrown, with the party's number, or StoppedBySignal, after
/// which the process ends soon, read or not. No child is left when this returns or throws. One at a
/// time; main thread.
std::array<infer::PartyReport, 3> LaunchParties(LaunchSettings settings);

/// A party elsewhere, behind a shell that leads there.
struct ShellCommand {
  std::vector<std::string> words;  ///< a program by its path, and its arguments
  std::string order;               ///< what it is told on its standard input
};

/// Starts three parties through shells and waits for them; returns the reports that their events
/// on standard output bring. Errors and signals are as above. A party's standard input stays open
/// until it is to stop; a shell that does not end then is killed.
std::array<std::string, 3> LaunchElsewhere(std::array<ShellCommand, 3> commands);

/// Where the running program is; empty where the system does not tell.
std::filesystem::path ProgramFolder();
/// The program of that name beside the running one. ConfigError when it is not there.
std::filesystem::path SiblingProgram(const std::string& name);

}  // namespace tercet::programs
