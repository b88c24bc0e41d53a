// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>

#include "programs/events.h"
#include "programs/failure.h"
#include "programs/run_options.h"
#include "programs/shard_options.h"
#include "tercet/infer/session.h"

/// One party's part in a run, as `tercet-party` takes it.
namespace tercet::programs {

struct PartyArguments : RunOptions {
  PartyArguments() { ahead = 1; }
  std::optional<int> id;
  std::filesystem::path testbed, json;
  int listen_fd = -1, report_fd = -1;
  ShardOptions shard;
};

/// The run as whoever stops it sees it: what to stop, and where to say so. Thread safe.
class PartyProcess {
 public:
  /// `launcher` is null where this party speaks to a terminal.
  explicit PartyProcess(EventPipe* launcher) : launcher_(launcher) {}

  void Attach(infer::Session* session);
  /// What is left is to write the results, or to say why there are none.
  void Detach();
  /// The peers are told, and the process ends soon even where the main thread hangs in output that
  /// nobody reads.
  void Stop(const std::string& reason);

 private:
  void Tell(const Failure& failure);

  std::mutex mutex_;
  EventPipe* launcher_;
  infer::Session* session_ = nullptr;
  bool done_ = false;
  std::atomic<bool> asked_ = false;
};

/// Runs the party and tells its report to the launcher or, where there is none, prints it. Throws
/// ConfigError for what this party brings, before anybody else is asked, and as infer::Session
/// does.
int RunParty(const PartyArguments& arguments, EventPipe* launcher, PartyProcess& process);

}  // namespace tercet::programs
