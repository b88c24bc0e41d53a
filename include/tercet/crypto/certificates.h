#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace tercet::crypto {

/// Makes a private certificate authority and one certificate for each party in `directory` (created
/// with mode 0700 when missing): ca.pem, ca-key.pem, party0.pem, party0-key.pem, ...
/// party2-key.pem; keys are mode 0600. Keys are ECDSA P-256; the subject of party i is "CN=tercet
/// party i", which the TLS links check, so that a swapped certificate is refused by name. Throws
/// ConfigError when a file exists (unless `overwrite`), cannot be written, or days is not
/// in 1..36500; what was begun is removed again.
void MakeCertificates(const std::filesystem::path& directory, int days, bool overwrite);

/// SHA-256 of a string in hex; for digests of networks and configurations.
std::string Sha256Hex(std::string_view text);

}  // namespace tercet::crypto
