// SPDX-License-Identifier: Apache-2.0
#include "files/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "base/endian.h"
#include "files/npy.h"

namespace tercet::files {
namespace {

using namespace std::string_view_literals;

constexpr std::uint32_t kImagesMagic = 0x00000803, kLabelsMagic = 0x00000801;
constexpr std::uint64_t kMaxImageBytes = std::uint64_t{1} << 31;
constexpr std::size_t kPeekBytes = 512, kMagicBytes = 4;
constexpr std::string_view kPngMagic = "\x89PNG\r\n\x1A\n", kUtf8Mark = "\xEF\xBB\xBF";

struct Known {
  std::string_view begin;  // in lower case for texts
  bool is_text;
  const char* what;
};
// What users give by mistake, or what arrives when a download went wrong.
constexpr Known kKnown[] = {
    {"version https://git-lfs"sv, true,
     "a Git LFS pointer, in place of the file that `git lfs pull` fetches"},
    {"<!doctype html"sv, true, "an HTML page, perhaps that of a download that failed"},
    {"<html"sv, true, "an HTML page, perhaps that of a download that failed"},
    {"<?xml"sv, true, "an XML text, perhaps that of a download that failed"},
    {"{"sv, true, "a JSON text"},
    {"PK\x03\x04"sv, false, "a zip archive (or .npz); unpack it"},
    {"\xFF\xD8\xFF"sv, false, "a JPEG picture; convert it to PNG"},
    {"GIF8"sv, false, "a GIF picture; convert it to PNG"},
    {"BM"sv, false, "a BMP picture; convert it to PNG"},
    {"RIFF"sv, false, "a WebP picture or other RIFF file; convert it to PNG"},
    {"II*\0"sv, false, "a TIFF picture; convert it to PNG"},
    {"MM\0*"sv, false, "a TIFF picture; convert it to PNG"},
    {"BZh"sv, false, "bzip2 data; unpack them"},
    {"\x28\xB5\x2F\xFD"sv, false, "zstd data; unpack them"},
    {"\x89HDF"sv, false, "an HDF5 file; save its array with numpy.save"},
    {"PAR1"sv, false, "a Parquet table; save it as CSV"},
    {"MATLAB"sv, false, "a MATLAB file; save its array with numpy.save"},
    {"%PDF"sv, false, "a PDF document"},
    {"\x80\x02"sv, false,
     "a Python pickle, such as CIFAR's \"python version\"; take the binary one"},
    {"\x80\x03"sv, false, "a Python pickle; save its array with numpy.save"},
    {"\x80\x04"sv, false, "a Python pickle; save its array with numpy.save"},
    {"\x80\x05"sv, false, "a Python pickle; save its array with numpy.save"}};

std::string_view AsText(const std::vector<std::uint8_t>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

const char* WhatElse(std::string_view begin, bool texts_only) {
  std::string lower(begin.substr(0, 32));
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::string_view text =
      std::string_view(lower).substr(std::min(lower.find_first_not_of(" \t\r\n"), lower.size()));
  for (const Known& known : kKnown) {
    if (known.is_text ? text.starts_with(known.begin)
                      : !texts_only && begin.starts_with(known.begin))
      return known.what;
  }
  if (!texts_only && begin.size() > 262 && begin.substr(257, 5) == "ustar")
    return "a tar archive; unpack it";
  return nullptr;
}

bool IsText(std::string_view begin) {
  if (begin.starts_with(kUtf8Mark)) return true;
  return std::all_of(begin.begin(), begin.end(), [](unsigned char c) {
    return (c >= 0x20 && c < 0x7F) || c == '\t' || c == '\n' || c == '\r';
  });
}

bool IsPnm(std::string_view begin) {
  return begin.size() > 2 && begin[0] == 'P' && begin[1] >= '1' && begin[1] <= '7' &&
         std::isspace(static_cast<unsigned char>(begin[2])) != 0;
}

}  // namespace

std::optional<Format> FormatByName(std::string_view name) {
  for (const std::string_view packed : {".gz", ".xz"}) {
    if (name.ends_with(packed)) {
      name.remove_suffix(packed.size());
      break;
    }
  }
  if (name.ends_with(".bin")) return Format::kCifar;
  if (name.ends_with(".u8")) return Format::kRaw;
  if (name.ends_with(".csv")) return Format::kTable;
  return std::nullopt;
}

Format FindFormat(const ByteReader& reader, const ByteSource& source, Wanted wanted) {
  const bool images = wanted == Wanted::kImages;
  const char* const one = images ? "image" : "label";
  if (source.size == 0) reader.Fail(fmt::format("is empty and holds no {}", one));
  const std::vector<std::uint8_t> bytes = reader.Peek(kPeekBytes);
  const std::string_view begin = AsText(bytes);
  const auto named = FormatByName(source.name);
  const bool any_bytes = named == Format::kCifar || named == Format::kRaw;
  if (const char* what = WhatElse(begin, any_bytes)) {
    reader.Fail(fmt::format("is {}; expected {}s as IDX, .npy, CSV{} or CIFAR's .bin", what, one,
                            images ? ", PNG, PGM, PPM" : ""));
  }
  if (named) return *named;
  if (bytes.empty()) reader.Fail(fmt::format("is empty once unpacked and holds no {}", one));
  if (begin.starts_with(kNpyMagic.substr(0, kMagicBytes))) return Format::kNpy;
  if (begin.starts_with(kPngMagic) || IsPnm(begin)) {
    if (!images) reader.Fail("is a picture, expected labels");
    return IsPnm(begin) ? Format::kPnm : Format::kPng;
  }
  const std::uint64_t magic = images ? kImagesMagic : kLabelsMagic;
  const std::uint64_t found =
      FromBigEndian(std::span(bytes).first(std::min(bytes.size(), kMagicBytes)));
  if (bytes.size() >= kMagicBytes && found == magic) return Format::kIdx;
  if (IsText(begin)) return Format::kTable;
  if (bytes.size() < kMagicBytes) {
    reader.Fail(
        fmt::format("truncated: found {} bytes, expected a magic of 4 at least", bytes.size()));
  }
  const char* kind = found == kImagesMagic ? " (images)" : found == kLabelsMagic ? " (labels)" : "";
  reader.Fail(
      fmt::format("found magic 0x{:08x}{}, expected an IDX file of {}s (0x{:08x}), a .npy file{}, "
                  "a CSV table, or a name that ends in .bin (CIFAR-10) or .u8",
                  found, kind, one, magic, images ? ", a PNG, PGM or PPM picture" : ""));
}

void CheckSizes(const std::array<std::uint64_t, 3>& sizes, const ByteReader& reader) {
  const auto [channels, height, width] = sizes;
  const bool bounded = channels <= kMaxChannels && height <= kMaxSide && width <= kMaxSide;
  const std::uint64_t image_bytes = bounded ? channels * height * width : 0;
  if (image_bytes == 0 || image_bytes >= kMaxImageBytes) {
    reader.Fail(
        fmt::format("found images of {} x {} x {}, expected 1 to {} channels, sides from 1 to "
                    "{} and less than {} bytes",
                    channels, height, width, kMaxChannels, kMaxSide, kMaxImageBytes));
  }
}

void CheckShape(const ByteReader& reader, const mpc::Shape3& found, const mpc::Shape3& expected) {
  if (expected.Size() == 0 || found == expected) return;
  // Read as channels x height x width, what is height x width x channels.
  const bool channels_last =
      found == mpc::Shape3{expected.height, expected.width, expected.channels};
  reader.Fail(
      fmt::format("images of the wrong size: found {}, expected {} (channels x height x width){}",
                  mpc::ShapeText(found), mpc::ShapeText(expected),
                  channels_last ? "; say --layout nhwc if the channels come last" : ""));
}

}  // namespace tercet::files
