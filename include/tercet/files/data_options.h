// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace tercet::files {

/// What the numbers of image files mean: which pixel p, 0 to 255, a number v stands for. A network
/// takes pixels, and its "input" (scale, mean, std) says what real numbers those are; nothing else
/// normalises. p is rounded to the nearest whole number.
enum class Values : std::uint8_t {
  kAuto,       ///< kPixels where the file's type is whole numbers, else kScaled
  kPixels,     ///< p = v: 0 to 255
  kScaled,     ///< p = v scale: 0 to 1 at the usual scale of 255
  kNormalised  ///< p = (v std + mean) scale: what the network's first layer takes
};
/// The order of the dimensions after the first, of .npy, .csv and .u8: channels, height, width or
/// height, width, channels.
enum class Layout : std::uint8_t { kNchw, kNhwc };
/// What .bin files hold: records of CIFAR-10, or of CIFAR-100 with this one of its two labels.
enum class CifarKind : std::uint8_t { kCifar10, kCifar100Fine, kCifar100Coarse };

/// What a user says of files of images and labels that they do not say themselves.
struct DataOptions {
  Values values = Values::kAuto;
  Layout layout = Layout::kNchw;
  bool transpose = false;  ///< rows are columns, as in EMNIST's files
  CifarKind cifar = CifarKind::kCifar10;
  std::size_t first_label = 0;  ///< the label in files of class 0; not of classes by folder
  /// Of .csv: "first", "last", "none" or a name of the header; empty: the column "label" where the
  /// header has one.
  std::string label_column;
  std::optional<bool> header;             ///< whether .csv files have one; nothing: as it looks
  double scale = 255, mean = 0, std = 1;  ///< the network's "input"
};

}  // namespace tercet::files
