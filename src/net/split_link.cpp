// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/split_link.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "tercet/base/error.h"

namespace tercet::net {
namespace {

constexpr unsigned kPartShift = 24;  // of the depth
constexpr std::uint32_t kDepthMask = (std::uint32_t{1} << kPartShift) - 1;
static_assert(kMaxLinkParts <= std::size_t{1} << (32 - kPartShift));

/// The link that parts have in common. One of the threads that wait for a message of a phase reads
/// the link, and sorts what comes until its own message is there; then another one takes over.
class SharedLink {
 public:
  SharedLink(std::unique_ptr<Link> link, std::size_t count, const PartLimit& limit)
      : link_(std::move(link)), limit_(limit), open_(count) {
    for (Lane& lane : lanes_) lane.arrived = std::vector<Arrived>(count);
  }

  Link& Whole() { return *link_; }

  Message Receive(std::size_t part, Phase phase) {
    Lane& lane = lanes_[static_cast<std::size_t>(phase)];
    std::unique_lock lock(lane.mutex);
    Arrived& mine = lane.arrived[part];
    while (mine.messages.empty()) {
      if (!lane.is_read) {
        ReadOne(lock, lane, phase);
        continue;
      }
      mine.is_awaited = true;
      mine.changed.wait(lock, [&] { return !mine.messages.empty() || !lane.is_read; });
      mine.is_awaited = false;
    }
    Message message = std::move(mine.messages.front());
    mine.messages.pop_front();
    mine.bytes -= QueueLimit::Size(message);
    lane.room.notify_all();  // whoever reads may wait for it
    if (!lane.is_read) {
      // One of those that wait takes over; all the others may sleep on.
      const auto next = std::find_if(
          lane.arrived.begin(), lane.arrived.end(),
          [](const Arrived& arrived) { return arrived.is_awaited && arrived.messages.empty(); });
      if (next != lane.arrived.end()) next->changed.notify_all();
    }
    return message;
  }

  void ClosePart() noexcept {
    if (--open_ == 0) link_->Close();
  }

 private:
  struct Arrived {
    std::deque<Message> messages;
    std::size_t bytes = 0;    ///< of them, as QueueLimit counts
    bool is_awaited = false;  ///< by a thread that sleeps
    std::condition_variable changed;
  };
  struct Lane {
    std::mutex mutex;
    bool is_read = false;  ///< by one of the threads that wait
    std::condition_variable room;
    std::vector<Arrived> arrived;
  };

  // Nobody reads the lane any more, and those that wait find out for themselves why.
  static void Leave(Lane& lane) {
    lane.is_read = false;
    for (Arrived& arrived : lane.arrived) arrived.changed.notify_all();
  }

  // Takes the next message from the link, and puts it where it belongs.
  void ReadOne(std::unique_lock<std::mutex>& lock, Lane& lane, Phase phase) {
    lane.is_read = true;
    lock.unlock();
    Message message;
    try {
      message = ReceiveAny(phase);
    } catch (...) {
      lock.lock();
      Leave(lane);
      throw;
    }
    const std::size_t to = message.depth >> kPartShift;
    message.depth &= kDepthMask;
    lock.lock();
    AwaitRoom(lock, lane, to, phase);
    lane.is_read = false;
    Arrived& arrived = lane.arrived[to];
    arrived.bytes += QueueLimit::Size(message);
    arrived.messages.push_back(std::move(message));
    arrived.changed.notify_all();
  }

  // What is here for `part` has to be received before more is taken from the link.
  void AwaitRoom(std::unique_lock<std::mutex>& lock, Lane& lane, std::size_t part, Phase phase) {
    const Arrived& arrived = lane.arrived[part];
    const bool room = lane.room.wait_for(lock, limit_.patience, [&] {
      return arrived.bytes <= limit_.queue.bytes &&
             arrived.messages.size() <= limit_.queue.messages;
    });
    if (room) return;
    Leave(lane);
    throw NetworkError(fmt::format(
        "{} MiB in {} {} messages from party {} wait unread for part {} of the link",
        arrived.bytes >> 20, arrived.messages.size(), PhaseName(phase), link_->Peer(), part));
  }

  std::size_t Count() const { return lanes_[0].arrived.size(); }

  Message ReceiveAny(Phase phase) {
    Message message = link_->Receive(phase);
    if (const std::size_t to = message.depth >> kPartShift; to >= Count())
      throw ProtocolError(fmt::format("party {} sent a message ({}) for part {} of a link with {}",
                                      link_->Peer(), PhaseName(phase), to, Count()));
    return message;
  }

  std::unique_ptr<Link> link_;
  const PartLimit limit_;
  std::atomic<std::size_t> open_;
  std::array<Lane, kPhases> lanes_;
};

class LinkPart final : public Link {
 public:
  LinkPart(std::shared_ptr<SharedLink> shared, std::size_t part)
      : shared_(std::move(shared)), part_(part) {}

  void Send(Message message) override {
    ThrowIfClosed();
    TERCET_CHECK(message.depth <= kDepthMask, "a depth of {} leaves no room for a link's part",
                 message.depth);
    message.depth |= static_cast<std::uint32_t>(part_) << kPartShift;
    shared_->Whole().Send(std::move(message));
  }
  Message Receive(Phase phase) override {
    ThrowIfClosed();
    return shared_->Receive(part_, phase);
  }
  void Flush() override { shared_->Whole().Flush(); }
  void Abort(const std::string& reason) noexcept override { shared_->Whole().Abort(reason); }
  void Close() noexcept override {
    if (!closed_.exchange(true)) shared_->ClosePart();
  }
  int Peer() const override { return shared_->Whole().Peer(); }

 private:
  void ThrowIfClosed() const {
    if (closed_) throw NetworkError(fmt::format("the link to party {} was closed here", Peer()));
  }

  std::shared_ptr<SharedLink> shared_;
  const std::size_t part_;
  std::atomic<bool> closed_ = false;
};

}  // namespace

std::vector<std::unique_ptr<Link>> SplitLink(std::unique_ptr<Link> link, std::size_t count,
                                             const PartLimit& limit) {
  TERCET_CHECK(link != nullptr, "there is no link to split");
  TERCET_CHECK(count >= 1 && count <= kMaxLinkParts, "a link has 1 to {} parts, not {}",
               kMaxLinkParts, count);
  const auto shared = std::make_shared<SharedLink>(std::move(link), count, limit);
  std::vector<std::unique_ptr<Link>> parts;
  for (std::size_t part = 0; part < count; ++part)
    parts.push_back(std::make_unique<LinkPart>(shared, part));
  return parts;
}

}  // namespace tercet::net
