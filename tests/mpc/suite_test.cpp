#include "tercet/mpc/suite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tercet::mpc {
namespace {

TEST(SuiteChoice, ParsesNameAndOptions) {
  const auto choice = ParseSuiteChoice("lut:form=bit,chunks=3", "--suite");
  EXPECT_EQ(choice.name, "lut");
  EXPECT_EQ(choice.options.at("chunks"), "3");
  EXPECT_EQ(choice.Text(), "lut:chunks=3,form=bit");
  EXPECT_EQ(ParseSuiteChoice("cbnn", "--suite").Text(), "cbnn");
}

TEST(SuiteChoice, RefusesBadSyntaxNamingThePlace) {
  for (const char* text : {"", ":chunks=3", "lut:", "lut:chunks", "lut:chunks=", "lut:=3",
                           "lut:a=1,,b=2", "lut:a=1,a=2"})
    try {
      ParseSuiteChoice(text, "--suite");
      ADD_FAILURE() << text << " was accepted";
    } catch (const ConfigError& e) {
      EXPECT_EQ(e.Place(), "--suite") << text;
    }
}

TEST(Registry, UnknownSuiteListsTheKnownOnes) {
  Registry registry;
  try {
    registry.FindSuite("nosuch");
    FAIL();
  } catch (const UnsupportedError& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("no suite \"nosuch\""));
  }
}

}  // namespace
}  // namespace tercet::mpc
