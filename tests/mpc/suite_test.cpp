// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/registry.h"

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

ActivationSpec Spec(unsigned value_bits, unsigned ring_bits) {
  return {.layer = "act1",
          .in = {2, 3, 3},
          .value_bits = value_bits,
          .ring_bits = ring_bits,
          .out_bits = 9};
}

// Whoever plans a layer gets all options, those that were not chosen at their defaults.
TEST(Suite, ParsesOptions) {
  OptionValues got;
  const Suite suite(
      {.name = "some",
       .options = {{"size", {"auto", "1", "2"}, "of it"}, {"form", {"a", "b"}, "too"}},
       .variants = {{"", {}}, {"form=b", {}}}},
      [&](const ActivationSpec&, const OptionValues& options, const Roles&) {
        got = options;
        return ActivationPlan{};
      });
  suite.Plan(Spec(8, 8), ParseSuiteChoice("some:form=b", "test"), {});
  EXPECT_EQ(got, (OptionValues{{"size", "auto"}, {"form", "b"}}));
  EXPECT_EQ(suite.Choice(suite.Info().variants[0]).Text(), "some");
  EXPECT_EQ(suite.Choice(suite.Info().variants[1]).Text(), "some:form=b");
  const auto error = [&](const char* choice) -> std::string {
    try {
      suite.Options(ParseSuiteChoice(choice, "test"));
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_THAT(error("some:size=3"), testing::HasSubstr("size=3 found, one of auto, 1, 2 expected"));
  EXPECT_THAT(error("some:shape=a"), testing::HasSubstr("shape=a found; options are size, form"));
}

TEST(Suite, RingsHaveRoomAndAWidthOfTheList) {
  const auto plan = [](const auto&, const auto&, const auto&) { return ActivationPlan{}; };
  const Suite any({.name = "any"}, plan);
  EXPECT_EQ(any.RingBits(Spec(64, 0)), 64u);
  const Suite roomy({.name = "roomy", .spare_bits = 3}, plan);
  EXPECT_EQ(roomy.RingBits(Spec(61, 0)), 64u);
  EXPECT_THROW(roomy.RingBits(Spec(62, 0)), UnsupportedError);
  const Suite words({.name = "words", .spare_bits = 1, .rings = {8, 32}}, plan);
  EXPECT_EQ(words.RingBits(Spec(7, 0)), 8u);
  EXPECT_EQ(words.RingBits(Spec(8, 0)), 32u);
  EXPECT_THROW(words.RingBits(Spec(32, 0)), UnsupportedError);
  EXPECT_NO_THROW(words.Plan(Spec(8, 9), {}, {}));
  EXPECT_THROW(words.Plan(Spec(8, 8), {}, {}), UnsupportedError);
}

TEST(Suite, AnExactOneStatesNoTolerance) {
  const auto plan = [](const auto&, const auto&, const auto&) {
    return ActivationPlan{.tolerance = 2};
  };
  EXPECT_THROW(Suite({.name = "exact"}, plan).Plan(Spec(8, 8), {}, {}), InternalError);
  EXPECT_EQ(Suite({.name = "near", .exact = false}, plan).Plan(Spec(8, 8), {}, {}).tolerance, 2u);
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
