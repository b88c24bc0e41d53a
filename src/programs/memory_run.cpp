// SPDX-License-Identifier: Apache-2.0
#include "programs/memory_run.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "programs/failure.h"

namespace tercet::programs {
namespace {

constexpr auto kMemoryTimeout = std::chrono::hours(24);  // threads of one process cannot vanish
constexpr auto kStopPause = std::chrono::milliseconds(50);

/// The three parties and their threads.
class Parties {
 public:
  Parties(const MemoryRun& run, const mpc::Registry& registry) : run_(run), registry_(registry) {
    if (run_.absent) {
      const auto p = static_cast<std::size_t>(*run_.absent);
      reports_[p].party = *run_.absent;
      reports_[p].presence = infer::kNotStarted;
      links_[p] = {};
      for (auto& others : links_) others[p] = nullptr;
    }
  }

  std::array<infer::PartyReport, 3> Run() {
    {
      std::array<std::jthread, 3> threads;
      for (int id = 0; id < 3; ++id) {
        if (id == run_.absent) continue;
        threads[static_cast<std::size_t>(id)] = std::jthread([this, id] { RunParty(id); });
      }
      if (run_.stop_asked) Watch();
    }
    const auto cause = std::min_element(
        failures_.begin(), failures_.end(),
        [](const auto& a, const auto& b) { return a && (!b || a->kind < b->kind); });
    if (*cause) ThrowFailure(**cause, fmt::format("party {}", cause - failures_.begin()));
    return std::move(reports_);
  }

 private:
  void RunParty(int id) {
    const auto p = static_cast<std::size_t>(id);
    try {
      const auto session = std::make_shared<infer::Session>(run_.settings(id), registry_);
      {
        const std::lock_guard lock(mutex_);
        sessions_[p] = session;
        if (stopped_) session->Stop(*stopped_);
      }
      reports_[p] = session->Run([&] { return std::move(links_[p]); });
    } catch (const std::exception& e) {
      failures_[p] = Classify(e);
      // One that fails before its session has its links would leave the others waiting for it.
      for (const auto& link : links_[p])
        if (link) link->Abort(e.what());
    }
    const std::lock_guard lock(mutex_);
    --running_;
    ended_.notify_all();
  }

  // Until all have ended.
  void Watch() {
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, kStopPause, [&] { return running_ == 0; })) {
      if (stopped_) continue;
      lock.unlock();
      const auto reason = run_.stop_asked();
      lock.lock();
      if (!reason) continue;
      stopped_ = reason;
      for (const auto& session : sessions_)
        if (session) session->Stop(*reason);
    }
  }

  const MemoryRun& run_;
  const mpc::Registry& registry_;
  std::array<net::Links, 3> links_ = net::MakeMemoryLinks(kMemoryTimeout);
  std::array<infer::PartyReport, 3> reports_;
  std::array<std::optional<Failure>, 3> failures_;
  std::mutex mutex_;  // of all below
  std::condition_variable ended_;
  int running_ = run_.absent ? 2 : 3;
  std::array<std::shared_ptr<infer::Session>, 3> sessions_;
  std::optional<std::string> stopped_;
};

}  // namespace

std::array<infer::PartyReport, 3> RunInMemory(const MemoryRun& run, const mpc::Registry& registry) {
  return Parties(run, registry).Run();
}

}  // namespace tercet::programs
