#pragma once

#include <cstdint>
#include <filesystem>

namespace tercet::app {

/// Draws `count` handwriting-like digits of 28 x 28 pixels (strokes of varying slant, size, place
/// and width) and writes them as IDX images and labels: for trying the networks out where no data
/// set is at hand. The same seed draws the same digits. Throws ConfigError when a file cannot be
/// written; then neither is left behind.
void DrawDigits(const std::filesystem::path& images, const std::filesystem::path& labels,
                std::size_t count, std::uint64_t seed);

}  // namespace tercet::app
