// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "tercet/base/file_reader.h"
#include "tercet/crypto/certificates.h"

struct x509_st;

namespace tercet::crypto {

inline constexpr FileKind kCertificateFile{"a certificate", 1 << 20};
inline constexpr FileKind kKeyFile{"a private key", 1 << 16};

/// When a certificate is valid, in days from now; may be negative.
struct Validity {
  int from_days = -1;
  int to_days = 365;
};

/// MakeCertificates with a freely chosen validity of the parties' certificates (the authority's
/// spans now and theirs), so that tests can make expired ones.
void MakeCertificatesValid(const std::filesystem::path& directory, const Validity& validity,
                           bool overwrite);
/// The same of MakePartyCertificate.
Certificate MakePartyCertificateValid(const std::filesystem::path& directory, int party,
                                      const Validity& validity, bool overwrite);

/// The common name of a certificate's subject; nothing when there is none or more than one.
std::optional<std::string> CommonName(const x509_st* certificate);

/// What a parsed certificate says.
Certificate Describe(const x509_st* certificate);

/// "tercet party 2": the name in the certificate of a party.
std::string PartyName(int party);

}  // namespace tercet::crypto
