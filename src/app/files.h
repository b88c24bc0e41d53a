#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace tercet::app {

/// A directory of this user alone that goes away, with all in it, with the object.
class TemporaryDirectory {
 public:
  /// Throws ConfigError when the system's temporary directory cannot be written.
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  const std::filesystem::path& Path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Throws ConfigError (place: `option`) unless `file` can be written: its directory exists and is
/// writable and it is no directory itself. For output that comes after a long run.
void CheckWritable(const std::filesystem::path& file, const std::string& option);

/// Writes a temporary file beside `file`, then renames it, so that no partial file is left.
/// ConfigError when it cannot.
void WriteFile(const std::filesystem::path& file, std::string_view content);

}  // namespace tercet::app
