#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
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
  std::uint32_t tag =
      0;  ///< which step of which layer; the receiver checks that it is the one it expects
  std::uint32_t depth =
      0;  ///< length of the longest chain of dependent messages that ends with this one
  Bytes payload;
};

/// A two-way, ordered, reliable channel between two parties. Implementations: in-memory pair
/// (memory_link.h), TCP with or without TLS (tcp_link.h); wrappers in wrappers.h. Send and Receive
/// may be called from different threads at the same time, Receive for different phases too.
class Link {
 public:
  virtual ~Link() = default;
  /// Queues the message and returns; blocks only while more than the link's send limit is queued.
  /// Throws NetworkError when the link has failed (the reason names the peer).
  virtual void Send(Message message) = 0;
  /// The next message of `phase`. Blocks at most as long as the peer shows signs of life; throws
  /// NetworkError when it died or fell silent for longer than the timeout, AbortError when it said
  /// why it stopped.
  virtual Message Receive(Phase phase) = 0;
  /// Blocks until everything queued has been handed to the system.
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
