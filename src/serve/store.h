// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tercet/base/error.h"
#include "tercet/crypto/certificates.h"
#include "tercet/service/query.h"

struct sqlite3;

namespace tercet::serve {

/// What a client may do. Rate and total count images; nothing given: no limit.
struct Allowance {
  std::string name;
  std::optional<double> rate;          ///< images a second; as many as ten seconds give at once
  std::optional<std::uint64_t> total;  ///< images
  bool is_operator = false;            ///< may put in and take out packages, and asks without limit
};

/// Keeps other processes from serving with the same store. ConfigError where one does.
class StoreLock {
 public:
  explicit StoreLock(const std::filesystem::path& directory);
  StoreLock(const StoreLock&) = delete;
  StoreLock& operator=(const StoreLock&) = delete;
  ~StoreLock();

 private:
  int fd_ = -1;
};

/// The store could not be read or written: the disk is full or broken. Says so in SQLite's words.
class StoreError : public Error {
 public:
  using Error::Error;
};

/// A server's small database, STORE/service.db: clients' tokens (hashed), their limits and what
/// they have used, and the numbers of queries that were seen. Each change is there after kill -9 as
/// soon as its function has returned. Thread safe. All functions throw StoreError.
class Store {
 public:
  /// What stands for a certificate's key where a token is expected below. No token begins so.
  static std::string CredentialOf(const crypto::Fingerprint& key);

  explicit Store(const std::filesystem::path& directory);
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store();

  static std::string NewToken();
  /// Only the token's hash is kept. ConfigError for a name or token that is there.
  void AddToken(const Allowance& allowance, std::string_view token);
  /// False where there is no such name.
  bool RemoveToken(const std::string& name);
  struct Usage {
    Allowance allowance;
    std::uint64_t used = 0;  ///< images
  };
  std::vector<Usage> Tokens();

  enum class Admission : std::uint8_t { kUnknown, kTooFast, kSpent, kAdmitted };
  /// Whether the holder of `token` may ask for so many images now; if so, they are counted.
  Admission Admit(std::string_view token, std::uint64_t images, std::uint64_t now_ms);
  enum class Holder : std::uint8_t { kUnknown, kClient, kOperator };
  Holder HolderOf(std::string_view token);

  /// service::Gate::Remember.
  bool Remember(const service::QueryId& id, std::uint64_t forget_ms, std::uint64_t now_ms);

 private:
  class Statement;
  std::mutex mutex_;
  sqlite3* database_ = nullptr;
  std::uint64_t swept_ms_ = 0;
};

}  // namespace tercet::serve
