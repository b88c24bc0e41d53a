// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "serve/metrics.h"

namespace tercet::serve {

/// What the lanes of a server have in common; all of it outlives them.
struct LaneContext {
  const service::Deployment& deployment;
  std::filesystem::path store;  ///< party<i>.pem, party<i>-key.pem
  const mpc::Registry& registry;
  const service::Gate& gate;
  std::function<service::Models()> models;  ///< those that are here now
  std::function<void(const std::string&)> log;
  std::function<void(const service::BatchDone&)> on_batch;  ///< may be null
};

/// One lane of a server, in a thread of its own: connects to the others, runs a session, and when
/// that ends begins anew, with new keys. Thread safe.
class LaneKeeper {
 public:
  LaneKeeper(const LaneContext& context, const service::LaneSettings& settings);
  LaneKeeper(const LaneKeeper&) = delete;
  LaneKeeper& operator=(const LaneKeeper&) = delete;
  ~LaneKeeper();

  /// Whether a session is there.
  bool Up() const { return up_; }
  /// Whether it has this model.
  bool Serves(const crypto::Digest& model) const;
  service::WaitingQueries& Queries() { return queries_; }
  LaneState State() const;
  /// The models here have changed.
  void Renew();
  /// Ends it after what is under way, and waits for that.
  void Drain();

 private:
  void Keep();
  void RunOnce();

  const LaneContext context_;
  const service::LaneSettings settings_;
  service::WaitingQueries queries_;
  mutable std::mutex mutex_;
  std::shared_ptr<service::LaneSession> session_;
  std::set<crypto::Digest> models_;
  std::atomic<bool> up_ = false, stopping_ = false;
  std::atomic<std::uint64_t> sent_ = 0, received_ = 0;  // bytes
  std::thread thread_;
};

}  // namespace tercet::serve
