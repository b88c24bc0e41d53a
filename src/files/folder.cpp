// SPDX-License-Identifier: Apache-2.0
#include "files/folder.h"

#include <fmt/format.h>

#include <algorithm>

#include "tercet/base/error.h"

namespace tercet::files {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxFiles = 10'000'000;

struct Listing {
  std::vector<fs::path> files, folders;
};

// Byte by byte, as Python sorts names and so torchvision its classes.
Listing List(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const fs::path& path = entries->path();
    if (path.filename().string().starts_with('.') || path.extension() == ".csv") continue;
    std::error_code unknown;  // what cannot be looked at is a file that cannot be read
    (fs::is_directory(path, unknown) ? listing.folders : listing.files).push_back(path);
    if (listing.files.size() > kMaxFiles)
      throw ConfigError(folder.string(), fmt::format("holds more than {} files", kMaxFiles));
  }
  if (error) throw ConfigError(folder.string(), error.message());
  std::sort(listing.files.begin(), listing.files.end());
  std::sort(listing.folders.begin(), listing.folders.end());
  return listing;
}

}  // namespace

Folder ListFolder(const fs::path& folder) {
  const Listing top = List(folder);
  if (!top.files.empty() && !top.folders.empty()) {
    throw ConfigError(folder.string(),
                      fmt::format("has both files and folders ({} and {}), expected pictures, or "
                                  "one folder of them for each class",
                                  top.files.front().filename().string(),
                                  top.folders.front().filename().string()));
  }
  Folder result;
  const auto add = [&](const fs::path& path, std::optional<std::size_t> group) {
    result.files.push_back({path, path.lexically_relative(folder).generic_string(), group});
  };
  for (const fs::path& path : top.files) add(path, std::nullopt);
  for (const fs::path& below : top.folders) {
    const Listing listing = List(below);
    if (listing.files.empty() || !listing.folders.empty()) {
      throw ConfigError(below.string(), listing.folders.empty()
                                            ? "is a folder without a file, expected pictures"
                                            : "has folders in it, expected pictures");
    }
    for (const fs::path& path : listing.files) add(path, result.groups.size());
    result.groups.push_back(below.filename().string());
  }
  if (result.files.empty())
    throw ConfigError(folder.string(), "is a folder without a file, expected pictures");
  return result;
}

}  // namespace tercet::files
