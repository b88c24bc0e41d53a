// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "tercet/base/bytes.h"

namespace tercet::net {

/// The lanes of a link. Messages are ordered within a lane; lanes do not wait for each other.
enum class Phase : std::uint8_t { kSetup = 0, kOffline = 1, kOnline = 2 };
inline constexpr int kPhases = 3;
const char* PhaseName(Phase phase);

/// One message of a protocol. Header fields are public and are not counted as payload.
struct Message {
  Phase phase = Phase::kSetup;
  /// Which step of which layer; the receiver checks that it is the one it expects.
  std::uint32_t tag = 0;
  /// Length of the longest chain of dependent messages that ends with this one.
  std::uint32_t depth = 0;
  Bytes payload;
  /// Goes on with the message before it in its lane: what has been begun is queued without waiting
  /// for room, so that parties that send to each other before they receive do not wait in a circle.
  /// Known to the sender alone.
  bool continues = false;
};

/// The most that one message carries; what is longer is sent in parts (mpc::Context does so).
inline constexpr std::size_t kMaxMessageBytes = std::size_t{256} << 20;

/// What a queue of messages may hold before whoever fills it has to wait. Besides its payload each
/// message counts `kMessageOverhead` bytes for header and bookkeeping, so that empty ones count.
struct QueueLimit {
  static constexpr std::size_t kMessageOverhead = 128;
  std::size_t bytes = 0;
  std::size_t messages = 0;
  static std::size_t Size(const Message& message) {
    return message.payload.size() + kMessageOverhead;
  }
};

/// A two-way, ordered, reliable channel between two parties. Implementations: in-memory pair
/// (memory_link.h), TCP with or without TLS (tcp_link.h); wrappers in wrappers.h. Send and Receive
/// may be called from different threads at the same time, Receive for different phases too.
class Link {
 public:
  virtual ~Link() = default;
  /// Queues the message and returns; blocks only while more than the link's send limit is queued
  /// and the message does not continue another. Throws NetworkError when the link has failed (the
  /// reason names the peer) or when the peer has taken nothing for the stall timeout.
  virtual void Send(Message message) = 0;
  /// The next message of `phase`. Throws NetworkError when the peer died, fell silent for longer
  /// than the timeout, or sent no message of this phase for the stall timeout, signs of life or
  /// not; AbortError when it said why it stopped.
  virtual Message Receive(Phase phase) = 0;
  /// Blocks until everything queued has been handed to the system; throws as Send does.
  virtual void Flush() = 0;
  /// Tells the peer why this party stops, then closes. Never throws. Receivers on both sides wake
  /// up.
  virtual void Abort(const std::string& reason) noexcept = 0;
  /// Flushes, says goodbye and closes. Receiving afterwards throws.
  virtual void Close() noexcept = 0;
  /// The party number at the other end.
  virtual int Peer() const = 0;
};

}  // namespace tercet::net
