// SPDX-License-Identifier: Apache-2.0
#include "files/picture.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>

#include "files/format.h"

namespace tercet::files {
namespace {

constexpr std::uint64_t kMaxPictureBytes = std::uint64_t{128} << 20;
// A text or colour profile inside a PNG, of which nothing is used, may not unpack to more.
constexpr png_alloc_size_t kMaxChunkBytes = 1 << 20;
constexpr std::uint8_t kOpaque = 255;

/// Pixel after pixel, as they stand in the file.
struct Interleaved {
  std::size_t channels = 0, height = 0, width = 0;
  std::vector<std::uint8_t> values;

  bool HasOpacity() const { return channels == 2 || channels == 4; }
};

void CheckSize(std::uint64_t height, std::uint64_t width, std::uint64_t channels,
               const ByteReader& reader, const mpc::Shape3& expected) {
  CheckSizes({channels, height, width}, reader);
  if (expected.Size() > 0 && (height != expected.height || width != expected.width))
    CheckShape(reader, {channels, height, width}, expected);
}

bool IsOpaque(const Interleaved& picture) {
  for (std::size_t i = picture.channels - 1; i < picture.values.size(); i += picture.channels)
    if (picture.values[i] != kOpaque) return false;
  return true;
}

bool IsGrey(const Interleaved& picture) {
  for (std::size_t i = 0; i < picture.values.size(); i += picture.channels)
    if (picture.values[i] != picture.values[i + 1] || picture.values[i] != picture.values[i + 2])
      return false;
  return true;
}

/// The channels that the network takes; fails where leaving out would lose something.
Picture Fitted(const Interleaved& picture, const ByteReader& reader, const mpc::Shape3& expected) {
  const std::size_t wanted = expected.Size() > 0 ? expected.channels : picture.channels;
  std::size_t kept = picture.channels;
  if (kept != wanted && picture.HasOpacity()) {
    if (!IsOpaque(picture)) {
      reader.Fail(
          fmt::format("found a picture with transparent pixels, {} channels, expected {}; "
                      "put it on a background first",
                      kept, wanted));
    }
    --kept;
  }
  if (kept == 3 && wanted == 1) {
    if (!IsGrey(picture))
      reader.Fail("found a colour picture, expected a grey one of 1 channel; convert it first");
    kept = 1;
  }
  if (kept != wanted) {
    reader.Fail(fmt::format("found a {} picture of {} channel{}, expected {}; convert it first",
                            kept < 3 ? "grey" : "colour", kept, kept > 1 ? "s" : "", wanted));
  }
  Picture result{{kept, picture.height, picture.width}, {}};
  result.pixels.reserve(result.shape.Size());
  for (std::size_t c = 0; c < kept; ++c)
    for (std::size_t i = c; i < picture.values.size(); i += picture.channels)
      result.pixels.push_back(picture.values[i]);
  return result;
}

// libpng reports errors by a jump, so nothing that needs a destructor may be made between Start and
// an error: each of the functions below holds its own landing place and nothing else.
class PngDecoder {
 public:
  explicit PngDecoder(const std::vector<std::uint8_t>& bytes)
      : begin_(bytes.data()), left_(bytes.size()) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, OnError, OnWarning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;
  ~PngDecoder() { png_destroy_read_struct(&png_, &info_, nullptr); }

  /// False where it fails, as all of these: Error() says why.
  bool ReadHeader() {
    if (info_ == nullptr) return false;
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_read_fn(png_, this, OnRead);
    // What is too large is told by its size, once it is known.
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_malloc_max(png_, kMaxChunkBytes);
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_read_info(png_, info_);
    return true;
  }
  std::size_t Width() const { return png_get_image_width(png_, info_); }
  std::size_t Height() const { return png_get_image_height(png_, info_); }
  unsigned Bits() const { return png_get_bit_depth(png_, info_); }
  std::size_t Channels() const { return png_get_channels(png_, info_); }
  /// Palettes, few bits and a transparent colour become whole channels, which Channels() counts.
  bool Expand() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_expand(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }
  std::size_t RowBytes() const { return png_get_rowbytes(png_, info_); }
  bool ReadRows(png_bytepp rows) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
    return true;
  }
  std::size_t Left() const { return left_; }
  const char* Error() const { return error_.data(); }

 private:
  [[noreturn]] static void OnError(png_structp png, png_const_charp text) {
    auto* decoder = static_cast<PngDecoder*>(png_get_error_ptr(png));
    std::snprintf(decoder->error_.data(), decoder->error_.size(), "%s", text);
    png_longjmp(png, 1);
  }
  static void OnWarning(png_structp, png_const_charp) {}
  static void OnRead(png_structp png, png_bytep out, std::size_t count) {
    auto* decoder = static_cast<PngDecoder*>(png_get_io_ptr(png));
    if (count > decoder->left_) png_error(png, "truncated, the data end in the middle");
    std::memcpy(out, decoder->begin_, count);
    decoder->begin_ += count;
    decoder->left_ -= count;
  }

  const std::uint8_t* begin_;
  std::size_t left_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::array<char, 128> error_{"out of memory"};
};

/// The header and the values of a PGM or PPM file.
class PnmParser {
 public:
  PnmParser(const std::vector<std::uint8_t>& bytes, const ByteReader& reader)
      : text_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), reader_(reader) {}

  Interleaved Parse(const mpc::Shape3& expected) {
    const char kind = text_[1];
    text_.remove_prefix(2);
    if (kind != '2' && kind != '3' && kind != '5' && kind != '6') {
      reader_.Fail(
          fmt::format("found a picture of the kind P{}, expected P5 (PGM), P6 (PPM), or "
                      "P2 or P3, their texts",
                      kind));
    }
    Interleaved picture;
    picture.channels = kind == '3' || kind == '6' ? 3 : 1;
    picture.width = Number("width");
    picture.height = Number("height");
    if (const std::size_t most = Number("largest value"); most != kOpaque)
      reader_.Fail(fmt::format("found a largest value of {}, expected 255", most));
    CheckSize(picture.height, picture.width, picture.channels, reader_, expected);
    const std::size_t count = picture.channels * picture.height * picture.width;
    if (kind < '5') {
      ReadText(count, picture.values);
    } else {
      ReadBytes(count, picture.values);
    }
    return picture;
  }

 private:
  void ReadBytes(std::size_t count, std::vector<std::uint8_t>& values) {
    if (text_.empty() || !IsBlank(text_.front()))
      reader_.Fail("truncated, or no blank after the largest value");
    text_.remove_prefix(1);
    if (text_.size() < count) {
      reader_.Fail(
          fmt::format("truncated: found {} bytes of pixels, expected {}", text_.size(), count));
    }
    if (text_.size() > count)
      reader_.Fail(fmt::format("goes on after its {} bytes of pixels", count));
    values.assign(text_.begin(), text_.end());
  }

  void ReadText(std::size_t count, std::vector<std::uint8_t>& values) {
    // Each takes a digit and a blank, so little is reserved for what is not there.
    values.reserve(std::min(count, text_.size() / 2));
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t value = Number("value");
      if (value > kOpaque)
        reader_.Fail(fmt::format("value {} (counted from 0) is {}, expected 0 to 255", i, value));
      values.push_back(static_cast<std::uint8_t>(value));
    }
    SkipBlanks();
    if (!text_.empty()) reader_.Fail(fmt::format("goes on after its {} values", count));
  }

  static bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

  void SkipBlanks() {
    while (!text_.empty()) {
      if (text_.front() == '#') {
        text_.remove_prefix(std::min(text_.find('\n'), text_.size()));
      } else if (IsBlank(text_.front())) {
        text_.remove_prefix(1);
      } else {
        return;
      }
    }
  }

  std::size_t Number(const char* what) {
    SkipBlanks();
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), number);
    if (error != std::errc{}) {
      reader_.Fail(text_.empty() ? fmt::format("truncated where its {} is expected", what)
                                 : fmt::format("has no number where its {} is expected", what));
    }
    text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
    return number;
  }

  std::string_view text_;
  const ByteReader& reader_;
};

}  // namespace

Picture ReadPng(ByteReader& reader, const mpc::Shape3& expected) {
  const std::vector<std::uint8_t> bytes = reader.ReadToEnd(kMaxPictureBytes, "a picture");
  PngDecoder decoder(bytes);
  const auto check = [&](bool done) {
    if (!done) reader.Fail(fmt::format("damaged PNG: {}", decoder.Error()));
  };
  check(decoder.ReadHeader());
  if (decoder.Bits() > 8) {
    reader.Fail(fmt::format("found a PNG of {} bits a channel, expected 8; convert it first",
                            decoder.Bits()));
  }
  CheckSize(decoder.Height(), decoder.Width(), decoder.Channels(), reader, expected);
  check(decoder.Expand());
  Interleaved picture{decoder.Channels(), decoder.Height(), decoder.Width(), {}};
  const std::size_t row_bytes = picture.channels * picture.width;
  if (decoder.RowBytes() != row_bytes) reader.Fail("found a PNG of an unknown kind");
  picture.values.resize(row_bytes * picture.height);
  std::vector<png_bytep> rows(picture.height);
  for (std::size_t y = 0; y < rows.size(); ++y) rows[y] = picture.values.data() + y * row_bytes;
  check(decoder.ReadRows(rows.data()));
  if (decoder.Left() > 0) reader.Fail("goes on after the end of the PNG");
  return Fitted(picture, reader, expected);
}

Picture ReadPnm(ByteReader& reader, const mpc::Shape3& expected) {
  const std::vector<std::uint8_t> bytes = reader.ReadToEnd(kMaxPictureBytes, "a picture");
  return Fitted(PnmParser(bytes, reader).Parse(expected), reader, expected);
}

}  // namespace tercet::files
