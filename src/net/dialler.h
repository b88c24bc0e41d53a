// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "net/greeting.h"
#include "net/resolver.h"
#include "tercet/net/tcp_link.h"

namespace tercet::net {

/// Attempts to reach a party at its endpoint, at all addresses of the host's name side by side,
/// each again and again; the name is looked up again meanwhile. Addresses that take the connection
/// are greeted, the next one when the one before has failed or has not answered for a moment, until
/// one agrees; the others are closed then, before the listener can take them for this party's
/// choice. Network thread only.
class Dialler : public std::enable_shared_from_this<Dialler> {
 public:
  static constexpr std::size_t kMaxAtOnce = 64;  ///< of the addresses; the others get their turn

  using Done = std::function<void(Greeting::Outcome)>;
  /// Greets whoever is at the other end of a socket. Returns what ends that before it is done; it
  /// does nothing afterwards.
  using Greet = std::function<std::function<void()>(asio::ip::tcp::socket, Done)>;

  /// `patience` is for how long a listener keeps a connection over which nobody greets it.
  Dialler(asio::io_context& io, const Endpoint& there, Clock::duration patience, Greet greet,
          Done done);

  /// Between two greetings, so that the last address is greeted in half of the listeners' patience.
  static Clock::duration Stagger(Clock::duration patience, std::size_t addresses);

  /// Calls `done` once, unless cancelled: kAgreed or kDiffers for the address that greeted us,
  /// kDefinite when no address can be reached by trying again.
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
    enum class State { kWaiting, kConnecting, kReady, kGreeted } state = State::kWaiting;
    Clock::time_point not_before{};  ///< while it waits
    Clock::time_point greeted_at{};  ///< last
    int failures = 0;                ///< of greetings
    bool hopeless = false;           ///< it failed last for a reason that hardly passes
    bool listed = true;              ///< the name still stands for it
    std::string reason;              ///< why it failed last
    std::function<void()> cancel;    ///< while it is greeted
  };
  // Handlers of sockets and timers may come late.
  using AttemptPtr = std::shared_ptr<Attempt>;

  void Resolve();
  void GoOn();
  void TryAgain();
  void Try(const AttemptPtr& attempt);
  void GreetNext(const AttemptPtr& attempt);
  void OnGreeted(Attempt& attempt, Greeting::Outcome outcome);
  void Finish(Greeting::Outcome outcome);
  void CloseAll();

  asio::io_context& io_;
  const Endpoint there_;
  const Clock::duration patience_;
  Greet greet_;
  Done done_;
  Resolver resolver_;
  std::string unresolved_;  ///< why the name stands for nothing
  std::vector<AttemptPtr> attempts_;
  asio::steady_timer look_up_, retry_, stagger_;
  bool may_answer_ = false;  ///< the one that was greeted last has had little time yet
};

}  // namespace tercet::net
