// SPDX-License-Identifier: Apache-2.0
#include "infer/material_record.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "files/disk.h"
#include "files/schema_check.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/infer/material.h"

namespace tercet::infer {
namespace fs = std::filesystem;

namespace {

using nlohmann::json;

constexpr std::size_t kMaxBytes = std::size_t{64} << 10;
constexpr const char* kKeptHere =
    "records of material are kept there, or where XDG_STATE_HOME says";
// A record is written over itself, so it is filled up with blanks: it does not get shorter, and a
// disk writes a block of this size at once or not at all.
constexpr std::size_t kBlock = 512;

constexpr const char* kSchema = R"({
  "title": "a record of material", "description": "an object", "type": "object",
  "required": ["file", "content", "path", "next"], "additionalProperties": false,
  "properties": {
    "file": {"type": "string", "minLength": 1, "description": "inode and time of birth"},
    "content": {"type": "string", "minLength": 64, "maxLength": 64, "description": "a SHA-256"},
    "path": {"type": "string", "description": "a path"},
    "next": {"type": "integer", "minimum": 0, "maximum": 1000000,
             "description": "a query's number up to 1000000"}
  }
})";
static_assert(kMaxQueries == 1'000'000, "as in the schema");

fs::path FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  fs::path path = value != nullptr ? value : "";
  return path.is_absolute() ? path : fs::path();
}

}  // namespace

fs::path MaterialRecords() {
  fs::path state = FromEnvironment("XDG_STATE_HOME");
  if (state.empty()) {
    const fs::path home = FromEnvironment("HOME");
    if (home.empty())
      throw ConfigError("XDG_STATE_HOME",
                        "neither it nor HOME is an absolute path; records of material are kept "
                        "there");
    state = home / ".local" / "state";
  }
  return state / "tercet" / "material";
}

MaterialRecord::MaterialRecord(const std::string& session, int party)
    : file_(MaterialRecords() / fmt::format("{}-party{}.json", session, party)) {
  Open();
  try {
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) Fail("is in use by another process");
    Read();
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

MaterialRecord::~MaterialRecord() {
  if (!entry_) ::unlink(file_.c_str());
  ::close(fd_);
}

void MaterialRecord::Open() {
  try {
    MakePrivateDirectory(file_.parent_path());
  } catch (const ConfigError& e) {
    throw ConfigError(e.what(), kKeptHere);
  }
  fd_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) Fail(fmt::format("cannot be opened: {}: {}", std::strerror(errno), kKeptHere));
}

void MaterialRecord::Read() {
  std::string text(kMaxBytes, ' ');
  const ssize_t count = ::pread(fd_, text.data(), text.size(), 0);
  if (count < 0) Fail(fmt::format("cannot be read: {}", std::strerror(errno)));
  if (count == 0) return;
  text.resize(static_cast<std::size_t>(count));
  const json document = ReadJson(text, file_.string(), JsonLimits::UpTo(text.size()));
  static const files::Schema schema(kSchema);
  schema.Check(document, file_.string());
  Entry entry;
  document.at("file").get_to(entry.identity);
  document.at("content").get_to(entry.content);
  entry.path = document.at("path").get<std::string>();
  document.at("next").get_to(entry.next);
  entry_ = std::move(entry);
}

void MaterialRecord::Set(Entry entry) {
  const bool first = !entry_;
  std::string text = json{
      {"file", entry.identity},
      {"content", entry.content},
      {"path", entry.path.string()},
      {"next",
       entry.next}}.dump(-1, ' ', true, json::error_handler_t::replace);
  text.resize((text.size() / kBlock + 1) * kBlock, ' ');
  const ByteSpan bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  if (!files::WriteAt(fd_, 0, bytes) || ::ftruncate(fd_, static_cast<off_t>(text.size())) != 0 ||
      ::fsync(fd_) != 0 || (first && !files::SyncDirectoryOf(file_)))
    Fail(fmt::format("cannot be written: {}", std::strerror(errno)));
  entry_ = std::move(entry);
}

void MaterialRecord::Remove() noexcept {
  ::unlink(file_.c_str());
  entry_.reset();
}

void MaterialRecord::Fail(const std::string& problem) const {
  throw ConfigError(file_.string(), problem);
}

}  // namespace tercet::infer
