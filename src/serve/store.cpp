// SPDX-License-Identifier: Apache-2.0
#include "serve/store.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/crypto/prf.h"
#include "tercet/crypto/sealing.h"

namespace tercet::serve {
namespace {

constexpr std::size_t kTokenBytes = 16;
constexpr double kBurstSeconds = 10;
constexpr std::uint64_t kSweepMs = 10'000;  // between two removals of what may be forgotten

constexpr const char* kTables = R"sql(
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS tokens (
  name TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, rate REAL, total INTEGER,
  operator INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0,
  level REAL NOT NULL DEFAULT 0, level_ms INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS seen (id BLOB PRIMARY KEY, forget_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_by_time ON seen (forget_ms);
)sql";

crypto::Digest HashOf(std::string_view token) {
  return crypto::Sha256({{reinterpret_cast<const std::uint8_t*>(token.data()), token.size()}});
}

[[noreturn]] void Fail(sqlite3* database, const char* what) {
  throw StoreError(fmt::format("the store could not {}: {}", what, sqlite3_errmsg(database)));
}

}  // namespace

// One run of a statement; parameters are numbered from 1.
class Store::Statement {
 public:
  Statement(sqlite3* database, const char* sql) : database_(database) {
    if (sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr) != SQLITE_OK)
      Fail(database, "be asked");
  }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  Statement& Bind(int at, ByteSpan blob) {
    return Check(sqlite3_bind_blob(statement_, at, blob.data(), static_cast<int>(blob.size()),
                                   SQLITE_TRANSIENT));
  }
  Statement& Bind(int at, const std::string& text) {
    return Check(sqlite3_bind_text(statement_, at, text.data(), static_cast<int>(text.size()),
                                   SQLITE_TRANSIENT));
  }
  Statement& Bind(int at, std::uint64_t number) {
    return Check(sqlite3_bind_int64(statement_, at, static_cast<sqlite3_int64>(number)));
  }
  Statement& Bind(int at, double number) {
    return Check(sqlite3_bind_double(statement_, at, number));
  }
  template <class T>
  Statement& Bind(int at, const std::optional<T>& value) {
    return value ? Bind(at, *value) : Check(sqlite3_bind_null(statement_, at));
  }
  // Whether there is a row.
  bool Step() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) Fail(database_, "be read or written");
    return code == SQLITE_ROW;
  }
  bool IsNull(int column) { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  std::uint64_t Number(int column) {
    return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column));
  }
  double Real(int column) { return sqlite3_column_double(statement_, column); }
  std::string Text(int column) {
    return {reinterpret_cast<const char*>(sqlite3_column_text(statement_, column)),
            static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
  }

 private:
  Statement& Check(int code) {
    if (code != SQLITE_OK) Fail(database_, "be asked");
    return *this;
  }
  sqlite3* database_;
  sqlite3_stmt* statement_ = nullptr;
};

// A file of its own: SQLite's locks are given up when its database is closed anywhere in a process.
StoreLock::StoreLock(const std::filesystem::path& directory) {
  const std::string file = (directory / "serve.lock").string();
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd_ < 0) throw ConfigError(file, fmt::format("cannot be opened: {}", std::strerror(errno)));
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  const std::string problem =
      errno == EWOULDBLOCK
          ? "another process serves with this store; each server and each worker has its own"
          : fmt::format("cannot be locked: {}", std::strerror(errno));
  ::close(fd_);
  throw ConfigError(file, problem);
}

StoreLock::~StoreLock() { ::close(fd_); }

Store::Store(const std::filesystem::path& directory) {
  const std::string file = (directory / "service.db").string();
  const mode_t before = ::umask(0077);
  const int code =
      sqlite3_open_v2(file.c_str(), &database_,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  char* problem = nullptr;
  const bool made = code == SQLITE_OK && sqlite3_busy_timeout(database_, 5000) == SQLITE_OK &&
                    sqlite3_exec(database_, kTables, nullptr, nullptr, &problem) == SQLITE_OK;
  ::umask(before);
  sqlite3_free(problem);
  if (made) return;
  const std::string reason = sqlite3_errmsg(database_);
  sqlite3_close(database_);
  throw ConfigError(file, "is no store that can be used: " + reason);
}

Store::~Store() { sqlite3_close(database_); }

std::string Store::CredentialOf(const crypto::Fingerprint& key) {
  return std::string(1, '\0') + "certificate " + key.Text();
}

std::string Store::NewToken() {
  Bytes secret(kTokenBytes);
  crypto::RandomBytes(secret);
  return crypto::HexText(secret);
}

void Store::AddToken(const Allowance& allowance, std::string_view token) {
  const auto hash = HashOf(token);
  const std::lock_guard lock(mutex_);
  if (Statement(database_, "SELECT 1 FROM tokens WHERE name = ? OR hash = ?")
          .Bind(1, allowance.name)
          .Bind(2, ByteSpan(hash))
          .Step())
    throw ConfigError(
        "--add", fmt::format("\"{}\" is there, or another name has its token", allowance.name));
  Statement(database_,
            "INSERT INTO tokens (name, hash, rate, total, operator) VALUES (?, ?, ?, ?, ?)")
      .Bind(1, allowance.name)
      .Bind(2, ByteSpan(hash))
      .Bind(3, allowance.rate)
      .Bind(4, allowance.total)
      .Bind(5, std::uint64_t{allowance.is_operator})
      .Step();
}

bool Store::RemoveToken(const std::string& name) {
  const std::lock_guard lock(mutex_);
  Statement(database_, "DELETE FROM tokens WHERE name = ?").Bind(1, name).Step();
  return sqlite3_changes(database_) > 0;
}

std::vector<Store::Usage> Store::Tokens() {
  const std::lock_guard lock(mutex_);
  std::vector<Usage> tokens;
  Statement row(database_, "SELECT name, rate, total, operator, used FROM tokens ORDER BY name");
  while (row.Step()) {
    Usage usage;
    usage.allowance.name = row.Text(0);
    if (!row.IsNull(1)) usage.allowance.rate = row.Real(1);
    if (!row.IsNull(2)) usage.allowance.total = row.Number(2);
    usage.allowance.is_operator = row.Number(3) != 0;
    usage.used = row.Number(4);
    tokens.push_back(std::move(usage));
  }
  return tokens;
}

Store::Admission Store::Admit(std::string_view token, std::uint64_t images, std::uint64_t now_ms) {
  const auto hash = HashOf(token);
  const std::lock_guard lock(mutex_);
  std::uint64_t used = 0;
  double level = 0;
  {
    Statement row(database_,
                  "SELECT rate, total, operator, used, level, level_ms FROM tokens WHERE hash = ?");
    if (!row.Bind(1, ByteSpan(hash)).Step()) return Admission::kUnknown;
    used = row.Number(3);
    const bool limited = row.Number(2) == 0;
    if (limited && !row.IsNull(1) && images > row.Number(1) - std::min(row.Number(1), used))
      return Admission::kSpent;
    if (limited && !row.IsNull(0)) {
      // A bucket that leaks at the rate; a clock that was put back leaks nothing.
      const double rate = row.Real(0);
      const double since = now_ms > row.Number(5) ? static_cast<double>(now_ms - row.Number(5)) : 0;
      level = std::max(0.0, row.Real(4) - rate * since / 1000);
      // Even who asks for more at once than the bucket holds can do so when it is empty.
      if (level > 0 && level + static_cast<double>(images) > rate * kBurstSeconds)
        return Admission::kTooFast;
      level += static_cast<double>(images);
    }
  }
  Statement(database_, "UPDATE tokens SET used = ?, level = ?, level_ms = ? WHERE hash = ?")
      .Bind(1, used + images)
      .Bind(2, level)
      .Bind(3, now_ms)
      .Bind(4, ByteSpan(hash))
      .Step();
  return Admission::kAdmitted;
}

Store::Holder Store::HolderOf(std::string_view token) {
  const auto hash = HashOf(token);
  const std::lock_guard lock(mutex_);
  Statement row(database_, "SELECT operator FROM tokens WHERE hash = ?");
  if (!row.Bind(1, ByteSpan(hash)).Step()) return Holder::kUnknown;
  return row.Number(0) != 0 ? Holder::kOperator : Holder::kClient;
}

bool Store::Remember(const service::QueryId& id, std::uint64_t forget_ms, std::uint64_t now_ms) {
  const std::lock_guard lock(mutex_);
  if (now_ms > swept_ms_ + kSweepMs) {
    Statement(database_, "DELETE FROM seen WHERE forget_ms < ?").Bind(1, now_ms).Step();
    swept_ms_ = now_ms;
  }
  Statement(database_, "INSERT OR IGNORE INTO seen (id, forget_ms) VALUES (?, ?)")
      .Bind(1, ByteSpan(id))
      .Bind(2, forget_ms)
      .Step();
  return sqlite3_changes(database_) > 0;
}

}  // namespace tercet::serve
