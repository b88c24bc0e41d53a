#include "tercet/nn/images.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>

#include "nn/input.h"
#include "tercet/base/error.h"

namespace tercet::nn {
namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 32;
constexpr std::uint64_t kMaxImageBytes = std::uint64_t{1} << 31;
constexpr std::uint64_t kMaxNpyHeaderBytes = 1 << 16;
constexpr int kGzipOnly = 16 + MAX_WBITS;  // to zlib: expect the gzip format
constexpr std::uint64_t kMaxChannels = 65536, kMaxSide = 4096;
constexpr std::uint32_t kImagesMagic = 0x00000803, kLabelsMagic = 0x00000801;
constexpr std::string_view kNpyMagic = "\x93NUMPY";

/// Hands out the bytes of a file front to back, unpacking gzip on the way and never more than asked
/// for.
class ByteReader {
 public:
  ByteReader(const std::vector<std::uint8_t>& bytes, const std::string& name)
      : bytes_(bytes),
        name_(name),
        packed_(bytes.size() >= 2 && bytes[0] == 0x1F && bytes[1] == 0x8B) {
    if (!packed_) return;
    TERCET_CHECK(inflateInit2(&stream_, kGzipOnly) == Z_OK, "zlib cannot be set up");
  }
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;
  ~ByteReader() {
    if (packed_) inflateEnd(&stream_);
  }

  [[noreturn]] void Fail(const std::string& problem) const { throw ConfigError(name_, problem); }

  /// The next `count` bytes; fewer only where the file ends before.
  std::vector<std::uint8_t> Read(std::uint64_t count) {
    std::vector<std::uint8_t> result;
    if (packed_) {
      Inflate(count, result);
    } else {
      const std::size_t size = std::min<std::uint64_t>(count, bytes_.size() - position_);
      const auto begin = bytes_.begin() + static_cast<std::ptrdiff_t>(position_);
      result.assign(begin, begin + static_cast<std::ptrdiff_t>(size));
      position_ += size;
    }
    return result;
  }

  /// Like Read, but all of it.
  std::vector<std::uint8_t> ReadAll(std::uint64_t count, const std::string& what) {
    std::vector<std::uint8_t> result = Read(count);
    if (result.size() < count) {
      Fail(fmt::format("truncated: found {} bytes of {}, expected {}", result.size(), what, count));
    }
    return result;
  }

  /// The bytes of the first `take` of `count` items of `item_bytes` each, with which the file must
  /// end.
  std::vector<std::uint8_t> ReadItems(std::uint64_t count, std::uint64_t take,
                                      std::uint64_t item_bytes, const std::string& what) {
    if (take > kMaxBytes / item_bytes) {
      Fail(fmt::format("holds {} {} of {} bytes; more than {} bytes at once need a limit", take,
                       what, item_bytes, kMaxBytes));
    }
    if (!packed_ && (bytes_.size() - position_) / item_bytes < count) {
      Fail(fmt::format("truncated: found {} bytes of {}, expected {} times {}",
                       bytes_.size() - position_, what, count, item_bytes));
    }
    std::vector<std::uint8_t> items = ReadAll(take * item_bytes, what);
    // Packed items beyond a limit are not unpacked, so what follows them is not seen.
    if (!packed_) position_ += (count - take) * item_bytes;
    if ((!packed_ || take == count) && !Read(1).empty())
      Fail(fmt::format("goes on after its {} {}, expected the end of the file", count, what));
    return items;
  }

 private:
  void Inflate(std::uint64_t count, std::vector<std::uint8_t>& result) {
    // Grows with what really comes out, not with what a header promises.
    std::array<std::uint8_t, 1 << 16> chunk;
    while (result.size() < count && !ended_) {
      // zlib counts in 32 bits; the input is handed over in pieces.
      if (stream_.avail_in == 0) {
        const std::size_t piece = std::min<std::size_t>(bytes_.size() - position_, 1 << 30);
        stream_.next_in = const_cast<std::uint8_t*>(bytes_.data()) + position_;
        stream_.avail_in = static_cast<uInt>(piece);
        position_ += piece;
      }
      stream_.next_out = chunk.data();
      stream_.avail_out =
          static_cast<uInt>(std::min<std::uint64_t>(chunk.size(), count - result.size()));
      const int status = inflate(&stream_, Z_NO_FLUSH);
      result.insert(result.end(), chunk.data(), stream_.next_out);
      if (status == Z_STREAM_END) {
        ended_ = true;
        if (stream_.avail_in > 0 || position_ < bytes_.size())
          Fail("goes on after the end of its gzip data");
      } else if (status == Z_BUF_ERROR) {
        Fail("truncated: the gzip data end in the middle");
      } else if (status != Z_OK) {
        Fail(fmt::format("damaged gzip data: {}",
                         stream_.msg != nullptr ? stream_.msg : "no known format"));
      }
    }
  }

  const std::vector<std::uint8_t>& bytes_;
  const std::string& name_;
  const bool packed_;
  std::size_t position_ = 0;
  z_stream stream_{};
  bool ended_ = false;
};

std::uint32_t BigEndian32(const std::vector<std::uint8_t>& bytes, std::size_t offset) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | bytes[offset + i];
  return value;
}

std::uint64_t LittleEndian(const std::uint8_t* bytes, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = count; i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::uint64_t> shape;

  std::string ShapeList() const {
    std::string list;
    for (const std::uint64_t size : shape)
      list += fmt::format("{}{}", list.empty() ? "" : " x ", size);
    return list;
  }
};

/// Parses the literal of a Python dictionary that follows the magic of a .npy file, such as
/// {'descr': '|u1', 'fortran_order': False, 'shape': (3, 28, 28), }
class NpyHeaderParser {
 public:
  NpyHeaderParser(std::string_view text, const ByteReader& reader) : text_(text), reader_(reader) {}

  NpyHeader Parse() {
    Expect('{');
    while (!Take('}')) {
      const std::string key = String();
      Expect(':');
      if (key == "descr" && !descr_) {
        descr_ = String();
      } else if (key == "fortran_order" && !fortran_order_) {
        fortran_order_ = Boolean();
      } else if (key == "shape" && !shape_) {
        shape_ = Tuple();
      } else {
        Fail(fmt::format("found the key '{}', expected descr, fortran_order and shape once each",
                         Printable(key)));
      }
      if (!Take(',')) {
        Expect('}');
        break;
      }
    }
    SkipBlanks();
    if (!text_.empty()) Fail("goes on after its dictionary");
    if (!descr_ || !fortran_order_ || !shape_)
      Fail("lacks a key, expected descr, fortran_order and shape");
    return {*descr_, *fortran_order_, *shape_};
  }

 private:
  [[noreturn]] void Fail(const std::string& problem) const {
    reader_.Fail("the .npy header " + problem);
  }

  void SkipBlanks() {
    const std::size_t blanks = text_.find_first_not_of(" \n");
    text_.remove_prefix(std::min(blanks, text_.size()));
  }

  bool Take(char c) {
    SkipBlanks();
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }

  void Expect(char c) {
    if (!Take(c)) Fail(fmt::format("has '{}' where '{}' is expected", Rest(), c));
  }

  std::string Rest() const { return Printable(text_.substr(0, 16)); }

  std::string String() {
    SkipBlanks();
    const char quote = text_.empty() ? '\0' : text_.front();
    const std::size_t end = text_.find(quote, 1);
    if ((quote != '\'' && quote != '"') || end == std::string_view::npos)
      Fail(fmt::format("has '{}' where a string is expected", Rest()));
    std::string value(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return value;
  }

  bool Boolean() {
    SkipBlanks();
    for (const std::string_view word : {"False", "True"}) {
      if (!text_.starts_with(word)) continue;
      text_.remove_prefix(word.size());
      return word == "True";
    }
    Fail(fmt::format("has '{}' where True or False is expected", Rest()));
  }

  std::vector<std::uint64_t> Tuple() {
    std::vector<std::uint64_t> sizes;
    Expect('(');
    while (!Take(')')) {
      SkipBlanks();
      std::uint64_t size = 0;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), size);
      if (error != std::errc{}) Fail(fmt::format("has '{}' where a size is expected", Rest()));
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      sizes.push_back(size);
      if (!Take(',')) {
        Expect(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view text_;
  const ByteReader& reader_;
  std::optional<std::string> descr_;
  std::optional<bool> fortran_order_;
  std::optional<std::vector<std::uint64_t>> shape_;
};

/// Reads what follows the first four bytes of a .npy file, up to its data.
NpyHeader ReadNpyHeader(ByteReader& reader) {
  const std::vector<std::uint8_t> rest = reader.ReadAll(4, "the .npy magic and version");
  if (!std::equal(rest.begin(), rest.begin() + 2, kNpyMagic.begin() + 4))
    reader.Fail("begins like a .npy file, but has another magic");
  const unsigned major = rest[2];
  const unsigned minor = rest[3];
  if ((major != 1 && major != 2) || minor != 0)
    reader.Fail(fmt::format("found .npy version {}.{}, expected 1.0 or 2.0", major, minor));
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  const std::uint64_t length =
      LittleEndian(reader.ReadAll(length_bytes, "the .npy header's length").data(), length_bytes);
  if (length > kMaxNpyHeaderBytes) {
    reader.Fail(fmt::format("the .npy header is {} bytes long, expected at most {}", length,
                            kMaxNpyHeaderBytes));
  }
  const std::vector<std::uint8_t> header = reader.ReadAll(length, "the .npy header");
  NpyHeader result =
      NpyHeaderParser({reinterpret_cast<const char*>(header.data()), header.size()}, reader)
          .Parse();
  if (result.fortran_order)
    reader.Fail("found an array in Fortran order, expected C order (numpy.ascontiguousarray)");
  return result;
}

enum class Format { kIdx, kNpy };

/// Reads the first four bytes and says which format they begin. `magic` is the one of the wanted
/// IDX kind.
Format ReadMagic(ByteReader& reader, const std::vector<std::uint8_t>& bytes, std::uint32_t magic,
                 const char* wanted) {
  if (bytes.empty()) reader.Fail(fmt::format("is empty and holds no {}", wanted));
  const std::vector<std::uint8_t> begin = reader.Read(4);
  if (begin.empty()) reader.Fail(fmt::format("is empty once unpacked and holds no {}", wanted));
  if (begin.size() < 4) {
    reader.Fail(
        fmt::format("truncated: found {} bytes, expected a magic of 4 at least", begin.size()));
  }
  if (std::equal(begin.begin(), begin.end(), kNpyMagic.begin(),
                 [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); }))
    return Format::kNpy;
  const std::uint32_t found = BigEndian32(begin, 0);
  if (found == magic) return Format::kIdx;
  const char* kind = found == kImagesMagic ? " (images)" : found == kLabelsMagic ? " (labels)" : "";
  reader.Fail(
      fmt::format("found magic 0x{:08x}{}, expected an IDX file of {}s (0x{:08x}) or a .npy "
                  "file",
                  found, kind, wanted, magic));
}

std::uint64_t Limited(std::uint64_t count, std::size_t limit) {
  return limit == 0 ? count : std::min<std::uint64_t>(count, limit);
}

}  // namespace

Images LoadImages(const std::filesystem::path& file, std::size_t limit,
                  const mpc::Shape3& expected) {
  return ParseImages(ReadFile(file, kMaxBytes), file.string(), limit, expected);
}

Images ParseImages(const std::vector<std::uint8_t>& bytes, const std::string& name,
                   std::size_t limit, const mpc::Shape3& expected) {
  ByteReader reader(bytes, name);
  std::uint64_t count = 0;
  std::array<std::uint64_t, 3> sizes{};  // channels, height, width
  if (ReadMagic(reader, bytes, kImagesMagic, "image") == Format::kIdx) {
    const std::vector<std::uint8_t> header = reader.ReadAll(12, "the IDX header");
    count = BigEndian32(header, 0);
    sizes = {1, BigEndian32(header, 4), BigEndian32(header, 8)};
  } else {
    const NpyHeader header = ReadNpyHeader(reader);
    if (header.descr != "|u1") {
      reader.Fail(fmt::format("found .npy elements of type '{}', expected '|u1' (uint8)",
                              Printable(header.descr)));
    }
    const std::size_t rank = header.shape.size();
    if (rank != 3 && rank != 4) {
      reader.Fail(
          fmt::format("found a .npy array of {} dimensions ({}), expected 3 (images x height "
                      "x width) or 4 (images x channels x height x width)",
                      rank, header.ShapeList()));
    }
    count = header.shape[0];
    sizes = {rank == 4 ? header.shape[1] : 1, header.shape[rank - 2], header.shape[rank - 1]};
  }

  if (count == 0) reader.Fail("holds no image");
  const auto [channels, height, width] = sizes;
  const bool bounded = channels <= kMaxChannels && height <= kMaxSide && width <= kMaxSide;
  const std::uint64_t image_bytes = bounded ? channels * height * width : 0;
  if (image_bytes == 0 || image_bytes >= kMaxImageBytes) {
    reader.Fail(
        fmt::format("found images of {} x {} x {}, expected 1 to {} channels, sides from 1 to "
                    "{} and less than {} bytes",
                    channels, height, width, kMaxChannels, kMaxSide, kMaxImageBytes));
  }
  Images images;
  images.shape = {channels, height, width};
  if (expected.Size() != 0 && images.shape != expected) {
    reader.Fail(
        fmt::format("images of the wrong size: found {}, expected {} (channels x height x "
                    "width)",
                    ShapeText(images.shape), ShapeText(expected)));
  }
  images.count = Limited(count, limit);
  images.pixels = reader.ReadItems(count, images.count, image_bytes, "images");
  return images;
}

std::vector<std::uint8_t> LoadLabels(const std::filesystem::path& file, std::size_t limit,
                                     std::size_t classes) {
  return ParseLabels(ReadFile(file, kMaxBytes), file.string(), limit, classes);
}

std::vector<std::uint8_t> ParseLabels(const std::vector<std::uint8_t>& bytes,
                                      const std::string& name, std::size_t limit,
                                      std::size_t classes) {
  TERCET_CHECK(classes > 0, "labels need at least one class");
  ByteReader reader(bytes, name);
  std::uint64_t count = 0;
  std::size_t label_bytes = 1;
  if (ReadMagic(reader, bytes, kLabelsMagic, "label") == Format::kIdx) {
    count = BigEndian32(reader.ReadAll(4, "the IDX header"), 0);
  } else {
    const NpyHeader header = ReadNpyHeader(reader);
    if (header.descr == "<i4") {
      label_bytes = 4;
    } else if (header.descr == "<i8") {
      label_bytes = 8;
    } else if (header.descr != "|u1") {
      reader.Fail(
          fmt::format("found .npy elements of type '{}', expected '|u1' (uint8), '<i4' "
                      "(int32) or '<i8' (int64)",
                      Printable(header.descr)));
    }
    if (header.shape.size() != 1) {
      reader.Fail(fmt::format("found a .npy array of {} dimensions ({}), expected 1 for labels",
                              header.shape.size(), header.ShapeList()));
    }
    count = header.shape[0];
  }
  if (count == 0) reader.Fail("holds no label");

  const std::uint64_t take = Limited(count, limit);
  const std::vector<std::uint8_t> packed = reader.ReadItems(count, take, label_bytes, "labels");
  const std::uint64_t bound =
      std::min<std::uint64_t>(classes, std::numeric_limits<std::uint8_t>::max() + 1);
  std::vector<std::uint8_t> labels(take);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    // A negative label reads as a huge one, which the bound refuses too.
    const std::uint64_t label = LittleEndian(packed.data() + i * label_bytes, label_bytes);
    if (label >= bound) {
      reader.Fail(fmt::format("label {} is out of range, expected 0 to {}", i,
                              static_cast<std::int64_t>(bound) - 1));
    }
    labels[i] = static_cast<std::uint8_t>(label);
  }
  return labels;
}

}  // namespace tercet::nn
