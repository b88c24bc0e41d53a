// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <csignal>
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
#include "tercet/report/run_report.h"

namespace tercet::programs {

/// A socket that listens on 127.0.0.1 on a port that the system chose. NetworkError when there is
/// none to be had.
std::pair<OwnedFd, std::uint16_t> ListenOnLoopback();

/// While it lives, the signals of StopSignals do not end the process but are told through a file
/// descriptor, so that what was begun can be cleaned up. One at a time; main thread.
class SignalWatch {
 public:
  SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  ~SignalWatch();
  /// Readable once a signal came.
  int Fd() const { return read_.Get(); }
  /// The signal's number, or 0.
  int Caught() const;
  /// Throws Error "stopped by a signal" when one came; the process then ends soon, read or not.
  void ThrowIfCaught() const;

 private:
  OwnedFd read_, write_;
  std::array<struct sigaction, kStopSignals.size()> before_{};
};

struct LaunchSettings {
  std::filesystem::path program;                      ///< tercet-party
  std::array<std::vector<std::string>, 3> arguments;  ///< without --id, --listen-fd and --report-fd
  std::optional<int> absent;                          ///< a party that is not started
  std::array<OwnedFd, 3> listening;                   ///< handed to the party where there is one
  std::array<std::vector<int>, 3> inherited;  ///< descriptors that the party keeps (AnonymousFile)
  std::function<void(std::size_t done, std::size_t total)>
      on_progress;  ///< as far as the slowest party is
};

/// Runs the party processes and waits for them; of one that is not started the report says just
/// that. When one fails the others are stopped, and the
/// failure that is most likely the cause is thrown, with the party's number. No child is left when
/// this returns or throws.
std::array<infer::PartyReport, 3> LaunchParties(LaunchSettings settings,
                                                const SignalWatch& signals);

/// The program of that name beside the running one. ConfigError when it is not there.
std::filesystem::path SiblingProgram(const std::string& name);

}  // namespace tercet::programs
