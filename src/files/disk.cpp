// SPDX-License-Identifier: Apache-2.0
#include "files/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace tercet::files {

bool WriteAt(int fd, std::uint64_t at, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    at += static_cast<std::uint64_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

bool SyncDirectoryOf(const std::filesystem::path& file) {
  const auto directory = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool good = ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  errno = error;
  return good;
}

std::string FileIdentity(int fd) {
#ifdef __linux__
  struct statx birth {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &birth) == 0 &&
      (birth.stx_mask & STATX_BTIME) != 0)
    return fmt::format("inode {} of {}.{:09}", birth.stx_ino, birth.stx_btime.tv_sec,
                       birth.stx_btime.tv_nsec);
#endif
  struct stat status {};
  if (::fstat(fd, &status) != 0) return "";
#ifdef __APPLE__
  return fmt::format("inode {} of {}.{:09}", status.st_ino, status.st_birthtimespec.tv_sec,
                     status.st_birthtimespec.tv_nsec);
#else
  return fmt::format("inode {} on device {}", status.st_ino, status.st_dev);
#endif
}

}  // namespace tercet::files
