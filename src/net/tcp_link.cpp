#include "tercet/net/tcp_link.h"

#include <sys/socket.h>

#include <algorithm>
#include <asio/connect.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/ssl/context.hpp>
#include <asio/steady_timer.hpp>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "net/channel.h"
#include "net/connection.h"
#include "net/failure.h"
#include "net/greeting.h"
#include "tercet/base/error.h"

namespace tercet::net {
namespace {

using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr auto kRetry = std::chrono::milliseconds(100);
constexpr auto kGreetingLimit = std::chrono::seconds(10);
constexpr auto kGrace = std::chrono::seconds(1);
constexpr std::size_t kMaxStrangers = 64;
constexpr int kMaxRefusalLines = 32;

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

std::string Name(const Endpoint& e) { return fmt::format("{}:{}", e.host, e.port); }

std::string Name(const tcp::socket& socket) {
  std::error_code ec;
  const auto remote = socket.remote_endpoint(ec);
  return ec ? "an address that is gone" : Name({remote.address().to_string(), remote.port()});
}

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
        } catch (
            const std::exception& e) {  // out of memory; the links are told and the others go on
          for (const auto& weak : connections) {
            if (const auto connection = weak.lock()) connection->Break(e.what());
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

/// Brings up the connections to both others. Runs on the thread that calls ConnectTcp; handlers
/// that are left over end up on the network thread and do nothing.
class Setup : public std::enable_shared_from_this<Setup> {
 public:
  Setup(asio::io_context& io, const TcpOptions& options)
      : io_(io), options_(options), acceptor_(io), tick_(io), grace_(io), accept_retry_(io) {
    TERCET_CHECK(options.party >= 0 && options.party < 3, "party {} is not in 0..2", options.party);
    TERCET_CHECK(options.connect_timeout.count() > 0 && options.timeout.count() > 0,
                 "timeouts must be positive, got {} ms and {} ms", options.connect_timeout.count(),
                 options.timeout.count());
    EncodeHello(options.party, options.agreement);  // checks its size now rather than in a handler
    if (options.tls) tls_ = MakeTlsContext(*options.tls);
    for (int i = 0; i < 3; ++i)
      peers_[Index(i)].state =
          i == options.party || i == options.absent ? State::kNone : State::kPending;
  }

  void Begin() {
    begun_ = Clock::now();
    deadline_ = begun_ + options_.connect_timeout;
    const auto awaited = Awaited();
    if (std::find(awaited.begin(), awaited.end(), true) != awaited.end()) Listen();
    for (int peer = 0; peer < options_.party; ++peer) Dial(peer);
    Tick();
  }

  bool Over() const { return over_; }
  const Failure& Result() const { return failure_; }
  std::shared_ptr<Connection> Take(int peer) { return std::move(peers_[Index(peer)].connection); }

  /// Drops what is not a connection by now.
  void Finish() {
    over_ = true;
    std::error_code ignored;
    acceptor_.close(ignored);
    tick_.cancel();
    grace_.cancel();
    accept_retry_.cancel();
    for (auto& peer : peers_) {
      if (peer.dial) peer.dial->Stop();
      peer.dial = nullptr;
    }
    for (const auto& greeting : std::exchange(greetings_, {})) greeting->Cancel();
    options_.on_wait = nullptr;
    options_.on_peer = nullptr;
  }

 private:
  enum class State { kNone, kPending, kConnected, kFailed };

  /// What is under way to connect to one peer.
  struct DialState {
    explicit DialState(asio::io_context& io) : resolver(io), socket(io), retry(io) {}
    void Stop() {
      resolver.cancel();
      std::error_code ignored;
      socket.close(ignored);
      retry.cancel();
    }
    tcp::resolver resolver;
    tcp::socket socket;
    asio::steady_timer retry;
  };

  struct PeerState {
    State state = State::kNone;
    std::string last_reason;
    std::shared_ptr<DialState> dial;
    std::shared_ptr<Connection> connection;
  };

  static std::size_t Index(int party) { return static_cast<std::size_t>(party); }
  Clock::duration Left() const {
    return std::max(deadline_ - Clock::now(), Clock::duration::zero());
  }
  void Say(const std::string& line) const {
    if (options_.on_wait) options_.on_wait(line);
  }

  // --- Listening.

  void Listen() {
    const Endpoint& here = options_.endpoints[Index(options_.party)];
    std::error_code ec;
    if (options_.listen_fd) {
      Adopt(*options_.listen_fd);
    } else {
      tcp::endpoint local(tcp::v4(), here.port);
      if (!here.host.empty()) {
        const auto found = tcp::resolver(io_).resolve(here.host, std::to_string(here.port),
                                                      tcp::resolver::passive, ec);
        if (ec || found.empty())
          Refuse(fmt::format("the own host {} is unknown: {}", here.host, ec.message()));
        local = found.begin()->endpoint();
      }
      acceptor_.open(local.protocol(), ec);
      if (!ec) acceptor_.set_option(tcp::acceptor::reuse_address(true), ec);
      if (!ec) acceptor_.bind(local, ec);
      if (!ec) acceptor_.listen(asio::socket_base::max_listen_connections, ec);
      if (ec == asio::error::address_in_use) {
        Refuse(fmt::format("port {} on {} is in use", here.port,
                           here.host.empty() ? "this machine" : here.host));
      }
      if (ec) Refuse(fmt::format("cannot listen on {}: {}", Name(here), ec.message()));
    }
    Accept();
  }

  void Adopt(int fd) {
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
    acceptor_.assign(address.ss_family == AF_INET6 ? tcp::v6() : tcp::v4(), fd, ec);
    if (ec) Refuse(fmt::format("the inherited descriptor {} cannot be used: {}", fd, ec.message()));
  }

  [[noreturn]] void Refuse(const std::string& problem) const {
    throw ConfigError(fmt::format("party {}", options_.party), problem);
  }

  void Accept() {
    acceptor_.async_accept(
        [self = shared_from_this()](const std::error_code& error, tcp::socket socket) {
          if (self->over_) return;
          if (!error) {
            self->Welcome(std::move(socket));
            self->Accept();
            return;
          }
          // Out of descriptors, or the stranger is gone: later is better than in a tight loop.
          self->accept_retry_.expires_after(kRetry);
          self->accept_retry_.async_wait([self](const std::error_code& cancelled) {
            if (!cancelled && !self->over_) self->Accept();
          });
        });
  }

  void Welcome(tcp::socket socket) {
    if (greetings_.size() >= kMaxStrangers) return;  // closes it; the real peer tries again
    const std::string from = Name(socket);
    const auto limit = std::min<Clock::duration>(kGreetingLimit, options_.connect_timeout / 2);
    Greet(
        std::move(socket), false, limit, [this] { return Awaited(); },
        [this, from](Greeting::Outcome outcome) { OnWelcomed(from, std::move(outcome)); });
  }

  /// The parties that have still to connect to this one.
  std::array<bool, 3> Awaited() const {
    std::array<bool, 3> awaited{};
    for (int peer = options_.party + 1; peer < 3; ++peer) {
      awaited[Index(peer)] = peers_[Index(peer)].state == State::kPending;
    }
    return awaited;
  }

  void OnWelcomed(const std::string& from, Greeting::Outcome outcome) {
    using Kind = Greeting::Outcome::Kind;
    switch (outcome.kind) {
      case Kind::kAgreed:
        OnConnected(outcome.peer, from, std::move(outcome.channel));
        return;
      case Kind::kDiffers:
        GiveUp(outcome.peer, fmt::format("party {} differs in {}", outcome.peer, outcome.reason));
        return;
      case Kind::kFailed:
      case Kind::kDefinite:
        break;
    }
    const std::string line = fmt::format("refused {}: {}", from, outcome.reason);
    if (++refusals_ <= kMaxRefusalLines) Say(line);
    for (int peer = options_.party + 1; peer < 3; ++peer) {
      // Where the certificate told who it was, only that party's entry gets the reason.
      if (outcome.peer < 0 || outcome.peer == peer || outcome.peer <= options_.party) {
        peers_[Index(peer)].last_reason = line;
      }
    }
  }

  // --- Connecting.

  void Dial(int peer) {
    if (over_ || peers_[Index(peer)].state != State::kPending) return;
    const Endpoint& there = options_.endpoints[Index(peer)];
    const auto dial = std::make_shared<DialState>(io_);
    peers_[Index(peer)].dial = dial;
    std::error_code ec;
    const auto address = asio::ip::make_address(there.host, ec);
    if (!ec) {
      DialTo(peer, dial, {tcp::endpoint(address, there.port)});
      return;
    }
    dial->resolver.async_resolve(
        there.host, std::to_string(there.port),
        [self = shared_from_this(), peer, dial](const std::error_code& error,
                                                const tcp::resolver::results_type& found) {
          if (self->over_) return;
          if (error) {
            self->Redial(peer, fmt::format("host name not found: {}", error.message()));
            return;
          }
          std::vector<tcp::endpoint> endpoints;
          for (const auto& entry : found) endpoints.push_back(entry.endpoint());
          self->DialTo(peer, dial, endpoints);
        });
  }

  void DialTo(int peer, const std::shared_ptr<DialState>& dial,
              const std::vector<tcp::endpoint>& endpoints) {
    asio::async_connect(dial->socket, endpoints,
                        [self = shared_from_this(), peer, dial](const std::error_code& error,
                                                                const tcp::endpoint&) {
                          if (self->over_) return;
                          if (error) {
                            self->Redial(peer, error.message());
                            return;
                          }
                          self->OnDialled(peer, std::move(dial->socket));
                        });
  }

  void OnDialled(int peer, tcp::socket socket) {
    std::string& reason = peers_[Index(peer)].last_reason;
    if (reason.empty()) reason = "it accepted the connection but did not answer";
    Greet(
        std::move(socket), true, Left(),
        [peer] {
          std::array<bool, 3> expected{};
          expected[Index(peer)] = true;
          return expected;
        },
        [this, peer](Greeting::Outcome outcome) { OnGreeted(peer, std::move(outcome)); });
  }

  void OnGreeted(int peer, Greeting::Outcome outcome) {
    using Kind = Greeting::Outcome::Kind;
    const std::string where = Name(options_.endpoints[Index(peer)]);
    switch (outcome.kind) {
      case Kind::kAgreed:
        OnConnected(peer, where, std::move(outcome.channel));
        return;
      case Kind::kDiffers:
        GiveUp(peer, fmt::format("party {} differs in {}", peer, outcome.reason));
        return;
      case Kind::kDefinite:
        GiveUp(peer, fmt::format("party {} at {}: {}", peer, where, outcome.reason));
        return;
      case Kind::kFailed:
        Redial(peer, outcome.reason);
        return;
    }
  }

  void Redial(int peer, const std::string& reason) {
    peers_[Index(peer)].last_reason = reason;
    const auto dial = peers_[Index(peer)].dial;
    dial->retry.expires_after(kRetry);
    dial->retry.async_wait([self = shared_from_this(), peer](const std::error_code& cancelled) {
      if (!cancelled) self->Dial(peer);
    });
  }

  // --- Both.

  void Greet(tcp::socket socket, bool client, Clock::duration limit, Greeting::Expected expected,
             std::function<void(Greeting::Outcome)> done) {
    std::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    // The greeting's callbacks use `this`, which it keeps alive through `self` until it is over or
    // cancelled.
    auto self = shared_from_this();
    auto slot = std::make_shared<std::weak_ptr<Greeting>>();
    const auto greeting =
        std::make_shared<Greeting>(io_, MakeChannel(std::move(socket), tls_.get()), client,
                                   options_.party, std::move(expected), options_.agreement, limit,
                                   [self, slot, done = std::move(done)](Greeting::Outcome outcome) {
                                     if (const auto ended = slot->lock())
                                       self->greetings_.erase(ended);
                                     if (!self->over_) done(std::move(outcome));
                                   });
    *slot = greeting;
    greetings_.insert(greeting);
    greeting->Start();
  }

  void OnConnected(int peer, const std::string& where, std::unique_ptr<Channel> channel) {
    if (options_.on_peer) {
      if (const auto certificate = channel->PeerCertificate()) options_.on_peer(peer, *certificate);
    }
    PeerState& state = peers_[Index(peer)];
    state.state = State::kConnected;
    state.connection =
        std::make_shared<Connection>(io_, std::move(channel), peer, where, options_.timeout,
                                     [weak = weak_from_this(), peer](const Failure& failure) {
                                       if (const auto self = weak.lock(); self && !self->over_)
                                         self->OnLost(peer, failure);
                                     });
    state.connection->Start();
    CheckOver();
  }

  /// A peer that was connected ends while another is still waited for.
  void OnLost(int peer, const Failure& failure) {
    peers_[Index(peer)].state = State::kFailed;
    if (!failure_) failure_ = failure;
    Finish();
  }

  /// There is no hope for `peer`. The other one gets a moment to connect, so that it can be told
  /// why.
  void GiveUp(int peer, const std::string& reason) {
    peers_[Index(peer)].state = State::kFailed;
    if (!failure_) failure_ = {Failure::Kind::kNetwork, reason};
    grace_.expires_after(kGrace);
    grace_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
      if (!cancelled && !self->over_) self->Finish();
    });
    CheckOver();
  }

  void CheckOver() {
    const bool pending = std::any_of(peers_.begin(), peers_.end(),
                                     [](const PeerState& p) { return p.state == State::kPending; });
    if (!pending) Finish();
  }

  void Tick() {
    const auto now = Clock::now();
    if (now >= deadline_) {
      if (!failure_) failure_ = {Failure::Kind::kNetwork, TimeoutText()};
      Finish();
      return;
    }
    if (now != begun_ && !failure_) SayWaiting();
    if (over_) return;
    tick_.expires_at(std::min(deadline_, Clock::now() + std::chrono::seconds(1)));
    tick_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
      if (!cancelled && !self->over_) self->Tick();
    });
  }

  void SayWaiting() const {
    for (int peer = 0; peer < 3; ++peer) {
      if (peers_[Index(peer)].state != State::kPending) continue;
      const Endpoint& there = options_.endpoints[Index(peer)];
      Say(fmt::format("waiting for party {}{}, {:.0f} s left", peer,
                      there.host.empty() ? "" : " at " + Name(there), Seconds(Left())));
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
      if (!state.last_reason.empty()) text += fmt::format(" (last: {})", state.last_reason);
    }
    return text;
  }

  asio::io_context& io_;
  TcpOptions options_;
  std::shared_ptr<asio::ssl::context> tls_;
  tcp::acceptor acceptor_;
  asio::steady_timer tick_, grace_, accept_retry_;
  std::array<PeerState, 3> peers_;
  std::set<std::shared_ptr<Greeting>> greetings_;
  Clock::time_point begun_, deadline_;
  int refusals_ = 0;
  Failure failure_;
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
  std::vector<std::weak_ptr<Connection>> connections;
  for (int peer = 0; peer < 3; ++peer) {
    if (auto connection = setup->Take(peer)) {
      connections.push_back(connection);
      links[static_cast<std::size_t>(peer)] =
          std::make_unique<TcpLink>(network, std::move(connection));
    }
  }
  // The result is read before the thread starts to share what setup holds.
  const Failure failure = setup->Result();
  network->Start(std::move(connections));
  if (!failure) return links;
  for (const auto& link : links) {
    if (link) link->Abort(failure.text);
  }
  failure.Throw();
}

}  // namespace tercet::net
