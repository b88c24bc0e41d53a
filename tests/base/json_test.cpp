// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/scratch.h"

namespace tercet {
namespace {

using std::string_literals::operator""s;

TEST(Json, RefusesWhatFollowsANulByte) {
  for (const std::string& text :
       {"{}\0"s, "{}\0rubbish"s, "{\"a\": 1}\n\0\0"s, "\0{}"s, "[1,\0 2]"s, "[\"a\0b\"]"s}) {
    SCOPED_TRACE(Printable(text));
    ExpectConfigError([&] { ReadJson(text, "a.json", {}); }, "a.json", "found a NUL byte");
  }
  ExpectConfigError([] { ReadJson("{\n}\n \0x"s, "a.json", {}); }, "a.json",
                    "no valid JSON at line 3, column 2: found a NUL byte");
  EXPECT_EQ(ReadJson("{\"a\": \"\\u0000\"}", "a.json", {}).at("a"), "\0"s);
}

TEST(Json, RefusesOtherRubbishAndWhatIsTooMuch) {
  ExpectConfigError([] { ReadJson("{} {}", "a", {}); }, "a", "line 1, column 4");
  ExpectConfigError([] { ReadJson("", "a", {}); }, "a", "line 1, column 1");
  ExpectConfigError([] { ReadJson("[\"\xc3\x28\"]", "a", {}); }, "a", "ill-formed UTF-8");
  ExpectConfigError([] { ReadJson("[-1e999]", "a", {}); }, "a", "number overflow");
  ExpectConfigError([] { ReadJson(R"({"a": {"b": 1, "b": 2}})", "a", {}); }, "a /a",
                    "the key 'b' comes twice");
  const std::string deep(100'000, '[');
  ExpectConfigError([&] { ReadJson(deep, "a", {.depth = 3}); }, "a /0/0/0",
                    "nested more than 3 levels deep");
  ExpectConfigError(
      [&] { ReadJson(deep + std::string(100'000, ']'), "a", JsonLimits::UpTo(200'000)); },
      "a /0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0", "nested more than 16 levels deep");
}

// What one key costs does not grow with the keys before it, else this would take an hour.
TEST(Json, ReadsObjectsOfManyKeys) {
  std::string text = "{";
  for (int i = 0; i < 400'000; ++i) text += fmt::format("{}\"{}\":{}", i > 0 ? "," : "", i, i);
  const auto document = ReadJson(text + "}", "a", JsonLimits::UpTo(text.size()));
  EXPECT_EQ(document.size(), 400'000U);
  EXPECT_EQ(document.at("399999"), 399'999);
}

TEST(Json, ReadsFiles) {
  const ScratchDirectory scratch;
  const auto file = scratch.Write("a.json", std::string("{\"a\": [1, 2]}"));
  EXPECT_EQ(ReadJsonFile(file, {"a test's JSON", 100}, {}).at("a").size(), 2U);
  ExpectConfigError(
      [&] {
        ReadJsonFile(file, {"a test's JSON", 10}, {});
      },
      file, "is 13 bytes long, expected at most 10 of a test's JSON");
}

}  // namespace
}  // namespace tercet
