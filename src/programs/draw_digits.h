// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>

namespace tercet::programs {

/// Draws `count` handwriting-like digits of 28 x 28 pixels (strokes of varying slant, size, place
/// and width) and writes them as IDX images and labels: for trying the networks out where no data
/// set is at hand. The same seed draws the same digits. Written with WriteFiles
/// (tercet/base/file_writer.h): both or neither.
void DrawDigits(const std::filesystem::path& images, const std::filesystem::path& labels,
                std::size_t count, std::uint64_t seed);

}  // namespace tercet::programs
