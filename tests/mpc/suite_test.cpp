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

TEST(Cost, RefusesMessagesOfNobody) {
  Cost cost;
  for (const auto& [from, to] : {std::pair{3, 0}, {0, 3}, {-1, 0}, {0, -1}, {1, 1}, {1 << 30, 0}}) {
    EXPECT_THROW(cost.Add(Phase::kOnline, {{0, 1, 8}, {from, to, 8}}), InternalError)
        << from << " to " << to;
    EXPECT_THROW(cost.Add(Phase::kOffline, {{from, to, 8}}), InternalError);
  }
  EXPECT_EQ(cost.OnlineTotal() + cost.OfflineTotal(), 0u) << "what is refused is not counted";
  cost.Add(Phase::kOnline, {{2, 0, 8}, {0, 2, 4}});
  EXPECT_EQ(cost.OnlineBytes(), (std::array<std::uint64_t, 3>{4, 0, 8}));
}

TEST(Roles, AreParties) {
  for (int i = 0; i < 4; ++i) {
    std::array<int, 4> roles{2, 0, 1, 0};
    for (const int party : {-1, 3, 1 << 30}) {
      roles[static_cast<std::size_t>(i)] = party;
      try {
        CheckRoles({roles[0], roles[1], roles[2], roles[3]}, "file /roles");
        ADD_FAILURE() << party;
      } catch (const ConfigError& e) {
        EXPECT_EQ(e.Place(), "file /roles");
        EXPECT_THAT(e.what(), testing::HasSubstr(std::to_string(party)));
      }
    }
  }
  EXPECT_NO_THROW(CheckRoles({1, 1, 1, 1}, "place"));
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
