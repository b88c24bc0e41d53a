// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "tercet/infer/plan.h"
#include "tercet/infer/session.h"

namespace tercet::infer {

/// The time in which at least one thread is at something. Thread safe.
class BusyTime {
 public:
  class Span {
   public:
    explicit Span(BusyTime& time) : time_(time) { time_.Enter(); }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;
    ~Span() { time_.Leave(); }

   private:
    BusyTime& time_;
  };
  double Seconds() const;

 private:
  void Enter();
  void Leave();

  mutable std::mutex mutex_;
  std::size_t busy_ = 0;
  std::chrono::steady_clock::time_point since_{};
  double seconds_ = 0;
};

/// What a session has computed and measured.
struct Outcome {
  double offline_s = 0;  ///< in which queries got their material: it was made or read
  double online_s = 0;   ///< in which queries ran that had their material
  double wall_s = 0;     ///< from the first to the last; less than both together where they overlap
  std::uint32_t online_hops = 0;
  std::vector<std::int64_t> logits;  ///< at the receiver
};

/// All queries of a session, and what has come of them. Runner r of n takes the queries r, r + n,
/// r + 2 n, ..., so that all parties use the same keys for a query. Thread safe.
class Queries {
 public:
  /// `plans` make up a query (PlansOf). `settings` outlives this; `runners` is at least 1.
  Queries(const SessionSettings& settings, const std::vector<Plan>& plans, std::size_t images,
          std::size_t runners);

  std::size_t Count() const { return (images_ + batch_ - 1) / batch_; }
  std::size_t Runners() const { return runners_; }
  /// Images [FirstImage(query), FirstImage(query) + Images(query)) are a query's.
  std::size_t FirstImage(std::size_t query) const { return query * batch_; }
  std::size_t Images(std::size_t query) const;

  /// Does `work` once that of all queries before this one has been done. NetworkError when Stop was
  /// called meanwhile.
  void InOrder(std::size_t query, const std::function<void()>& work);
  /// Another query is done: tells settings.on_progress. `logits`: at the receiver its images'.
  void Finish(std::size_t query, const std::vector<std::int64_t>& logits);
  /// A runner has the material of all its queries: tells settings.on_delivered when all have.
  void Deliver();
  /// Nobody waits any more.
  void Stop();

  /// All but the wall-clock time and hops.
  Outcome TakeOutcome();

  BusyTime offline, online;
  std::mutex dealing;  ///< see Track::Prepare

 private:
  const SessionSettings& settings_;
  const std::size_t images_, runners_, classes_;
  std::size_t batch_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t turn_ = 0;  // of the query that is next in order
  bool stopped_ = false;
  std::size_t done_ = 0;       // images
  std::size_t delivered_ = 0;  // runners
  std::vector<std::int64_t> logits_;
};

}  // namespace tercet::infer
