// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <restinio/all.hpp>
#include <restinio/tls.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "serve/bounds.h"
#include "serve/metrics.h"

/// What RESTinio leaves to others before it calls the handler of a request: who may connect, how
/// long a TLS handshake may take, and whether a request's body is read at all. It stands on the
/// points where RESTinio's own TLS is put in: the type of the socket, its settings, the making of
/// sockets, and the methods' type, which selects the callbacks of the HTTP parser.
// Some names are those that RESTinio calls.
// NOLINTBEGIN(readability-identifier-naming)
namespace tercet::serve {

namespace asio = restinio::asio_ns;

/// An answer that is no success, as RFC 9457 has it.
struct Problem {
  std::uint16_t status;
  const char* title;
  std::string detail;
  std::string field;  ///< of the request, where one is wrong
};

/// What was decided of a request when its header was there.
struct Entry {
  std::optional<Problem> problem;    ///< why it is refused; its body is not kept then
  bool cut = false;                  ///< its body is not even read: the connection ends
  std::shared_ptr<const void> hold;  ///< its part of what requests may hold, until it is answered
  Metrics* metrics = nullptr;        ///< where its answer counts
  std::string credential;            ///< the client's token, or what its certificate stands for
};

/// The server's side of a connection's beginning. Thread safe.
class Door {
 public:
  using Admit = std::function<Entry(const restinio::http_request_header_t& header,
                                    restinio::http_method_id_t method, bool chunked,
                                    std::uint64_t length, const std::string& certificate)>;
  /// What a certificate that was shown stands for; empty: for nobody.
  using Recognise = std::function<std::string(const X509* certificate)>;
  Door(Bounds connections, Clock::duration handshake, Admit admit, Recognise recognise)
      : connections_(std::move(connections)),
        handshake_(handshake),
        admit_(std::move(admit)),
        recognise_(std::move(recognise)) {}

  /// The certificate for connections from now on.
  void SetContext(std::shared_ptr<asio::ssl::context> context) {
    const std::lock_guard lock(mutex_);
    context_ = std::move(context);
  }
  std::shared_ptr<asio::ssl::context> Context() const {
    const std::lock_guard lock(mutex_);
    return context_;
  }

 private:
  friend class ClientSocket;
  Bounds connections_;
  const Clock::duration handshake_;
  const Admit admit_;
  const Recognise recognise_;
  mutable std::mutex mutex_;
  std::shared_ptr<asio::ssl::context> context_;
};

/// A connection of a client.
class ClientSocket : public restinio::impl::tls_socket_t {
 public:
  struct State {
    explicit State(std::shared_ptr<Door> its_door) : door(std::move(its_door)) {}
    std::shared_ptr<Door> door;
    std::shared_ptr<const void> place;  // among the connections
    std::string certificate;            // what the client's stands for
    Entry entry;                        // of the request that is being read
    bool ends = false;                  // after the request that was read last
    std::function<void()> go_on;        // tells the client to send the body that it asks about
  };

  ClientSocket(asio::io_context& io, std::shared_ptr<Door> door)
      : tls_socket_t(io, door->Context()), state_(std::make_shared<State>(std::move(door))) {}

  /// The connection whose bytes this thread is reading; null elsewhere.
  static State*& Current() {
    static thread_local State* current = nullptr;
    return current;
  }

  template <class Buffers, class Handler>
  auto async_read_some(const Buffers& buffers, Handler&& handler) {
    return tls_socket_t::async_read_some(buffers, AsCurrent(std::forward<Handler>(handler)));
  }
  // A request that waits in the buffer is read after an answer is written.
  template <class Buffers, class Handler>
  auto async_write_some(const Buffers& buffers, Handler&& handler) {
    return tls_socket_t::async_write_some(buffers, AsCurrent(std::forward<Handler>(handler)));
  }

  /// False where there are too many connections.
  bool Enter() {
    asio::error_code error;
    const auto remote = lowest_layer().remote_endpoint(error);
    if (error) return false;
    const auto address = remote.address();
    std::string key;
    if (address.is_v6()) {  // one customer has 2^64 addresses
      const auto bytes = address.to_v6().to_bytes();
      key.assign(bytes.begin(), bytes.begin() + 8);
    } else {
      key = address.to_string();
    }
    // This socket may have been made before the certificate was replaced.
    SSL_set_SSL_CTX(asio_ssl_stream().native_handle(), state_->door->Context()->native_handle());
    state_->place = state_->door->connections_.Take(key, 1);
    return state_->place != nullptr;
  }
  /// The connection that this socket is of.
  template <class Connection>
  void Know(Connection& connection) {
    state_->go_on = [this, &connection, self = connection.weak_from_this()] {
      const auto kept = self.lock();
      if (!kept) return;
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      // It is encrypted before anything that is written later, and goes before it.
      tls_socket_t::async_write_some(
          asio::buffer(kContinue),
          asio::bind_executor(connection.get_executor(),
                              [kept](const asio::error_code&, std::size_t) {}));
    };
  }
  Clock::duration HandshakeTime() const { return state_->door->handshake_; }
  static Entry Admit(State& state, const restinio::http_request_header_t& header,
                     restinio::http_method_id_t method, bool chunked, std::uint64_t length) {
    return state.door->admit_(header, method, chunked, length, state.certificate);
  }
  /// After the handshake, in which the client has shown that it has the key.
  void Recognise() {
    if (const X509* shown = SSL_get0_peer_certificate(asio_ssl_stream().native_handle()))
      state_->certificate = state_->door->recognise_(shown);
  }

 private:
  template <class Handler>
  auto AsCurrent(Handler&& handler) {
    auto executor = asio::get_associated_executor(handler, get_executor());
    return asio::bind_executor(std::move(executor),
                               [state = state_, inner = std::forward<Handler>(handler)](
                                   const asio::error_code& error, std::size_t bytes) mutable {
                                 struct Scope {
                                   State* before;
                                   ~Scope() { Current() = before; }
                                 } const scope{std::exchange(Current(), state.get())};
                                 inner(error, bytes);
                               });
  }

  std::shared_ptr<State> state_;
};

/// What an HTTP/1.1 request's header says besides what Admit looks at.
struct HeaderFacts {
  bool one_host = false;  ///< as each must have
  bool waits = false;     ///< the client sends the body once it is told to

  HeaderFacts(const restinio::http_request_header_t& header, bool has_body) {
    std::size_t hosts = 0;
    header.for_each_value_of(restinio::http_field::host, [&](auto) {
      ++hosts;
      return restinio::http_header_fields_t::continue_enumeration();
    });
    one_host = hosts == 1;
    const std::string expects = header.get_field_or(restinio::http_field::expect, std::string());
    waits = has_body && restinio::impl::is_equal_caseless(expects, std::string("100-continue"));
  }
};

/// RESTinio calls it, by argument-dependent look-up, for each connection that was accepted.
template <class Connection, class Start, class Failed>
void prepare_connection_and_start_read(ClientSocket& socket, Connection& connection, Start start,
                                       Failed failed) {
  if (!socket.Enter()) return failed(asio::error::make_error_code(asio::error::no_permission));
  auto self = connection.shared_from_this();
  socket.Know(connection);
  auto timer = std::make_shared<asio::steady_timer>(socket.get_executor(), socket.HandshakeTime());
  timer->async_wait(
      asio::bind_executor(connection.get_executor(), [self, &socket](const asio::error_code& off) {
        asio::error_code ignored;
        if (!off) socket.lowest_layer().close(ignored);
      }));
  socket.async_handshake(
      asio::ssl::stream_base::server,
      asio::bind_executor(connection.get_executor(),
                          [self, timer, &socket, start = std::move(start),
                           failed = std::move(failed)](const asio::error_code& error) {
                            timer->cancel();
                            if (error) return failed(error);
                            socket.Recognise();
                            start();
                          }));
}

/// The methods of RESTinio, and a mark for the parser's callbacks.
struct ClientMethods : restinio::default_http_methods_t {};

/// Gives what was decided to the request.
struct EntryFactory {
  using data_t = Entry;
  void make_within(restinio::extra_data_buffer_t<Entry> buffer) {
    new (buffer.get()) Entry(std::exchange(ClientSocket::Current()->entry, {}));
  }
};

struct Traits : restinio::default_traits_t {
  using stream_socket_t = ClientSocket;
  using http_methods_mapper_t = ClientMethods;
  using extra_data_factory_t = EntryFactory;
};
using Request = restinio::generic_request_handle_t<Entry>;

}  // namespace tercet::serve

namespace restinio {

/// The door among the settings of a server.
template <class Settings>
class socket_type_dependent_settings_t<Settings, tercet::serve::ClientSocket> {
 public:
  Settings&& door(std::shared_ptr<tercet::serve::Door> door) && {
    door_ = std::move(door);
    return static_cast<Settings&&>(*this);
  }
  const std::shared_ptr<tercet::serve::Door>& door() const { return door_; }

 protected:
  ~socket_type_dependent_settings_t() = default;

 private:
  std::shared_ptr<tercet::serve::Door> door_;
};

namespace impl {

template <>
class socket_supplier_t<tercet::serve::ClientSocket> {
 protected:
  template <class Settings>
  socket_supplier_t(Settings& settings, asio_ns::io_context& io) : door_(settings.door()), io_(io) {
    while (sockets_.size() < settings.concurrent_accepts_count()) sockets_.emplace_back(io_, door_);
  }
  virtual ~socket_supplier_t() = default;

  tercet::serve::ClientSocket& socket(std::size_t at) { return sockets_.at(at); }
  tercet::serve::ClientSocket move_socket(std::size_t at) {
    return std::exchange(sockets_.at(at), tercet::serve::ClientSocket(io_, door_));
  }
  std::size_t concurrent_accept_sockets_count() const { return sockets_.size(); }

 private:
  std::shared_ptr<tercet::serve::Door> door_;
  asio_ns::io_context& io_;
  std::vector<tercet::serve::ClientSocket> sockets_;
};

template <>
inline http_parser_settings create_parser_settings<tercet::serve::ClientMethods>() noexcept {
  using tercet::serve::ClientSocket;
  auto settings = create_parser_settings<default_http_methods_t>();
  settings.on_headers_complete = [](http_parser* parser) -> int {
    auto* state = ClientSocket::Current();
    if (state == nullptr || state->ends) return -1;
    auto& context = *static_cast<http_parser_ctx_t*>(parser->data);
    try {
      const bool chunked = (parser->flags & F_CHUNKED) != 0;
      const bool body = parser->content_length != ULLONG_MAX && !chunked;
      state->entry = ClientSocket::Admit(*state, context.m_header,
                                         default_http_methods_t::from_nodejs(parser->method),
                                         chunked, body ? parser->content_length : 0);
      const bool is_1_1 = parser->http_major == 1 && parser->http_minor >= 1;
      const tercet::serve::HeaderFacts facts(context.m_header, body || chunked);
      if (is_1_1 && !facts.one_host)
        state->entry.problem = {400, "Bad Request", "one Host field is expected", "Host"};
      // Whoever is refused before it sends the body may never send it.
      if (is_1_1 && facts.waits && state->entry.problem) state->entry.cut = true;
      if (is_1_1 && facts.waits && !state->entry.problem) state->go_on();
    } catch (const std::exception&) {
      return -1;
    }
    if (!state->entry.problem) return restinio_headers_complete_cb(parser);
    context.m_leading_headers_completed = true;
    state->ends = state->entry.cut;
    return state->entry.cut ? 1 : 0;  // 1: the message is complete without its body
  };
  settings.on_body = [](http_parser* parser, const char* at, std::size_t length) -> int {
    return ClientSocket::Current()->entry.problem ? 0 : restinio_body_cb(parser, at, length);
  };
  return settings;
}

}  // namespace impl
}  // namespace restinio
// NOLINTEND(readability-identifier-naming)
