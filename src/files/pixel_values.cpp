// SPDX-License-Identifier: Apache-2.0
#include "files/pixel_values.h"

#include <fmt/format.h>

#include <cmath>

namespace tercet::files {

PixelValues::PixelValues(const DataOptions& options, bool floating, const ByteReader& reader)
    : options_(options), reader_(reader), values_(options.values) {
  if (values_ == Values::kAuto) values_ = floating ? Values::kScaled : Values::kPixels;
  if (values_ == Values::kScaled) factor_ = options.scale;
  if (values_ == Values::kNormalised) {
    factor_ = options.std * options.scale;
    shift_ = options.mean * options.scale;
  }
}

std::uint8_t PixelValues::Pixel(double number, std::size_t image, std::size_t value) const {
  const double pixel = std::floor(number * factor_ + shift_ + 0.5);
  // Written so that what is no number is refused too.
  if (!(pixel >= 0 && pixel <= 255)) Refuse(number, number * factor_ + shift_, image, value);
  return static_cast<std::uint8_t>(pixel);
}

void PixelValues::Refuse(double number, double pixel, std::size_t image, std::size_t value) const {
  const auto found =
      fmt::format("value {} of image {} (both counted from 0) is {}", value, image, number);
  switch (values_) {
    case Values::kScaled:
      reader_.Fail(fmt::format(
          "{}, for pixel {} (times the scale {} of the network's input), expected 0 to 255; say "
          "--values pixels if it is a pixel itself, --values normalised if mean and std of the "
          "network's input are in it already",
          found, pixel, options_.scale));
    case Values::kNormalised:
      reader_.Fail(
          fmt::format("{}, for pixel {} by scale {}, mean {} and std {} of the network's "
                      "input, expected 0 to 255",
                      found, pixel, options_.scale, options_.mean, options_.std));
    default:
      reader_.Fail(
          fmt::format("{}, expected a pixel of 0 to 255 (or --values scaled or normalised "
                      "where it is none)",
                      found));
  }
}

void PixelValues::Convert(std::vector<std::uint8_t>& bytes, std::size_t image_bytes) const {
  if (AreAsWanted()) return;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = Pixel(bytes[i], i / image_bytes, i % image_bytes);
}

}  // namespace tercet::files
