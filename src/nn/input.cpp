#include "nn/input.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <set>
#include <system_error>

#include "tercet/base/error.h"

namespace tercet::nn {
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

std::vector<std::uint8_t> ReadFile(const std::filesystem::path& file, std::uintmax_t max_bytes) {
  const std::string place = file.string();
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) {
    if (!error) error = std::make_error_code(std::errc::no_such_file_or_directory);
    throw ConfigError(place, fmt::format("cannot be read: {}", error.message()));
  }
  if (!std::filesystem::is_regular_file(status))
    throw ConfigError(place, "is no regular file, expected one");
  const std::uintmax_t size = std::filesystem::file_size(file, error);
  if (error) throw ConfigError(place, fmt::format("cannot be read: {}", error.message()));
  if (size > max_bytes)
    throw ConfigError(place, fmt::format("is {} bytes long, expected at most {}", size, max_bytes));

  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw ConfigError(place, "cannot be opened for reading");
  std::vector<std::uint8_t> bytes(size);
  stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (static_cast<std::uintmax_t>(stream.gcount()) != size) {
    throw ConfigError(place,
                      fmt::format("reading stopped after {} of {} bytes", stream.gcount(), size));
  }
  return bytes;
}

std::string Printable(std::string_view text) {
  std::string result(text.substr(0, kLongestPrinted));
  std::replace_if(
      result.begin(), result.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  if (text.size() > kLongestPrinted) result += "...";
  return result;
}

std::string ShapeText(const mpc::Shape3& shape) {
  return fmt::format("{} x {} x {}", shape.channels, shape.height, shape.width);
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
  DocumentGuard guard(place, limits);
  try {
    return json::parse(
        text.begin(), text.end(),
        [&guard](int, json::parse_event_t event, json& parsed) { return guard(event, parsed); });
  } catch (const json::parse_error& error) {
    // The position counts bytes read, so it is one past the byte in question.
    const std::size_t position = std::min(error.byte > 0 ? error.byte - 1 : 0, text.size());
    const std::string_view before = text.substr(0, position);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const auto line_begin = before.rfind('\n');
    const std::size_t column =
        1 + (line_begin == std::string_view::npos ? position : position - line_begin - 1);
    throw ConfigError(place, fmt::format("no valid JSON at line {}, column {}: {}", line, column,
                                         SyntaxProblem(error)));
  } catch (const json::exception& error) {
    throw ConfigError(place, fmt::format("no valid JSON: {}", SyntaxProblem(error)));
  }
}

std::string ValueText(const json& value) {
  return Printable(value.dump(-1, ' ', true, json::error_handler_t::replace));
}

}  // namespace tercet::nn
