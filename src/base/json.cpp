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

/// Goes through the text before a document is made of it: knows where it is, finds keys that come
/// twice (the parser itself would keep the last one) and enforces the limits. Every value costs the
/// same, however many its object has.
class DocumentGuard final : public nlohmann::json_sax<json> {
 public:
  DocumentGuard(const std::string& place, const JsonLimits& limits)
      : place_(place), limits_(limits) {}

  bool null() override { return BeginValue(); }
  bool boolean(bool /*value*/) override { return BeginValue(); }
  bool number_integer(number_integer_t /*value*/) override { return BeginValue(); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override {
    return BeginValue();
  }
  bool binary(binary_t& /*value*/) override { return BeginValue(); }
  bool number_unsigned(number_unsigned_t value) override {
    BeginValue();
    if (value > kLargestInteger)
      Refuse(Pointer(levels_.size()),
             fmt::format("found {}, expected at most {}", value, kLargestInteger));
    return true;
  }
  bool string(string_t& value) override {
    BeginValue();
    if (value.size() > limits_.string_length)
      Refuse(Pointer(levels_.size()), fmt::format("a string of {} bytes, expected at most {}",
                                                  value.size(), limits_.string_length));
    return true;
  }
  bool start_object(std::size_t /*elements*/) override { return Begin(false); }
  bool start_array(std::size_t /*elements*/) override { return Begin(true); }
  bool end_object() override { return End(); }
  bool end_array() override { return End(); }
  bool key(string_t& value) override {
    EnterKey(value);
    return true;
  }
  /// The parser that comes after says it.
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const json::exception& /*error*/) override {
    return false;
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

  bool BeginValue() {
    if (++values_ > limits_.values)
      Refuse("", fmt::format("holds more than {} values", limits_.values));
    if (!levels_.empty()) ++levels_.back().elements;
    return true;
  }

  bool Begin(bool is_array) {
    BeginValue();
    if (levels_.size() == limits_.depth)
      Refuse(Pointer(levels_.size()),
             fmt::format("nested more than {} levels deep", limits_.depth));
    levels_.push_back({is_array, 0, {}, {}});
    return true;
  }
  bool End() {
    levels_.pop_back();
    return true;
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
    json::sax_parse(text.begin(), text.end(), &guard);
    return json::parse(text.begin(), text.end());
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
  const std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (value.is_array() && text.size() > kLongestPrinted)
    return fmt::format("an array of {} elements", value.size());
  return Printable(text);
}

}  // namespace tercet
