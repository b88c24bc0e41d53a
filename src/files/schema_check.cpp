// SPDX-License-Identifier: Apache-2.0
#include "files/schema_check.h"

#include <fmt/ranges.h>

#include <mutex>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "base/json.h"
#include "tercet/base/error.h"

namespace tercet::files {
namespace {

using nlohmann::json;

const json& Follow(const json& schema, const json* node) {
  while (node->contains("$ref"))
    node = &schema.at(json::json_pointer(node->at("$ref").get<std::string>().substr(1)));
  return *node;
}

// In words, what is wrong with the value at `path`.
std::string Problem(const json& schema, const json& document, const Path& path) {
  const json* node = &schema;
  const json* value = &document;
  for (const std::string& step : path) {
    const json& plain = Follow(schema, node);
    node = value->is_array() ? &plain.at("items") : &plain.at("properties").at(step);
    value = value->is_array() ? &value->at(std::stoul(step)) : &value->at(step);
  }
  const json& plain = Follow(schema, node);
  if (value->is_object() && plain.contains("properties")) {
    std::vector<std::string> allowed;
    for (const auto& [key, unused] : plain.at("properties").items()) allowed.push_back(key);
    for (const auto& [key, unused] : value->items())
      if (!plain.at("properties").contains(key))
        return fmt::format("unknown key '{}'; allowed keys of {}: {}", Printable(key),
                           plain.at("title").get<std::string>(), fmt::join(allowed, ", "));
    for (const json& key : plain.value("required", json::array()))
      if (!value->contains(key.get<std::string>()))
        return fmt::format("missing key '{}' of {}", key.get<std::string>(),
                           plain.at("title").get<std::string>());
  }
  return fmt::format("found {}, expected {}", ValueText(*value),
                     plain.at("description").get<std::string>());
}

}  // namespace

std::optional<Path> FindViolation(const nlohmann::json& schema, const nlohmann::json& document) {
  // Patterns are checked with std::regex, and libstdc++'s fills a cache of the locale unguarded.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  valijson::Schema parsed;
  const valijson::adapters::NlohmannJsonAdapter schema_adapter(schema);
  valijson::SchemaParser(valijson::SchemaParser::kDraft7).populateSchema(schema_adapter, parsed);

  const valijson::adapters::NlohmannJsonAdapter target(document);
  valijson::ValidationResults results;
  if (valijson::Validator().validate(parsed, target, &results)) return std::nullopt;

  // An error inside an element comes with one for each value around it; the deepest says most.
  valijson::ValidationResults::Error error;
  std::vector<std::string> deepest;
  while (results.popError(error))
    if (error.context.size() > deepest.size()) deepest = error.context;
  Path path;  // "<root>", "[layers]", "[3]" -> "layers", "3"
  for (std::size_t i = 1; i < deepest.size(); ++i)
    path.push_back(deepest[i].substr(1, deepest[i].size() - 2));
  return path;
}

void CheckSchema(const json& schema, const json& document, const std::string& name) {
  const std::optional<Path> path = FindViolation(schema, document);
  if (!path) return;
  std::string pointer;
  for (const std::string& step : *path) pointer += PointerStep(step);
  throw ConfigError(pointer.empty() ? name : name + " " + pointer,
                    Problem(schema, document, *path));
}

}  // namespace tercet::files
