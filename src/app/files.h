#pragma once

#include <filesystem>

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

}  // namespace tercet::app
