#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tercet/mpc/spec.h"

/// What the readers of this floor share. All functions are thread safe.
namespace tercet::nn {

/// The bytes of a regular file. ConfigError (place: the file) when it is missing, no regular file,
/// cannot be read or is longer than `max_bytes`.
std::vector<std::uint8_t> ReadFile(const std::filesystem::path& file, std::uintmax_t max_bytes);

/// `text` for use in a message: at most 100 characters, anything but printable ASCII as '?'.
std::string Printable(std::string_view text);

/// "1 x 28 x 28".
std::string ShapeText(const mpc::Shape3& shape);

/// One step of a JSON pointer, "/key", with ~ and / escaped.
std::string PointerStep(std::string_view key);

/// Bounds that keep a hostile JSON text from exhausting memory or stack.
struct JsonLimits {
  std::size_t depth = 16;             ///< nested objects and arrays
  std::size_t values = 200'000;       ///< all values together
  std::size_t string_length = 1'024;  ///< bytes of each key and string
};

/// Parses JSON. ConfigError (place: `place`, followed by the JSON pointer where there is one) for a
/// syntax error (line and column), a key that comes twice in an object, an integer outside 64
/// signed bits, or anything over `limits`.
nlohmann::json ReadJson(std::string_view text, const std::string& place, const JsonLimits& limits);

/// A JSON value for use in a message.
std::string ValueText(const nlohmann::json& value);

}  // namespace tercet::nn
