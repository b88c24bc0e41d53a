// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/arrangement.h"
#include "files/byte_reader.h"

namespace tercet::files {

inline constexpr std::string_view kNpyMagic = "\x93NUMPY";

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::uint64_t> shape;

  /// "3 x 28 x 28"
  std::string ShapeList() const;
};

/// Reads what follows the first four bytes of a .npy file, up to its data.
NpyHeader ReadNpyHeader(ByteReader& reader);

/// The numbers of an array, by its header's descr: "<f4", "|u1" and the like.
struct NpyType {
  enum class Kind : std::uint8_t { kUnsigned, kSigned, kFloat } kind = Kind::kUnsigned;
  std::size_t bytes = 1;
  bool big_endian = false;

  /// Nothing for what holds no such numbers: booleans, complex ones, texts, objects.
  static std::optional<NpyType> Of(const std::string& descr);
  bool IsWhole() const { return kind != Kind::kFloat; }
  /// The number in `bytes` bytes. Of whole ones the bits, sign extended.
  std::uint64_t Bits(std::span<const std::uint8_t> number) const;
  double Number(std::span<const std::uint8_t> number) const;
};

/// How the images of such an array are arranged, of which a row of numbers each has `expected`'s
/// shape. Fails for one that holds no images.
Arrangement ArrangeNpy(const NpyHeader& header, const ByteReader& reader,
                       const mpc::Shape3& expected, const DataOptions& options);

}  // namespace tercet::files
