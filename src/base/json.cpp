// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <algorithm>
#include <limits>
#include <set>

#include "tercet/base/error.h"

namespace tercet {
namespace {

using nlohmann::json;

/// Later readers go through signed 64-bit integers, where anything above would wrap.
constexpr std::uint64_t kLargestInteger = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t kLongestPrinted = 100;

/// Follows the parser through the document: knows where it is, finds keys that come twice (the
/// parser itself would keep the last one) and enforces the limits.
class DocumentGuard {
 public:
  DocumentGuard(const std::string& place, const JsonLimits& limits)
      : place_(place), limits_(limits) {}

  bool operator()(json::parse_event_t event, const json& parsed) {
    switch (event) {
      case json::parse_event_t::key:
        EnterKey(parsed.get_ref<const std::string&>());
        break;
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        BeginValue();
        if (levels_.size() == limits_.depth)
          Refuse(Pointer(levels_.size()),
                 fmt::format("nested more than {} levels deep", limits_.depth));
        levels_.push_back({event == json::parse_event_t::array_start, 0, {}, {}});
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        levels_.pop_back();
        break;
      case json::parse_event_t::value:
        BeginValue();
        CheckValue(parsed);
        break;
    }
    return true;
  }

 private:
  struct Level {
    bool is_array;
    std::size_t elements;  // begun so far
    std::string key;       // the last one
    std::set<std::string> keys;
  };

  [[noreturn]] void Refuse(const std::string& pointer, const std::string& problem) const {
    throw ConfigError(pointer.empty() ? place_ : place_ + " " + pointer, problem);
  }

  std::string Pointer(std::size_t levels) const {
    std::string pointer;
    for (std::size_t i = 0; i < levels; ++i) {
      pointer += levels_[i].is_array ? PointerStep(std::to_string(levels_[i].elements - 1))
                                     : PointerStep(levels_[i].key);
    }
    return pointer;
  }

  void EnterKey(const std::string& key) {
    const std::string object = Pointer(levels_.size() - 1);
    if (key.size() > limits_.string_length) {
      Refuse(object, fmt::format("a key of {} bytes, expected at most {}", key.size(),
                                 limits_.string_length));
    }
    if (!levels_.back().keys.insert(key).second)
      Refuse(object, fmt::format("the key '{}' comes twice", Printable(key)));
    levels_.back().key = key;
  }

  void BeginValue() {
    if (++values_ > limits_.values)
      Refuse("", fmt::format("holds more than {} values", limits_.values));
    if (!levels_.empty()) ++levels_.back().elements;
  }

  void CheckValue(const json& value) const {
    if (value.is_string()) {
      const std::size_t length = value.get_ref<const std::string&>().size();
      if (length > limits_.string_length) {
        Refuse(Pointer(levels_.size()), fmt::format("a string of {} bytes, expected at most {}",
                                                    length, limits_.string_length));
      }
    }
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > kLargestInteger) {
      Refuse(Pointer(levels_.size()), fmt::format("found {}, expected at most {}",
                                                  value.get<std::uint64_t>(), kLargestInteger));
    }
  }

  const std::string& place_;
  const JsonLimits& limits_;
  std::vector<Level> levels_;
  std::size_t values_ = 0;
};

/// The parser's message without its identifier and position.
std::string SyntaxProblem(const json::exception& error) {
  const std::string_view text = error.what();
  const auto id_end = text.find("] ");
  std::string_view problem = id_end == std::string_view::npos ? text : text.substr(id_end + 2);
  if (problem.starts_with("parse error at")) {
    if (const auto position_end = problem.find(": "); position_end != std::string_view::npos)
      problem.remove_prefix(position_end + 2);
  }
  return Printable(problem);
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string result(text.substr(0, kLongestPrinted));
  std::replace_if(
      result.begin(), result.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  if (text.size() > kLongestPrinted) result += "...";
  return result;
}

std::string PointerStep(std::string_view key) {
  std::string step = "/";
  for (const char c : Printable(key)) {
    if (c == '~') {
      step += "~0";
    } else if (c == '/') {
      step += "~1";
    } else {
      step += c;
    }
  }
  return step;
}

json ReadJson(std::string_view text, const std::string& place, const JsonLimits& limits) {
  const auto refuse = [&](std::size_t position, const std::string& problem) {
    const std::string_view before = text.substr(0, position);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const auto line_begin = before.rfind('\n');
    const std::size_t column =
        1 + (line_begin == std::string_view::npos ? position : position - line_begin - 1);
    throw ConfigError(
        place, fmt::format("no valid JSON at line {}, column {}: {}", line, column, problem));
  };
  // The parser takes it for the text's end and leaves what follows unread.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    refuse(nul, "found a NUL byte, which JSON has nowhere");
  DocumentGuard guard(place, limits);
  try {
    return json::parse(
        text.begin(), text.end(),
        [&guard](int, json::parse_event_t event, json& parsed) { return guard(event, parsed); });
  } catch (const json::parse_error& error) {
    // The position counts bytes read, so it is one past the byte in question.
    refuse(std::min(error.byte > 0 ? error.byte - 1 : 0, text.size()), SyntaxProblem(error));
    throw;
  } catch (const json::exception& error) {
    throw ConfigError(place, fmt::format("no valid JSON: {}", SyntaxProblem(error)));
  }
}

json ReadJsonFile(const std::filesystem::path& file, const FileKind& kind,
                  const JsonLimits& limits) {
  return ReadJson(ReadTextFile(file, kind), file.string(), limits);
}

std::string ValueText(const json& value) {
  return Printable(value.dump(-1, ' ', true, json::error_handler_t::replace));
}

}  // namespace tercet
