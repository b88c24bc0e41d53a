#include "net/connection.h"

#include <algorithm>
#include <asio/error.hpp>
#include <asio/post.hpp>
#include <thread>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/crypto/prf.h"

namespace tercet::net {
namespace {

constexpr std::size_t kSendLimit = std::size_t{256} << 20;
constexpr std::size_t kUnreadLimit = std::size_t{512} << 20;
constexpr std::size_t kRecord = std::size_t{16} << 10;  // the most that one TLS record carries
constexpr std::size_t kSlice = std::size_t{1}
                               << 20;  // of a large payload per write, so that progress shows
constexpr auto kLinger = std::chrono::seconds(2);
constexpr auto kSpin = std::chrono::microseconds(30);

double Seconds(Connection::Clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

Connection::Connection(asio::io_context& io, std::unique_ptr<Channel> channel, int peer,
                       std::string where, std::chrono::milliseconds timeout,
                       std::function<void(const Failure&)> on_failure)
    : io_(io),
      channel_(std::move(channel)),
      peer_(peer),
      where_(std::move(where)),
      timeout_(timeout),
      tick_(std::max<Clock::duration>(timeout_ / 8, std::chrono::milliseconds(1))),
      on_failure_(std::move(on_failure)),
      tick_timer_(io),
      linger_timer_(io) {}

void Connection::Start() {
  last_heard_ = last_written_ = Clock::now();
  ReadMore();
  ScheduleTick();
}

void Connection::Break(const std::string& reason) {
  if (closed_) return;
  Fail({Failure::Kind::kOther, fmt::format("the link to party {} broke: {}", peer_, reason)},
       false);
}

// --- Called by the link's owner.

void Connection::Enqueue(Frame frame) {
  if (write_failed_ || finished_) return;
  queued_bytes_ += kFrameHeaderBytes + frame.message.payload.size();
  queue_.push_back(std::move(frame));
  if (!std::exchange(writing_, true))
    asio::post(io_, [self = shared_from_this()] { self->Pump(); });
}

void Connection::DropQueue() {
  for (const Frame& frame : queue_)
    queued_bytes_ -= kFrameHeaderBytes + frame.message.payload.size();
  queue_.clear();
}

void Connection::WakeAll() {
  out_changed_.notify_all();
  for (Lane& lane : lanes_) lane.arrived.notify_all();
}

void Connection::Send(Message message) {
  TERCET_CHECK(message.payload.size() <= kMaxPayloadBytes,
               "a message carries at most {} bytes, got {}", kMaxPayloadBytes,
               message.payload.size());
  std::unique_lock lock(mutex_);
  out_changed_.wait(lock, [&] { return queued_bytes_ <= kSendLimit || failure_; });
  if (failure_) failure_.Throw();
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
  while (true) {
    const bool readable = !failure_ || drain_;
    if (readable && !lane.messages.empty()) break;
    if (failure_) failure_.Throw();
    const bool woken =
        lane.arrived.wait_for(lock, timeout_, [&] { return !lane.messages.empty() || failure_; });
    if (!woken && read_paused_) {
      throw NetworkError(
          fmt::format("{} MiB from party {} wait unread in other phases, so the {} message waited "
                      "for cannot arrive",
                      unread_bytes_ >> 20, peer_, PhaseName(phase)));
    }
  }
  Message message = std::move(lane.messages.front());
  lane.messages.pop_front();
  lane.count.fetch_sub(1, std::memory_order_relaxed);
  unread_bytes_ -= message.payload.size();
  if (read_paused_ && unread_bytes_ <= kUnreadLimit / 2) {
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
  out_changed_.wait(lock, [&] { return (queued_bytes_ == 0 && !write_failed_) || failure_; });
  if (failure_) failure_.Throw();
}

void Connection::End(FrameKind how, const std::string& reason) {
  std::unique_lock lock(mutex_);
  if (!std::exchange(ending_, true)) {
    if (!failure_) {
      if (how == FrameKind::kAbort) DropQueue();
      const std::string text = CleanText(reason, kMaxReasonBytes - 3);
      Enqueue({how, {.payload = Bytes(text.begin(), text.end())}});
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
      if (how == FrameKind::kAbort) self->Linger(kLinger);
      self->FinishOutput();
      if (resume) self->ReadMore();
    });
  }
  // The network thread closes the socket in bounded time: when the peer has closed its side, when
  // nothing could be written for the timeout, or a short while after the last byte was written.
  out_changed_.wait(lock, [&] { return finished_; });
}

void Connection::Abort(const std::string& reason) noexcept {
  try {
    End(FrameKind::kAbort, reason);
  } catch (
      ...) {  // NOLINT(bugprone-empty-catch): out of memory; the peer will see the connection close
  }
}

void Connection::Close() noexcept {
  try {
    End(FrameKind::kGoodbye, {});
  } catch (...) {  // NOLINT(bugprone-empty-catch): as above
  }
}

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
    Fail({Failure::Kind::kNetwork,
          fmt::format("party {} at {} broke the wire format: {}", peer_, where_, e.what())},
         true);
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
          break;
        case FrameKind::kData: {
          const auto phase = static_cast<std::size_t>(frame.message.phase);
          unread_bytes_ += frame.message.payload.size();
          lanes_[phase].messages.push_back(std::move(frame.message));
          lanes_[phase].count.fetch_add(1, std::memory_order_relaxed);
          filled[phase] = true;
          break;
        }
        case FrameKind::kAbort: {
          const Bytes& reason = frame.message.payload;
          const std::string_view text(reinterpret_cast<const char*>(reason.data()), reason.size());
          end = {Failure::Kind::kAbort,
                 fmt::format("party {} stopped: {}", peer_, CleanText(text, kMaxReasonBytes))};
          break;
        }
        case FrameKind::kGoodbye:
          end = {Failure::Kind::kNetwork, fmt::format("party {} closed the link", peer_)};
          drain = true;
          break;
      }
    }
    if (!end && !failure_ && unread_bytes_ > kUnreadLimit) {
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
  std::size_t slice = 0;
  bool idle = false;
  {
    const std::lock_guard lock(mutex_);
    while (large_.empty() && !queue_.empty() && small_.size() + kFrameHeaderBytes <= kRecord) {
      Frame& frame = queue_.front();
      const FrameHeaderBytes header = EncodeFrameHeader(frame);
      Bytes& payload = frame.message.payload;
      const std::size_t head = std::min(payload.size(), kRecord - small_.size() - header.size());
      small_.insert(small_.end(), header.begin(), header.end());
      small_.insert(small_.end(), payload.begin(),
                    payload.begin() + static_cast<std::ptrdiff_t>(head));
      small_is_secret_ |= frame.message.phase == Phase::kSetup && !payload.empty();
      if (head < payload.size()) {
        large_ = std::move(payload);
        large_offset_ = head;
      } else if (frame.message.phase == Phase::kSetup) {
        crypto::Wipe(payload);
      }
      queue_.pop_front();
    }
    slice = std::min(kSlice, large_.size() - large_offset_);
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
  // When this process itself was stopped for a while, the peer's signs of life may wait in the
  // socket.
  if (now - next_tick_ > tick_) last_heard_ = now;
  bool ended = false;
  bool paused = false;
  {
    const std::lock_guard lock(mutex_);
    ended = static_cast<bool>(failure_);
    paused = read_paused_;
    if (!ended && !writing_ && now - last_written_ >= timeout_ / 4)
      Enqueue({FrameKind::kHeartbeat, {}});
  }
  if (ended) {
    if (now - last_written_ > timeout_) {
      CloseSocket();
      return;
    }
  } else if (!paused && now - last_heard_ > timeout_) {
    Fail({Failure::Kind::kNetwork, fmt::format("party {} at {} sent nothing for {:.1f} s", peer_,
                                               where_, Seconds(timeout_))},
         true);
    return;
  }
  ScheduleTick();
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

void Connection::ShutdownSend() {
  if (std::exchange(sent_end_, true)) return;
  std::error_code ignored;
  channel_->Socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  Linger(kLinger);
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
