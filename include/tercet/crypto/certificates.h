// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace tercet::crypto {

/// Longest validity of a certificate that is made here, in days: ten years.
inline constexpr int kMaxCertificateDays = 3'650;
/// So many days before a certificate expires warnings begin.
inline constexpr int kExpiryWarningDays = 14;

/// SHA-256 of a public key (its DER SubjectPublicKeyInfo). A certificate that is renewed with the
/// same key keeps it, so that whoever pins it need not change anything.
class Fingerprint {
 public:
  static constexpr std::size_t kBytes = 32;

  explicit Fingerprint(const std::array<std::uint8_t, kBytes>& digest) : digest_(digest) {}
  /// "sha256:" and 64 hex digits of either case; nothing for any other text.
  static std::optional<Fingerprint> Parse(std::string_view text);
  /// "sha256:" and 64 small hex digits.
  std::string Text() const;
  /// Takes the same time wherever two differ.
  bool operator==(const Fingerprint& other) const;

 private:
  std::array<std::uint8_t, kBytes> digest_;
};

/// What a certificate says.
struct Certificate {
  std::string name;          ///< the subject's common name; printable, at most 100 characters
  std::optional<int> party;  ///< 0, 1 or 2 where that is the name of a party
  std::string issuer;        ///< the common name of who signed it; printable
  bool self_signed = false;
  std::chrono::sys_seconds not_before, not_after;
  Fingerprint fingerprint;
};

/// Reads the first certificate of a PEM file. Throws ConfigError (place: the file) when it cannot
/// be read or holds none.
Certificate ReadCertificate(const std::filesystem::path& file);

/// "2027-11-26", in UTC.
std::string DateText(std::chrono::sys_seconds time);

/// How `certificate` gets new dates, as the end of a sentence.
std::string HowToRenew(const Certificate& certificate);

/// What to warn of at `now`: that `certificate` expires within kExpiryWarningDays, when, and how it
/// is renewed; nothing while there is more time.
std::optional<std::string> ExpiryWarning(const Certificate& certificate,
                                         std::chrono::sys_seconds now);

/// Makes a private certificate authority and one certificate for each party in `directory` (created
/// with mode 0700 when missing): ca.pem, ca-key.pem, party0.pem, party0-key.pem, ...
/// party2-key.pem; keys are mode 0600. Keys are ECDSA P-256; the subject of party i is "CN=tercet
/// party i", which the TLS links check, so that a swapped certificate is refused by name. Whoever
/// runs this holds the keys of all three. Throws ConfigError when a file exists (unless
/// `overwrite`), cannot be written, others may write to the directory (they could put their own
/// keys there), or days is not in 1..kMaxCertificateDays; what was begun is removed again.
void MakeCertificates(const std::filesystem::path& directory, int days, bool overwrite);

/// The same for keys that live as long as a process: nothing is written, `take` gets the texts,
/// first the authority's certificate (no party, no key, which is forgotten), then each party's
/// pair. The key's text is wiped when `take` returns.
void MakeCertificates(
    int days, const std::function<void(std::optional<int> party, std::string_view certificate,
                                       std::string_view key)>& take);

/// Makes the key of one party and a certificate that it signs itself, for peers that pin the key:
/// `party1.pem` and `party1-key.pem` of party 1 in `directory`. Otherwise as MakeCertificates.
Certificate MakePartyCertificate(const std::filesystem::path& directory, int party, int days,
                                 bool overwrite);

/// Makes the key of a server that clients reach as `host` (a name or an address) and a certificate
/// that it signs itself: NAME.pem and NAME-key.pem in `directory`, otherwise as
/// MakePartyCertificate. It proves to be no party. ConfigError for a host that is none.
void MakeServerCertificate(const std::filesystem::path& directory, const std::string& name,
                           const std::string& host, int days, bool overwrite);

/// Replaces party<i>.pem by a certificate of the same key, valid from now; the key stays as it is,
/// and so does the fingerprint. Throws ConfigError as MakePartyCertificate, and when the key or the
/// certificate is missing, of another party or another key, or signed by an authority (which alone
/// can renew it).
Certificate RenewPartyCertificate(const std::filesystem::path& directory, int party, int days);

/// SHA-256 of a string in hex; for digests of networks and configurations.
std::string Sha256Hex(std::string_view text);
/// HMAC-SHA-256 of a text under a private key's file, in hex: equal for equal texts, and without
/// the key nobody can tell whether it is of a text that they guess. ConfigError as ReadPrivateFile.
std::string KeyedTag(const std::filesystem::path& key, std::string_view text);

}  // namespace tercet::crypto
