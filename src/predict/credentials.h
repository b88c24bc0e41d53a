// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <filesystem>

#include "tercet/client/service.h"

namespace tercet::client {

/// How often one query is asked, and the model looked up: unless otherwise said, and at most.
inline constexpr std::size_t kDefaultTries = 8, kMaxTries = 1000;

/// The files by which the servers know a client: that of its token, or those of its certificate and
/// key.
struct Credentials {
  std::filesystem::path token_file, certificate, key;

  /// The servers, for this client; `servers` outlives them. ConfigError where no file is given, or
  /// one cannot be read, is open to others, or holds no token.
  Service Servers(const service::Deployment& servers) const;
};

/// --token-file, --certificate and --key.
void AddCredentials(CLI::App& app, Credentials& credentials);

}  // namespace tercet::client
