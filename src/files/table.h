// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/byte_reader.h"
#include "tercet/files/data_options.h"

namespace tercet::files {

/// A CSV file: rows of as many cells each, separated by commas, blanks around them ignored. A cell
/// in double quotes may hold commas, but no quote and no end of line.
class Table {
 public:
  using Cells = std::span<const std::string_view>;

  /// Reads all of it and looks at every row. `reader` and `options` must outlive it.
  Table(ByteReader& reader, const DataOptions& options);

  std::size_t Columns() const { return columns_; }
  std::size_t Rows() const { return rows_; }
  bool HasHeader() const { return !header_.empty(); }
  /// The column of labels, by the options or else by the header; nothing where none is told.
  std::optional<std::size_t> LabelColumn() const;
  /// The column that holds names of files rather than numbers, the first one if any.
  bool BeginsWithNames(std::optional<std::size_t> label_column) const;

  /// `take` is given the first `limit` rows (0: all) and their numbers, from 0.
  void EachRow(std::uint64_t limit,
               const std::function<void(std::size_t row, Cells cells)>& take) const;

  /// Fails with where a cell stands and what it holds. Row and column are counted from 1 then, with
  /// the header, as programs that show tables do.
  [[noreturn]] void FailAt(std::size_t row, std::size_t column, std::string_view cell,
                           const std::string& expected) const;

 private:
  /// The line that `rest` begins with, without its end; `rest` goes on behind it.
  static std::string_view NextLine(std::string_view& rest);
  void Split(std::string_view line, std::size_t line_number,
             std::vector<std::string_view>& cells) const;
  bool LooksLikeHeader(Cells first) const;

  const ByteReader& reader_;
  const DataOptions& options_;
  std::string text_;
  std::string_view body_;  // of it, without the header
  std::vector<std::string> header_;
  std::vector<std::string> first_;  // cells of the first row
  std::size_t columns_ = 0, rows_ = 0;
};

/// The number that all of a cell is; nothing where it is none, or is infinite or NaN.
std::optional<double> CellNumber(std::string_view cell);
/// The same for a whole number, without point or exponent.
std::optional<std::int64_t> CellWhole(std::string_view cell);

}  // namespace tercet::files
