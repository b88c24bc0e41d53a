// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/greeting.h"
#include "tercet/net/tcp_link.h"

namespace tercet::net {

/// One round of attempts to reach a party at its endpoint: all addresses of the host's name at
/// once, each for a few seconds. Those that take the connection are greeted, the next one when the
/// one before has failed or has not answered for a moment, until one agrees; the others are closed
/// then, before the listener can take them for this party's choice. Network thread only.
class Dialler : public std::enable_shared_from_this<Dialler> {
 public:
  using Done = std::function<void(Greeting::Outcome)>;
  /// Greets whoever is at the other end of a socket; `only` when there is no other address to try.
  /// Returns what ends that before it is done; it does nothing afterwards.
  using Greet = std::function<std::function<void()>(asio::ip::tcp::socket, bool only, Done)>;

  Dialler(asio::io_context& io, const Endpoint& there, Greet greet, Done done);

  /// Calls `done` once, unless cancelled. kAgreed and kDiffers are of the address that greeted us;
  /// otherwise the reason tells of each address, and it is kDefinite when all are hopeless.
  void Start();
  /// The same with addresses that are known.
  void StartWith(const std::vector<asio::ip::tcp::endpoint>& addresses);
  void Cancel();
  /// How it stands with each address: "10.0.0.3: no answer; 10.0.0.4: refused".
  std::string Reasons() const;

 private:
  struct Attempt {
    Attempt(asio::io_context& io, const asio::ip::tcp::endpoint& endpoint)
        : to(endpoint), socket(io), limit(io) {}
    asio::ip::tcp::endpoint to;
    asio::ip::tcp::socket socket;
    asio::steady_timer limit;
    enum class State { kConnecting, kReady, kGreeted, kFailed } state = State::kConnecting;
    std::string reason;
    bool definite = false;
    std::function<void()> cancel;  ///< while it is greeted
  };

  void Resolve();
  void Try(Attempt& attempt);
  void GoOn();
  void GreetNext(Attempt& attempt);
  void Finish(Greeting::Outcome outcome);
  void CloseAll();

  asio::io_context& io_;
  const Endpoint there_;
  Greet greet_;
  Done done_;
  asio::ip::tcp::resolver resolver_;
  std::deque<Attempt> attempts_;
  asio::steady_timer stagger_;
  bool may_answer_ = false;  ///< the one that was greeted last has had little time yet
};

}  // namespace tercet::net
