// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "tercet/base/bytes.h"

/// What files that are written in place, and must have reached the disk, need of the system. All
/// functions are thread safe; where they return false, errno says why.
namespace tercet::files {

/// Writes all of `bytes` from byte `at` on.
bool WriteAt(int fd, std::uint64_t at, ByteSpan bytes);

/// Puts on the disk that a file of this name is there.
bool SyncDirectoryOf(const std::filesystem::path& file);

/// What tells a file from every copy of it: inode and time of birth, which no program can set;
/// where the system keeps no such time, inode and device. A file that is renamed keeps it, one that
/// is moved to another file system does not.
std::string FileIdentity(int fd);

}  // namespace tercet::files
