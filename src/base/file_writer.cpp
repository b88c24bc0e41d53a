// SPDX-License-Identifier: Apache-2.0
#include "tercet/base/file_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "tercet/base/error.h"

namespace tercet {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxLinks = 40;  // as Linux follows
// How long a FIFO may lack a reader, and how often that is looked at.
constexpr auto kReaderTime = std::chrono::seconds(3);
constexpr auto kReaderLook = std::chrono::milliseconds(20);

// Where an output goes once links are followed.
struct Target {
  enum class Kind : std::uint8_t {
    kReplaced,   // a regular file or none
    kStraight,   // a device, a FIFO: opened and written
    kDescriptor  // an open descriptor of this process
  };
  Kind kind = Kind::kReplaced;
  fs::path path;
  std::optional<::mode_t> mode;  // of the regular file that is there
  int descriptor = -1;
};

fs::path DirectoryOf(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

constexpr const char* kExists = "exists already and is not overwritten";

// The number N of /dev/fd/N, /dev/stdout's target and so on, where `path` is one of these.
std::optional<int> DescriptorOf(const fs::path& path) {
  std::error_code error;
  const auto directory = fs::canonical(DirectoryOf(path), error);
  if (error) return std::nullopt;
  const auto own = fs::canonical("/proc/self/fd", error);
  if ((error || directory != own) && directory != "/dev/fd") return std::nullopt;
  const std::string name = path.filename().string();
  int number = -1;
  const auto [end, parsed] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (parsed != std::errc() || end != name.data() + name.size() || number < 0) return std::nullopt;
  return number;
}

// What a file is called in messages; one without a name, which this process has open, by what it
// is.
std::string NameOf(const fs::path& file) {
  std::error_code error;
  const std::string link =
      DescriptorOf(file) ? fs::read_symlink(file, error).string() : std::string();
  return link.ends_with(" (deleted)") ? std::string("a temporary file") : file.string();
}

[[noreturn]] void Refuse(const fs::path& file, const std::string& problem) {
  throw ConfigError(NameOf(file), "cannot be written: " + problem);
}

[[noreturn]] void FailToWrite(const fs::path& file, int error_number) {
  throw Error(fmt::format("{}: cannot be written: {}", NameOf(file), WriteProblem(error_number)));
}

// Links in /proc lead to open files, whatever their text says, so they are opened and not followed.
bool InProc(const fs::path& path) {
  std::error_code error;
  return fs::canonical(DirectoryOf(path), error).string().starts_with("/proc/");
}

// Throws where a file cannot be written there.
Target FindTarget(const fs::path& file) {
  Target target;
  target.path = file;
  for (int links = 0;; ++links) {
    if (!target.path.has_filename()) Refuse(file, "a file name is expected");
    if (const auto descriptor = DescriptorOf(target.path)) {
      const int flags = ::fcntl(*descriptor, F_GETFL);
      if (flags < 0) Refuse(file, WriteProblem(errno));
      if ((flags & O_ACCMODE) == O_RDONLY) Refuse(file, "it is open for reading only");
      target.kind = Target::Kind::kDescriptor;
      target.descriptor = *descriptor;
      return target;
    }
    struct stat status {};
    if (::lstat(target.path.c_str(), &status) != 0) {
      if (errno != ENOENT) Refuse(file, WriteProblem(errno));
      return target;
    }
    if (S_ISLNK(status.st_mode) && !InProc(target.path)) {
      // Only the system knows which links it lets this user follow.
      struct stat ignored {};
      if (::stat(target.path.c_str(), &ignored) != 0 && errno != ENOENT)
        Refuse(file, WriteProblem(errno));
      if (links == kMaxLinks) Refuse(file, WriteProblem(ELOOP));
      std::error_code error;
      const auto next = fs::read_symlink(target.path, error);
      if (error) Refuse(file, error.message());
      target.path = DirectoryOf(target.path) / next;
      continue;
    }
    if (S_ISDIR(status.st_mode)) Refuse(file, "it is a directory, a file name is expected");
    if (::faccessat(AT_FDCWD, target.path.c_str(), W_OK, AT_EACCESS) != 0)
      Refuse(file, WriteProblem(errno));
    if (!S_ISREG(status.st_mode)) {
      target.kind = Target::Kind::kStraight;
      return target;
    }
    struct stat directory {};
    const ::uid_t user = ::geteuid();
    if (::stat(DirectoryOf(target.path).c_str(), &directory) == 0 &&
        (directory.st_mode & S_ISVTX) != 0 && user != 0 && status.st_uid != user &&
        directory.st_uid != user)
      Refuse(file, "it belongs to another user, who alone can replace it in this directory");
    target.mode = status.st_mode & 07777;
    return target;
  }
}

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int Number() const { return number_; }
  bool Close() { return number_ < 0 || ::close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

std::string SelfPath(int descriptor) { return fmt::format("/proc/self/fd/{}", descriptor); }

fs::path TemporaryName(const fs::path& directory) {
  static std::atomic<unsigned> counter{0};
  // Short, since the name that it stands for may be as long as the system allows.
  return directory / fmt::format(".tercet-{}-{}", ::getpid(), counter++);
}

// A new file that takes a name's place in the end, or vanishes.
class Temporary {
 public:
  // Throws ConfigError when the directory takes no file.
  Temporary(const fs::path& file, const Target& target, FileRights rights)
      : descriptor_(Open(file, DirectoryOf(target.path), rights == FileRights::kOwner ? 0600 : 0666,
                         name_)),
        target_(target),
        file_(file) {}
  Temporary(Temporary&& other) noexcept
      : name_(std::exchange(other.name_, {})),
        descriptor_(std::move(other.descriptor_)),
        target_(std::move(other.target_)),
        file_(std::move(other.file_)) {}
  Temporary& operator=(Temporary&&) = delete;
  ~Temporary() {
    if (!name_.empty()) ::unlink(name_.c_str());
  }

  int Number() const { return descriptor_.Number(); }
  const fs::path& Path() const { return target_.path; }
  bool IsNew() const { return !target_.mode; }

  // A file that was there keeps its rights where they are narrower. False with errno set.
  bool Narrow() const {
    struct stat status {};
    if (!target_.mode) return true;
    return ::fstat(Number(), &status) == 0 &&
           ::fchmod(Number(), status.st_mode & *target_.mode & 0777) == 0;
  }

  // The content is on the disk, so only names change here. Throws Error, or ConfigError when the
  // file exists and must not be replaced.
  void TakePlace(bool replace) {
    if (name_.empty()) {
      if (Link(target_.path)) return;
      while (errno == EEXIST && replace) {
        const fs::path candidate = TemporaryName(DirectoryOf(target_.path));
        if (!Link(candidate)) continue;
        name_ = candidate;
        break;
      }
    } else if (!descriptor_.Close()) {
      FailToWrite(file_, errno);
    }
    if (!name_.empty() && replace && ::rename(name_.c_str(), target_.path.c_str()) == 0) {
      name_.clear();
      return;
    }
    if (!name_.empty() && !replace && ::link(name_.c_str(), target_.path.c_str()) == 0) return;
    if (!replace && errno == EEXIST) throw ConfigError(file_.string(), kExists);
    FailToWrite(file_, errno);
  }

 private:
  static int Open(const fs::path& file, const fs::path& directory, ::mode_t mode, fs::path& name) {
#ifdef O_TMPFILE
    const int nameless = ::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
    // Without /proc it could never get a name.
    if (nameless >= 0 && ::access(SelfPath(nameless).c_str(), F_OK) == 0) return nameless;
    if (nameless >= 0) ::close(nameless);
#endif
    for (;;) {
      const fs::path candidate = TemporaryName(directory);
      const int named = ::open(candidate.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
      if (named >= 0) {
        name = candidate;
        return named;
      }
      if (errno != EEXIST)
        Refuse(file, fmt::format("no file can be made in the directory {}: {}", directory.string(),
                                 WriteProblem(errno)));
    }
  }
  bool Link(const fs::path& path) const {
    return ::linkat(AT_FDCWD, SelfPath(Number()).c_str(), AT_FDCWD, path.c_str(),
                    AT_SYMLINK_FOLLOW) == 0;
  }

  fs::path name_;  // empty: it has none yet
  Descriptor descriptor_;
  Target target_;
  fs::path file_;  // as the user named it
};

// False with errno set.
bool WriteAll(int descriptor, std::string_view content) {
  while (!content.empty()) {
    const ::ssize_t count = ::write(descriptor, content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    content.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

// What has no disk behind it, as a pipe, refuses.
bool Sync(int descriptor) {
  return ::fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS;
}

// Opens a device or FIFO without waiting for what may never come. Negative with errno set.
int OpenStraight(const fs::path& file, const fs::path& path) {
  const auto deadline = Clock::now() + kReaderTime;
  for (;;) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    // What a reader takes slowly is waited for.
    if (fd >= 0) ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    std::error_code ignored;
    if (fd >= 0 || errno != ENXIO || !fs::is_fifo(path, ignored)) return fd;
    if (Clock::now() > deadline) {
      throw Error(fmt::format(
          "{}: cannot be written: it is a FIFO that nobody has opened for reading within {} s",
          file.string(), kReaderTime.count()));
    }
    std::this_thread::sleep_for(kReaderLook);
  }
}

void WriteStraight(const fs::path& file, const Target& target, std::string_view content) {
  if (target.descriptor == STDOUT_FILENO) std::fflush(stdout);  // what was printed stays in front
  Descriptor descriptor(target.kind == Target::Kind::kDescriptor
                            ? ::fcntl(target.descriptor, F_DUPFD_CLOEXEC, 3)
                            : OpenStraight(file, target.path));
  if (descriptor.Number() < 0) Refuse(file, WriteProblem(errno));
  if (!WriteAll(descriptor.Number(), content) || !Sync(descriptor.Number()) || !descriptor.Close())
    FailToWrite(file, errno);
}

}  // namespace

void WriteFiles(std::span<const Output> outputs) {
  std::vector<std::pair<const Output*, Temporary>> temporaries;
  std::vector<std::pair<const Output*, Target>> straight;
  std::set<fs::path> paths;
  for (const Output& output : outputs) {
    Target target = FindTarget(output.file);
    if (target.kind != Target::Kind::kReplaced) {
      straight.emplace_back(&output, std::move(target));
      continue;
    }
    if (target.mode && !output.replace) throw ConfigError(output.file.string(), kExists);
    if (!paths.insert(fs::absolute(target.path).lexically_normal()).second)
      Refuse(output.file, "it is named for two outputs");
    const auto& temporary =
        temporaries.emplace_back(&output, Temporary(output.file, target, output.rights)).second;
    if (!temporary.Narrow() || !WriteAll(temporary.Number(), output.content) ||
        !Sync(temporary.Number()))
      FailToWrite(output.file, errno);
  }
  for (const auto& [output, target] : straight)
    WriteStraight(output->file, target, output->content);
  std::vector<fs::path> placed;
  try {
    for (auto& [output, temporary] : temporaries) {
      temporary.TakePlace(output->replace);
      if (temporary.IsNew()) placed.push_back(temporary.Path());
    }
  } catch (...) {
    for (const auto& path : placed) ::unlink(path.c_str());
    throw;
  }
}

void WriteFile(const fs::path& file, std::string_view content, FileRights rights) {
  const Output output{file, content, rights};
  WriteFiles({&output, 1});
}

void CheckWritable(const fs::path& file, const std::string& place) {
  try {
    const Target target = FindTarget(file);
    if (target.kind == Target::Kind::kReplaced) Temporary(file, target, FileRights::kOwner);
  } catch (const ConfigError& e) {
    throw ConfigError(place, e.what());
  }
}

bool MakePrivateDirectory(const fs::path& directory) {
  // "a/b/" has the parent "a/b".
  const fs::path name = directory.has_filename() ? directory : directory.parent_path();
  std::error_code error;
  if (name.has_parent_path()) fs::create_directories(name.parent_path(), error);
  if (::mkdir(name.c_str(), 0700) == 0) return true;
  const int problem = errno;
  struct stat status {};
  if (::stat(name.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    throw ConfigError(directory.string(), "cannot be made a directory: " + WriteProblem(problem));
  }
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    throw ConfigError(
        directory.string(),
        fmt::format("has mode {0:o}, so others than its owner may replace what is put "
                    "into it; expected 700 (chmod 700 {1})",
                    status.st_mode & 07777, directory.string()));
  }
  return false;
}

std::string WriteProblem(int error_number) {
  std::string text = std::generic_category().message(error_number);
  if (error_number == EFBIG) text += " (ulimit -f shows the limit of a file's size)";
  return text;
}

}  // namespace tercet
