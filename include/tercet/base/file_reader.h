// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

/// How the project reads files; nothing else opens one that a user names.
namespace tercet {

/// What a file is expected to hold, for messages, and the most that is read of one.
struct FileKind {
  const char* what;  ///< with its article: "a certificate"
  std::uint64_t max_bytes;
};

/// A regular file that is open for reading. Never waits: a FIFO, device, directory or socket is
/// refused at once, also one that takes the file's place meanwhile. Symbolic links are followed.
/// Not thread safe.
///
///     const FileReader file("model.safetensors", {"a model", 1 << 30});
///     const auto begin = file.Read(0, 8);
class FileReader {
 public:
  /// ConfigError (place: the file) when it cannot be opened, with the system's reason, is no
  /// regular file, or is longer than `kind.max_bytes`.
  FileReader(const std::filesystem::path& file, const FileKind& kind);
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;
  ~FileReader();

  std::uint64_t Size() const { return size_; }
  /// `count` bytes from byte `at` on. ConfigError when the file ends before (it was shortened
  /// meanwhile), cannot be read, or the memory for them is not there.
  std::vector<std::uint8_t> Read(std::uint64_t at, std::uint64_t count) const;
  /// ConfigError unless only its owner, who is this user or root, has any right to the file.
  void RequirePrivate() const;

 private:
  [[noreturn]] void Fail(const std::string& problem) const;

  std::string name_, what_;
  int descriptor_;
  std::uint64_t size_ = 0;
  std::uint32_t mode_ = 0, owner_ = 0;
};

/// All of a file. ConfigError as FileReader says. Thread safe.
std::vector<std::uint8_t> ReadFile(const std::filesystem::path& file, const FileKind& kind);
/// All that comes from standard input, to its end. ConfigError (place: "standard input") when it is
/// a terminal, cannot be read, or gives more than `kind.max_bytes`.
std::vector<std::uint8_t> ReadStandardInput(const FileKind& kind);
/// A file as text.
std::string ReadTextFile(const std::filesystem::path& file, const FileKind& kind);
/// The same of a secret such as a private key, which FileReader::RequirePrivate allows. The caller
/// wipes it.
std::vector<std::uint8_t> ReadPrivateFile(const std::filesystem::path& file, const FileKind& kind);

}  // namespace tercet
