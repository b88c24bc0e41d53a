// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "files/byte_reader.h"
#include "tercet/files/data_options.h"

namespace tercet::files {

/// Classes of the labels in files.
class LabelCheck {
 public:
  LabelCheck(const DataOptions& options, std::size_t classes, const ByteReader& reader)
      : first_(options.first_label),
        count_(std::min<std::uint64_t>(classes, kByteValues)),
        reader_(reader) {}

  /// Whether a label is that of a class. A negative one reads as a huge one, which is not.
  bool Allows(std::uint64_t label) const { return label - first_ < count_; }
  std::uint8_t Class(std::uint64_t label) const {
    return static_cast<std::uint8_t>(label - first_);
  }
  /// "1 to 26"
  std::string Expected() const { return fmt::format("{} to {}", first_, first_ + count_ - 1); }
  /// The class of item `i`'s label; fails for one that has none, and shows it as `found`.
  template <class T>
  std::uint8_t Checked(std::size_t i, T found) const {
    const auto label = static_cast<std::uint64_t>(static_cast<std::int64_t>(found));
    if (!Allows(label)) {
      const bool from_1 = first_ == 0 && label == count_ && count_ < kByteValues;
      reader_.Fail(fmt::format("the label of item {} (counted from 0) is {}, expected {}{}", i,
                               found, Expected(),
                               from_1 ? "; say --first-label 1 if they count from 1" : ""));
    }
    return Class(label);
  }

 private:
  static constexpr std::uint64_t kByteValues = 256;  // labels are kept as bytes

  std::uint64_t first_, count_;
  const ByteReader& reader_;
};

}  // namespace tercet::files
