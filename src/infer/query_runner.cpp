// SPDX-License-Identifier: Apache-2.0
#include "infer/query_runner.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/infer/material.h"

namespace tercet::infer {
namespace {

using net::Phase;
using Query = SecureNetwork::Query;

// What parties tell each other about how far they are: setup messages without payload, which are
// not counted, since nothing depends on what they say.
constexpr std::uint32_t kFinishedTag = 0xfffe'1000;   // another query has been run
constexpr std::uint32_t kDeliveredTag = 0xfffe'1001;  // the material of all queries is here
constexpr std::uint32_t kEndTag = 0xfffe'1002;        // all queries have been run

MaterialFile* FileOf(const Schedule& schedule) {
  const auto* use = std::get_if<UseMaterial>(&schedule);
  return use != nullptr ? use->file : nullptr;
}

}  // namespace

// Between the thread that prepares queries and the one that runs them.
class QueryRunner::Handover {
 public:
  void Put(Query query) {
    const std::lock_guard lock(mutex_);
    ready_.push_back(std::move(query));
    changed_.notify_all();
  }
  // The next query, or nothing when a thread has failed.
  std::optional<Query> Take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || stopped_; });
    if (stopped_) return std::nullopt;
    Query query = std::move(ready_.front());
    ready_.pop_front();
    return query;
  }
  void Finished() {
    const std::lock_guard lock(mutex_);
    ++finished_;
    changed_.notify_all();
  }
  // Until so many queries have been run; false when a thread has failed.
  bool AwaitFinished(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_ >= count || stopped_; });
    return !stopped_;
  }
  void Stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Query> ready_;
  std::size_t finished_ = 0;
  bool stopped_ = false;
};

QueryRunner::QueryRunner(Track& track, const SessionSettings& settings, Queries& queries,
                         std::size_t number, std::size_t first)
    : track_(track),
      settings_(settings),
      queries_(queries),
      number_(number),
      first_(first),
      file_(FileOf(settings.schedule)),
      helper_acts_(track.plan.HelperActsOnline()),
      ahead_(QueriesAhead(settings.schedule, queries.Count(), number, queries.Runners())) {
  for (const int peer : {track.party->Next(), track.party->Prev()})
    if (helper_acts_ || peer != track.plan.roles.helper) online_.push_back(peer);
}

std::size_t QueryRunner::Mine() const {
  return (queries_.Count() - number_ + queries_.Runners() - 1) / queries_.Runners();
}

void QueryRunner::Run(FirstError& error) {
  Handover handover;
  const auto guarded = [&](const std::function<void()>& work) {
    error.Guard([&] {
      try {
        work();
      } catch (...) {
        handover.Stop();
        throw;
      }
    });
  };
  std::thread preparer([&] { guarded([&] { PrepareAll(handover); }); });
  guarded([&] {
    for (std::size_t n = 0; n < Mine(); ++n) {
      auto query = handover.Take();
      if (!query) return;
      RunOne(std::move(*query), NumberOf(n));
      handover.Finished();
      TellProgress(n + 1);
    }
  });
  preparer.join();
  error.ThrowIfAny();
}

void QueryRunner::RunOne(Query query, std::size_t number) {
  const std::size_t count = queries_.Images(number);
  const auto input = track_.Input(settings_, queries_.FirstImage(number), count, query.batch);
  std::vector<std::int64_t> logits;
  {
    const BusyTime::Span span(queries_.online);
    logits = track_.Run(std::move(query), settings_, input, count);
  }
  queries_.Finish(number, logits);
}

// Of the queries that are prepared, one runs and at most `ahead_` wait.
void QueryRunner::PrepareAll(Handover& handover) {
  for (std::size_t n = 0; n < Mine(); ++n) {
    if (n > ahead_) {
      if (!handover.AwaitFinished(n - ahead_)) return;
      AwaitProgress(n - ahead_);
    }
    Query query;
    if (file_ != nullptr) {
      const std::size_t number = first_ + NumberOf(n);
      Bytes bytes;
      queries_.InOrder(NumberOf(n), [&] {
        const BusyTime::Span span(queries_.offline);
        bytes = file_->Take(number);
      });
      const BusyTime::Span span(queries_.offline);
      mpc::Archive archive(bytes, fmt::format("{} query {}", file_->File().string(), number));
      track_.secure.Visit(archive, query);
    } else {
      query = track_.Prepare(queries_, queries_.Images(NumberOf(n)));
    }
    handover.Put(std::move(query));
  }
  if (file_ == nullptr) Deliver();
}

// --- Notices.

void QueryRunner::Tell(int peer, std::uint32_t notice) {
  track_.party->LinkTo(peer).Send({Phase::kSetup, notice, 0, {}});
}

void QueryRunner::Await(int peer, std::uint32_t notice, std::size_t times) {
  Heard& heard = heard_[static_cast<std::size_t>(peer)];
  const auto count = [&heard](std::uint32_t tag) -> std::size_t* {
    switch (tag) {
      case kFinishedTag:
        return &heard.finished;
      case kDeliveredTag:
        return &heard.delivered;
      case kEndTag:
        return &heard.ended;
      default:
        return nullptr;
    }
  };
  while (*count(notice) < times) {
    const auto message = track_.party->LinkTo(peer).Receive(Phase::kSetup);
    std::size_t* counted = count(message.tag);
    if (counted == nullptr || !message.payload.empty())
      throw ProtocolError(fmt::format(
          "party {} sent tag {:#x} with {} bytes where a notice of its progress was expected", peer,
          message.tag, message.payload.size()));
    if (++*counted > Mine())
      throw ProtocolError(
          fmt::format("party {} announced more than {} queries as done", peer, Mine()));
  }
}

// To those who wait for it: who prepares, as long as there is something to prepare, and afterwards
// a helper that has delivered everything, which hears that the queries go on.
void QueryRunner::TellProgress(std::size_t finished) {
  if (file_ != nullptr) return;
  if (IsHelper() && !helper_acts_) return;
  if (finished + ahead_ < Mine()) {
    for (const int peer : {track_.party->Next(), track_.party->Prev()}) Tell(peer, kFinishedTag);
  } else {
    TellIdleHelper(kFinishedTag);
  }
}

void QueryRunner::TellIdleHelper(std::uint32_t notice) {
  if (helper_acts_ || file_ != nullptr || std::holds_alternative<HelperLeaves>(settings_.schedule))
    return;
  try {
    Tell(track_.plan.roles.helper, notice);
  } catch (const NetworkError&) {
    // It has died since it delivered, which does not matter any more.
  }
}

void QueryRunner::AwaitProgress(std::size_t finished) {
  if (file_ != nullptr) return;  // each reads its own file
  for (const int peer : online_) Await(peer, kFinishedTag, finished);
}

// From here on a helper without a part in the online phase is not needed.
void QueryRunner::Deliver() {
  if (helper_acts_) return;
  if (IsHelper()) {
    for (const int peer : online_) Await(peer, kDeliveredTag, 1);
  } else {
    Tell(track_.plan.roles.helper, kDeliveredTag);
  }
  queries_.Deliver();
}

void QueryRunner::PartCompany() {
  const bool helper_is_out = !helper_acts_;
  if (helper_is_out && IsHelper()) {
    if (std::holds_alternative<HelperLeaves>(settings_.schedule)) return;
  } else {
    for (const int peer : online_) Tell(peer, kEndTag);
    TellIdleHelper(kEndTag);
  }
  for (const int peer : online_) Await(peer, kEndTag, 1);
}

}  // namespace tercet::infer
