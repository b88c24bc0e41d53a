// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tercet/base/file_reader.h"

/// How the project reads JSON that it has not just written itself. All functions are thread safe.
namespace tercet {

/// Bounds that keep a hostile JSON text from exhausting memory or stack.
struct JsonLimits {
  std::size_t depth = 16;             ///< nested objects and arrays
  std::size_t values = 200'000;       ///< all values together
  std::size_t string_length = 1'024;  ///< bytes of each key and string
  /// For texts that are results or hold whole documents: as much as `bytes` can hold.
  static JsonLimits UpTo(std::size_t bytes) { return {.values = bytes, .string_length = bytes}; }
};

/// Parses JSON: one value in UTF-8 with nothing but blanks around it. ConfigError (place: `place`,
/// followed by the JSON pointer where there is one) for a syntax error (line and column), a key
/// that comes twice in an object, an integer outside 64 signed bits, a number that is none of
/// double precision, or anything over `limits`.
nlohmann::json ReadJson(std::string_view text, const std::string& place, const JsonLimits& limits);
/// The same from a file, as FileReader says.
nlohmann::json ReadJsonFile(const std::filesystem::path& file, const FileKind& kind,
                            const JsonLimits& limits);

/// Takes a key's value where an object that a schema has checked has the key; `value` stays else.
template <class T>
void ReadIfPresent(const nlohmann::json& object, const char* key, T& value) {
  if (const auto found = object.find(key); found != object.end()) found->get_to(value);
}

/// `text` for use in a message: at most 100 characters, anything but printable ASCII as '?'.
std::string Printable(std::string_view text);

/// One step of a JSON pointer, "/key", with ~ and / escaped.
std::string PointerStep(std::string_view key);

/// A JSON value for use in a message; of a long array its length.
std::string ValueText(const nlohmann::json& value);

}  // namespace tercet
