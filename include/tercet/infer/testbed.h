// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "tercet/mpc/suite.h"
#include "tercet/net/tcp_link.h"

namespace tercet::infer {

/// How long a peer may send no data that is waited for, unless it is said. No honest step of a
/// query may take longer.
inline constexpr std::chrono::minutes kStallTimeout{10};

/// A testbed file (configs/*.json) as one party reads it.
struct Testbed {
  std::array<net::Endpoint, 3> endpoints;
  std::optional<net::TlsFiles> tls;  ///< nothing: plain TCP, asked for by name
  std::string listen;                ///< of this party; empty: its host
  mpc::Roles roles;
  std::chrono::milliseconds timeout{30'000}, stall_timeout{kStallTimeout}, connect_timeout{30'000};

  /// How party `id`, whose testbed this is, reaches the others. What they must agree on (Agreement)
  /// and callbacks are the caller's.
  net::TcpOptions Tcp(int id) const;
};

/// Reads and checks the file for party `id`, and the certificates that it pins. ConfigError "FILE
/// POINTER: found, expected" for whatever the schema (configs/testbed.schema.json, built in)
/// forbids, missing or needless certificates, pins of some parties only, a key of two parties, a
/// certificate that is not of its party or of none of the fingerprints beside it. Each shard of a
/// job has a port of its own, `shard` after that in the file (ConfigError where there is none
/// left), and its number stands for "{shard}" in hosts.
Testbed LoadTestbed(const std::filesystem::path& file, int id, std::size_t shard = 0);

/// How `tercet bench` starts a party.
struct BenchLogin {
  std::string login, command;  ///< where the remote shell leads, and what it runs there
};

/// What whoever is none of the parties needs of a testbed file in order to drive them.
struct BenchTestbed {
  std::array<BenchLogin, 3> logins;
  mpc::Roles roles;
  bool tls = true;
};

/// Reads it; no certificate or key is looked at. ConfigError "FILE POINTER: found, expected" for
/// what the schema forbids, and for a party without "bench".
BenchTestbed LoadBenchTestbed(const std::filesystem::path& file);

/// Reads this party's certificate. ConfigError (place: its file) when it is not valid at `now`, not
/// of party `id`, or its key is pinned for another party or not for this one, which the others
/// would find out only later.
crypto::Certificate CheckOwnCertificate(const net::TlsFiles& tls, int id,
                                        std::chrono::sys_seconds now);

/// The same file's text for one party, for the launcher. `tls` has no pins, or is missing for plain
/// TCP.
std::string TestbedToJson(const std::array<net::Endpoint, 3>& endpoints,
                          const std::optional<net::TlsFiles>& tls, const mpc::Roles& roles,
                          double timeout_s, double stall_timeout_s, double connect_timeout_s);

}  // namespace tercet::infer
