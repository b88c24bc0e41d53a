// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "net/channel.h"
#include "net/failure.h"
#include "net/frame.h"

namespace tercet::net {

/// What a party tells its peers with each heartbeat: for which peers its threads wait, which have
/// still to connect, and which processes it has met. Thread safe.
class WaitBoard {
 public:
  explicit WaitBoard(int self);
  int Self() const { return self_; }
  void Begin(int peer) { ++waits_[static_cast<std::size_t>(peer)]; }
  void End(int peer) { --waits_[static_cast<std::size_t>(peer)]; }
  void SetMissing(int peer, bool missing);
  /// The process of `peer` that was met; 0: none, or it has not said.
  void SetProcess(int peer, std::uint32_t process);
  std::uint32_t Process(int peer) const { return processes_[static_cast<std::size_t>(peer)]; }
  /// For a peer.
  Heartbeat For(int peer) const;
  /// Changes with what peers should hear of at once: all but the waits.
  std::uint32_t Version() const { return version_; }

 private:
  const int self_;
  std::array<std::atomic<int>, 3> waits_{};
  std::array<std::atomic<bool>, 3> missing_{};
  std::array<std::atomic<std::uint32_t>, 3> processes_{};
  std::atomic<std::uint32_t> version_{0};
};

/// An established connection to a party: queues for both directions, heartbeats, and the ends it
/// can come to. The functions of Link may be called from any thread; the rest runs on the thread of
/// the io_context ("network thread"). Abort and Close wait for the network thread and hence must
/// not be called on it.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Limits {
    std::chrono::milliseconds timeout;  ///< without a sign of life
    std::chrono::milliseconds stall;    ///< without data that something waits for
    std::chrono::milliseconds connect;  ///< for which a peer may wait for the third party to come
  };
  /// `where` is the peer's address for messages. `on_failure` is called once, on the network
  /// thread, when the peer or the network ends the connection.
  Connection(asio::io_context& io, std::unique_ptr<Channel> channel, int peer, std::string where,
             const Limits& limits, std::shared_ptr<WaitBoard> waits,
             std::function<void(const Failure&)> on_failure);

  /// Begins to read and to send heartbeats; the first leaves at once. Network thread.
  void Start();
  /// Ends the connection because of a fault in the network thread itself. Network thread.
  void Break(const std::string& reason);
  /// Ends the connection because the link to the third party has failed, and tells the peer, unless
  /// that has sent data: then it has met the third party itself and will see for itself whether it
  /// needs that one any more. After a goodbye it only ends when the third party has still to
  /// connect to the peer a timeout later; when the third party has dismissed this process, the peer
  /// is to wait for the newer one. Network thread.
  void GiveUp(const Failure& failure);
  /// As Abort, without waiting for the end. Any thread.
  void Dismiss(const std::string& reason) noexcept;

  void Send(Message message);
  Message Receive(Phase phase);
  void Flush();
  void Abort(const std::string& reason) noexcept;
  void Close() noexcept;
  /// As Close; the peer is told why.
  void Leave(const std::string& reason) noexcept;
  int Peer() const { return peer_; }

 private:
  struct Lane {
    std::deque<Message> messages;
    std::condition_variable arrived;
    std::atomic<std::size_t> count{0};  ///< of messages; lets a receiver look without the lock
    std::optional<Clock::time_point> waiting_since;  ///< while a receiver waits
  };

  // Any thread, with the lock held.
  void Enqueue(Frame frame);
  void EnqueueHeartbeat();
  void EnqueueReason(FrameKind how, const std::string& reason);
  void DropQueue();
  void WakeAll();
  void EndWait();
  bool HasRoom() const;
  bool UnreadAbove(std::size_t bytes, std::size_t messages) const;
  template <class Ready>
  void AwaitOutput(std::unique_lock<std::mutex>& lock, Ready ready);

  // Any thread.
  void BeginEnd(FrameKind how, const std::string& reason);
  void End(FrameKind how, const std::string& reason) noexcept;

  // Network thread.
  void ReadMore();
  void OnRead(const std::error_code& error, std::size_t count);
  void OnReadEnd(const std::error_code& error);
  bool Deliver();
  void PeerEnds(const Failure& failure, bool drain);
  void Pump();
  void OnWritten(const std::error_code& error, std::size_t count);
  void OnWriteError(const std::error_code& error);
  void ScheduleTick();
  void OnTick();
  bool PeerWaits() const;
  bool PeerMissesThird() const;
  int Third() const { return 3 - waits_->Self() - peer_; }
  std::string OtherThird(Clock::time_point now);
  std::string Stalled(Clock::time_point now) const;
  void FinishOutput();
  void ShutdownSend();
  void Linger(Clock::duration limit);
  void Fail(const Failure& failure, bool drain);
  void Disown(const Failure& failure, Clock::duration linger);
  void CloseSocket();

  asio::io_context& io_;
  const std::unique_ptr<Channel> channel_;
  const int peer_;
  const std::string where_;
  const Clock::duration timeout_, stall_, connect_, heartbeat_, tick_;
  const std::shared_ptr<WaitBoard> waits_;
  Clock::duration linger_;  ///< how long to wait for the peer's end; network thread

  std::mutex mutex_;
  std::condition_variable out_changed_;
  std::deque<Frame> queue_;
  std::size_t queued_bytes_ = 0;  ///< of frames not yet handed to the system, as SizeOf counts them
  int senders_waiting_ = 0;       ///< for room, or for all to be written
  Clock::time_point sending_since_;  ///< when the first of them began, or a whole frame was written
  bool writing_ = false;             ///< a write is under way, or a call of Pump is
  bool write_failed_ = false;        ///< output is dropped until reading tells why
  std::array<Lane, kPhases> lanes_;
  std::size_t unread_bytes_ = 0;
  bool read_paused_ = false;
  Failure failure_;
  bool drain_ = false;     ///< messages that arrived before the failure may still be received
  bool ending_ = false;    ///< Abort or Close was called
  bool finished_ = false;  ///< the socket is closed

  // Network thread only.
  std::function<void(const Failure&)> on_failure_;
  asio::steady_timer tick_timer_, linger_timer_;
  FrameReader reader_;
  std::vector<Frame> arrived_;
  std::vector<std::uint8_t> small_;  ///< headers and small payloads of the write under way
  bool small_is_secret_ = false;     ///< small_ holds a message of the setup, perhaps a key
  Bytes large_;                      ///< a payload that is written from where it is
  std::size_t large_offset_ = 0;
  std::size_t ending_frames_ = 0;  ///< whose last byte is in the write under way
  bool closed_ = false;
  bool abandon_ = false;     ///< the rest of large_ is of no use to anyone
  bool half_close_ = false;  ///< stop sending once the queue is empty
  bool peer_sent_data_ = false;
  bool sent_end_ = false;
  Heartbeat peer_says_;                             ///< its last heartbeat
  std::uint32_t told_ = 0;                          ///< the board's version in our last one
  std::optional<Clock::time_point> differs_since_;  ///< about the third party's process
  Failure third_left_;  ///< the third party's goodbye, which the peer may not have heard
  Clock::time_point third_left_since_;
  Clock::time_point last_heard_, last_written_, next_tick_;
  std::optional<Clock::time_point> ended_since_;
};

}  // namespace tercet::net
