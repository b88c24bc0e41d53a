// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "net/channel.h"
#include "net/frame.h"

namespace tercet::net {

/// What happens between a TCP connection and a link: TLS handshake, check of the certificate's
/// name, exchange and comparison of the agreements. The connecting side speaks first, so that a
/// listener tells strangers nothing; a side that refuses says why where the other can hear it. It
/// may greet several addresses of one party at once: a listener takes a connection for the other's
/// choice when the first heartbeat has come over it. Network thread only.
class Greeting : public std::enable_shared_from_this<Greeting> {
 public:
  struct Outcome {
    enum class Kind {
      kAgreed,
      kFailed,    ///< trying again may help
      kDefinite,  ///< it will not: wrong certificate, no TLS, ...
      kDiffers,   ///< the real peer, but it does not agree
    };
    Kind kind = Kind::kFailed;
    /// Who it is, -1 if that was not learnt.
    int peer = -1;
    /// To follow the peer's name, as in "closed the connection"; for kDiffers the differences.
    std::string reason;
    /// For kAgreed.
    std::unique_ptr<Channel> channel;
    /// For kAgreed: the peer's process as its first heartbeat says, 0 where that has yet to come.
    std::uint32_t process = 0;
  };
  using Done = std::function<void(Outcome)>;
  /// Which parties may be at the other end, by number.
  using Expected = std::function<std::array<bool, 3>()>;

  Greeting(asio::io_context& io, std::unique_ptr<Channel> channel, bool client, int self,
           Expected expected, const Agreement& agreement, Clock::duration limit, Done done);

  /// Calls `done` once, later, at the latest after the limit, unless cancelled.
  void Start();
  /// Closes the socket; `done` is not called any more.
  void Cancel();
  /// Whether the other end has shown which party it is.
  bool KnowsPeer() const { return certified_.has_value() || peer_ >= 0; }

 private:
  void OnHandshake(const std::error_code& error);
  bool CheckPeer(int peer, const std::string& what);
  void Write(Bytes bytes, std::function<void()> then);
  void WriteHello(std::function<void()> then);
  void ReadHello(std::function<void()> then);
  void OnHelloHead(const std::function<void()>& then);
  void OnHelloBody(const std::function<void()>& then);
  void Compare();
  void AwaitChoice();
  void Agree();
  void Refuse(const std::string& reason);
  void Fail(Outcome::Kind kind, std::string reason);
  void FailFor(const std::error_code& error, const std::string& during);
  void Finish(Outcome outcome);
  void Drain();

  std::unique_ptr<Channel> channel_;
  const bool client_;
  const int self_;
  const Expected expected_;
  const Agreement& agreement_;
  const Clock::duration limit_;
  Done done_;
  asio::steady_timer timer_;
  const char* stage_ = "TLS handshake";
  std::optional<int> certified_;  ///< party number in the certificate
  int peer_ = -1;
  std::uint32_t process_ = 0;  ///< the peer's
  Bytes out_, in_;
  Bytes drained_;  ///< apart from in_, which a read that was given up may still refer to
  HelloHead head_;
  Agreement theirs_;
};

}  // namespace tercet::net
