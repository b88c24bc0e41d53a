// SPDX-License-Identifier: Apache-2.0
// Pinned keys, what takes longer: every choice of roles, every helper, and whether a mask that is
// forgotten is seen, whichever it is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conformance/pinned_layers.h"
#include "conformance/pinned_queries.h"

namespace tercet::conformance {
namespace {

constexpr auto kSign = mpc::ActivationKind::kSign;
constexpr auto kRelu = mpc::ActivationKind::kRelu;

using testing::IsEmpty;
using testing::Not;

class EveryRole : public testing::TestWithParam<std::tuple<std::string, int>> {};
INSTANTIATE_TEST_SUITE_P(Suites, EveryRole,
                         testing::Combine(testing::Values("lut", "fss", "aby3"),
                                          testing::Values(0, 1, 2)));

TEST_P(EveryRole, ViewsAreUniform) {
  const auto& [suite, helper] = GetParam();
  for (const int data_owner : {0, 1, 2})
    for (const int model_owner : {0, 1, 2})
      for (const int receiver : {0, 1, 2}) {
        const QueryCase c{.suite = suite, .roles = {helper, data_owner, model_owner, receiver}};
        for (const int viewer : {0, 1, 2})
          EXPECT_THAT(Findings(QueryScenario(c, viewer), viewer), IsEmpty())
              << testing::PrintToString(c) << ", party " << viewer;
      }
}

class EveryHelper : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(Layers, EveryHelper, testing::ValuesIn(LayerCases()));

TEST_P(EveryHelper, ViewsAreUniform) {
  const int usual = UsualHelper(GetParam());
  for (const int helper : {(usual + 1) % 3, (usual + 2) % 3})
    EXPECT_THAT(LayerFindings(GetParam(), helper), IsEmpty()) << "helper " << helper;
}

TEST(EveryParty, SeesUniformMessagesWhenTheHelperRotates) {
  const QueryCase c{.suite = "fss", .roles = {1, 0, 2, 0}, .batch = 3};
  for (const int receiver : {0, 2})
    EXPECT_THAT(Findings(RotatedScenario(c, receiver), receiver), IsEmpty()) << receiver;
}

/// Leaves out each draw from the key that a party lacks, one after the other, if it changes
/// anything that the party sees.
void ExpectEveryDrawIsMissed(const std::function<Scenario(int receiver)>& make) {
  std::size_t draws = 0;
  for (const int receiver : {0, 1, 2}) {
    const Scenario scenario = make(receiver);
    PinnedSession session(receiver, 0);
    scenario.run(session, 0);
    const auto view = session.View();
    for (const auto& [draw, size] : session.Draws()) {
      const std::string what =
          fmt::format("party {}, {} from block {}", receiver, std::get<1>(draw), std::get<2>(draw));
      const Varied varied{{draw, {}}};
      PinnedSession other(receiver, 0, 1, &varied);
      scenario.run(other, 0);
      if (view == other.View()) continue;
      EXPECT_THAT(Findings(scenario, receiver, &draw), Not(IsEmpty())) << what;
      ++draws;
    }
  }
  EXPECT_GT(draws, 3u);
}

class ForgottenMasks : public testing::TestWithParam<QueryCase> {};
INSTANTIATE_TEST_SUITE_P(Queries, ForgottenMasks,
                         testing::Values(QueryCase{.suite = "lut:chunks=2", .roles = {1, 2, 0, 2}},
                                         QueryCase{.suite = "lut:chunks=2,form=bit",
                                                   .layers = {{kRelu, "", 0, 2}}},
                                         QueryCase{.suite = "fss", .roles = {2, 1, 0, 0}},
                                         QueryCase{.suite = "fss", .layers = {{kRelu, "", 0, 2}}},
                                         QueryCase{.layers = {{kSign, "aby3"}, {kSign, "lut"}}},
                                         QueryCase{.suite = "aby3", .layers = {{kRelu, "", 0, 1}}},
                                         QueryCase{.layers = {{kSign, "lut", 2}}, .side = 2}));

TEST_P(ForgottenMasks, AreSeenWhicheverItIs) {
  ExpectEveryDrawIsMissed([](int receiver) { return QueryScenario(GetParam(), receiver); });
}

}  // namespace
}  // namespace tercet::conformance
