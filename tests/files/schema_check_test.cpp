// SPDX-License-Identifier: Apache-2.0
#include "files/schema_check.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/scratch.h"

namespace tercet::files {
namespace {

constexpr char kSchema[] = R"({
  "title": "the thing", "type": "object", "description": "an object", "required": ["id", "parts"],
  "properties": {
    "id": {"type": "string", "pattern": "^[0-9a-f]{4}$", "description": "4 small hex digits"},
    "parts": {"type": "array", "description": "an array of numbers",
              "items": {"type": "integer", "minimum": 1, "description": "a number from 1 on"}}
  },
  "additionalProperties": false})";

void ExpectRefused(const Schema& schema, const char* document, const std::string& place,
                   const std::string& text) {
  ExpectConfigError([&] { schema.Check(nlohmann::json::parse(document), "f"); }, place, text);
}

TEST(SchemaCheck, SaysWhereAndWhatIsWrong) {
  const Schema schema(kSchema);
  schema.Check(nlohmann::json::parse(R"({"id": "0a1f", "parts": [1, 2]})"), "f");
  ExpectRefused(schema, R"({"id": "0a1", "parts": []})", "f /id", "expected 4 small hex digits");
  ExpectRefused(schema, R"({"id": "0a1f", "parts": [1, 0]})", "f /parts/1", "a number from 1 on");
  ExpectRefused(schema, R"({"id": "0a1f"})", "f", "missing key 'parts' of the thing");
  ExpectRefused(schema, R"({"id": "0a1f", "parts": [], "x": 1})", "f", "unknown key 'x'");
}

TEST(SchemaCheck, ThreadsShareASchema) {
  const Schema schema(kSchema);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&schema] {
      const auto good = nlohmann::json::parse(R"({"id": "0a1f", "parts": [1, 2]})");
      const auto bad = nlohmann::json::parse(R"({"id": "0g1f", "parts": [1, 2]})");
      for (int i = 0; i < 100; ++i) {
        EXPECT_EQ(schema.FindViolation(good), std::nullopt);
        EXPECT_EQ(schema.FindViolation(bad), (Path{"id"}));
      }
    });
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace tercet::files
