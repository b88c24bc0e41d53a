// SPDX-License-Identifier: Apache-2.0
#include "net/channel.h"

#include <openssl/err.h>

#include <algorithm>
#include <asio/error.hpp>
#include <asio/read.hpp>
#include <asio/ssl.hpp>
#include <asio/write.hpp>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "crypto/certificates_internal.h"
#include "net/failure.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/crypto/prf.h"

namespace tercet::net {
namespace {

using asio::ip::tcp;

/// The operations, which are the same for both kinds of stream.
template <class Stream>
class StreamChannel : public Channel {
 public:
  template <class... Args>
  explicit StreamChannel(Args&&... args) : stream_(std::forward<Args>(args)...) {}

  void ReadSome(asio::mutable_buffer buffer, Handler handler) override {
    stream_.async_read_some(buffer, std::move(handler));
  }
  void ReadFull(asio::mutable_buffer buffer, Handler handler) override {
    asio::async_read(stream_, buffer, std::move(handler));
  }
  void Write(const std::array<asio::const_buffer, 2>& buffers, Handler handler) override {
    asio::async_write(stream_, buffers, std::move(handler));
  }

 protected:
  static bool IsEnd(const std::error_code& error) {
    return error == asio::error::eof || error == asio::error::connection_reset ||
           error == asio::error::broken_pipe || error == asio::ssl::error::stream_truncated;
  }
  static Reason Plain(const std::error_code& error) {
    if (IsEnd(error)) return {"closed the connection", false};
    return {fmt::format("could not be talked to: {}", error.message()), false};
  }

  Stream stream_;
};

class PlainChannel final : public StreamChannel<tcp::socket> {
 public:
  using StreamChannel::StreamChannel;
  tcp::socket& Socket() override { return stream_; }
  bool Encrypted() const override { return false; }
  void Handshake(bool /*client*/, std::function<void(const std::error_code&)> handler) override {
    handler({});
  }
  std::optional<crypto::Certificate> PeerCertificate() const override { return std::nullopt; }
  Reason Explain(const std::error_code& error) const override { return Plain(error); }
};

std::string VerifyReason(long result) {
  switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "showed a certificate that has expired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "showed a certificate that is not yet valid";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "showed a certificate that is not signed by our certificate authority";
    default:
      return fmt::format("showed a certificate that is refused: {}",
                         X509_verify_cert_error_string(result));
  }
}

/// What the peer told us by a TLS alert.
std::string AlertReason(int alert) {
  switch (alert) {
    case SSL_AD_UNKNOWN_CA:
      return "refused our certificate: its key is not pinned there, or it is not signed by the "
             "certificate authority there (did they get our newest certificate or fingerprint?)";
    case SSL_AD_CERTIFICATE_EXPIRED:
      return "refused our certificate: expired";
    case SSL_AD_BAD_CERTIFICATE:
      return "refused our certificate: bad certificate (not yet valid, or damaged)";
    case SSL_AD_DECRYPT_ERROR:
      return "refused our certificate: its signature is wrong (another certificate authority of "
             "the same name?)";
    case SSL_AD_CERTIFICATE_REQUIRED:
      return "wants a certificate, but none was shown";
    case SSL_AD_PROTOCOL_VERSION:
      return "does not speak TLS 1.3";
    default:
      return fmt::format("broke off the TLS handshake: {}", SSL_alert_desc_string_long(alert));
  }
}

/// Where a connection keeps the text that says why VerifyPinned refused.
int RefusalIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

/// OpenSSL's error, of which it makes the alert for the peer, and what is wrong in words; X509_V_OK
/// for a certificate of a pinned key.
std::pair<int, std::string> CheckPinned(const crypto::Certificate& shown, const Pins& pins,
                                        std::chrono::sys_seconds now) {
  if (!shown.party)
    return {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
            fmt::format("showed a certificate of \"{}\", which is no party", shown.name)};
  const int party = *shown.party;
  const auto& pinned = pins[static_cast<std::size_t>(party)];
  if (std::find(pinned.begin(), pinned.end(), shown.fingerprint) == pinned.end()) {
    std::string expected;
    for (const auto& pin : pinned) expected += (expected.empty() ? "" : " or ") + pin.Text();
    return {
        X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
        fmt::format("showed a certificate of party {0} with key {1}, but {2} is pinned for it; if "
                    "party {0} says on the phone that this is its new key, put it into the "
                    "testbed, else somebody stands between you",
                    party, shown.fingerprint.Text(), expected.empty() ? "no key" : expected)};
  }
  if (now > shown.not_after)
    return {X509_V_ERR_CERT_HAS_EXPIRED,
            fmt::format("showed a certificate of party {} that has expired on {}; {}", party,
                        crypto::DateText(shown.not_after), crypto::HowToRenew(shown))};
  if (now < shown.not_before)
    return {
        X509_V_ERR_CERT_NOT_YET_VALID,
        fmt::format("showed a certificate of party {} that is not yet valid: it begins on {} (is "
                    "a clock wrong?)",
                    party, crypto::DateText(shown.not_before))};
  return {X509_V_OK, ""};
}

/// Stands in for OpenSSL's check of a chain of signatures. That the peer has the certificate's key
/// is checked by TLS itself.
int VerifyPinned(X509_STORE_CTX* store, void* pins) {
  auto* ssl =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* refusal = static_cast<std::string*>(SSL_get_ex_data(ssl, RefusalIndex()));
  try {
    auto [error, text] = CheckPinned(crypto::Describe(X509_STORE_CTX_get0_cert(store)),
                                     *static_cast<const Pins*>(pins), Now());
    X509_STORE_CTX_set_error(store, error);
    *refusal = std::move(text);
    return error == X509_V_OK ? 1 : 0;
  } catch (const std::exception&) {  // must not pass through OpenSSL
    X509_STORE_CTX_set_error(store, X509_V_ERR_UNSPECIFIED);
    return 0;
  }
}

/// A context and what its callback refers to.
struct PinnedContext {
  Pins pins;
  asio::ssl::context context{asio::ssl::context::tls};
};

class TlsChannel final : public StreamChannel<asio::ssl::stream<tcp::socket>> {
 public:
  TlsChannel(tcp::socket socket, asio::ssl::context& context)
      : StreamChannel(std::move(socket), context) {
    // Asio sets it to save memory; two links can afford to keep their buffers.
    SSL_clear_mode(Ssl(), SSL_MODE_RELEASE_BUFFERS);
    TERCET_CHECK(SSL_set_ex_data(Ssl(), RefusalIndex(), &refusal_) == 1, "OpenSSL has no memory");
  }
  tcp::socket& Socket() override { return stream_.next_layer(); }
  bool Encrypted() const override { return true; }

  void Handshake(bool client, std::function<void(const std::error_code&)> handler) override {
    stream_.async_handshake(
        client ? asio::ssl::stream_base::client : asio::ssl::stream_base::server,
        std::move(handler));
  }

  std::optional<crypto::Certificate> PeerCertificate() const override {
    const X509* certificate = SSL_get0_peer_certificate(Ssl());
    if (certificate == nullptr) return std::nullopt;
    return crypto::Describe(certificate);
  }

  Reason Explain(const std::error_code& error) const override {
    if (error.category() != asio::error::get_ssl_category()) return Plain(error);
    const int reason = ERR_GET_REASON(static_cast<unsigned long>(error.value()));
    if (reason > SSL_AD_REASON_OFFSET) return {AlertReason(reason - SSL_AD_REASON_OFFSET), true};
    switch (reason) {
      case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return {refusal_.empty() ? VerifyReason(SSL_get_verify_result(Ssl())) : refusal_, true};
      case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return {"showed no certificate", true};
      case SSL_R_UNSUPPORTED_PROTOCOL:
        return {"does not speak TLS 1.3", true};
      case SSL_R_WRONG_VERSION_NUMBER:
      case SSL_R_WRONG_SSL_VERSION:
      case SSL_R_BAD_RECORD_TYPE:
      case SSL_R_HTTP_REQUEST:
      case SSL_R_HTTPS_PROXY_REQUEST:
      case SSL_R_UNEXPECTED_MESSAGE:
      case SSL_R_RECORD_LENGTH_MISMATCH:
      case SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
      case SSL_R_PACKET_LENGTH_TOO_LONG:
      case SSL_R_UNEXPECTED_RECORD:
        return {"is not speaking TLS (is it another program, or a party without TLS?)", true};
      default:
        return {fmt::format("failed in TLS: {}", error.message()), false};
    }
  }

 private:
  SSL* Ssl() const { return const_cast<TlsChannel*>(this)->stream_.native_handle(); }

  std::string refusal_;  ///< why the peer's certificate is not among the pinned ones
};

using crypto::kCertificateFile;
using crypto::kKeyFile;

void Require(const std::error_code& error, const std::filesystem::path& path,
             const FileKind& kind) {
  if (!error) return;
  throw ConfigError(path.string(),
                    fmt::format("cannot be read as {}: {}", kind.what, error.message()));
}

}  // namespace

std::shared_ptr<asio::ssl::context> MakeTlsContext(const TlsFiles& files) {
  const auto pinned = std::make_shared<PinnedContext>();
  std::shared_ptr<asio::ssl::context> context(pinned, &pinned->context);
  SSL_CTX* raw = context->native_handle();
  TERCET_CHECK(SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION) == 1 &&
                   SSL_CTX_set_max_proto_version(raw, TLS1_3_VERSION) == 1 &&
                   SSL_CTX_set_ciphersuites(raw,
                                            "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                            "TLS_CHACHA20_POLY1305_SHA256") == 1,
               "OpenSSL offers no TLS 1.3");
  // Sessions are never resumed: every connection shows its certificates.
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(raw, 0);
  // A key or share that has been read does not stay in OpenSSL's buffer until the next one comes.
  SSL_CTX_set_options(raw, SSL_OP_CLEANSE_PLAINTEXT);
  std::error_code ec;
  if (files.pins) {
    pinned->pins = *files.pins;
    SSL_CTX_set_cert_verify_callback(raw, VerifyPinned, &pinned->pins);
  } else {
    context->add_certificate_authority(asio::buffer(ReadFile(files.ca, kCertificateFile)), ec);
    Require(ec, files.ca, kCertificateFile);
  }
  context->use_certificate_chain(asio::buffer(ReadFile(files.certificate, kCertificateFile)), ec);
  Require(ec, files.certificate, kCertificateFile);
  // Without a callback OpenSSL would ask for the passphrase of an encrypted key on the terminal.
  context->set_password_callback(
      [](std::size_t, asio::ssl::context::password_purpose) { return std::string(); });
  auto key = ReadPrivateFile(files.key, kKeyFile);
  context->use_private_key(asio::buffer(key), asio::ssl::context::pem, ec);
  crypto::Wipe(key);
  if (ec && ERR_GET_REASON(static_cast<unsigned long>(ec.value())) == X509_R_KEY_VALUES_MISMATCH) {
    throw ConfigError(files.key.string(), "is not the key of " + files.certificate.string());
  }
  Require(ec, files.key, kKeyFile);
  if (SSL_CTX_check_private_key(raw) != 1) {
    throw ConfigError(files.key.string(), "is not the key of " + files.certificate.string());
  }
  context->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert);
  return context;
}

std::unique_ptr<Channel> MakeChannel(tcp::socket socket, asio::ssl::context* tls) {
  if (tls == nullptr) return std::make_unique<PlainChannel>(std::move(socket));
  return std::make_unique<TlsChannel>(std::move(socket), *tls);
}

}  // namespace tercet::net
