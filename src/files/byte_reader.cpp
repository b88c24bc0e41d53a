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

  std::vector<std::uint8_t> Read(std::uint64_t count) {
    // Grows with what really comes out, not with what a header promises.
    std::vector<std::uint8_t> result;
    std::array<std::uint8_t, 1 << 16> chunk;
    while (result.size() < count && !ended_) {
      const auto room =
          static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), count - result.size()));
      const std::span<const std::uint8_t> rest = std::span(reader_.bytes_).subspan(position_);
      // zlib counts in 32 bits; the input is handed over in pieces.
      const Step step = Unpack(rest.first(std::min<std::size_t>(rest.size(), 1 << 30)),
                               std::span(chunk).first(room));
      position_ += step.taken;
      given_ += step.given;
      if (given_ > reader_.max_unpacked_bytes_) reader_.FailTooMuchPacked();
      result.insert(result.end(), chunk.begin(),
                    chunk.begin() + static_cast<std::ptrdiff_t>(step.given));
      // Several may follow each other: such files can be put together with cat.
      ended_ = step.ended && !Continue(std::span(reader_.bytes_).subspan(position_));
      if (ended_ && position_ < reader_.bytes_.size())
        reader_.Fail(fmt::format("goes on after the end of its {} data", format_));
      if (!ended_ && step.taken == 0 && step.given == 0)
        reader_.Fail(fmt::format("truncated: the {} data end in the middle", format_));
    }
    return result;
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
  std::size_t position_ = 0;
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

ByteReader::ByteReader(const std::vector<std::uint8_t>& bytes, const std::string& name,
                       std::uint64_t max_unpacked_bytes)
    : bytes_(bytes), name_(name), max_unpacked_bytes_(max_unpacked_bytes) {
  if (BeginsWith(bytes, kGzipMagic)) unpacker_ = std::make_unique<GzipUnpacker>(*this);
  if (BeginsWith(bytes, kXzMagic)) unpacker_ = std::make_unique<XzUnpacker>(*this);
}

ByteReader::~ByteReader() = default;

void ByteReader::Fail(const std::string& problem) const { throw ConfigError(name_, problem); }

void ByteReader::FailTooMuchPacked() const {
  Fail(
      fmt::format("unpacks to more than {} bytes, expected at most so many of a packed file; "
                  "unpack it first",
                  max_unpacked_bytes_));
}

std::vector<std::uint8_t> ByteReader::Read(std::uint64_t count) {
  if (unpacker_) return unpacker_->Read(count);
  const std::size_t size = std::min<std::uint64_t>(count, bytes_.size() - position_);
  const auto begin = bytes_.begin() + static_cast<std::ptrdiff_t>(position_);
  position_ += size;
  return {begin, begin + static_cast<std::ptrdiff_t>(size)};
}

std::vector<std::uint8_t> ByteReader::ReadAll(std::uint64_t count, const std::string& what) {
  std::vector<std::uint8_t> result = Read(count);
  if (result.size() < count) {
    Fail(fmt::format("truncated: found {} bytes of {}, expected {}", result.size(), what, count));
  }
  return result;
}

std::vector<std::uint8_t> ByteReader::ReadItems(std::uint64_t count, std::uint64_t take,
                                                std::uint64_t item_bytes, const std::string& what) {
  if (take > kMaxDataBytes / item_bytes) {
    Fail(fmt::format("holds {} {} of {} bytes; more than {} bytes at once need a limit", take, what,
                     item_bytes, kMaxDataBytes));
  }
  if (!unpacker_ && (bytes_.size() - position_) / item_bytes < count) {
    Fail(fmt::format("truncated: found {} bytes of {}, expected {} times {}",
                     bytes_.size() - position_, what, count, item_bytes));
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
  std::vector<std::uint8_t> items = Read((limit == 0 ? most : limit) * item_bytes);
  // All of a file that is not packed is at hand, so its length is checked in any case.
  const std::uint64_t rest = unpacker_ ? 0 : bytes_.size() - position_;
  if ((items.size() + rest) % item_bytes != 0) {
    Fail(fmt::format("truncated: found {} bytes of {}, expected a multiple of {}",
                     items.size() + rest, what, item_bytes));
  }
  if (limit == 0 && !Read(1).empty()) {
    Fail(fmt::format("holds more than {} {} of {} bytes; more than {} bytes at once need a limit",
                     most, what, item_bytes, kMaxDataBytes));
  }
  return items;
}

}  // namespace tercet::files
