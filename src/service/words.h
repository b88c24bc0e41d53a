// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "tercet/base/bytes.h"

/// The binary layouts of packages, queries and lanes: little-endian words and raw bytes, one after
/// the other.
namespace tercet::service {

class Writer {
 public:
  void Word8(std::uint8_t value) { bytes_.push_back(value); }
  void Word32(std::uint32_t value) { Words(value, 4); }
  void Word64(std::uint64_t value) { Words(value, 8); }
  void Raw(ByteSpan bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void Text(std::string_view text) { bytes_.insert(bytes_.end(), text.begin(), text.end()); }
  Bytes Take() { return std::move(bytes_); }

 private:
  void Words(std::uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  }
  Bytes bytes_;
};

/// Gives nothing where fewer bytes are left than asked for.
class Reader {
 public:
  explicit Reader(ByteSpan bytes) : left_(bytes) {}
  std::optional<ByteSpan> Raw(std::size_t count) {
    if (count > left_.size()) return std::nullopt;
    const ByteSpan bytes = left_.first(count);
    left_ = left_.subspan(count);
    return bytes;
  }
  std::optional<std::uint32_t> Word32() {
    const auto value = Words(4);
    if (!value) return std::nullopt;
    return static_cast<std::uint32_t>(*value);
  }
  std::optional<std::uint64_t> Word64() { return Words(8); }
  bool AtEnd() const { return left_.empty(); }

 private:
  std::optional<std::uint64_t> Words(std::size_t count) {
    const auto bytes = Raw(count);
    if (!bytes) return std::nullopt;
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i) value |= std::uint64_t{(*bytes)[i]} << (8 * i);
    return value;
  }
  ByteSpan left_;
};

}  // namespace tercet::service
