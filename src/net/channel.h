// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>

#include "tercet/net/tcp_link.h"

namespace asio::ssl {
class context;
}

namespace tercet::net {

/// A socket with or without TLS. At most one read and one write at a time; used by the network
/// thread only. The channel must outlive the operations that were started on it.
class Channel {
 public:
  using Handler = std::function<void(const std::error_code&, std::size_t)>;

  /// Why an operation failed, in words that follow "party 2" or an address.
  struct Reason {
    std::string text;
    bool definite = false;  ///< trying again will not help
  };

  virtual ~Channel() = default;
  virtual asio::ip::tcp::socket& Socket() = 0;
  virtual bool Encrypted() const = 0;
  /// The TLS handshake; without TLS nothing.
  virtual void Handshake(bool client, std::function<void(const std::error_code&)> handler) = 0;
  /// Reads at least one byte.
  virtual void ReadSome(asio::mutable_buffer buffer, Handler handler) = 0;
  /// Reads until the buffer is full.
  virtual void ReadFull(asio::mutable_buffer buffer, Handler handler) = 0;
  /// Writes both buffers; the second follows the first without a copy.
  virtual void Write(const std::array<asio::const_buffer, 2>& buffers, Handler handler) = 0;
  /// What the peer's certificate says; nothing without TLS.
  virtual std::optional<crypto::Certificate> PeerCertificate() const = 0;
  virtual Reason Explain(const std::error_code& error) const = 0;
};

/// A context that speaks TLS 1.3 only and wants the peer's certificate to be signed by `files.ca`
/// or its key to be pinned.
/// Throws ConfigError when a file cannot be read or key and certificate do not belong together.
std::shared_ptr<asio::ssl::context> MakeTlsContext(const TlsFiles& files);

/// `tls` may be null.
std::unique_ptr<Channel> MakeChannel(asio::ip::tcp::socket socket, asio::ssl::context* tls);

}  // namespace tercet::net
