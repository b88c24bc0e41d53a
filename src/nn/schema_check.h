#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace tercet::nn {

/// A path into a JSON document: the keys and indices from the root.
using Path = std::vector<std::string>;

/// Checks a document against a JSON Schema of draft 7. Returns where it fails, the innermost value
/// that does and the first of equally deep ones; nothing when it passes. Thread safe.
std::optional<Path> FindViolation(const nlohmann::json& schema, const nlohmann::json& document);

}  // namespace tercet::nn
