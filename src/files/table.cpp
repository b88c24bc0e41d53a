// SPDX-License-Identifier: Apache-2.0
#include "files/table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

#include "base/json.h"

namespace tercet::files {
namespace {

constexpr std::uint64_t kMaxTableBytes = std::uint64_t{512} << 20;
constexpr std::size_t kMaxColumns = 1 << 22;
// So many columns that are numbered 0, 1, 2, ... are rather a header than values.
constexpr std::size_t kNumberedColumns = 4;
constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF", kBlanks = " \t";
constexpr std::array<std::string_view, 5> kFileColumns{"file", "filename", "image", "path", "name"};

std::string_view Trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

bool IsNumbered(Table::Cells cells) {
  if (cells.size() < kNumberedColumns) return false;
  for (std::size_t i = 0; i < cells.size(); ++i)
    if (CellWhole(cells[i]) != static_cast<std::int64_t>(i)) return false;
  return true;
}

}  // namespace

std::optional<double> CellNumber(std::string_view cell) {
  if (cell.starts_with('+')) cell.remove_prefix(1);
  double number = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), number);
  if (error != std::errc{} || end != cell.data() + cell.size() || !std::isfinite(number))
    return std::nullopt;
  return number;
}

std::optional<std::int64_t> CellWhole(std::string_view cell) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), number);
  if (error != std::errc{} || end != cell.data() + cell.size()) return std::nullopt;
  return number;
}

Table::Table(ByteReader& reader, const DataOptions& options) : reader_(reader), options_(options) {
  const std::vector<std::uint8_t> bytes = reader.ReadToEnd(kMaxTableBytes, "a CSV table");
  text_.assign(bytes.begin(), bytes.end());
  body_ = text_;
  if (body_.starts_with(kUtf8Mark)) body_.remove_prefix(kUtf8Mark.size());
  while (!body_.empty() && (body_.back() == '\n' || body_.back() == '\r' || body_.back() == ' '))
    body_.remove_suffix(1);
  if (body_.empty()) reader.Fail("is a text without a row, expected a CSV table");
  std::vector<std::string_view> cells;
  std::string_view rest = body_;
  Split(NextLine(rest), 0, cells);
  columns_ = cells.size();
  if (options.header.value_or(LooksLikeHeader(cells))) {
    header_.assign(cells.begin(), cells.end());
    body_ = rest;
    if (body_.empty()) reader.Fail("has a header and no row");
  }
  // Rows that a limit leaves out are looked at too, so that it hides nothing.
  EachRow(0, [&](std::size_t row, Cells found) {
    if (row == 0) first_.assign(found.begin(), found.end());
    rows_ = row + 1;
  });
}

std::string_view Table::NextLine(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('\n'), rest.size());
  std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

void Table::Split(std::string_view line, std::size_t line_number,
                  std::vector<std::string_view>& cells) const {
  cells.clear();
  const auto fail = [&](const std::string& problem) {
    reader_.Fail(fmt::format("row {} {}", line_number + 1, problem));
  };
  while (true) {
    line.remove_prefix(std::min(line.find_first_not_of(kBlanks), line.size()));
    if (line.starts_with('"')) {
      const std::size_t end = line.find('"', 1);
      if (end == std::string_view::npos) fail("has a quote without its end");
      cells.push_back(line.substr(1, end - 1));
      line = Trimmed(line.substr(end + 1));
      if (!line.empty() && line.front() != ',') fail("goes on after a quote, expected a comma");
    } else {
      const std::size_t end = std::min(line.find(','), line.size());
      cells.push_back(Trimmed(line.substr(0, end)));
      line.remove_prefix(end);
    }
    if (cells.size() > kMaxColumns) fail(fmt::format("has more than {} cells", kMaxColumns));
    if (line.empty()) return;
    line.remove_prefix(1);
  }
}

bool Table::LooksLikeHeader(Cells first) const {
  if (IsNumbered(first)) {
    reader_.Fail(
        fmt::format("its first row is {}, {}, ..., {}: say whether that is a header by "
                    "--csv-header yes or no",
                    first[0], first[1], first.back()));
  }
  const auto numbers =
      static_cast<std::size_t>(std::count_if(first.begin(), first.end(), [](std::string_view cell) {
        return CellNumber(cell).has_value();
      }));
  // Two cells of which one is a number are a file and its label.
  if (numbers > 0 && numbers < first.size() && first.size() > 2) {
    reader_.Fail(
        fmt::format("its first row begins with '{}' and has both numbers and texts: say "
                    "whether that is a header by --csv-header yes or no",
                    Printable(first.front())));
  }
  return numbers == 0;
}

void Table::EachRow(std::uint64_t limit,
                    const std::function<void(std::size_t row, Cells cells)>& take) const {
  std::vector<std::string_view> cells;
  std::string_view rest = body_;
  for (std::size_t row = 0; !rest.empty() && (limit == 0 || row < limit); ++row) {
    const std::size_t line = row + (HasHeader() ? 1 : 0);
    Split(NextLine(rest), line, cells);
    if (cells.size() != columns_) {
      reader_.Fail(fmt::format("row {} has {} cells, expected {} as in the first row", line + 1,
                               cells.size(), columns_));
    }
    take(row, cells);
  }
}

std::optional<std::size_t> Table::LabelColumn() const {
  const std::string& asked = options_.label_column;
  if (asked == "none") return std::nullopt;
  if (asked == "first") return 0;
  if (asked == "last") return columns_ - 1;
  const std::string wanted = asked.empty() ? "label" : asked;
  std::optional<std::size_t> found;
  for (std::size_t c = 0; c < header_.size(); ++c) {
    if (asked.empty() ? Lower(header_[c]) != wanted : header_[c] != wanted) continue;
    if (found) reader_.Fail(fmt::format("has two columns \"{}\"", Printable(wanted)));
    found = c;
  }
  if (!found && !asked.empty()) {
    reader_.Fail(fmt::format(
        "has no column \"{}\", expected first, last, none or a name of its header{}",
        Printable(asked),
        HasHeader() ? ", " + Printable(fmt::format("{}", fmt::join(header_, ", "))) : ""));
  }
  return found;
}

bool Table::BeginsWithNames(std::optional<std::size_t> label_column) const {
  if (columns_ < 2 || label_column == 0) return false;
  if (HasHeader() && std::find(kFileColumns.begin(), kFileColumns.end(), Lower(header_.front())) !=
                         kFileColumns.end())
    return true;
  return !CellNumber(first_.front());
}

void Table::FailAt(std::size_t row, std::size_t column, std::string_view cell,
                   const std::string& expected) const {
  const std::string name =
      HasHeader() ? fmt::format(" ({})", Printable(header_[column])) : std::string();
  reader_.Fail(fmt::format(
      "row {}, column {}{} {}, expected {}", row + (HasHeader() ? 2 : 1), column + 1, name,
      cell.empty() ? "is empty" : fmt::format("is '{}'", Printable(cell)), expected));
}

}  // namespace tercet::files
