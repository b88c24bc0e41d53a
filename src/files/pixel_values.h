// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "files/byte_reader.h"
#include "tercet/files/data_options.h"

namespace tercet::files {

/// Turns the numbers of a file into pixels, as Values says.
class PixelValues {
 public:
  /// `floating`: the file's numbers are not whole by their type. `reader` must outlive it.
  PixelValues(const DataOptions& options, bool floating, const ByteReader& reader);

  bool AreAsWanted() const { return values_ == Values::kPixels; }
  /// The pixel of `number`, which is value `value` of image `image`; ConfigError for one that no
  /// pixel has.
  std::uint8_t Pixel(double number, std::size_t image, std::size_t value) const;
  /// Bytes that are numbers become pixels in place, of images of `image_bytes` each.
  void Convert(std::vector<std::uint8_t>& bytes, std::size_t image_bytes) const;

 private:
  [[noreturn]] void Refuse(double number, double pixel, std::size_t image, std::size_t value) const;

  const DataOptions& options_;
  const ByteReader& reader_;
  Values values_;
  double factor_ = 1, shift_ = 0;
};

}  // namespace tercet::files
