// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tercet::files {

/// Most bytes that one file's data may take at once.
inline constexpr std::uint64_t kMaxDataBytes = std::uint64_t{1} << 32;

/// Most bytes that are unpacked of one file: a few kilobytes may unpack to anything, and a packed
/// file does not show its size before. All of CIFAR-10 is 181 MB, its labels 60 kB.
inline constexpr std::uint64_t kMaxUnpackedImageBytes = std::uint64_t{256} << 20;
inline constexpr std::uint64_t kMaxUnpackedLabelBytes = std::uint64_t{16} << 20;

/// A file of which parts are read as they are asked for.
struct ByteSource {
  std::string name;  ///< for messages
  std::uint64_t size;
  /// `count` bytes from byte `at` on, all of which there are.
  std::function<std::vector<std::uint8_t>(std::uint64_t at, std::uint64_t count)> read;
};

/// Hands out the bytes of a file front to back, unpacking gzip or xz (recognised by content) on the
/// way. Reads and unpacks no more than is asked for, and takes no memory for what is not there: of
/// a packed file it looks first, without keeping anything, how much comes out. Packed data may come
/// in several pieces (gzip's members, xz's streams). Every problem is a ConfigError at the file's
/// name. Not thread safe; `source` must outlive it.
class ByteReader {
 public:
  ByteReader(const ByteSource& source, std::uint64_t max_unpacked_bytes);
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;
  ~ByteReader();

  [[noreturn]] void Fail(const std::string& problem) const;

  /// How many bytes are left; nothing for packed ones, which do not say it.
  std::optional<std::uint64_t> Left() const {
    return unpacker_ ? std::nullopt : std::optional<std::uint64_t>(source_.size - position_);
  }

  /// What Read(count) would give, without moving on; for a few bytes.
  std::vector<std::uint8_t> Peek(std::uint64_t count) const;
  /// The next `count` bytes; fewer only where the file ends before.
  std::vector<std::uint8_t> Read(std::uint64_t count);
  /// Like Read, but all of it; `what` names the bytes in the message.
  std::vector<std::uint8_t> ReadAll(std::uint64_t count, const std::string& what);
  /// The bytes of the first `take` of `count` items of `item_bytes` each, with which the file must
  /// end. Packed items beyond `take` are not unpacked, so what follows them is not seen; none is
  /// where they are more than may be unpacked.
  std::vector<std::uint8_t> ReadItems(std::uint64_t count, std::uint64_t take,
                                      std::uint64_t item_bytes, const std::string& what);
  /// The bytes up to the end of the file, at most `limit`; `what` names the file.
  std::vector<std::uint8_t> ReadToEnd(std::uint64_t limit, const std::string& what);
  /// The bytes of items of `item_bytes` each up to the end of the file, at most `limit` of them
  /// unless that is 0. The last one must be whole.
  std::vector<std::uint8_t> ReadItemsToEnd(std::uint64_t limit, std::uint64_t item_bytes,
                                           const std::string& what);

 private:
  [[noreturn]] void FailTooMuchPacked() const;

  class Unpacker;
  class GzipUnpacker;
  class XzUnpacker;
  /// One that starts at the beginning; null where the file is not packed.
  std::unique_ptr<Unpacker> NewUnpacker() const;

  const ByteSource& source_;
  std::uint64_t max_unpacked_bytes_;
  std::uint64_t position_ = 0;          // in what comes out
  std::unique_ptr<Unpacker> unpacker_;  // of a packed file
};

}  // namespace tercet::files
