// SPDX-License-Identifier: Apache-2.0
#include "infer/queries.h"

#include <algorithm>

#include "base/clock.h"
#include "tercet/base/error.h"

namespace tercet::infer {

void BusyTime::Enter() {
  const std::lock_guard lock(mutex_);
  if (busy_++ == 0) since_ = Clock::now();
}

void BusyTime::Leave() {
  const std::lock_guard lock(mutex_);
  if (--busy_ == 0) seconds_ += SecondsSince(since_);
}

double BusyTime::Seconds() const {
  const std::lock_guard lock(mutex_);
  return seconds_;
}

Queries::Queries(const SessionSettings& settings, const std::vector<Plan>& plans,
                 std::size_t images, std::size_t runners)
    : settings_(settings),
      images_(images),
      runners_(runners),
      classes_(plans.front().network.Classes()) {
  for (const auto& plan : plans) batch_ += plan.batch;
}

std::size_t Queries::Images(std::size_t query) const {
  return std::min(batch_, images_ - FirstImage(query));
}

void Queries::InOrder(std::size_t query, const std::function<void()>& work) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return turn_ == query || stopped_; });
  if (stopped_) throw NetworkError("another query has failed");
  lock.unlock();
  work();
  lock.lock();
  ++turn_;
  changed_.notify_all();
}

void Queries::Finish(std::size_t query, const std::vector<std::int64_t>& logits) {
  const std::lock_guard lock(mutex_);
  if (!logits.empty()) {
    logits_.resize(images_ * classes_);
    std::copy(logits.begin(), logits.end(),
              logits_.begin() + static_cast<std::ptrdiff_t>(FirstImage(query) * classes_));
  }
  done_ += Images(query);
  if (settings_.on_progress) settings_.on_progress(done_, images_);
}

void Queries::Deliver() {
  const std::lock_guard lock(mutex_);
  if (++delivered_ == runners_ && settings_.on_delivered) settings_.on_delivered(Count());
}

void Queries::Stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

Outcome Queries::TakeOutcome() {
  Outcome outcome;
  outcome.offline_s = offline.Seconds();
  outcome.online_s = online.Seconds();
  const std::lock_guard lock(mutex_);
  outcome.logits = std::move(logits_);
  return outcome;
}

}  // namespace tercet::infer
