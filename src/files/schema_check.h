// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace valijson {
class Schema;
}

namespace tercet::files {

/// A path into a JSON document: the keys and indices from the root.
using Path = std::vector<std::string>;

/// A JSON Schema of draft 7, compiled once. Its functions are thread safe, and threads do not wait
/// for each other.
class Schema {
 public:
  /// `text` is JSON, part of the program.
  explicit Schema(std::string_view text);

  /// Where a document fails, the innermost value that does and the first of equally deep ones;
  /// nothing when it passes.
  std::optional<Path> FindViolation(const nlohmann::json& document) const;
  /// ConfigError ("NAME POINTER", with what was found and what was expected) unless the document
  /// passes. For schemas without conditions: objects whose `properties` have a `title` and values
  /// whose schema has a `description`, possibly behind a `$ref`.
  void Check(const nlohmann::json& document, const std::string& name) const;
  const nlohmann::json& Document() const { return document_; }

 private:
  nlohmann::json document_;
  std::shared_ptr<const valijson::Schema> compiled_;
};

}  // namespace tercet::files
