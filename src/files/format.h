// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "files/byte_reader.h"
#include "tercet/mpc/spec.h"

namespace tercet::files {

enum class Format : std::uint8_t { kIdx, kNpy, kCifar, kRaw, kTable, kPng, kPnm };
/// What is wanted of a file.
enum class Wanted : std::uint8_t { kImages, kLabels };

inline constexpr std::uint64_t kMaxChannels = 65536, kMaxSide = 4096;

/// Formats without a magic are told by the file's name; nothing for the others.
std::optional<Format> FormatByName(std::string_view name);
/// By the name or else the content, of which nothing is read yet. Fails for what has none of the
/// formats, and says what it is where that is known.
Format FindFormat(const ByteReader& reader, const ByteSource& source, Wanted wanted);

/// Fails unless these sizes of an image, the first of which may be channels, are bounded.
void CheckSizes(const std::array<std::uint64_t, 3>& sizes, const ByteReader& reader);
/// Fails where images have not the `expected` shape, unless that is empty.
void CheckShape(const ByteReader& reader, const mpc::Shape3& found, const mpc::Shape3& expected);

}  // namespace tercet::files
