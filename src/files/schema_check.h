// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace tercet::files {

/// A path into a JSON document: the keys and indices from the root.
using Path = std::vector<std::string>;

/// Checks a document against a JSON Schema of draft 7. Returns where it fails, the innermost value
/// that does and the first of equally deep ones; nothing when it passes. Thread safe.
std::optional<Path> FindViolation(const nlohmann::json& schema, const nlohmann::json& document);

/// ConfigError ("NAME POINTER", with what was found and what was expected) unless the document
/// passes. For schemas without conditions: objects whose `properties` have a `title` and values
/// whose schema has a `description`, possibly behind a `$ref`. Thread safe.
void CheckSchema(const nlohmann::json& schema, const nlohmann::json& document,
                 const std::string& name);

}  // namespace tercet::files
