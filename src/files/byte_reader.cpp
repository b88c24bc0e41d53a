// SPDX-License-Identifier: Apache-2.0
#include "files/byte_reader.h"

#include <fmt/format.h>
#include <lzma.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <span>

#include "tercet/base/error.h"

namespace tercet::files {
namespace {

constexpr std::size_t kPieceBytes = 1 << 16;
constexpr int kGzipOnly = 16 + MAX_WBITS;  // to zlib: expect the gzip format
// What `xz -9` asks for to unpack is 65 MiB.
constexpr std::uint64_t kXzMemory = std::uint64_t{128} << 20;
constexpr std::array<std::uint8_t, 2> kGzipMagic{0x1F, 0x8B};
constexpr std::array<std::uint8_t, 6> kXzMagic{0xFD, '7', 'z', 'X', 'Z', 0};

bool BeginsWith(std::span<const std::uint8_t> bytes, std::span<const std::uint8_t> magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin());
}

}  // namespace

/// A packed file. The steps of the two formats differ only in their libraries.
class ByteReader::Unpacker {
 public:
  explicit Unpacker(const ByteReader& reader) : reader_(reader) {}
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;
  virtual ~Unpacker() = default;

  /// Hands the next `count` bytes to `take`, piece by piece; fewer only where the data end before.
  template <class F>
  void Give(std::uint64_t count, F&& take) {
    std::array<std::uint8_t, kPieceBytes> piece;
    for (std::uint64_t given = 0; given < count && !ended_;) {
      const auto room =
          static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), count - given));
      const Step step = Unpack(Rest(), std::span(piece).first(room));
      taken_ += step.taken;
      given += step.given;
      given_ += step.given;
      if (given_ > reader_.max_unpacked_bytes_) reader_.FailTooMuchPacked();
      take(std::span<const std::uint8_t>(piece).first(step.given));
      // Several may follow each other: such files can be put together with cat.
      ended_ = step.ended && !Continue(Rest());
      if (ended_ && taken_ < reader_.source_.size)
        reader_.Fail(fmt::format("goes on after the end of its {} data", format_));
      if (!ended_ && step.taken == 0 && step.given == 0)
        reader_.Fail(fmt::format("truncated: the {} data end in the middle", format_));
    }
  }

 protected:
  struct Step {
    std::size_t taken, given;
    bool ended;
  };
  virtual Step Unpack(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) = 0;
  /// Prepares for what follows the end of packed data; false where that is no more of them.
  virtual bool Continue(std::span<const std::uint8_t> rest) = 0;

  const ByteReader& reader_;
  const char* format_ = "";

 private:
  /// What is packed and comes next, at least so much that a magic can be seen in it.
  std::span<const std::uint8_t> Rest() {
    const std::uint64_t size = reader_.source_.size;
    if (taken_ + kXzMagic.size() > begin_ + window_.size() && begin_ + window_.size() < size) {
      begin_ = taken_;
      window_ = reader_.source_.read(begin_, std::min<std::uint64_t>(kPieceBytes, size - begin_));
    }
    return std::span<const std::uint8_t>(window_).subspan(taken_ - begin_);
  }

  std::vector<std::uint8_t> window_;  // of the file
  std::uint64_t begin_ = 0;           // where it begins
  std::uint64_t taken_ = 0;           // of the file
  std::uint64_t given_ = 0;
  bool ended_ = false;
};

class ByteReader::GzipUnpacker : public Unpacker {
 public:
  explicit GzipUnpacker(const ByteReader& reader) : Unpacker(reader) {
    format_ = "gzip";
    TERCET_CHECK(inflateInit2(&stream_, kGzipOnly) == Z_OK, "zlib cannot be set up");
  }
  ~GzipUnpacker() override { inflateEnd(&stream_); }

 private:
  Step Unpack(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) override {
    stream_.next_in = const_cast<std::uint8_t*>(in.data());
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = out.data();
    stream_.avail_out = static_cast<uInt>(out.size());
    const int status = inflate(&stream_, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
      reader_.Fail(fmt::format("damaged gzip data: {}",
                               stream_.msg != nullptr ? stream_.msg : "no known format"));
    }
    return {in.size() - stream_.avail_in, out.size() - stream_.avail_out, status == Z_STREAM_END};
  }

  bool Continue(std::span<const std::uint8_t> rest) override {
    if (!BeginsWith(rest, kGzipMagic)) return false;
    TERCET_CHECK(inflateReset(&stream_) == Z_OK, "zlib cannot be set up again");
    return true;
  }

  z_stream stream_{};
};

class ByteReader::XzUnpacker : public Unpacker {
 public:
  explicit XzUnpacker(const ByteReader& reader) : Unpacker(reader) {
    format_ = "xz";
    SetUp();
  }
  ~XzUnpacker() override { lzma_end(&stream_); }

 private:
  Step Unpack(std::span<const std::uint8_t> in, std::span<std::uint8_t> out) override {
    stream_.next_in = in.data();
    stream_.avail_in = in.size();
    stream_.next_out = out.data();
    stream_.avail_out = out.size();
    const lzma_ret status = lzma_code(&stream_, LZMA_RUN);
    if (status == LZMA_MEMLIMIT_ERROR) {
      reader_.Fail(
          fmt::format("its xz data need more than {} MiB of memory to unpack", kXzMemory >> 20));
    }
    if (status != LZMA_OK && status != LZMA_STREAM_END && status != LZMA_BUF_ERROR)
      reader_.Fail(fmt::format("damaged xz data (liblzma's error {})", static_cast<int>(status)));
    return {in.size() - stream_.avail_in, out.size() - stream_.avail_out,
            status == LZMA_STREAM_END};
  }

  bool Continue(std::span<const std::uint8_t> rest) override {
    if (!BeginsWith(rest, kXzMagic)) return false;
    SetUp();
    return true;
  }

  void SetUp() {
    TERCET_CHECK(lzma_stream_decoder(&stream_, kXzMemory, 0) == LZMA_OK,
                 "liblzma cannot be set up");
  }

  lzma_stream stream_ = LZMA_STREAM_INIT;
};

ByteReader::ByteReader(const ByteSource& source, std::uint64_t max_unpacked_bytes)
    : source_(source), max_unpacked_bytes_(max_unpacked_bytes), unpacker_(NewUnpacker()) {}

ByteReader::~ByteReader() = default;

std::unique_ptr<ByteReader::Unpacker> ByteReader::NewUnpacker() const {
  const auto begin = source_.read(0, std::min<std::uint64_t>(source_.size, kXzMagic.size()));
  if (BeginsWith(begin, kGzipMagic)) return std::make_unique<GzipUnpacker>(*this);
  if (BeginsWith(begin, kXzMagic)) return std::make_unique<XzUnpacker>(*this);
  return nullptr;
}

void ByteReader::Fail(const std::string& problem) const {
  throw ConfigError(source_.name, problem);
}

void ByteReader::FailTooMuchPacked() const {
  Fail(
      fmt::format("unpacks to more than {} bytes, expected at most so many of a packed file; "
                  "unpack it first",
                  max_unpacked_bytes_));
}

std::vector<std::uint8_t> ByteReader::Peek(std::uint64_t count) const {
  if (!unpacker_) return source_.read(position_, std::min(count, source_.size - position_));
  std::vector<std::uint8_t> result;
  NewUnpacker()->Give(position_ + count,
                      [&](auto piece) { result.insert(result.end(), piece.begin(), piece.end()); });
  result.erase(result.begin(), result.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(
                                                    position_, result.size())));
  return result;
}

std::vector<std::uint8_t> ByteReader::Read(std::uint64_t count) {
  std::vector<std::uint8_t> result;
  if (!unpacker_) {
    result = source_.read(position_, std::min(count, source_.size - position_));
  } else {
    if (count > kPieceBytes) {
      // What it promises may not be there, and what is there is not known: this looks, at the cost
      // of unpacking twice.
      std::uint64_t there = 0;
      NewUnpacker()->Give(position_ + count, [&](auto piece) { there += piece.size(); });
      result.reserve(there - position_);
    }
    unpacker_->Give(count,
                    [&](auto piece) { result.insert(result.end(), piece.begin(), piece.end()); });
  }
  position_ += result.size();
  return result;
}

std::vector<std::uint8_t> ByteReader::ReadAll(std::uint64_t count, const std::string& what) {
  std::vector<std::uint8_t> result = Read(count);
  if (result.size() < count) {
    Fail(fmt::format("truncated: found {} bytes of {}, expected {}", result.size(), what, count));
  }
  return result;
}

std::vector<std::uint8_t> ByteReader::ReadToEnd(std::uint64_t limit, const std::string& what) {
  std::vector<std::uint8_t> result = Read(limit + 1);
  if (result.size() > limit)
    Fail(fmt::format("holds more than {} bytes, the most that {} may have", limit, what));
  return result;
}

std::vector<std::uint8_t> ByteReader::ReadItems(std::uint64_t count, std::uint64_t take,
                                                std::uint64_t item_bytes, const std::string& what) {
  if (take > kMaxDataBytes / item_bytes) {
    Fail(fmt::format("holds {} {} of {} bytes; more than {} bytes at once need a limit", take, what,
                     item_bytes, kMaxDataBytes));
  }
  if (!unpacker_ && (source_.size - position_) / item_bytes < count) {
    Fail(fmt::format("truncated: found {} bytes of {}, expected {} times {}",
                     source_.size - position_, what, count, item_bytes));
  }
  if (unpacker_ && take * item_bytes > max_unpacked_bytes_) FailTooMuchPacked();
  std::vector<std::uint8_t> items = ReadAll(take * item_bytes, what);
  if (!unpacker_) position_ += (count - take) * item_bytes;
  if ((!unpacker_ || take == count) && !Read(1).empty())
    Fail(fmt::format("goes on after its {} {}, expected the end of the file", count, what));
  return items;
}

std::vector<std::uint8_t> ByteReader::ReadItemsToEnd(std::uint64_t limit, std::uint64_t item_bytes,
                                                     const std::string& what) {
  const std::uint64_t most = kMaxDataBytes / item_bytes;
  if (limit > most) {
    Fail(fmt::format("{} {} of {} bytes are asked for, expected at most {} bytes", limit, what,
                     item_bytes, kMaxDataBytes));
  }
  const auto check = [&](std::uint64_t found) {
    if (found % item_bytes == 0) return;
    Fail(fmt::format("truncated: found {} bytes of {}, expected a multiple of {}", found, what,
                     item_bytes));
  };
  // The length of a file that is not packed is known, so it is checked in any case.
  if (!unpacker_) check(source_.size - position_);
  std::vector<std::uint8_t> items = Read((limit == 0 ? most : limit) * item_bytes);
  if (unpacker_) check(items.size());
  if (limit == 0 && !Read(1).empty()) {
    Fail(fmt::format("holds more than {} {} of {} bytes; more than {} bytes at once need a limit",
                     most, what, item_bytes, kMaxDataBytes));
  }
  return items;
}

}  // namespace tercet::files
