// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tercet/crypto/certificates.h"
#include "tercet/net/memory_link.h"

namespace tercet::net {

struct Endpoint {
  std::string host;
  std::uint16_t port = 0;
};

/// The keys that prove to be party 0, 1 and 2; several while one is replaced.
using Pins = std::array<std::vector<crypto::Fingerprint>, 3>;

/// What this party shows the others, and how it knows them.
struct TlsFiles {
  /// A peer's certificate must be signed by this authority; not used with pins.
  std::filesystem::path ca;
  std::filesystem::path certificate, key;
  /// In place of an authority: a peer's certificate is taken when it names a party, its key is one
  /// of that party's pins, and it is valid today. Who signed it does not matter.
  std::optional<Pins> pins = std::nullopt;
};

/// How a party reaches the two others. Party j connects to party i for i < j, so parties 0 and 1
/// listen.
struct TcpOptions {
  int party = 0;
  std::array<Endpoint, 3> endpoints;
  /// The name or address to listen on, where it is not endpoints[party].host. All addresses of a
  /// name that this machine has are listened on.
  std::string listen;
  /// A socket that already listens (inherited from a launcher); used instead of binding
  /// endpoints[party].
  std::optional<int> listen_fd;
  /// Mutual TLS 1.3; without it (`insecure` asked for by name) the links are plain TCP.
  std::optional<TlsFiles> tls;
  /// How long to keep trying to connect, and how long a peer may be silent afterwards.
  std::chrono::milliseconds connect_timeout{30'000};
  std::chrono::milliseconds timeout{30'000};
  /// How long a peer may send no data that is waited for (or take none), heartbeats or not: a
  /// thread that is stuck ends the run, a long computation must not. A peer that itself waits for
  /// the third party gets `timeout` on top, so that the right one is named, and connect_timeout in
  /// place of this, if that is longer, while the third has still to connect to it.
  std::chrono::milliseconds stall_timeout{600'000};
  /// What both ends must agree on; compared before anything else is exchanged. Pairs of name and
  /// value, e.g. {"protocol version", "1"}, {"network digest", "ab12..."}; a difference is reported
  /// by name with both values. Both timeouts are added: a party with a longer one would send
  /// heartbeats too seldom for the others.
  std::vector<std::pair<std::string, std::string>> agreement;
  /// A party that takes no part in this session: it is not waited for, and its link is null.
  std::optional<int> absent;
  /// Called while waiting, when it changes who is missing and then ever less often (after 2, 4, 8
  /// seconds, at most 30), with lines such as "waiting for party 0 at 10.0.0.3:7002, 27 s left" of
  /// one that is called and "waiting for party 2 on port 7001, 27 s left" of one that calls.
  std::function<void(const std::string&)> on_wait;
  /// Called for each peer that is connected by TLS, with its certificate; within ConnectTcp.
  std::function<void(int peer, const crypto::Certificate&)> on_peer;
  /// Called with what probably is a mistake, such as listening where the peers cannot reach.
  std::function<void(const std::string&)> on_warning;
  /// Asked several times a second while waiting; a reason ends the attempt with a NetworkError, and
  /// the parties that are connected by then, or that are just being greeted, are told.
  std::function<std::optional<std::string>()> interrupted;
};

/// Connects to the other parties and compares the agreements. A party that leaves or is lost while
/// another one is still waited for may come again until the deadline; when two processes come as
/// the same party, the later one counts. Of a host's addresses that take the connection all are
/// greeted, half a second apart, and the first that agrees counts. The links share one network
/// thread that encrypts, sends heartbeats and watches the peers. A peer that ends other than by a
/// goodbye without a reason (Link::Close) ends the link to one that has sent nothing yet, too,
/// since that one may be waiting for it without a link of its own; after such a goodbye that
/// happens when the one that left has still to connect to the other a timeout later. Throws
/// NetworkError (peer, what was tried, why it failed: refused, certificate of the wrong party,
/// expired, not signed by this CA or not pinned, garbage instead of a handshake, half a handshake,
/// agreement differs) or ConfigError (unreadable key file, port in use). Stops within
/// connect_timeout.
Links ConnectTcp(const TcpOptions& options);

}  // namespace tercet::net
