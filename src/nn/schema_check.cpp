#include "nn/schema_check.h"

#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

namespace tercet::nn {

std::optional<Path> FindViolation(const nlohmann::json& schema, const nlohmann::json& document) {
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

}  // namespace tercet::nn
