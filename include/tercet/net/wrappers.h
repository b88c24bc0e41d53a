// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tercet/net/link.h"

namespace tercet::net {

/// Round-trip time and rate of a shaped link; zero means unlimited.
struct LinkProfile {
  std::string name = "none";
  double rtt_ms = 0;
  double mbit = 0;  ///< per direction and pair
  bool Shaped() const { return rtt_ms > 0 || mbit > 0; }
};

/// "none", "lan" (0.2 ms, 5000 Mbit/s), "wan" (80 ms, 320 Mbit/s) or "rtt_ms=10,mbit=100" (either
/// part may be missing). Throws ConfigError that says what is allowed.
LinkProfile ParseLinkProfile(std::string_view text);

/// Passes everything on to another link; a wrapper overrides what it changes.
class LinkWrapper : public Link {
 public:
  /// InternalError without a link.
  explicit LinkWrapper(std::shared_ptr<Link> inner);
  void Send(Message message) override { inner_->Send(std::move(message)); }
  Message Receive(Phase phase) override { return inner_->Receive(phase); }
  void Flush() override { inner_->Flush(); }
  void Abort(const std::string& reason) noexcept override { inner_->Abort(reason); }
  void Close() noexcept override { inner_->Close(); }
  int Peer() const override { return inner_->Peer(); }

 protected:
  const std::shared_ptr<Link> inner_;
};

/// Delays what is sent through `inner`: a message of B bytes sent at t leaves at max(t, free),
/// keeps the link busy for 8 B / rate and is handed over rtt/2 after that. Needs no privileges;
/// works over any link.
std::unique_ptr<Link> MakeShapedLink(std::unique_ptr<Link> inner, const LinkProfile& profile);

/// A link that leaves `inner` to whoever else holds it, so that it outlives its user or several use
/// it in turn.
std::unique_ptr<Link> MakeSharedLink(std::shared_ptr<Link> inner);

/// What passed a recording link.
struct Recorded {
  bool sent;  ///< else received
  int peer;
  Message message;
};
class Recorder {  ///< Thread safe.
 public:
  void Add(Recorded r);
  std::vector<Recorded> Take();

 private:
  std::mutex mutex_;
  std::vector<Recorded> messages_;
};
std::unique_ptr<Link> MakeRecordingLink(std::unique_ptr<Link> inner,
                                        std::shared_ptr<Recorder> recorder);

/// Faults for tests: `change` sees each message before it is sent and may alter it (flip,
/// truncate), or return false to drop it, or throw.
std::unique_ptr<Link> MakeFaultyLink(std::unique_ptr<Link> inner,
                                     std::function<bool(Message&)> change);

}  // namespace tercet::net
