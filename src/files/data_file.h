// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "files/byte_reader.h"
#include "tercet/files/images.h"

namespace tercet::files {

/// What was read of a file or of several, and how many items there are in all; nothing where packed
/// data do not say it.
struct Part : LabelledImages {
  std::optional<std::uint64_t> total;
  bool is_picture = false;
  /// Of pictures, and of labels that come with the names of their files: one an item, else none.
  std::vector<std::string> names;
  /// Whether a table's numbers were taken for whole ones; nothing for other formats.
  std::optional<bool> whole_numbers;
};

/// One file's images, at most `limit` (0: all), and its labels where it has some and `classes` is
/// not 0.
Part ReadImages(const ByteSource& source, std::size_t limit, const mpc::Shape3& expected,
                const DataOptions& options, std::size_t classes);
/// One file's labels, each checked.
Part ReadLabels(const ByteSource& source, std::size_t limit, std::size_t classes,
                const DataOptions& options);

}  // namespace tercet::files
