// SPDX-License-Identifier: Apache-2.0
#include "tercet/report/table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
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

std::string Table::Render(bool utf8) const {
  const Borders borders = utf8 ? Borders{"─", " │ ", "─┼─"} : Borders{"-", " | ", "-+-"};
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    widths.push_back(DisplayWidth(columns_[c].title));
    for (const auto& row : rows_)
      if (!row.empty()) widths[c] = std::max(widths[c], DisplayWidth(row[c]));
  }
  std::string text;
  auto add_row = [&](auto cell) {
    std::string line;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      const std::string& content = cell(c);
      const std::string fill(widths[c] - DisplayWidth(content), ' ');
      if (c > 0) line += borders.gap;
      line += columns_[c].align == Align::kLeft ? content + fill : fill + content;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  };
  auto add_rule = [&] {
    for (std::size_t c = 0; c < columns_.size(); ++c) {
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
