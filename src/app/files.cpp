#include "app/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "tercet/base/error.h"

namespace tercet::app {
namespace fs = std::filesystem;

namespace {

fs::path DirectoryOf(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

bool WriteAll(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t count = ::write(fd, content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    content.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::error_code error;
  const fs::path base = fs::temp_directory_path(error);
  if (error) throw ConfigError("TMPDIR", "no usable temporary directory: " + error.message());
  std::string pattern = (base / "tercet-run-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw ConfigError(base.string(), fmt::format("no temporary directory can be made here: {}",
                                                 std::strerror(errno)));
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void CheckWritable(const fs::path& file, const std::string& option) {
  std::error_code error;
  if (fs::is_directory(file, error))
    throw ConfigError(option,
                      fmt::format("{} is a directory, a file name is expected", file.string()));
  const fs::path directory = DirectoryOf(file);
  if (::access(directory.c_str(), W_OK) != 0)
    throw ConfigError(option, fmt::format("cannot write into the directory {}: {}",
                                          directory.string(), std::strerror(errno)));
}

void WriteFile(const fs::path& file, std::string_view content) {
  std::string temporary =
      (DirectoryOf(file) / fmt::format(".{}.XXXXXX", file.filename().string())).string();
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0)
    throw ConfigError(file.string(), fmt::format("cannot be written: {}", std::strerror(errno)));
  // mkstemp makes files for the owner alone; results get the usual rights.
  const mode_t mask = ::umask(0);
  ::umask(mask);
  bool good = ::fchmod(fd, 0666 & ~mask) == 0 && WriteAll(fd, content);
  good = ::close(fd) == 0 && good;
  if (!good || std::rename(temporary.c_str(), file.c_str()) != 0) {
    const std::string why = std::strerror(errno);
    ::unlink(temporary.c_str());
    throw ConfigError(file.string(), "cannot be written: " + why);
  }
}

}  // namespace tercet::app
