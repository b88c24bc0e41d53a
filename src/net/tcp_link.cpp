// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/tcp_link.h"

#include <sys/socket.h>

#include <algorithm>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/ip/v6_only.hpp>
#include <asio/ssl/context.hpp>
#include <asio/steady_timer.hpp>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "net/channel.h"
#include "net/connection.h"
#include "net/dialler.h"
#include "net/door.h"
#include "net/failure.h"
#include "net/greeting.h"
#include "net/resolver.h"
#include "tercet/base/error.h"

namespace tercet::net {
namespace {

using asio::ip::tcp;

constexpr auto kRetry = std::chrono::milliseconds(100);
constexpr auto kGreetingLimit = std::chrono::seconds(10);
constexpr auto kGrace = std::chrono::seconds(1);
constexpr auto kPoll = std::chrono::milliseconds(100);
constexpr int kMaxLines = 32;  // on what strangers and peers do while this party waits
// Between two lines that say who is missing.
constexpr Clock::duration kFirstPause = std::chrono::seconds(2),
                          kLongestPause = std::chrono::seconds(30);

std::string Name(const Endpoint& e) {
  const bool is_v6 = e.host.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", e.host, e.port) : fmt::format("{}:{}", e.host, e.port);
}

std::string Name(const tcp::endpoint& e) { return Name({e.address().to_string(), e.port()}); }

std::string SecondsText(std::chrono::milliseconds d) { return fmt::format("{}", Seconds(d)); }

/// The network thread of a party, shared by its links; the last one ends it.
class Network {
 public:
  Network() : io_(1), work_(asio::make_work_guard(io_)) {}
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  ~Network() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }
  asio::io_context& Io() { return io_; }

  void Start(std::vector<std::weak_ptr<Connection>> connections) {
    thread_ = std::thread([this, connections = std::move(connections)] {
      while (true) {
        try {
          io_.run();
          return;
        } catch (const std::exception&) {  // out of memory; the links are told, the others go on
          const std::string reason = Failure::Current().text;
          for (const auto& weak : connections) {
            if (const auto connection = weak.lock()) connection->Break(reason);
          }
        }
      }
    });
  }

 private:
  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};

class TcpLink final : public Link {
 public:
  TcpLink(std::shared_ptr<Network> network, std::shared_ptr<Connection> connection)
      : network_(std::move(network)), connection_(std::move(connection)) {}
  TcpLink(const TcpLink&) = delete;
  TcpLink& operator=(const TcpLink&) = delete;
  ~TcpLink() override { connection_->Close(); }

  void Send(Message message) override { connection_->Send(std::move(message)); }
  Message Receive(Phase phase) override { return connection_->Receive(phase); }
  void Flush() override { connection_->Flush(); }
  void Abort(const std::string& reason) noexcept override { connection_->Abort(reason); }
  void Close() noexcept override { connection_->Close(); }
  int Peer() const override { return connection_->Peer(); }

 private:
  std::shared_ptr<Network> network_;  // outlives the connection
  std::shared_ptr<Connection> connection_;
};

/// The connections of a party that has met both others, which may not have met each other yet. When
/// one of them fails, this party may be waiting for the other, which waits for the one that has
/// failed without a link on which it would hear of it: it is told.
class Circle {
 public:
  void Join(const std::shared_ptr<Connection>& connection) { connections_.push_back(connection); }
  /// On the network thread.
  void OnFailure(const Failure& failure) const {
    for (const auto& weak : connections_)
      if (const auto connection = weak.lock()) connection->GiveUp(failure);
  }

 private:
  std::vector<std::weak_ptr<Connection>> connections_;  // filled before the network thread starts
};

/// Brings up the connections to both others. Runs on the thread that calls ConnectTcp; handlers
/// that are left over end up on the network thread and do nothing.
class Setup : public std::enable_shared_from_this<Setup> {
 public:
  Setup(asio::io_context& io, const TcpOptions& options)
      : io_(io),
        options_(options),
        waits_(std::make_shared<WaitBoard>(options.party)),
        resolver_(io),
        tick_(io),
        poll_(io),
        grace_(io) {
    TERCET_CHECK(options.party >= 0 && options.party < 3, "party {} is not in 0..2", options.party);
    TERCET_CHECK(options.connect_timeout.count() > 0 && options.timeout.count() > 0 &&
                     options.stall_timeout >= options.timeout,
                 "timeouts must be positive and a stall no shorter than a silence, got {}, {} and "
                 "{} ms",
                 options.connect_timeout.count(), options.timeout.count(),
                 options.stall_timeout.count());
    options_.agreement.emplace_back("timeout_s", SecondsText(options.timeout));
    options_.agreement.emplace_back("stall_timeout_s", SecondsText(options.stall_timeout));
    EncodeHello(options.party, options_.agreement);  // checks its size now rather than in a handler
    if (options.tls) tls_ = MakeTlsContext(*options.tls);
    for (int i = 0; i < 3; ++i)
      if (i != options.party && i != options.absent) Await(i);
  }

  void Begin() {
    begun_ = Clock::now();
    deadline_ = begun_ + options_.connect_timeout;
    const auto awaited = Awaited();
    if (std::find(awaited.begin(), awaited.end(), true) != awaited.end()) Listen();
    for (int peer = 0; peer < options_.party; ++peer) Dial(peer);
    Poll();
    Tick();
  }

  bool Over() const { return over_; }
  const Failure& Result() const { return failure_; }
  /// Whether the others can go on without this process.
  bool Leaves() const { return leaves_; }
  std::shared_ptr<Connection> Take(int peer) { return std::move(peers_[Index(peer)].connection); }
  const std::shared_ptr<Circle>& Others() const { return circle_; }

  /// Drops what is not a connection by now.
  void Finish() {
    over_ = true;
    std::error_code ignored;
    for (const auto& acceptor : acceptors_) {
      acceptor->socket.close(ignored);
      acceptor->retry.cancel();
    }
    resolver_.Cancel();
    tick_.cancel();
    poll_.cancel();
    grace_.cancel();
    for (auto& peer : peers_) {
      if (peer.dialler) std::exchange(peer.dialler, nullptr)->Cancel();
      peer.retry.reset();
    }
    for (const auto& greeting : std::exchange(greetings_, {})) greeting->Cancel();
    options_.on_wait = options_.on_warning = nullptr;
    options_.on_peer = nullptr;
  }

 private:
  enum class State { kNone, kPending, kConnected, kFailed };

  struct PeerState {
    State state = State::kNone;
    std::string last_reason;
    std::string lost;  ///< how its last connection ended
    std::shared_ptr<Dialler> dialler;
    std::unique_ptr<asio::steady_timer> retry;
    std::shared_ptr<Connection> connection;
  };

  struct Acceptor {
    explicit Acceptor(asio::io_context& io) : socket(io), retry(io) {}
    tcp::acceptor socket;
    asio::steady_timer retry;
  };

  static std::size_t Index(int party) { return static_cast<std::size_t>(party); }
  Clock::duration Left() const {
    return std::max(deadline_ - Clock::now(), Clock::duration::zero());
  }
  /// For how long a connection that has come in may stay without showing whose it is.
  Clock::duration GreetingLimit() const {
    return std::min<Clock::duration>(kGreetingLimit, options_.connect_timeout / 2);
  }
  void Say(const std::string& line) const {
    if (options_.on_wait) options_.on_wait(line);
  }
  /// What others can make happen as often as they like.
  void SayOfOthers(const std::string& line) {
    if (++lines_ <= kMaxLines) Say(line);
  }
  /// `peer` has to connect, or again; those that are connected hear of that with the heartbeats.
  void Await(int peer) {
    peers_[Index(peer)].state = State::kPending;
    waits_->SetMissing(peer, true);
    waits_->SetProcess(peer, 0);
  }

  // --- Listening.

  void Listen() {
    if (options_.listen_fd) {
      acceptors_.push_back(std::make_shared<Acceptor>(io_));
      Adopt(acceptors_.back()->socket, *options_.listen_fd);
    } else {
      for (const auto& local : OwnAddresses()) ListenOn(local);
      if (acceptors_.empty()) RefuseToListen();
      std::string where;
      for (const auto& acceptor : acceptors_)
        where += (where.empty() ? "" : " and ") + Name(acceptor->socket.local_endpoint());
      Say("listening on " + where);
    }
    for (const auto& acceptor : acceptors_) Accept(acceptor);
    for (int peer = options_.party + 1; peer < 3; ++peer) Expect(peer);
  }

  std::string OwnName() const {
    return options_.listen.empty() ? options_.endpoints[Index(options_.party)].host
                                   : options_.listen;
  }

  std::vector<tcp::endpoint> OwnAddresses() {
    const std::uint16_t port = options_.endpoints[Index(options_.party)].port;
    const std::string name = OwnName();
    if (name.empty()) return {tcp::endpoint(tcp::v4(), port)};
    std::error_code none;
    if (const auto address = asio::ip::make_address(name, none); !none)
      return {tcp::endpoint(address, port)};
    std::optional<std::vector<tcp::endpoint>> found;
    std::error_code problem;
    resolver_.Resolve(name, port, true,
                      [&](const std::error_code& error, const Resolver::Addresses& addresses) {
                        problem = error;
                        found = addresses;
                      });
    while (!found && Left() > Clock::duration::zero()) io_.run_one_for(Left());
    if (!found || found->empty()) {
      resolver_.Cancel();
      Refuse(fmt::format("the own host {} is unknown: {}", name,
                         found ? problem.message() : "no answer from the name server"));
    }
    return *found;
  }

  void ListenOn(const tcp::endpoint& local) {
    auto acceptor = std::make_shared<Acceptor>(io_);
    tcp::acceptor& socket = acceptor->socket;
    std::error_code ec;
    socket.open(local.protocol(), ec);
    if (!ec) socket.set_option(tcp::acceptor::reuse_address(true), ec);
    // Where a name stands for both, each family has a socket of its own.
    if (!ec && local.address().is_v6()) socket.set_option(asio::ip::v6_only(true), ec);
    if (!ec) socket.bind(local, ec);
    if (!ec) socket.listen(asio::socket_base::max_listen_connections, ec);
    if (ec == asio::error::address_in_use)
      Refuse(fmt::format("port {} on {} is in use", local.port(),
                         OwnName().empty() ? "this machine" : OwnName()));
    if (!ec) {
      acceptors_.push_back(std::move(acceptor));
      return;
    }
    if (!not_listening_.empty()) not_listening_ += "; ";
    not_listening_ += fmt::format("{}: {}", local.address().to_string(), ec.message());
  }

  [[noreturn]] void RefuseToListen() const {
    Refuse(fmt::format(
        "cannot listen on {} ({}); if the others reach this machine by an address that it does not "
        "have itself, name one of its own with \"listen\"",
        Name({OwnName(), options_.endpoints[Index(options_.party)].port}), not_listening_));
  }

  void Adopt(tcp::acceptor& acceptor, int fd) const {
    std::error_code ec;
    ::sockaddr_storage address{};
    ::socklen_t size = sizeof(address);
    int listening = 0;
    ::socklen_t flag_size = sizeof(listening);
    if (::getsockname(fd, reinterpret_cast<::sockaddr*>(&address), &size) != 0 ||
        ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &flag_size) != 0 ||
        listening == 0) {
      Refuse(fmt::format("the inherited descriptor {} is no listening socket", fd));
    }
    acceptor.assign(address.ss_family == AF_INET6 ? tcp::v6() : tcp::v4(), fd, ec);
    // Whoever made it may have left little room for those who have not been accepted yet.
    if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
    if (ec) Refuse(fmt::format("the inherited descriptor {} cannot be used: {}", fd, ec.message()));
  }

  [[noreturn]] void Refuse(const std::string& problem) const {
    throw ConfigError(fmt::format("party {}", options_.party), problem);
  }

  /// Keeps places for `peer`'s host, and looks whether it can reach this party at all.
  void Expect(int peer) {
    const std::string& host = options_.endpoints[Index(peer)].host;
    if (host.empty()) return;
    resolver_.Resolve(host, 0, false,
                      [self = shared_from_this(), peer](const std::error_code& error,
                                                        const Resolver::Addresses& found) {
                        if (self->over_ || error) return;
                        bool is_local = true;
                        for (const auto& entry : found) {
                          self->door_.Expect(entry.address());
                          is_local &= entry.address().is_loopback();
                        }
                        if (!is_local) self->WarnOnLoopback(peer);
                      });
  }

  void WarnOnLoopback(int peer) const {
    if (options_.listen_fd || !options_.on_warning) return;
    std::string where;
    for (const auto& acceptor : acceptors_) {
      std::error_code ec;
      const auto local = acceptor->socket.local_endpoint(ec);
      if (!local.address().is_loopback()) return;
      where += (where.empty() ? "" : " and ") + Name(local);
    }
    options_.on_warning(
        fmt::format("party {} listens on {} only, which party {} at {} cannot reach; name another "
                    "address with \"listen\"",
                    options_.party, where, peer, options_.endpoints[Index(peer)].host));
  }

  void Accept(const std::shared_ptr<Acceptor>& acceptor) {
    acceptor->socket.async_accept(
        [self = shared_from_this(), acceptor](const std::error_code& error, tcp::socket socket) {
          if (self->over_) return;
          if (!error) {
            self->Welcome(std::move(socket));
            self->Accept(acceptor);
            return;
          }
          // Out of descriptors, or the stranger is gone: later is better than in a tight loop.
          acceptor->retry.expires_after(kRetry);
          acceptor->retry.async_wait([self, acceptor](const std::error_code& cancelled) {
            if (!cancelled && !self->over_) self->Accept(acceptor);
          });
        });
  }

  void Welcome(tcp::socket socket) {
    std::error_code gone;
    const auto remote = socket.remote_endpoint(gone);
    if (gone) return;
    const std::string from = Name(remote);
    const auto greeting = Greet(
        std::move(socket), false, GreetingLimit(), [this] { return Awaited(); },
        [this, from](Greeting::Outcome outcome) { OnWelcomed(from, std::move(outcome)); });
    for (const auto& stranger : door_.Enter(greeting, remote.address())) Drop(stranger);
    greeting->Start();
  }

  /// The parties that may connect to this one: those that have still to come, and those that have,
  /// whose process may have been restarted without our noticing the end of the old one.
  std::array<bool, 3> Awaited() const {
    std::array<bool, 3> awaited{};
    for (int peer = options_.party + 1; peer < 3; ++peer) {
      const State state = peers_[Index(peer)].state;
      awaited[Index(peer)] = state == State::kPending || state == State::kConnected;
    }
    return awaited;
  }

  void OnWelcomed(const std::string& from, Greeting::Outcome outcome) {
    using Kind = Greeting::Outcome::Kind;
    switch (outcome.kind) {
      case Kind::kAgreed:
        OnConnected(from, std::move(outcome));
        return;
      case Kind::kDiffers:
        GiveUp(outcome.peer, {Failure::Kind::kNetwork,
                              fmt::format("party {} differs in {}", outcome.peer, outcome.reason)});
        return;
      case Kind::kFailed:
        // It greets all addresses of this party that it knows, and has chosen another.
        if (outcome.peer >= 0 && peers_[Index(outcome.peer)].state == State::kConnected) return;
        break;
      case Kind::kDefinite:
        break;
    }
    const std::string line = fmt::format("refused {}: {}", from, outcome.reason);
    SayOfOthers(line);
    for (int peer = options_.party + 1; peer < 3; ++peer) {
      // Where the certificate told who it was, only that party's entry gets the reason.
      if (outcome.peer < 0 || outcome.peer == peer || outcome.peer <= options_.party) {
        peers_[Index(peer)].last_reason = line;
      }
    }
  }

  // --- Connecting.

  void Dial(int peer) {
    PeerState& state = peers_[Index(peer)];
    if (over_ || state.state != State::kPending) return;
    state.dialler = std::make_shared<Dialler>(
        io_, options_.endpoints[Index(peer)], GreetingLimit(),
        [this, peer](tcp::socket socket, Dialler::Done done) {
          const auto greeting = Greet(
              std::move(socket), true, std::min<Clock::duration>(kGreetingLimit, Left()),
              [peer] {
                std::array<bool, 3> expected{};
                expected[Index(peer)] = true;
                return expected;
              },
              std::move(done));
          greeting->Start();
          return [this, weak = std::weak_ptr(greeting)] {
            if (const auto begun = weak.lock()) Drop(begun);
          };
        },
        [this, peer](Greeting::Outcome outcome) { OnDialled(peer, std::move(outcome)); });
    state.dialler->Start();
  }

  void OnDialled(int peer, Greeting::Outcome outcome) {
    using Kind = Greeting::Outcome::Kind;
    const std::string where = Name(options_.endpoints[Index(peer)]);
    peers_[Index(peer)].dialler = nullptr;
    switch (outcome.kind) {
      case Kind::kAgreed:
        OnConnected(where, std::move(outcome));
        return;
      case Kind::kDiffers:
        GiveUp(peer, {Failure::Kind::kNetwork,
                      fmt::format("party {} differs in {}", peer, outcome.reason)});
        return;
      case Kind::kDefinite:
      case Kind::kFailed:
        GiveUp(peer, {Failure::Kind::kNetwork,
                      fmt::format("party {} at {}: {}", peer, where, outcome.reason)});
        return;
    }
  }

  void Redial(int peer) {
    PeerState& state = peers_[Index(peer)];
    state.retry = std::make_unique<asio::steady_timer>(io_, kRetry);
    state.retry->async_wait([self = shared_from_this(), peer](const std::error_code& cancelled) {
      if (!cancelled) self->Dial(peer);
    });
  }

  // --- Both.

  std::shared_ptr<Greeting> Greet(tcp::socket socket, bool client, Clock::duration limit,
                                  Greeting::Expected expected,
                                  std::function<void(Greeting::Outcome)> done) {
    std::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    // The greeting's callbacks use `this`, which it keeps alive through `self` until it is over or
    // cancelled.
    auto self = shared_from_this();
    auto slot = std::make_shared<std::weak_ptr<Greeting>>();
    auto greeting =
        std::make_shared<Greeting>(io_, MakeChannel(std::move(socket), tls_.get()), client,
                                   options_.party, std::move(expected), options_.agreement, limit,
                                   [self, slot, done = std::move(done)](Greeting::Outcome outcome) {
                                     if (const auto ended = slot->lock()) {
                                       self->door_.Leave(ended.get());
                                       self->greetings_.erase(ended);
                                     }
                                     if (self->over_) return;
                                     done(std::move(outcome));
                                     if (!self->over_) self->CheckOver();
                                   });
    *slot = greeting;
    greetings_.insert(greeting);
    return greeting;
  }

  void Drop(const std::shared_ptr<Greeting>& greeting) {
    greeting->Cancel();
    greetings_.erase(greeting);
  }

  void OnConnected(const std::string& where, Greeting::Outcome outcome) {
    const int peer = outcome.peer;
    auto& channel = outcome.channel;
    if (options_.on_peer) {
      if (const auto certificate = channel->PeerCertificate()) options_.on_peer(peer, *certificate);
    }
    PeerState& state = peers_[Index(peer)];
    if (state.connection) {
      SayOfOthers(fmt::format("party {} has come again, from {}", peer, where));
      state.connection->Dismiss(
          fmt::format("another process has connected as party {} since", peer));
    }
    state.state = State::kConnected;
    waits_->SetMissing(peer, false);
    waits_->SetProcess(peer, outcome.process);
    state.connection = std::make_shared<Connection>(
        io_, std::move(channel), peer, where,
        Connection::Limits{options_.timeout, options_.stall_timeout, options_.connect_timeout},
        waits_, [weak = weak_from_this(), circle = circle_, peer](const Failure& failure) {
          const auto self = weak.lock();
          if (self && !self->over_) {
            self->OnLost(peer, failure);
          } else {
            circle->OnFailure(failure);
          }
        });
    state.connection->Start();
    CheckOver();
  }

  /// A peer that was connected ends while another is still waited for. Where it stopped because of
  /// an error there is no hope; otherwise it may come again.
  void OnLost(int peer, const Failure& failure) {
    PeerState& state = peers_[Index(peer)];
    state.connection = nullptr;
    if (failure.is_dismissal) {  // the others are to go on with the newer process
      Leave(failure);
      Finish();
      return;
    }
    if (failure.kind == Failure::Kind::kAbort) {
      GiveUp(peer, failure);
      return;
    }
    Await(peer);
    state.last_reason = state.lost = failure.text;
    SayOfOthers(fmt::format("{}; waiting for it to come again", failure.text));
    if (peer < options_.party) Redial(peer);
  }

  /// This party ends, for which the others need not.
  void Leave(const Failure& failure) {
    leaves_ = true;
    failure_ = failure;
  }

  /// There is no hope for `peer`. The other one gets a moment to connect, so that it can be told
  /// why.
  void GiveUp(int peer, Failure failure) {
    peers_[Index(peer)].state = State::kFailed;
    if (!failure_) failure_ = std::move(failure);
    BeginGrace();
    CheckOver();
  }

  void BeginGrace() {
    grace_.expires_after(kGrace);
    grace_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
      if (!cancelled && !self->over_) self->Finish();
    });
  }

  /// A peer that is being greeted when this party ends may have said its part already and count on
  /// the connection: it is greeted to the end and then told why.
  void CheckOver() {
    const bool pending = std::any_of(peers_.begin(), peers_.end(),
                                     [](const PeerState& p) { return p.state == State::kPending; });
    if (!pending || (leaves_ && greetings_.empty())) Finish();
  }

  /// Whether somebody wants to end this.
  void Poll() {
    if (const auto reason = options_.interrupted ? options_.interrupted() : std::nullopt) {
      Leave({Failure::Kind::kNetwork, *reason});
      BeginGrace();
      CheckOver();
      return;
    }
    poll_.expires_after(kPoll);
    poll_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
      if (!cancelled && !self->over_) self->Poll();
    });
  }

  void Tick() {
    const auto now = Clock::now();
    if (now >= deadline_) {
      if (!failure_) failure_ = {Failure::Kind::kNetwork, TimeoutText()};
      Finish();
      return;
    }
    if (now != begun_ && !failure_) SayWaiting(now);
    if (over_) return;
    tick_.expires_at(std::min(deadline_, Clock::now() + std::chrono::seconds(1)));
    tick_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
      if (!cancelled && !self->over_) self->Tick();
    });
  }

  // When it changes who is missing, and then ever less often.
  void SayWaiting(Clock::time_point now) {
    std::vector<int> missing;
    for (int peer = 0; peer < 3; ++peer)
      if (peers_[Index(peer)].state == State::kPending) missing.push_back(peer);
    if (missing != missing_) {
      missing_ = missing;
      pause_ = kFirstPause;
    } else if (now < say_again_) {
      return;
    }
    say_again_ = now + pause_;
    pause_ = std::min(2 * pause_, kLongestPause);
    for (const int peer : missing) {
      const std::string where =
          peer < options_.party
              ? "at " + Name(options_.endpoints[Index(peer)])
              : fmt::format("on port {}", options_.endpoints[Index(options_.party)].port);
      Say(fmt::format("waiting for party {} {}, {:.0f} s left", peer, where, Seconds(Left())));
    }
  }

  std::string TimeoutText() const {
    std::string text;
    const double seconds = Seconds(options_.connect_timeout);
    for (int peer = 0; peer < 3; ++peer) {
      const PeerState& state = peers_[Index(peer)];
      if (state.state != State::kPending) continue;
      if (!text.empty()) text += "; ";
      if (peer < options_.party) {
        text += fmt::format("party {} at {} could not be reached within {:.1f} s", peer,
                            Name(options_.endpoints[Index(peer)]), seconds);
      } else {
        text += fmt::format("party {} did not connect to party {} within {:.1f} s", peer,
                            options_.party, seconds);
      }
      const std::string reason = state.dialler ? state.dialler->Reasons() : state.last_reason;
      const bool told = state.lost.empty() || state.lost == reason;
      if (!reason.empty())
        text += fmt::format(" ({}last: {})", told ? "" : state.lost + "; ", reason);
    }
    return text;
  }

  asio::io_context& io_;
  TcpOptions options_;
  std::shared_ptr<asio::ssl::context> tls_;
  const std::shared_ptr<WaitBoard> waits_;
  const std::shared_ptr<Circle> circle_ = std::make_shared<Circle>();
  std::vector<std::shared_ptr<Acceptor>> acceptors_;
  std::string not_listening_;  ///< the own addresses that cannot be listened on, with reasons
  Door door_;
  Resolver resolver_;
  asio::steady_timer tick_, poll_, grace_;
  std::array<PeerState, 3> peers_;
  std::set<std::shared_ptr<Greeting>> greetings_;
  Clock::time_point begun_, deadline_;
  int lines_ = 0;
  std::vector<int> missing_;  ///< who was waited for when that was last said
  Clock::time_point say_again_;
  Clock::duration pause_{};
  Failure failure_;
  bool leaves_ = false;
  bool over_ = false;
};

}  // namespace

Links ConnectTcp(const TcpOptions& options) {
  const auto network = std::make_shared<Network>();
  const auto setup = std::make_shared<Setup>(network->Io(), options);
  try {
    setup->Begin();
    while (!setup->Over()) network->Io().run_one();
  } catch (...) {
    setup->Finish();
    throw;
  }

  Links links;
  std::vector<std::shared_ptr<Connection>> connections;
  for (int peer = 0; peer < 3; ++peer) {
    if (auto connection = setup->Take(peer)) {
      connections.push_back(connection);
      links[static_cast<std::size_t>(peer)] =
          std::make_unique<TcpLink>(network, std::move(connection));
    }
  }
  if (!setup->Result())
    for (const auto& connection : connections) setup->Others()->Join(connection);
  // The result is read before the thread starts to share what setup holds.
  const Failure failure = setup->Result();
  const bool leaves = setup->Leaves();
  network->Start({connections.begin(), connections.end()});
  if (!failure) return links;
  for (const auto& connection : connections) {
    if (leaves) {
      connection->Leave(failure.text);
    } else {
      connection->Abort(failure.text);
    }
  }
  failure.Throw();
}

}  // namespace tercet::net
