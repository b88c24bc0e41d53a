// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tercet::report {

/// Columns of the terminal that stdout is; the largest number where it is none.
std::size_t TerminalWidth();

/// How a column's cells stand.
enum class Align : std::uint8_t { kLeft, kRight };

/// A text table with a head, rows and groups of rows.
///
///     report::Table table({{"layer", report::Align::kLeft}, {"hops", report::Align::kRight}});
///     table.AddRow({"conv1", "3"});
///     fmt::print("{}", table.Render(/*utf8=*/true));
///
/// One thread at a time.
class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns);

  /// Throws InternalError unless there is one cell a column.
  void AddRow(std::vector<std::string> cells);
  /// A line between the row before and the next one.
  void AddRule();

  /// The table with light borders (UTF-8) or in plain ASCII; every line ends with '\n'. Where it is
  /// wider than `max_width`, titles and cells that stand left go over several lines: they break
  /// behind blanks, '+', ':', '=' and '_', and nowhere else. Where that is not enough, columns
  /// stand close together; the table may still be wider.
  std::string Render(bool utf8, std::size_t max_width = TerminalWidth()) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;  // an empty row is a rule
};

/// Whether the environment (LC_ALL, LC_CTYPE, LANG) says that text output is UTF-8.
bool Utf8Locale();

/// Characters that a UTF-8 text shows (code points; no combining or double-width ones are used
/// here).
std::size_t DisplayWidth(std::string_view text);

/// "0 B", "999 B", "1.23 kB", "45.6 MB": decimal units, three digits.
std::string FormatBytes(std::uint64_t bytes);
/// "0 s", "12.3 us", "4.56 ms", "1.23 s", "65.0 s", "12 min 5 s".
std::string FormatSeconds(double seconds);
/// "1 234 567": groups of three, so that large counts can be read.
std::string FormatCount(std::uint64_t count);

}  // namespace tercet::report
