// SPDX-License-Identifier: Apache-2.0
#include "tercet/report/table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <utility>

#include "tercet/base/error.h"

namespace tercet::report {
namespace {

struct Borders {
  std::string_view line, gap, cross;
};

std::string Repeat(std::string_view text, std::size_t times) {
  std::string out;
  out.reserve(text.size() * times);
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

std::string_view WithoutBlank(std::string_view text) {
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

// What a text may be broken into.
std::vector<std::string_view> Pieces(std::string_view text) {
  std::vector<std::string_view> pieces;
  for (std::size_t end = 0; (end = text.find_first_of(" +:=_")) != std::string_view::npos;) {
    pieces.push_back(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
  }
  if (!text.empty()) pieces.push_back(text);
  return pieces;
}

std::size_t LeastWidth(std::string_view text) {
  std::size_t width = 0;
  for (const auto piece : Pieces(text)) width = std::max(width, DisplayWidth(WithoutBlank(piece)));
  return width;
}

std::vector<std::string> Wrap(const std::string& text, std::size_t width) {
  if (DisplayWidth(text) <= width) return {text};
  std::vector<std::string> lines(1);
  for (const auto piece : Pieces(text)) {
    if (DisplayWidth(lines.back()) + DisplayWidth(WithoutBlank(piece)) > width)
      lines.emplace_back();
    lines.back() += piece;
  }
  for (auto& line : lines) line = WithoutBlank(line);
  return lines;
}

// Three digits that count: 1.23, 45.6, 789.
std::string ThreeDigits(double value) {
  if (value < 9.995) return fmt::format("{:.2f}", value);
  if (value < 99.95) return fmt::format("{:.1f}", value);
  return fmt::format("{:.0f}", value);
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<std::string> cells) {
  TERCET_CHECK(cells.size() == columns_.size() && !cells.empty(),
               "{} cells in a table of {} columns", cells.size(), columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::AddRule() { rows_.emplace_back(); }

std::string Table::Render(bool utf8, std::size_t max_width) const {
  Borders borders = utf8 ? Borders{"─", " │ ", "─┼─"} : Borders{"-", " | ", "-+-"};
  const std::size_t count = columns_.size();
  std::vector<std::size_t> widths, least;
  for (std::size_t c = 0; c < count; ++c) {
    widths.push_back(DisplayWidth(columns_[c].title));
    least.push_back(LeastWidth(columns_[c].title));
    for (const auto& row : rows_) {
      if (row.empty()) continue;
      widths[c] = std::max(widths[c], DisplayWidth(row[c]));
      least[c] = std::max(
          least[c], columns_[c].align == Align::kLeft ? LeastWidth(row[c]) : DisplayWidth(row[c]));
    }
  }
  const auto sum = [&](const std::vector<std::size_t>& of) {
    return std::accumulate(of.begin(), of.end(), (count - 1) * DisplayWidth(borders.gap));
  };
  if (sum(least) > max_width) borders = utf8 ? Borders{"─", "│", "┼"} : Borders{"-", "|", "+"};
  for (std::size_t total = sum(widths); total > max_width; --total) {
    std::size_t widest = count;
    for (std::size_t c = 0; c < count; ++c)
      if (widths[c] > least[c] && (widest == count || widths[c] > widths[widest])) widest = c;
    if (widest == count) break;
    --widths[widest];
  }
  std::string text;
  auto add_row = [&](auto cell) {
    std::vector<std::vector<std::string>> cells;
    std::size_t height = 0;
    for (std::size_t c = 0; c < count; ++c) {
      cells.push_back(Wrap(cell(c), widths[c]));
      height = std::max(height, cells[c].size());
    }
    for (std::size_t k = 0; k < height; ++k) {
      std::string line;
      for (std::size_t c = 0; c < count; ++c) {
        const std::string content = k < cells[c].size() ? cells[c][k] : "";
        const std::string fill(widths[c] - DisplayWidth(content), ' ');
        if (c > 0) line += borders.gap;
        line += columns_[c].align == Align::kLeft ? content + fill : fill + content;
      }
      line.erase(line.find_last_not_of(' ') + 1);
      text += line + '\n';
    }
  };
  auto add_rule = [&] {
    for (std::size_t c = 0; c < count; ++c) {
      if (c > 0) text += borders.cross;
      text += Repeat(borders.line, widths[c]);
    }
    text += '\n';
  };
  add_row([&](std::size_t c) -> const std::string& { return columns_[c].title; });
  add_rule();
  for (const auto& row : rows_) {
    if (row.empty()) {
      add_rule();
    } else {
      add_row([&](std::size_t c) -> const std::string& { return row[c]; });
    }
  }
  return text;
}

std::size_t TerminalWidth() {
  winsize size{};
  if (::isatty(STDOUT_FILENO) == 0 || ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 ||
      size.ws_col == 0)
    return std::numeric_limits<std::size_t>::max();
  return size.ws_col;
}

bool Utf8Locale() {
  // The first that is set decides, as for setlocale.
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string_view text(value);
    for (const std::string_view form : {"UTF-8", "utf-8", "UTF8", "utf8"})
      if (text.find(form) != std::string_view::npos) return true;
    return false;
  }
  return false;
}

std::size_t DisplayWidth(std::string_view text) {
  // Continuation bytes of UTF-8 are 10xxxxxx.
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string FormatBytes(std::uint64_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  static constexpr std::array<const char*, 6> kUnits{"kB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes) / 1000;
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{} {}", ThreeDigits(value), kUnits[unit]);
}

std::string FormatSeconds(double seconds) {
  if (!(seconds > 0)) return "0 s";
  if (seconds < 999.5e-6) return ThreeDigits(seconds * 1e6) + " us";
  if (seconds < 999.5e-3) return ThreeDigits(seconds * 1e3) + " ms";
  if (seconds < 599.5) return ThreeDigits(seconds) + " s";
  const auto whole = static_cast<std::uint64_t>(std::llround(seconds));
  return fmt::format("{} min {} s", whole / 60, whole % 60);
}

std::string FormatCount(std::uint64_t count) {
  std::string text = std::to_string(count);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), 1, ' ');
  return text;
}

}  // namespace tercet::report
