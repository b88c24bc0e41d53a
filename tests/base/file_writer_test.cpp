// SPDX-License-Identifier: Apache-2.0
#include "tercet/base/file_writer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <thread>

#include "base/scratch.h"
#include "tercet/base/error.h"

namespace tercet {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

struct ::stat Status(const fs::path& file) {
  struct ::stat status {};
  EXPECT_EQ(::lstat(file.c_str(), &status), 0) << file;
  return status;
}

unsigned Mode(const fs::path& file) { return Status(file).st_mode & 0777; }

class FileWriterTest : public testing::Test {
 protected:
  FileWriterTest() : umask_(::umask(022)) {}
  ~FileWriterTest() override { ::umask(umask_); }

  fs::path In(const std::string& name) const { return temp_.Path() / name; }
  std::ptrdiff_t Entries() const {
    return std::distance(fs::directory_iterator(temp_.Path()), fs::directory_iterator());
  }
  // A node like /dev/null or /dev/full, which only root can make.
  bool MakeDevice(const std::string& name, unsigned minor) const {
    return ::mknod(In(name).c_str(), S_IFCHR | 0666, ::makedev(1, minor)) == 0 &&
           ::access(In(name).c_str(), W_OK) == 0 &&
           std::ofstream(In(name)).is_open();  // a mount without devices has nodes that do not open
  }
  // Expects that the check and the writer both refuse, and change nothing.
  void ExpectRefused(const fs::path& file, const std::string& reason) const {
    const auto entries = Entries();
    EXPECT_THAT([&] { CheckWritable(file, "--json"); },
                ThrowsMessage<ConfigError>(
                    AllOf(testing::StartsWith("--json: " + file.string()), HasSubstr(reason))));
    EXPECT_THAT([&] { WriteFile(file, "text"); },
                ThrowsMessage<ConfigError>(
                    AllOf(testing::StartsWith(file.string() + ": "), HasSubstr(reason))));
    EXPECT_EQ(Entries(), entries);
  }

  ScratchDirectory temp_;

 private:
  ::mode_t umask_;
};

TEST_F(FileWriterTest, NewFilesHaveTheRightsThatAreAskedFor) {
  WriteFile(In("usual"), "a");
  WriteFile(In("owner"), "b", FileRights::kOwner);
  EXPECT_EQ(ReadAll(In("usual")), "a");
  EXPECT_EQ(Mode(In("usual")), 0644U);
  EXPECT_EQ(ReadAll(In("owner")), "b");
  EXPECT_EQ(Mode(In("owner")), 0600U);
  ::umask(077);
  WriteFile(In("hidden"), "c");
  EXPECT_EQ(Mode(In("hidden")), 0600U);
  const std::string longest(255, 'n');
  WriteFile(In(longest), "");
  EXPECT_EQ(ReadAll(In(longest)), "");
  EXPECT_EQ(Entries(), 4);
}

TEST_F(FileWriterTest, AFileThatIsReplacedNeverGainsReaders) {
  WriteFile(In("a"), "old");
  ::chmod(In("a").c_str(), 0640);
  const auto old = Status(In("a"));
  WriteFile(In("a"), "new");
  EXPECT_EQ(ReadAll(In("a")), "new");
  EXPECT_EQ(Mode(In("a")), 0640U);
  EXPECT_NE(Status(In("a")).st_ino, old.st_ino) << "whoever reads the old one has it whole";
  WriteFile(In("a"), "newer", FileRights::kOwner);
  EXPECT_EQ(Mode(In("a")), 0600U);
  ::chmod(In("a").c_str(), 0666);
  WriteFile(In("a"), "newest");
  EXPECT_EQ(Mode(In("a")), 0644U);
  EXPECT_EQ(Entries(), 1);
}

TEST_F(FileWriterTest, FollowsLinksAndLeavesThem) {
  fs::create_directory(In("d"));
  WriteFile(In("d/target"), "old");
  fs::create_symlink("d/target", In("first"));
  fs::create_symlink(In("first"), In("second"));
  WriteFile(In("second"), "new");
  EXPECT_EQ(ReadAll(In("d/target")), "new");
  EXPECT_TRUE(fs::is_symlink(In("first")));
  EXPECT_TRUE(fs::is_symlink(In("second")));
  fs::create_symlink("d/none", In("dangling"));
  CheckWritable(In("dangling"), "--json");
  WriteFile(In("dangling"), "made");
  EXPECT_TRUE(fs::is_symlink(In("dangling")));
  EXPECT_EQ(ReadAll(In("d/none")), "made");
  fs::create_symlink("loop", In("loop"));
  ExpectRefused(In("loop"), "Too many levels");
}

TEST_F(FileWriterTest, AFifoIsWrittenAndStays) {
  ASSERT_EQ(::mkfifo(In("fifo").c_str(), 0600), 0);
  CheckWritable(In("fifo"), "--json");
  auto reader = std::async(std::launch::async, [&] { return ReadAll(In("fifo")); });
  WriteFile(In("fifo"), "through");
  EXPECT_EQ(reader.get(), "through");
  EXPECT_TRUE(fs::is_fifo(In("fifo")));
  EXPECT_EQ(Entries(), 1);
}

TEST_F(FileWriterTest, AFifoThatNobodyReadsIsAnError) {
  ASSERT_EQ(::mkfifo(In("fifo").c_str(), 0600), 0);
  CheckWritable(In("fifo"), "--json");
  EXPECT_THAT(
      [&] { WriteFile(In("fifo"), "lost"); },
      ThrowsMessage<Error>(HasSubstr("fifo: cannot be written: it is a FIFO that nobody has "
                                     "opened for reading within")));
  EXPECT_TRUE(fs::is_fifo(In("fifo")));
}

// More than a pipe holds, to a reader that comes late and takes its time.
TEST_F(FileWriterTest, AFifosReaderIsWaitedFor) {
  ASSERT_EQ(::mkfifo(In("fifo").c_str(), 0600), 0);
  const std::string content(1 << 20, 'x');
  auto writer = std::async(std::launch::async, [&] { WriteFile(In("fifo"), content); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  std::ifstream stream(In("fifo"), std::ios::binary);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(stream), {}), content);
  writer.get();
}

TEST_F(FileWriterTest, ADirectoryForSecretsIsItsOwners) {
  ::umask(0);
  for (const char* name : {"a/b", "c/"}) {
    EXPECT_TRUE(MakePrivateDirectory(In(name)));
    EXPECT_FALSE(MakePrivateDirectory(In(name)));
  }
  EXPECT_EQ(Mode(In("a/b")), 0700U);
  EXPECT_EQ(Mode(In("c")), 0700U);
  ::chmod(In("c").c_str(), 0755);
  EXPECT_FALSE(MakePrivateDirectory(In("c")));
  for (const ::mode_t mode : {0777U, 01777U, 0770U, 0702U}) {
    ::chmod(In("c").c_str(), mode);
    EXPECT_THAT([&] { MakePrivateDirectory(In("c")); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr(fmt::format("c: has mode {:o}", mode)),
                                                 HasSubstr("chmod 700"))));
  }
  WriteFile(In("file"), "");
  for (const char* name : {"file", "file/d"}) {
    EXPECT_THAT([&] { MakePrivateDirectory(In(name)); },
                ThrowsMessage<ConfigError>(HasSubstr("cannot be made a directory: ")));
  }
}

TEST_F(FileWriterTest, ADeviceIsWrittenAndStays) {
  if (!MakeDevice("null", 3) || !MakeDevice("full", 7)) GTEST_SKIP() << "no devices can be made";
  fs::create_symlink("null", In("link"));
  for (const char* name : {"null", "link"}) {
    CheckWritable(In(name), "--json");
    WriteFile(In(name), "gone");
    EXPECT_TRUE(S_ISCHR(Status(In("null")).st_mode)) << name;
  }
  CheckWritable(In("full"), "--json");
  EXPECT_THAT([&] { WriteFile(In("full"), "x"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("full: cannot be written: No space left"))));
  EXPECT_TRUE(S_ISCHR(Status(In("full")).st_mode));
  EXPECT_EQ(Entries(), 3);
}

TEST_F(FileWriterTest, AnOpenDescriptorIsContinued) {
  const int fd = ::open(In("log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::write(fd, "begun, ", 7), 7);
  const auto before = Status(In("log"));
  const std::string own = "/dev/fd/" + std::to_string(fd);
  fs::create_symlink(own, In("link"));
  CheckWritable(own, "--json");
  WriteFile(own, "continued");
  WriteFile(In("link"), ", ended");
  ::close(fd);
  EXPECT_EQ(ReadAll(In("log")), "begun, continued, ended");
  EXPECT_EQ(Status(In("log")).st_ino, before.st_ino);

  const int closed = fd;
  ExpectRefused("/dev/fd/" + std::to_string(closed), "Bad file descriptor");
  const int reading = ::open(In("log").c_str(), O_RDONLY | O_CLOEXEC);
  ExpectRefused("/dev/fd/" + std::to_string(reading), "for reading only");
  ::close(reading);
}

TEST_F(FileWriterTest, RefusesBeforeWritingWhatCannotBeWritten) {
  fs::create_directory(In("d"));
  ExpectRefused(In("d"), "it is a directory");
  ExpectRefused(In("d") / "", "a file name is expected");
  ExpectRefused("", "a file name is expected");
  ExpectRefused(In("none") / "a", "none: No such file or directory");
  WriteFile(In("file"), "text");
  ExpectRefused(In("file") / "a", "Not a directory");
  ExpectRefused(In(std::string(256, 'n')), "File name too long");
  if (::geteuid() == 0) return;  // root may do the rest
  ::chmod(In("file").c_str(), 0444);
  ExpectRefused(In("file"), "Permission denied");
  ::chmod(In("d").c_str(), 0555);
  ExpectRefused(In("d") / "a", "Permission denied");
}

TEST_F(FileWriterTest, KeepsWhatMustNotBeReplaced) {
  const std::array once{Output{In("a"), "first", FileRights::kUsual, false}};
  WriteFiles(once);
  const std::array again{Output{In("b"), "second", FileRights::kUsual, false},
                         Output{In("a"), "second", FileRights::kUsual, false}};
  EXPECT_THAT([&] { WriteFiles(again); },
              ThrowsMessage<ConfigError>(HasSubstr("a: exists already and is not overwritten")));
  EXPECT_EQ(ReadAll(In("a")), "first");
  EXPECT_EQ(Entries(), 1);
}

TEST_F(FileWriterTest, WritesAllOrNone) {
  WriteFile(In("old"), "old");
  const std::array bad{Output{In("old"), "new"}, Output{In("first"), "1"},
                       Output{In("none") / "second", "2"}};
  EXPECT_THROW(WriteFiles(bad), ConfigError);
  const std::array same{Output{In("old"), "1"}, Output{In(".") / "old", "2"}};
  EXPECT_THAT([&] { WriteFiles(same); }, ThrowsMessage<ConfigError>(HasSubstr("two outputs")));
  EXPECT_EQ(ReadAll(In("old")), "old");
  EXPECT_EQ(Entries(), 1);
  const std::array good{Output{In("old"), "new"}, Output{In("first"), "1"}};
  WriteFiles(good);
  EXPECT_EQ(ReadAll(In("old")), "new");
  EXPECT_EQ(ReadAll(In("first")), "1");
}

// The exit status of `body` in a process that may write files of at most a kilobyte, as wait()
// tells it.
int WithSmallFiles(void (*on_limit)(int), const std::function<int()>& body) {
  const ::pid_t child = ::fork();
  if (child == 0) {
    const struct ::rlimit limit { 1024, 1024 }, no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
    std::signal(SIGXFSZ, on_limit);
    ::_exit(body());
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

TEST_F(FileWriterTest, ALimitIsAnErrorThatNamesIt) {
  WriteFile(In("a"), "old");
  const int status = WithSmallFiles(SIG_IGN, [&] {
    try {
      WriteFile(In("a"), std::string(5000, 'x'));
    } catch (const Error& e) {
      const std::string text = e.what();
      return text.find("a: cannot be written: File too large") != std::string::npos &&
                     text.find("ulimit -f") != std::string::npos
                 ? 0
                 : 1;
    }
    return 1;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(ReadAll(In("a")), "old");
  EXPECT_EQ(Entries(), 1);
}

// One that this process has open, and which has no name.
TEST_F(FileWriterTest, AFileWithoutANameIsCalledTemporary) {
  const int descriptor = ::open(In("a").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(descriptor, 0);
  std::filesystem::remove(In("a"));
  const int status = WithSmallFiles(SIG_IGN, [&] {
    try {
      WriteFile(fmt::format("/proc/self/fd/{}", descriptor), std::string(5000, 'x'));
    } catch (const Error& e) {
      return std::string_view(e.what()).starts_with("a temporary file: cannot be written: ") ? 0
                                                                                             : 1;
    }
    return 1;
  });
  EXPECT_EQ(status, 0);
  ::close(descriptor);
}

#if defined(__linux__) && defined(O_TMPFILE)
// File systems that have no files without a name, as NFS: seen through a filter of system calls,
// since none is at hand.
TEST_F(FileWriterTest, DoesTheSameWithNamedTemporaries) {
  WriteFile(In("old"), "old");
  const ::pid_t child = ::fork();
  if (child == 0) {
    // x86-64, arm64 and the like: the flags of openat are the low half of its third argument.
    constexpr unsigned kFlags = offsetof(seccomp_data, args) + 2 * sizeof(std::uint64_t);
    std::array<sock_filter, 7> code{{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                                     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 4),
                                     BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFlags),
                                     BPF_STMT(BPF_ALU | BPF_AND | BPF_K, O_TMPFILE),
                                     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, O_TMPFILE, 0, 1),
                                     BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
                                     BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
    const sock_fprog filter{code.size(), code.data()};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
      ::_exit(2);
    EXPECT_LT(::open(temp_.Path().c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600), 0);
    CheckWritable(In("new"), "--json");
    EXPECT_EQ(Entries(), 1);
    const std::array outputs{Output{In("old"), "new"},
                             Output{In("new"), "made", FileRights::kOwner, false}};
    WriteFiles(outputs);
    EXPECT_EQ(ReadAll(In("old")), "new");
    EXPECT_EQ(ReadAll(In("new")), "made");
    EXPECT_EQ(Mode(In("new")), 0600U);
    EXPECT_THROW(WriteFiles(outputs), ConfigError) << "new is there already";
    const std::array bad{Output{In("old"), "newer"}, Output{In("none") / "a", ""}};
    EXPECT_THROW(WriteFiles(bad), ConfigError);
    EXPECT_EQ(ReadAll(In("old")), "new");
    EXPECT_EQ(Entries(), 2);
    ::_exit(HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 2) GTEST_SKIP() << "no filter can be set";
  EXPECT_EQ(status, 0);
}
#endif

TEST_F(FileWriterTest, LeavesNothingWhenItIsKilledOnTheWay) {
#ifdef O_TMPFILE
  const int nameless = ::open(temp_.Path().c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (nameless < 0) GTEST_SKIP() << "no files without a name here";
  ::close(nameless);
  const int status = WithSmallFiles(SIG_DFL, [&] {
    WriteFile(In("a"), std::string(5000, 'x'));
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ) << status;
  EXPECT_EQ(Entries(), 0);
#else
  GTEST_SKIP() << "no files without a name here";
#endif
}

}  // namespace
}  // namespace tercet
