// SPDX-License-Identifier: Apache-2.0
#include "programs/anonymous_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"

namespace tercet::programs {
namespace {

constexpr off_t kMostText = 1 << 16;

int Make() {
#ifdef __linux__
  return ::memfd_create("tercet", MFD_CLOEXEC);
#else
  std::string pattern = (std::filesystem::temp_directory_path() / "tercet-XXXXXX").string();
  const int fd = ::mkstemp(pattern.data());
  if (fd < 0) return fd;
  ::unlink(pattern.c_str());
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
#endif
}

}  // namespace

AnonymousFile::AnonymousFile(std::string_view content) : fd_(Make()) {
  if (Fd() < 0 || ::fchmod(Fd(), 0600) != 0)
    throw Error(fmt::format("cannot make a file without a name: {}", std::strerror(errno)));
  if (!content.empty()) WriteFile(Path(), content);
}

std::string AnonymousFile::Path() const {
#ifdef __linux__
  return fmt::format("/proc/self/fd/{}", Fd());
#else
  return fmt::format("/dev/fd/{}", Fd());
#endif
}

std::string AnonymousFile::End() const {
  const off_t size = ::lseek(Fd(), 0, SEEK_END);
  std::string text(static_cast<std::size_t>(std::clamp<off_t>(size, 0, kMostText)), '\0');
  const ssize_t read =
      ::pread(Fd(), text.data(), text.size(), std::max<off_t>(0, size - kMostText));
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(0, read)));
  return text;
}

}  // namespace tercet::programs
