// SPDX-License-Identifier: Apache-2.0
#include "tercet/base/file_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "base/sanitizers.h"
#include "base/scratch.h"

namespace tercet {
namespace {

using testing::HasSubstr;

constexpr FileKind kKind{"a test's file", 1000};

TEST(FileReader, ReadsWholeFilesAndParts) {
  const ScratchDirectory scratch;
  const auto file = scratch.Write("file", std::string("0123456789"));
  EXPECT_EQ(ReadTextFile(file, kKind), "0123456789");
  const FileReader reader(file, kKind);
  EXPECT_EQ(reader.Size(), 10U);
  EXPECT_THAT(reader.Read(3, 2), testing::ElementsAre('3', '4'));
  EXPECT_THAT(reader.Read(10, 0), testing::IsEmpty());
  ExpectConfigError([&] { reader.Read(8, 3); }, file, "ends at byte 10");
  ExpectConfigError([&] { reader.Read(11, 0); }, file, "ends at byte 10");
  ExpectConfigError([&] { reader.Read(1, ~std::uint64_t{0}); }, file, "ends at byte 10");
  EXPECT_EQ(ReadTextFile(scratch.Write("empty", std::string()), kKind), "");
  std::filesystem::create_symlink(file, scratch.Path() / "link");
  EXPECT_EQ(ReadTextFile(scratch.Path() / "link", kKind), "0123456789");
}

// None of these waits, which is what the test would hang on.
TEST(FileReader, RefusesWhatIsNoRegularFileAtOnce) {
  const ScratchDirectory scratch;
  const auto fifo = scratch.Path() / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  ExpectConfigError([&] { ReadFile(fifo, kKind); }, fifo,
                    "is no regular file but a FIFO, expected a test's file");
  std::filesystem::create_symlink(fifo, scratch.Path() / "link");
  ExpectConfigError([&] { ReadFile(scratch.Path() / "link", kKind); }, scratch.Path() / "link",
                    "a FIFO");
  ExpectConfigError([&] { ReadFile(scratch.Path(), kKind); }, scratch.Path(), "a directory");
  ExpectConfigError([&] { ReadFile("/dev/zero", kKind); }, "/dev/zero", "a device");
  const auto path = scratch.Path() / "socket";
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.string().size(), sizeof(address.sun_path));
  std::strcpy(address.sun_path, path.c_str());
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ExpectConfigError([&] { ReadFile(path, kKind); }, path, "a socket");
  ::close(socket);
}

TEST(FileReader, RefusesTooLongFilesBeforeItTakesMemory) {
  const ScratchDirectory scratch;
  const auto sparse = scratch.Write("sparse", std::string());
  std::filesystem::resize_file(sparse, std::uintmax_t{60} << 30);
  ExpectConfigError([&] { ReadFile(sparse, kKind); }, sparse,
                    "is 64424509440 bytes long, expected at most 1000 of a test's file");
  // Within the limit, the memory is what lacks; the error stays one of the file.
  const FileReader reader(sparse, {"anything", ~std::uint64_t{0}});
  std::filesystem::resize_file(sparse, std::uintmax_t{1} << 42);
  const FileReader huge(sparse, {"anything", ~std::uint64_t{0}});
#if !TERCET_ADDRESS_SANITIZER && !TERCET_THREAD_SANITIZER
  ExpectConfigError([&] { huge.Read(0, std::uint64_t{1} << 42); }, sparse, "there is no memory");
#endif
  std::filesystem::resize_file(sparse, 5);
  ExpectConfigError([&] { reader.Read(0, 10); }, sparse, "ended after 5 of 64424509440 bytes");
}

TEST(FileReader, SaysWhyAFileCannotBeOpened) {
  const ScratchDirectory scratch;
  const auto missing = scratch.Path() / "missing";
  ExpectConfigError([&] { ReadFile(missing, kKind); }, missing,
                    "cannot be read: No such file or directory");
  const auto below = scratch.Write("file", std::string("x")) / "below";
  ExpectConfigError([&] { ReadFile(below, kKind); }, below, "cannot be read: Not a directory");
  const auto closed = scratch.Write("closed", std::string("x"));
  ASSERT_EQ(::chmod(closed.c_str(), 0), 0);
  // Root may read everything, so the test becomes somebody else for this one.
  const auto user = ::geteuid();
  ASSERT_EQ(::chmod(scratch.Path().c_str(), 0755), 0);
  if (user == 0) {
    ASSERT_EQ(::seteuid(65534), 0);
  }
  ExpectConfigError([&] { ReadFile(closed, kKind); }, closed, "cannot be read: Permission denied");
  if (user == 0) {
    ASSERT_EQ(::seteuid(0), 0);
  }
}

TEST(FileReader, PrivateFilesAreTheirOwnersAlone) {
  const ScratchDirectory scratch;
  const auto key = scratch.Write("key", std::string("secret"));
  for (const ::mode_t mode : {0640U, 0604U, 0620U, 0601U, 0777U}) {
    ASSERT_EQ(::chmod(key.c_str(), mode), 0);
    ExpectConfigError([&] { ReadPrivateFile(key, kKind); }, key,
                      fmt::format("has mode {:o}, so others than its owner may use it; expected "
                                  "600 of a test's file (chmod 600 {})",
                                  mode, key.string()));
  }
  for (const ::mode_t mode : {0600U, 0400U}) {
    ASSERT_EQ(::chmod(key.c_str(), mode), 0);
    EXPECT_THAT(ReadPrivateFile(key, kKind), testing::SizeIs(6));
  }
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  ASSERT_EQ(::chown(key.c_str(), 12345, ::getegid()), 0);
  ExpectConfigError([&] { ReadPrivateFile(key, kKind); }, key, "belongs to user 12345");
}

}  // namespace
}  // namespace tercet
