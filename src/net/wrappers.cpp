// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/wrappers.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <thread>
#include <utility>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "base/clock.h"
#include "net/failure.h"
#include "tercet/base/error.h"

namespace tercet::net {
namespace {

constexpr std::string_view kRtt = "rtt_ms=";
constexpr std::string_view kRate = "mbit=";
constexpr double kMaxRttMs = 60'000;
constexpr double kMaxMbit = 1e6;
constexpr QueueLimit kSendLimit{std::size_t{256} << 20, std::size_t{1} << 16};
// A thread that waits for a time wakes up some time after it. That much is learnt and taken off the
// next wait, at most this, so that delays are right on average.
constexpr Clock::duration kMaxEarly = std::chrono::microseconds(200);
constexpr int kLearning = 8;  // waits over which the learnt time follows a change

[[noreturn]] void RefuseProfile(std::string_view text) {
  throw ConfigError(
      "link profile",
      fmt::format(
          "expected none, lan, wan or a list such as rtt_ms=10,mbit=100 with rtt_ms in 0..{} "
          "and mbit in 0..{} (0 means unlimited), got \"{}\"",
          kMaxRttMs, kMaxMbit, CleanText(text, 80)));
}

double ParseNumber(std::string_view text, double limit, std::string_view whole) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value) ||
      value < 0 || value > limit) {
    RefuseProfile(whole);
  }
  return value;
}

/// Lets timed waits of the calling thread end on time instead of up to 50 us later.
void SetPreciseTimers() {
#ifdef __linux__
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
#endif
}

/// A queue with the times at which its messages are due, and a thread that hands them over then.
class ShapedLink final : public LinkWrapper {
 public:
  ShapedLink(std::unique_ptr<Link> inner, const LinkProfile& profile)
      : LinkWrapper(std::move(inner)),
        delay_(std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double, std::milli>(profile.rtt_ms / 2))),
        us_per_byte_(profile.mbit > 0 ? 8 / profile.mbit : 0),
        thread_([this] { HandOver(); }) {}
  ShapedLink(const ShapedLink&) = delete;
  ShapedLink& operator=(const ShapedLink&) = delete;
  ~ShapedLink() override {
    ShapedLink::Close();
    thread_.join();
  }

  void Send(Message message) override {
    std::unique_lock lock(mutex_);
    drained_.wait(lock, [&] { return message.continues || HasRoom() || failure_ || stop_; });
    ThrowIfFailed();
    const auto now = Clock::now();
    free_ = std::max(now, free_) + std::chrono::duration_cast<Clock::duration>(
                                       us_per_byte_ * static_cast<double>(message.payload.size()));
    queued_bytes_ += QueueLimit::Size(message);
    queue_.push_back({free_ + delay_, std::move(message)});
    if (queue_.size() == 1) changed_.notify_one();  // else the thread waits for an earlier message
  }

  void Flush() override {
    {
      std::unique_lock lock(mutex_);
      drained_.wait(lock, [&] { return (queue_.empty() && !handing_over_) || failure_ || stop_; });
      ThrowIfFailed();
    }
    inner_->Flush();
  }

  void Abort(const std::string& reason) noexcept override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      queue_.clear();
      queued_bytes_ = 0;
      changed_.notify_all();
      drained_.notify_all();
    }
    inner_->Abort(reason);
  }

  void Close() noexcept override {
    {
      std::unique_lock lock(mutex_);
      closing_ = true;
      drained_.wait(lock, [&] { return (queue_.empty() && !handing_over_) || failure_ || stop_; });
      stop_ = true;
      changed_.notify_all();
      drained_.notify_all();
    }
    inner_->Close();
  }

 private:
  struct Due {
    Clock::time_point when;
    Message message;
  };

  bool HasRoom() const {
    return queued_bytes_ <= kSendLimit.bytes && queue_.size() <= kSendLimit.messages;
  }

  void ThrowIfFailed() const {
    if (failure_) failure_.Throw();
    if (closing_ || stop_)
      throw NetworkError(fmt::format("the link to party {} was closed here", Peer()));
  }

  // Waits until `when`, in the end awake; false if the link stops before.
  bool WaitUntil(Clock::time_point when, std::unique_lock<std::mutex>& lock) {
    const auto alarm = when - early_;
    if (Clock::now() < alarm) {
      if (changed_.wait_until(lock, alarm, [&] { return stop_; })) return false;
      early_ = std::min(kMaxEarly, early_ + (Clock::now() - alarm - early_) / kLearning);
    }
    if (Clock::now() < when) {
      lock.unlock();
      while (Clock::now() < when) std::this_thread::yield();
      lock.lock();
    }
    return !stop_;
  }

  void HandOver() {
    SetPreciseTimers();
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      if (!WaitUntil(queue_.front().when, lock)) return;
      Message message = std::move(queue_.front().message);
      queue_.pop_front();
      queued_bytes_ -= QueueLimit::Size(message);
      handing_over_ = true;
      lock.unlock();
      Failure failure;
      try {
        inner_->Send(std::move(message));
      } catch (...) {
        failure = Failure::Current();
      }
      lock.lock();
      handing_over_ = false;
      if (failure) failure_ = std::move(failure);
      if (failure_ || queue_.empty() || HasRoom()) drained_.notify_all();
      if (failure_) return;
    }
  }

  const Clock::duration delay_;
  const std::chrono::duration<double, std::micro> us_per_byte_;
  std::mutex mutex_;
  std::condition_variable changed_, drained_;
  std::deque<Due> queue_;
  std::size_t queued_bytes_ = 0;
  Clock::time_point free_{};
  Clock::duration early_{};  // of the thread alone
  bool handing_over_ = false;
  bool closing_ = false;
  bool stop_ = false;
  Failure failure_;
  std::thread thread_;
};

class RecordingLink final : public LinkWrapper {
 public:
  RecordingLink(std::unique_ptr<Link> inner, std::shared_ptr<Recorder> recorder)
      : LinkWrapper(std::move(inner)), recorder_(std::move(recorder)) {
    TERCET_CHECK(recorder_ != nullptr, "a recording link needs a recorder");
  }

  void Send(Message message) override {
    // Recorded first, so that a record of an answer never precedes the one of its question.
    recorder_->Add({true, Peer(), message});
    inner_->Send(std::move(message));
  }

  Message Receive(Phase phase) override {
    Message message = inner_->Receive(phase);
    recorder_->Add({false, Peer(), message});
    return message;
  }

 private:
  std::shared_ptr<Recorder> recorder_;
};

class FaultyLink final : public LinkWrapper {
 public:
  FaultyLink(std::unique_ptr<Link> inner, std::function<bool(Message&)> change)
      : LinkWrapper(std::move(inner)), change_(std::move(change)) {}

  void Send(Message message) override {
    if (change_(message)) inner_->Send(std::move(message));
  }

 private:
  std::function<bool(Message&)> change_;
};

}  // namespace

LinkProfile ParseLinkProfile(std::string_view text) {
  if (text == "none") return {"none", 0, 0};
  if (text == "lan") return {"lan", 0.2, 5000};
  if (text == "wan") return {"wan", 80, 320};
  LinkProfile profile{std::string(text.substr(0, 80)), 0, 0};
  bool has_rtt = false;
  bool has_rate = false;
  for (std::string_view rest = text;;) {
    const std::size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    if (part.starts_with(kRtt) && !std::exchange(has_rtt, true)) {
      profile.rtt_ms = ParseNumber(part.substr(kRtt.size()), kMaxRttMs, text);
    } else if (part.starts_with(kRate) && !std::exchange(has_rate, true)) {
      profile.mbit = ParseNumber(part.substr(kRate.size()), kMaxMbit, text);
    } else {
      RefuseProfile(text);
    }
    if (comma == std::string_view::npos) return profile;
    rest = rest.substr(comma + 1);
  }
}

std::unique_ptr<Link> MakeSharedLink(std::shared_ptr<Link> inner) {
  return std::make_unique<LinkWrapper>(std::move(inner));
}

LinkWrapper::LinkWrapper(std::shared_ptr<Link> inner) : inner_(std::move(inner)) {
  TERCET_CHECK(inner_ != nullptr, "a wrapper needs a link");
}

std::unique_ptr<Link> MakeShapedLink(std::unique_ptr<Link> inner, const LinkProfile& profile) {
  TERCET_CHECK(profile.rtt_ms >= 0 && profile.mbit >= 0, "a link profile has no negative parts");
  if (!profile.Shaped()) return inner;
  return std::make_unique<ShapedLink>(std::move(inner), profile);
}

void Recorder::Add(Recorded r) {
  const std::lock_guard lock(mutex_);
  messages_.push_back(std::move(r));
}

std::vector<Recorded> Recorder::Take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(messages_, {});
}

std::unique_ptr<Link> MakeRecordingLink(std::unique_ptr<Link> inner,
                                        std::shared_ptr<Recorder> recorder) {
  return std::make_unique<RecordingLink>(std::move(inner), std::move(recorder));
}

std::unique_ptr<Link> MakeFaultyLink(std::unique_ptr<Link> inner,
                                     std::function<bool(Message&)> change) {
  return std::make_unique<FaultyLink>(std::move(inner), std::move(change));
}

}  // namespace tercet::net
