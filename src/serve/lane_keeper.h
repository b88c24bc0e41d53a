// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "serve/metrics.h"
#include "tercet/net/wrappers.h"

namespace tercet::serve {

/// What the lanes of a server have in common; all of it outlives them.
struct LaneContext {
  const service::Deployment& deployment;
  std::filesystem::path store;  ///< party<i>.pem, party<i>-key.pem
  net::LinkProfile link;
  const mpc::Registry& registry;
  const service::Gate& gate;
  std::function<service::Models()> models;  ///< those that are here now
  std::function<void(const std::string&)> log;
  std::function<void(const service::BatchDone&)> on_batch;  ///< may be null
};

/// One lane of a server: as many sessions as batches may be in flight, each in a thread and over
/// connections of its own, which share the queries that wait. While one session's batch travels
/// another's computes. Each connects to the others, runs, and when it ends begins anew, with new
/// keys. Thread safe.
class LaneKeeper {
 public:
  LaneKeeper(const LaneContext& context, const service::LaneSettings& settings,
             std::size_t in_flight);
  LaneKeeper(const LaneKeeper&) = delete;
  LaneKeeper& operator=(const LaneKeeper&) = delete;
  ~LaneKeeper();

  /// Whether all its sessions are there.
  bool Up() const;
  /// Whether a session is there, and all that are have this model.
  bool Serves(const crypto::Digest& model) const;
  service::WaitingQueries& Queries() { return queries_; }
  LaneState State() const;
  /// The models here have changed.
  void Renew();
  /// Ends it after what is under way, and waits for that.
  void Drain();

 private:
  struct Stream {
    std::size_t number = 0;
    bool up = false;
    std::shared_ptr<service::LaneSession> session;
    std::set<crypto::Digest> models;
    std::thread thread;
  };
  void Keep(Stream& stream);
  void RunOnce(Stream& stream);
  void FailIfDown();
  void Log(const std::string& text);

  const LaneContext context_;
  const service::LaneSettings settings_;
  service::WaitingQueries queries_;
  std::atomic<bool> stopping_ = false;
  std::atomic<std::uint64_t> sent_ = 0, received_ = 0;  // bytes
  mutable std::mutex mutex_;                            // of all streams, but for their threads
  std::map<std::string, std::chrono::steady_clock::time_point> said_;  // lately
  std::vector<std::unique_ptr<Stream>> streams_;
};

}  // namespace tercet::serve
