// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

namespace tercet::net {

/// Looks names up without being held up by name servers that do not answer: each look-up has a
/// thread of its own, which nobody waits for, since the system's look-ups cannot be ended. Not
/// thread safe: for the thread that runs the io_context.
class Resolver {
 public:
  using Addresses = std::vector<asio::ip::tcp::endpoint>;
  using Done = std::function<void(const std::error_code& error, const Addresses& addresses)>;

  explicit Resolver(asio::io_context& io);
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;
  /// The look-ups under way come to nothing.
  ~Resolver();

  /// Calls `done` from the io_context, unless cancelled. `passive`: of addresses to listen
  /// on.
  void Resolve(const std::string& host, std::uint16_t port, bool passive, Done done);
  /// `done` of what is under way is not called any more.
  void Cancel();

 private:
  struct Mailbox;
  asio::io_context& io_;
  std::shared_ptr<Mailbox> mailbox_;
  std::uint64_t number_ = 0;  ///< of the last look-up
};

}  // namespace tercet::net
