#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tercet/mpc/spec.h"

namespace tercet::nn {

/// Images of one data set, bytes 0..255, image after image, each channels x height x width.
struct Images {
  mpc::Shape3 shape;
  std::size_t count = 0;
  std::vector<std::uint8_t> pixels;
};

/// Reads images: IDX (magic 0x00000803, also .gz), .npy (uint8, N x H x W or N x C x H x W, C
/// order). The format is recognised by content. `limit` 0 reads all. ConfigError names the file and
/// what was found and expected: missing, truncated, wrong magic, no image, shape other than
/// `expected` (when it is not empty). At most 4 GiB of pixels are read at once; of a packed file no
/// more is unpacked than its header and `limit` ask for. Thread safe.
Images LoadImages(const std::filesystem::path& file, std::size_t limit,
                  const mpc::Shape3& expected);
/// The same from memory; `name` stands for the file in messages.
Images ParseImages(const std::vector<std::uint8_t>& bytes, const std::string& name,
                   std::size_t limit, const mpc::Shape3& expected);

/// Labels: IDX (magic 0x00000801, also .gz) or .npy (one-dimensional uint8, int32 or int64). Each
/// must be below `classes` (1 or more; InternalError else) and fit a byte. ConfigError as above.
/// Thread safe.
std::vector<std::uint8_t> LoadLabels(const std::filesystem::path& file, std::size_t limit,
                                     std::size_t classes);
/// The same from memory; `name` stands for the file in messages.
std::vector<std::uint8_t> ParseLabels(const std::vector<std::uint8_t>& bytes,
                                      const std::string& name, std::size_t limit,
                                      std::size_t classes);

}  // namespace tercet::nn
