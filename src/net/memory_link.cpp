// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/memory_link.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "net/failure.h"
#include "net/frame.h"
#include "tercet/base/error.h"

namespace tercet::net {
namespace {

constexpr QueueLimit kLimit{std::size_t{512} << 20, std::size_t{1} << 16};  // of each lane

/// What both ends share.
struct Wire {
  enum class End { kOpen, kClosed, kAborted };
  struct Lane {
    std::deque<Message> messages;
    std::size_t bytes = 0;  ///< of them, as QueueLimit counts
    std::condition_variable arrived, taken;
    bool HasRoom() const { return bytes <= kLimit.bytes && messages.size() <= kLimit.messages; }
  };

  std::mutex mutex;
  std::array<std::array<Lane, kPhases>, 2> lanes;  ///< by receiving side
  std::array<End, 2> ends{End::kOpen, End::kOpen};
  std::array<std::string, 2> reasons;

  void WakeAll() {
    for (auto& side : lanes) {
      for (auto& lane : side) {
        lane.arrived.notify_all();
        lane.taken.notify_all();
      }
    }
  }
};

class MemoryLink final : public Link {
 public:
  MemoryLink(std::shared_ptr<Wire> wire, std::size_t side, int peer,
             std::chrono::milliseconds timeout)
      : wire_(std::move(wire)), side_(side), peer_(peer), timeout_(timeout) {}
  MemoryLink(const MemoryLink&) = delete;
  MemoryLink& operator=(const MemoryLink&) = delete;
  ~MemoryLink() override { End(Wire::End::kClosed, {}); }

  void Send(Message message) override {
    TERCET_CHECK(message.payload.size() <= kMaxMessageBytes,
                 "a message carries at most {} bytes, got {}", kMaxMessageBytes,
                 message.payload.size());
    auto& lane = wire_->lanes[1 - side_][static_cast<std::size_t>(message.phase)];
    std::unique_lock lock(wire_->mutex);
    const bool room = message.continues || lane.taken.wait_for(lock, timeout_, [&] {
      return lane.HasRoom() || Ended();
    });
    ThrowIfEnded();
    if (!room)
      throw NetworkError(fmt::format("party {} took no {} message for {:.1f} s", peer_,
                                     PhaseName(message.phase), Seconds(timeout_)));
    lane.bytes += QueueLimit::Size(message);
    lane.messages.push_back(std::move(message));
    lane.arrived.notify_one();
  }

  Message Receive(Phase phase) override {
    auto& lane = wire_->lanes[side_][static_cast<std::size_t>(phase)];
    std::unique_lock lock(wire_->mutex);
    const bool woken =
        lane.arrived.wait_for(lock, timeout_, [&] { return !lane.messages.empty() || Ended(); });
    // What an orderly close left behind may still be read.
    const bool readable =
        wire_->ends[side_] == Wire::End::kOpen && wire_->ends[1 - side_] != Wire::End::kAborted;
    if (!readable || (woken && lane.messages.empty())) ThrowIfEnded();
    if (!woken) {
      throw NetworkError(fmt::format("party {} sent no {} message for {:.1f} s", peer_,
                                     PhaseName(phase), Seconds(timeout_)));
    }
    Message message = std::move(lane.messages.front());
    lane.messages.pop_front();
    lane.bytes -= QueueLimit::Size(message);
    if (lane.HasRoom()) lane.taken.notify_all();
    return message;
  }

  void Flush() override {
    const std::lock_guard lock(wire_->mutex);
    ThrowIfEnded();
  }

  void Abort(const std::string& reason) noexcept override {
    try {
      End(Wire::End::kAborted, CleanText(reason, kMaxReasonBytes));
    } catch (...) {
      End(Wire::End::kAborted, {});
    }
  }

  void Close() noexcept override { End(Wire::End::kClosed, {}); }
  int Peer() const override { return peer_; }

 private:
  void End(Wire::End how, std::string reason) noexcept {
    const std::lock_guard lock(wire_->mutex);
    if (wire_->ends[side_] != Wire::End::kOpen) return;
    wire_->ends[side_] = how;
    wire_->reasons[side_] = std::move(reason);
    wire_->WakeAll();
  }

  bool Ended() const {
    return wire_->ends[0] != Wire::End::kOpen || wire_->ends[1] != Wire::End::kOpen;
  }

  void ThrowIfEnded() const {
    if (wire_->ends[side_] != Wire::End::kOpen) {
      throw NetworkError(fmt::format("the link to party {} was closed here", peer_));
    }
    switch (wire_->ends[1 - side_]) {
      case Wire::End::kOpen:
        return;
      case Wire::End::kClosed:
        throw NetworkError(fmt::format("party {} closed the link", peer_));
      case Wire::End::kAborted:
        throw AbortError(fmt::format("party {} stopped: {}", peer_, wire_->reasons[1 - side_]));
    }
  }

  std::shared_ptr<Wire> wire_;
  std::size_t side_;
  int peer_;
  std::chrono::milliseconds timeout_;
};

}  // namespace

std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> MakeMemoryPair(
    int a, int b, std::chrono::milliseconds timeout) {
  auto wire = std::make_shared<Wire>();
  return {std::make_unique<MemoryLink>(wire, 0, b, timeout),
          std::make_unique<MemoryLink>(wire, 1, a, timeout)};
}

std::array<Links, 3> MakeMemoryLinks(std::chrono::milliseconds timeout) {
  std::array<Links, 3> links;
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t b = a + 1; b < 3; ++b) {
      std::tie(links[a][b], links[b][a]) =
          MakeMemoryPair(static_cast<int>(a), static_cast<int>(b), timeout);
    }
  }
  return links;
}

}  // namespace tercet::net
