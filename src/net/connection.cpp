// SPDX-License-Identifier: Apache-2.0
#include "net/connection.h"

#include <algorithm>
#include <asio/error.hpp>
#include <asio/post.hpp>
#include <thread>
#include <utility>

#include "base/endian.h"
#include "tercet/base/error.h"
#include "tercet/crypto/prf.h"

namespace tercet::net {
namespace {

constexpr QueueLimit kSendLimit{std::size_t{256} << 20, std::size_t{1} << 16};
constexpr QueueLimit kUnreadLimit{std::size_t{512} << 20,
                                  std::size_t{1} << 16};  // messages: a lane
constexpr std::size_t kRecord = std::size_t{16} << 10;    // the most that one TLS record carries
constexpr std::size_t kSlice = std::size_t{1}
                               << 20;  // of a large payload per write, so that progress shows
constexpr Clock::duration kLinger = std::chrono::seconds(2);
// For a peer that is silent or sends rubbish: it hardly listens.
constexpr Clock::duration kShortLinger = std::chrono::milliseconds(300);
// Address translators on the way forget links that are idle for longer than a minute or so.
constexpr Clock::duration kMaxHeartbeat = std::chrono::seconds(15);
constexpr Clock::duration kMaxTick = std::chrono::seconds(1);
// Until all have heard that a process is replaced by a newer one: some ticks.
constexpr Clock::duration kReplacing = 3 * kMaxTick;
constexpr auto kSpin = std::chrono::microseconds(30);

// What a frame counts in the queue: bookkeeping until it is begun, its bytes until they are
// written.
std::size_t SizeOf(const Frame& frame) {
  return kFrameHeaderBytes + QueueLimit::Size(frame.message);
}

}  // namespace

WaitBoard::WaitBoard(int self) : self_(self) {
  std::array<std::uint8_t, 4> random{};
  crypto::RandomBytes(random);
  processes_[static_cast<std::size_t>(self)] =
      static_cast<std::uint32_t>(FromLittleEndian(random)) | 1U;
}

void WaitBoard::SetMissing(int peer, bool missing) {
  if (missing_[static_cast<std::size_t>(peer)].exchange(missing) != missing) ++version_;
}

void WaitBoard::SetProcess(int peer, std::uint32_t process) {
  if (processes_[static_cast<std::size_t>(peer)].exchange(process) != process) ++version_;
}

Heartbeat WaitBoard::For(int peer) const {
  unsigned mask = 0;
  for (unsigned p = 0; p < waits_.size(); ++p)
    mask |= (waits_[p] > 0 ? 1U << p : 0U) | (missing_[p] ? 8U << p : 0U);
  return {static_cast<std::uint8_t>(mask), Process(self_), Process(3 - self_ - peer)};
}

Connection::Connection(asio::io_context& io, std::unique_ptr<Channel> channel, int peer,
                       std::string where, const Limits& limits, std::shared_ptr<WaitBoard> waits,
                       std::function<void(const Failure&)> on_failure)
    : io_(io),
      channel_(std::move(channel)),
      peer_(peer),
      where_(std::move(where)),
      timeout_(limits.timeout),
      stall_(limits.stall),
      connect_(limits.connect),
      heartbeat_(std::min<Clock::duration>(timeout_ / 4, kMaxHeartbeat)),
      tick_(std::clamp<Clock::duration>(std::min(timeout_, stall_) / 8,
                                        std::chrono::milliseconds(1), kMaxTick)),
      waits_(std::move(waits)),
      linger_(kLinger),
      on_failure_(std::move(on_failure)),
      tick_timer_(io),
      linger_timer_(io) {}

void Connection::Start() {
  last_heard_ = last_written_ = Clock::now();
  {
    const std::lock_guard lock(mutex_);
    EnqueueHeartbeat();
  }
  ReadMore();
  ScheduleTick();
}

void Connection::GiveUp(const Failure& failure) {
  if (closed_ || peer_sent_data_) return;
  if (failure.is_goodbye) {
    third_left_ = failure;
    third_left_since_ = Clock::now();
  } else {
    Disown(failure, kLinger);
  }
}

void Connection::Break(const std::string& reason) {
  if (closed_) return;
  Fail({Failure::Kind::kOther, fmt::format("the link to party {} broke: {}", peer_, reason)},
       false);
}

// --- Called by the link's owner.

void Connection::Enqueue(Frame frame) {
  if (write_failed_ || finished_) return;
  queued_bytes_ += SizeOf(frame);
  queue_.push_back(std::move(frame));
  if (!std::exchange(writing_, true))
    asio::post(io_, [self = shared_from_this()] { self->Pump(); });
}

void Connection::EnqueueHeartbeat() {
  told_ = waits_->Version();
  Enqueue(EncodeHeartbeat(waits_->For(peer_)));
}

void Connection::EnqueueReason(FrameKind how, const std::string& reason) {
  const std::string text = CleanText(reason, kMaxReasonBytes - 3);
  Enqueue({how, {.payload = Bytes(text.begin(), text.end())}});
}

// Not the first heartbeat, without which the peer does not take this for a link.
void Connection::DropQueue() {
  std::erase_if(queue_, [this](const Frame& frame) {
    if (frame.kind == FrameKind::kHeartbeat) return false;
    queued_bytes_ -= SizeOf(frame);
    return true;
  });
}

void Connection::WakeAll() {
  out_changed_.notify_all();
  for (Lane& lane : lanes_) lane.arrived.notify_all();
}

bool Connection::HasRoom() const {
  return queued_bytes_ <= kSendLimit.bytes && queue_.size() <= kSendLimit.messages;
}

bool Connection::UnreadAbove(std::size_t bytes, std::size_t messages) const {
  return unread_bytes_ > bytes || std::any_of(lanes_.begin(), lanes_.end(), [&](const Lane& lane) {
           return lane.messages.size() > messages;
         });
}

/// What waited for a peer that failed still counts as waiting for it: until the third party is told
/// the reason, its patience with this party must not end. With the lock held.
void Connection::EndWait() {
  if (!failure_) waits_->End(peer_);
}

/// Waits until the network thread has made `ready` true; it looks after the stall timeout.
template <class Ready>
void Connection::AwaitOutput(std::unique_lock<std::mutex>& lock, Ready ready) {
  if (!ready() && !failure_) {
    if (senders_waiting_++ == 0) sending_since_ = Clock::now();
    waits_->Begin(peer_);
    out_changed_.wait(lock, [&] { return ready() || failure_; });
    EndWait();
    --senders_waiting_;
  }
  if (failure_) failure_.Throw();
}

void Connection::Send(Message message) {
  TERCET_CHECK(message.payload.size() <= kMaxMessageBytes,
               "a message carries at most {} bytes, got {}", kMaxMessageBytes,
               message.payload.size());
  std::unique_lock lock(mutex_);
  AwaitOutput(lock, [&] { return message.continues || HasRoom(); });
  Enqueue({FrameKind::kData, std::move(message)});
}

Message Connection::Receive(Phase phase) {
  Lane& lane = lanes_[static_cast<std::size_t>(phase)];
  // A wake-up costs more than most answers take on a fast network, but only spare cores may be kept
  // busy.
  static const bool spare_cores = std::thread::hardware_concurrency() > 3;
  if (spare_cores && lane.count.load(std::memory_order_relaxed) == 0) {
    const auto until = Clock::now() + kSpin;
    while (lane.count.load(std::memory_order_relaxed) == 0 && Clock::now() < until)
      std::this_thread::yield();
  }
  std::unique_lock lock(mutex_);
  if (lane.messages.empty() && !failure_) {
    lane.waiting_since = Clock::now();
    waits_->Begin(peer_);
    lane.arrived.wait(lock, [&] { return !lane.messages.empty() || failure_; });
    EndWait();
    lane.waiting_since.reset();
  }
  if (lane.messages.empty() || (failure_ && !drain_)) failure_.Throw();
  Message message = std::move(lane.messages.front());
  lane.messages.pop_front();
  lane.count.fetch_sub(1, std::memory_order_relaxed);
  unread_bytes_ -= QueueLimit::Size(message);
  if (read_paused_ && !UnreadAbove(kUnreadLimit.bytes / 2, kUnreadLimit.messages / 2)) {
    read_paused_ = false;
    asio::post(io_, [self = shared_from_this()] {
      self->last_heard_ = Clock::now();
      self->ReadMore();
    });
  }
  return message;
}

void Connection::Flush() {
  std::unique_lock lock(mutex_);
  AwaitOutput(lock, [&] { return queued_bytes_ == 0 && !write_failed_; });
}

void Connection::BeginEnd(FrameKind how, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(ending_, true)) return;
  if (!failure_) {
    if (how == FrameKind::kAbort) DropQueue();
    EnqueueReason(how, reason);
    failure_ = {Failure::Kind::kNetwork,
                fmt::format("the link to party {} was closed here", peer_)};
  }
  drain_ = false;
  for (Lane& lane : lanes_) {
    lane.messages.clear();
    lane.count.store(0, std::memory_order_relaxed);
  }
  unread_bytes_ = 0;
  WakeAll();
  const bool resume = std::exchange(read_paused_, false);
  asio::post(io_, [self = shared_from_this(), resume, how] {
    self->last_written_ = Clock::now();
    if (how != FrameKind::kGoodbye) self->Linger(self->linger_);
    self->FinishOutput();
    if (resume) self->ReadMore();
  });
}

void Connection::End(FrameKind how, const std::string& reason) noexcept {
  try {
    BeginEnd(how, reason);
    // The network thread closes the socket in bounded time: when the peer has closed its side, when
    // nothing could be written for the timeout, or a short while after the last byte was written.
    std::unique_lock lock(mutex_);
    out_changed_.wait(lock, [&] { return finished_; });
  } catch (
      ...) {  // NOLINT(bugprone-empty-catch): out of memory; the peer will see the connection close
  }
}

void Connection::Dismiss(const std::string& reason) noexcept {
  try {
    BeginEnd(FrameKind::kDismissal, reason);
  } catch (...) {  // NOLINT(bugprone-empty-catch): as above
  }
}

void Connection::Abort(const std::string& reason) noexcept { End(FrameKind::kAbort, reason); }

void Connection::Close() noexcept { End(FrameKind::kGoodbye, {}); }

void Connection::Leave(const std::string& reason) noexcept { End(FrameKind::kGoodbye, reason); }

// --- Reading.

void Connection::ReadMore() {
  if (closed_) return;
  const std::span<std::uint8_t> space = reader_.Space();
  channel_->ReadSome(asio::buffer(space.data(), space.size()),
                     [self = shared_from_this()](const std::error_code& error, std::size_t count) {
                       self->OnRead(error, count);
                     });
}

void Connection::OnRead(const std::error_code& error, std::size_t count) {
  if (closed_) return;
  if (error) {
    OnReadEnd(error);
    return;
  }
  last_heard_ = Clock::now();
  try {
    reader_.Advance(count, arrived_);
  } catch (const ProtocolError& e) {
    Disown({Failure::Kind::kNetwork,
            fmt::format("party {} at {} broke the wire format: {}", peer_, where_, e.what())},
           kShortLinger);
    return;
  }
  const bool go_on = arrived_.empty() || Deliver();
  if (go_on) ReadMore();
}

bool Connection::Deliver() {
  Failure end;
  bool drain = false;
  bool go_on = true;
  std::array<bool, kPhases> filled{};
  {
    const std::lock_guard lock(mutex_);
    for (Frame& frame : arrived_) {
      if (failure_ || end) break;  // what comes after an end is of no interest
      switch (frame.kind) {
        case FrameKind::kHeartbeat:
          peer_says_ = ParseHeartbeat(frame.message.payload);
          if (peer_says_.sender != 0) waits_->SetProcess(peer_, peer_says_.sender);
          break;
        case FrameKind::kData: {
          const auto phase = static_cast<std::size_t>(frame.message.phase);
          peer_sent_data_ = true;
          unread_bytes_ += QueueLimit::Size(frame.message);
          lanes_[phase].messages.push_back(std::move(frame.message));
          lanes_[phase].count.fetch_add(1, std::memory_order_relaxed);
          filled[phase] = true;
          break;
        }
        case FrameKind::kAbort:
        case FrameKind::kGoodbye:
        case FrameKind::kDismissal: {
          const Bytes& reason = frame.message.payload;
          const std::string text = CleanText(
              {reinterpret_cast<const char*>(reason.data()), reason.size()}, kMaxReasonBytes);
          drain = frame.kind == FrameKind::kGoodbye;
          if (frame.kind == FrameKind::kDismissal) {
            end = {.kind = Failure::Kind::kAbort,
                   .text = fmt::format("party {} dismissed this process: {}", peer_, text),
                   .is_dismissal = true};
          } else if (!drain) {
            end = {Failure::Kind::kAbort, fmt::format("party {} stopped: {}", peer_, text)};
          } else if (text.empty()) {
            end = {Failure::Kind::kNetwork, fmt::format("party {} closed the link", peer_), true};
          } else {
            end = {Failure::Kind::kNetwork, fmt::format("party {} left: {}", peer_, text)};
          }
          break;
        }
      }
    }
    if (!end && !failure_ && UnreadAbove(kUnreadLimit.bytes, kUnreadLimit.messages)) {
      read_paused_ = true;
      go_on = false;
    }
  }
  for (std::size_t phase = 0; phase < lanes_.size(); ++phase) {
    if (filled[phase]) lanes_[phase].arrived.notify_all();
  }
  arrived_.clear();
  if (end) PeerEnds(end, drain);
  return go_on;
}

/// The peer said that it ends: what is queued for it is of no use, and it waits for us to stop
/// sending.
void Connection::PeerEnds(const Failure& failure, bool drain) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) {
      first = true;
      failure_ = failure;
      drain_ = drain;
    }
    DropQueue();
    WakeAll();
  }
  abandon_ = true;
  FinishOutput();
  if (first && on_failure_) on_failure_(failure);
}

void Connection::OnReadEnd(const std::error_code& error) {
  bool expected = false;
  {
    const std::lock_guard lock(mutex_);
    expected = static_cast<bool>(failure_);  // one of the two sides has said that it ends
  }
  if (expected) {
    CloseSocket();
    return;
  }
  const Channel::Reason reason = channel_->Explain(error);
  Fail({Failure::Kind::kNetwork,
        fmt::format("party {} {} without a goodbye ({})", peer_, reason.text, where_)},
       true);
}

// --- Writing.

void Connection::Pump() {
  if (closed_) return;
  small_.clear();
  ending_frames_ = 0;
  std::size_t slice = 0;
  bool idle = false;
  {
    const std::lock_guard lock(mutex_);
    while (large_.empty() && !queue_.empty() && small_.size() + kFrameHeaderBytes <= kRecord) {
      Frame& frame = queue_.front();
      const FrameHeaderBytes header = EncodeFrameHeader(frame);
      queued_bytes_ -= QueueLimit::kMessageOverhead;
      Bytes& payload = frame.message.payload;
      const std::size_t head = std::min(payload.size(), kRecord - small_.size() - header.size());
      small_.insert(small_.end(), header.begin(), header.end());
      small_.insert(small_.end(), payload.begin(),
                    payload.begin() + static_cast<std::ptrdiff_t>(head));
      small_is_secret_ |= frame.message.phase == Phase::kSetup && !payload.empty();
      if (head < payload.size()) {
        large_ = std::move(payload);
        large_offset_ = head;
      } else {
        ending_frames_ += frame.kind == FrameKind::kData ? 1 : 0;
        if (frame.message.phase == Phase::kSetup) crypto::Wipe(payload);
      }
      queue_.pop_front();
    }
    slice = std::min(kSlice, large_.size() - large_offset_);
    if (slice > 0 && large_offset_ + slice == large_.size()) ++ending_frames_;
    if (small_.empty() && slice == 0) {
      idle = true;
      writing_ = false;
      out_changed_.notify_all();
    }
  }
  if (idle) {
    if (half_close_) ShutdownSend();
    return;
  }
  last_written_ = Clock::now();
  channel_->Write({asio::buffer(small_), asio::buffer(large_.data() + large_offset_, slice)},
                  [self = shared_from_this()](const std::error_code& error, std::size_t count) {
                    self->OnWritten(error, count);
                  });
}

void Connection::OnWritten(const std::error_code& error, std::size_t count) {
  if (closed_) return;
  if (error) {
    OnWriteError(error);
    return;
  }
  last_written_ = Clock::now();
  large_offset_ += count - small_.size();
  if (std::exchange(small_is_secret_, false)) crypto::Wipe(small_);
  const std::size_t abandoned = abandon_ ? large_.size() - large_offset_ : 0;
  if (large_offset_ + abandoned == large_.size()) {
    large_ = Bytes();
    large_offset_ = 0;
  }
  {
    const std::lock_guard lock(mutex_);
    queued_bytes_ -= count + abandoned;
    if (ending_frames_ > 0) sending_since_ = Clock::now();
    out_changed_.notify_all();
  }
  Pump();
}

/// The peer may have said why before it closed: reading goes on for a short while and tells.
void Connection::OnWriteError(const std::error_code& error) {
  {
    const std::lock_guard lock(mutex_);
    write_failed_ = true;
    writing_ = false;
    queue_.clear();
    queued_bytes_ = 0;
    out_changed_.notify_all();
  }
  large_ = Bytes();
  large_offset_ = 0;
  linger_timer_.expires_after(std::min<Clock::duration>(kLinger, timeout_));
  linger_timer_.async_wait([self = shared_from_this(), error](const std::error_code& cancelled) {
    if (cancelled || self->closed_) return;
    self->OnReadEnd(error);
  });
}

// --- Signs of life.

void Connection::ScheduleTick() {
  next_tick_ = Clock::now() + tick_;
  tick_timer_.expires_at(next_tick_);
  tick_timer_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
    if (!cancelled && !self->closed_) self->OnTick();
  });
}

void Connection::OnTick() {
  const auto now = Clock::now();
  bool ended = false;
  bool paused = false;
  std::string stalled;
  {
    const std::lock_guard lock(mutex_);
    // When this process itself was stopped for a while, what the peer sent may wait in the socket.
    if (now - next_tick_ > tick_) {
      last_heard_ = sending_since_ = now;
      for (Lane& lane : lanes_)
        if (lane.waiting_since) lane.waiting_since = now;
    }
    ended = static_cast<bool>(failure_);
    paused = read_paused_;
    if (!ended) stalled = Stalled(now);
    if (!ended && stalled.empty()) stalled = OtherThird(now);
    const bool due = !writing_ && now - last_written_ >= heartbeat_;
    if (!ended && stalled.empty() && (due || told_ != waits_->Version())) EnqueueHeartbeat();
  }
  if (ended) {
    if (!ended_since_) ended_since_ = now;
    if (now - last_written_ > timeout_ || now - *ended_since_ > stall_) {
      CloseSocket();
      return;
    }
  } else if (!paused && now - last_heard_ > timeout_) {
    Disown({Failure::Kind::kNetwork, fmt::format("party {} at {} sent nothing for {:.1f} s", peer_,
                                                 where_, Seconds(timeout_))},
           kShortLinger);
  } else if (!stalled.empty()) {
    Disown({Failure::Kind::kNetwork, std::move(stalled)}, kLinger);
  } else if (third_left_ && now - third_left_since_ > timeout_ && PeerMissesThird()) {
    Disown(third_left_, kLinger);
  }
  ScheduleTick();
}

/// Whether the peer says that it waits for the third party.
bool Connection::PeerWaits() const { return (peer_says_.waits >> Third() & 1) != 0; }

/// Whether the peer says that the third party has still to connect to it; a peer that has sent data
/// has met all.
bool Connection::PeerMissesThird() const {
  return !peer_sent_data_ && (peer_says_.waits >> (3 + Third()) & 1) != 0;
}

/// Two processes run as the third party, and this party has met the one, the peer the other: each
/// of them would wait in vain. Empty while that may be about to pass. With the lock held.
std::string Connection::OtherThird(Clock::time_point now) {
  const std::uint32_t here = waits_->Process(Third()), there = peer_says_.third;
  if (here == 0 || there == 0 || here == there) {
    differs_since_.reset();
    return {};
  }
  if (!differs_since_) differs_since_ = now;
  if (now - *differs_since_ < kReplacing) return {};
  return fmt::format("party {} has met another process of party {} than party {}: two run at once",
                     peer_, Third(), waits_->Self());
}

/// Why waiting for this peer is of no use any more, or nothing. With the lock held.
std::string Connection::Stalled(Clock::time_point now) const {
  // A peer that itself waits for the third party gets the time in which that one's end is noticed
  // there and told here, so that the reason names the party that is stuck.
  const auto waits = PeerMissesThird() ? std::max(stall_, connect_) : stall_;
  const auto limit = PeerWaits() || PeerMissesThird() ? waits + timeout_ : stall_;
  for (std::size_t p = 0; p < lanes_.size(); ++p) {
    const Lane& lane = lanes_[p];
    if (!lane.waiting_since || !lane.messages.empty() || now - *lane.waiting_since <= limit)
      continue;
    if (read_paused_)
      return fmt::format(
          "{} MiB from party {} wait unread in other phases, so the {} message waited for cannot "
          "arrive",
          unread_bytes_ >> 20, peer_, PhaseName(static_cast<Phase>(p)));
    return fmt::format("party {} at {} sent heartbeats but no {} data for {:.1f} s", peer_, where_,
                       PhaseName(static_cast<Phase>(p)), Seconds(limit));
  }
  if (senders_waiting_ > 0 && now - sending_since_ > limit)
    return fmt::format("party {} at {} sent heartbeats but took no data for {:.1f} s", peer_,
                       where_, Seconds(limit));
  return {};
}

// --- Ends.

/// Stops sending after what is queued; the socket closes when the peer has stopped, too.
void Connection::FinishOutput() {
  if (closed_) return;
  half_close_ = true;
  bool idle = false;
  {
    const std::lock_guard lock(mutex_);
    idle = !writing_;
  }
  if (idle) ShutdownSend();
}

/// Ends the connection from this side: the peer is told why, as far as it listens.
void Connection::Disown(const Failure& failure, Clock::duration linger) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = failure;
    drain_ = true;
    DropQueue();
    EnqueueReason(failure.is_dismissal ? FrameKind::kGoodbye : FrameKind::kAbort, failure.text);
    WakeAll();
  }
  last_written_ = Clock::now();
  linger_ = linger;
  Linger(linger_);
  FinishOutput();
  if (on_failure_) on_failure_(failure);
}

void Connection::ShutdownSend() {
  if (std::exchange(sent_end_, true)) return;
  std::error_code ignored;
  channel_->Socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  Linger(linger_);
}

void Connection::Linger(Clock::duration limit) {
  if (closed_) return;
  linger_timer_.expires_after(std::min(limit, timeout_));
  linger_timer_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
    if (!cancelled) self->CloseSocket();
  });
}

void Connection::Fail(const Failure& failure, bool drain) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) {
      first = true;
      failure_ = failure;
      drain_ = drain;
    }
  }
  CloseSocket();
  if (first && on_failure_) on_failure_(failure);
}

void Connection::CloseSocket() {
  if (std::exchange(closed_, true)) return;
  std::error_code ignored;
  channel_->Socket().close(ignored);
  tick_timer_.cancel();
  linger_timer_.cancel();
  const std::lock_guard lock(mutex_);
  finished_ = true;
  queue_.clear();
  queued_bytes_ = 0;
  WakeAll();
}

}  // namespace tercet::net
