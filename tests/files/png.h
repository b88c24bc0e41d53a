// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tercet::files {

/// A PNG file, written without libpng.
struct PngFile {
  std::uint32_t width = 1, height = 1;
  std::uint8_t bits = 8;
  std::uint8_t color =
      0;  ///< 0 grey, 2 colour, 3 palette, 4 grey and opacity, 6 colour and opacity
  std::uint8_t interlace = 0;
  std::vector<std::uint8_t> palette, transparency;  ///< PLTE and tRNS, where not empty
  std::vector<std::uint8_t> rows;  ///< each behind its filter's byte, of all passes

  static void Number(std::uint32_t number, std::vector<std::uint8_t>& bytes) {
    for (int shift = 24; shift >= 0; shift -= 8)
      bytes.push_back(static_cast<std::uint8_t>(number >> shift));
  }

  static void Chunk(const std::string& type, const std::vector<std::uint8_t>& data,
                    std::vector<std::uint8_t>& file) {
    Number(static_cast<std::uint32_t>(data.size()), file);
    std::vector<std::uint8_t> body(type.begin(), type.end());
    body.insert(body.end(), data.begin(), data.end());
    file.insert(file.end(), body.begin(), body.end());
    Number(static_cast<std::uint32_t>(::crc32(0, body.data(), static_cast<uInt>(body.size()))),
           file);
  }

  static std::vector<std::uint8_t> Deflated(const std::vector<std::uint8_t>& bytes) {
    uLongf size = ::compressBound(bytes.size());
    std::vector<std::uint8_t> packed(size);
    EXPECT_EQ(::compress2(packed.data(), &size, bytes.data(), bytes.size(), 9), Z_OK);
    packed.resize(size);
    return packed;
  }

  /// `more`: chunks before the pixels, made by Chunk.
  std::vector<std::uint8_t> Bytes(const std::vector<std::uint8_t>& more = {}) const {
    std::vector<std::uint8_t> file{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    std::vector<std::uint8_t> header;
    Number(width, header);
    Number(height, header);
    for (const std::uint8_t byte : {bits, color, std::uint8_t{0}, std::uint8_t{0}, interlace})
      header.push_back(byte);
    Chunk("IHDR", header, file);
    file.insert(file.end(), more.begin(), more.end());
    if (!palette.empty()) Chunk("PLTE", palette, file);
    if (!transparency.empty()) Chunk("tRNS", transparency, file);
    Chunk("IDAT", Deflated(rows), file);
    Chunk("IEND", {}, file);
    return file;
  }
};

/// A grey one of these pixels, row by row.
inline std::vector<std::uint8_t> GreyPng(std::uint32_t height, std::uint32_t width,
                                         const std::vector<std::uint8_t>& pixels) {
  PngFile png{.width = width, .height = height};
  for (std::uint32_t y = 0; y < height; ++y) {
    png.rows.push_back(0);
    png.rows.insert(png.rows.end(), pixels.begin() + y * width, pixels.begin() + (y + 1) * width);
  }
  return png.Bytes();
}

}  // namespace tercet::files
