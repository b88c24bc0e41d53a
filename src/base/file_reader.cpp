// SPDX-License-Identifier: Apache-2.0
#include "tercet/base/file_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <system_error>

#include "tercet/base/error.h"

namespace tercet {
namespace {

std::string Reason(int code) { return std::generic_category().message(code); }

const char* TypeName(::mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISSOCK(mode)) return "a socket";
  return "something else";
}

}  // namespace

FileReader::FileReader(const std::filesystem::path& file, const FileKind& kind)
    : name_(file.string()), what_(kind.what) {
  const auto require_regular = [&](const struct stat& status) {
    if (!S_ISREG(status.st_mode)) {
      Fail(fmt::format("is no regular file but {}, expected {}", TypeName(status.st_mode), what_));
    }
  };
  // Looked at before, since opening a device may do something to it. A missing file is open's to
  // report.
  struct stat status {};
  if (::stat(name_.c_str(), &status) == 0) require_regular(status);
  // Does not wait for a writer where a FIFO has come in between.
  descriptor_ = ::open(name_.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (descriptor_ < 0) Fail(fmt::format("cannot be read: {}", Reason(errno)));
  try {
    if (::fstat(descriptor_, &status) != 0) Fail(fmt::format("cannot be read: {}", Reason(errno)));
    require_regular(status);
    size_ = static_cast<std::uint64_t>(status.st_size);
    mode_ = status.st_mode & 0777;
    owner_ = status.st_uid;
    if (size_ > kind.max_bytes) {
      Fail(
          fmt::format("is {} bytes long, expected at most {} of {}", size_, kind.max_bytes, what_));
    }
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

FileReader::~FileReader() { ::close(descriptor_); }

void FileReader::Fail(const std::string& problem) const { throw ConfigError(name_, problem); }

std::vector<std::uint8_t> FileReader::Read(std::uint64_t at, std::uint64_t count) const {
  std::vector<std::uint8_t> bytes;
  if (at > size_ || count > size_ - at)
    Fail(fmt::format("ends at byte {}, expected {} more from byte {}", size_, count, at));
  try {
    bytes.resize(count);
  } catch (const std::bad_alloc&) {
    Fail(fmt::format("there is no memory for {} bytes of it", count));
  } catch (const std::length_error&) {
    Fail(fmt::format("there is no memory for {} bytes of it", count));
  }
  for (std::uint64_t done = 0; done < count;) {
    const ssize_t part =
        ::pread(descriptor_, bytes.data() + done, count - done, static_cast<off_t>(at + done));
    if (part < 0 && errno == EINTR) continue;
    if (part < 0) Fail(fmt::format("cannot be read: {}", Reason(errno)));
    if (part == 0) Fail(fmt::format("ended after {} of {} bytes", at + done, size_));
    done += static_cast<std::uint64_t>(part);
  }
  return bytes;
}

void FileReader::RequirePrivate() const {
  if ((mode_ & 077) != 0) {
    Fail(fmt::format(
        "has mode {:o}, so others than its owner may use it; expected 600 of {} (chmod 600 {})",
        mode_, what_, name_));
  }
  if (owner_ != 0 && owner_ != ::geteuid()) {
    Fail(fmt::format("belongs to user {}, who can change it; expected {} of this user, {}, or root",
                     owner_, what_, ::geteuid()));
  }
}

std::vector<std::uint8_t> ReadFile(const std::filesystem::path& file, const FileKind& kind) {
  const FileReader reader(file, kind);
  return reader.Read(0, reader.Size());
}

std::vector<std::uint8_t> ReadStandardInput(const FileKind& kind) {
  constexpr std::uint64_t kPieceBytes = 1 << 20;
  const auto fail = [](const std::string& problem) {
    throw ConfigError("standard input", problem);
  };
  if (::isatty(STDIN_FILENO) != 0) fail(fmt::format("is a terminal, expected {}", kind.what));
  std::vector<std::uint8_t> bytes;
  try {
    while (bytes.size() <= kind.max_bytes) {
      const std::size_t begin = bytes.size();
      bytes.resize(begin + kPieceBytes);
      const ssize_t part = ::read(STDIN_FILENO, bytes.data() + begin, kPieceBytes);
      bytes.resize(begin + static_cast<std::size_t>(std::max<ssize_t>(part, 0)));
      if (part == 0) return bytes;
      if (part < 0 && errno != EINTR) fail(fmt::format("cannot be read: {}", Reason(errno)));
    }
  } catch (const std::bad_alloc&) {
    fail(fmt::format("there is no memory for more than {} bytes of it", bytes.size()));
  }
  fail(fmt::format("gives more than {} bytes, expected {}", kind.max_bytes, kind.what));
  return bytes;
}

std::string ReadTextFile(const std::filesystem::path& file, const FileKind& kind) {
  const auto bytes = ReadFile(file, kind);
  return {bytes.begin(), bytes.end()};
}

std::vector<std::uint8_t> ReadPrivateFile(const std::filesystem::path& file, const FileKind& kind) {
  const FileReader reader(file, kind);
  reader.RequirePrivate();
  return reader.Read(0, reader.Size());
}

}  // namespace tercet
