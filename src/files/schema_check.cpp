// SPDX-License-Identifier: Apache-2.0
#include "files/schema_check.h"

#include <fmt/ranges.h>

#include <limits>
#include <locale>
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

// Patterns are std::regex, and libstdc++'s fills a cache of the locale unguarded when it compiles
// one. Once that is full, threads only read it.
void FillLocale() {
  [[maybe_unused]] static const bool full = [] {
    const auto& facet = std::use_facet<std::ctype<char>>(std::locale());
    for (int c = 0; c <= std::numeric_limits<unsigned char>::max(); ++c) {
      facet.narrow(static_cast<char>(c), ' ');
      facet.narrow(static_cast<char>(c), '\0');
      facet.widen(static_cast<char>(c));
    }
    return true;
  }();
}

}  // namespace

Schema::Schema(std::string_view text) : document_(json::parse(text)) {
  FillLocale();
  auto compiled = std::make_shared<valijson::Schema>();
  const valijson::adapters::NlohmannJsonAdapter adapter(document_);
  valijson::SchemaParser(valijson::SchemaParser::kDraft7).populateSchema(adapter, *compiled);
  compiled_ = std::move(compiled);
}

std::optional<Path> Schema::FindViolation(const json& document) const {
  thread_local valijson::Validator validator;  // keeps the patterns that it has compiled
  const valijson::adapters::NlohmannJsonAdapter target(document);
  valijson::ValidationResults results;
  if (validator.validate(*compiled_, target, &results)) return std::nullopt;

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

void Schema::Check(const json& document, const std::string& name) const {
  const std::optional<Path> path = FindViolation(document);
  if (!path) return;
  std::string pointer;
  for (const std::string& step : *path) pointer += PointerStep(step);
  throw ConfigError(pointer.empty() ? name : name + " " + pointer,
                    Problem(document_, document, *path));
}

}  // namespace tercet::files
