// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "tercet/mpc/registry.h"
#include "tercet/net/wrappers.h"
#include "tercet/service/query.h"

namespace tercet::serve {

struct ServerOptions {
  int id = 0;
  std::size_t worker = 0;  ///< of the deployment's workers of this server; its lanes are run
  std::filesystem::path store;
  std::filesystem::path web;         ///< files of a web page that clients get; empty: none
  bool client_certificates = false;  ///< clients may show one in place of a token
  std::string metrics;               ///< address and port for Prometheus; empty: none
  std::size_t max_batch = 64;
  std::chrono::microseconds max_wait{500};
  std::size_t ahead = 2;  ///< batches of a size whose material a lane has, its sessions together
  /// Bytes of material that wait in all lanes, about; the same at all servers.
  std::uint64_t material = std::uint64_t{96} << 20;
  net::LinkProfile link;      ///< that messages to the other servers are delayed by, to measure
  std::size_t in_flight = 1;  ///< batches of a lane at once; the same at all servers
  std::chrono::seconds request_time{10};            ///< for a client to send a request
  std::chrono::seconds handshake_time{10};          ///< for a TLS handshake
  std::size_t max_connections = 1024;               ///< of clients
  std::size_t max_connections_each = 512;           ///< of one address (of IPv6, of 64 bits of it)
  std::size_t max_bodies = std::size_t{128} << 20;  ///< bytes of requests under way
  std::function<void(const std::string&)> log;      ///< lines without secrets; from any thread
  std::function<std::uint64_t()> now_ms = service::NowMs;  ///< this server's clock
};

/// A running server: lanes, packages, and HTTPS for clients.
class Server {
 public:
  /// Begins to serve. ConfigError for a store or deployment that does not fit, or a port that
  /// cannot be had.
  Server(ServerOptions options, service::Deployment deployment, const mpc::Registry& registry);
  ~Server();
  /// No new query; returns when those under way have ended.
  void Drain();
  /// Reads the certificate and key for clients anew; connections that are there keep the old one.
  /// ConfigError, and the old one stays, where that is none.
  void Reload();

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace tercet::serve
