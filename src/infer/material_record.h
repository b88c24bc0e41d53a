// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

namespace tercet::infer {

/// What this machine knows of the material of one session and party, kept apart from the file in
/// MaterialRecords(). Locked as long as the object lives, so that two copies of a file are not used
/// at once. Throws ConfigError (place: the record's file). Not thread safe.
class MaterialRecord {
 public:
  struct Entry {
    std::string identity;        ///< FileIdentity of the file
    std::string content;         ///< digest of its parts' digests
    std::filesystem::path path;  ///< where it was when it was bound; for messages
    std::size_t next = 0;        ///< the first query that may not have been used
  };

  /// ConfigError when another process holds it. Where there was none, it lasts from the first Set
  /// on.
  MaterialRecord(const std::string& session, int party);
  MaterialRecord(const MaterialRecord&) = delete;
  MaterialRecord& operator=(const MaterialRecord&) = delete;
  ~MaterialRecord();

  const std::filesystem::path& File() const { return file_; }
  /// Nothing when this machine knows of no such material.
  const std::optional<Entry>& Known() const { return entry_; }
  /// On the disk when it returns.
  void Set(Entry entry);
  void Remove() noexcept;

 private:
  void Open();
  void Read();
  [[noreturn]] void Fail(const std::string& problem) const;

  std::filesystem::path file_;
  int fd_ = -1;
  std::optional<Entry> entry_;
};

}  // namespace tercet::infer
