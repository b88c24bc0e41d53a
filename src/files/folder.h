// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace tercet::files {

/// The pictures of a folder.
struct Folder {
  struct File {
    std::filesystem::path path;
    std::string name;                  ///< from the folder on, with '/'
    std::optional<std::size_t> group;  ///< that of `groups` whose folder it lies in
  };
  std::vector<File> files;          ///< by group, then by name
  std::vector<std::string> groups;  ///< names of the folders in it, in order; none without them
};

/// Lists a folder of pictures, or of folders of them, hidden files and .csv left out. ConfigError
/// for a folder that cannot be read or has no file, and for one that has both files and folders.
/// What is in the files is not looked at.
Folder ListFolder(const std::filesystem::path& folder);

}  // namespace tercet::files
