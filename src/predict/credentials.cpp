// SPDX-License-Identifier: Apache-2.0
#include "predict/credentials.h"

#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::client {
namespace {

constexpr FileKind kTokenFile{"a token", 4096}, kCertificateFile{"a certificate", 1 << 20},
    kKeyFile{"a key", 1 << 20};

std::string ReadToken(const std::filesystem::path& file) {
  auto text = ReadPrivateFile(file, kTokenFile);
  std::string token(text.begin(), text.end());
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.pop_back();
  if (token.find_first_of("\r\n") != std::string::npos || token.empty())
    throw ConfigError(file.string(), "holds no token of one line");
  return token;
}

}  // namespace

Service Credentials::Servers(const service::Deployment& servers) const {
  if (!certificate.empty()) {
    const auto text = ReadPrivateFile(key, kKeyFile);
    return {servers, ClientCertificate{ReadTextFile(certificate, kCertificateFile),
                                       std::string(text.begin(), text.end())}};
  }
  if (token_file.empty()) throw ConfigError("--token-file", "expected, or --certificate and --key");
  return {servers, ReadToken(token_file)};
}

void AddCredentials(CLI::App& app, Credentials& credentials) {
  auto* token = app.add_option("--token-file", credentials.token_file,
                               "File with this client's token, which the servers know");
  auto* shown = app.add_option("--certificate", credentials.certificate,
                               "In place of a token: this client's certificate, whose key the "
                               "servers know")
                    ->excludes(token);
  shown->needs(app.add_option("--key", credentials.key, "The certificate's key")->needs(shown));
}

}  // namespace tercet::client
