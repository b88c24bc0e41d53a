// SPDX-License-Identifier: Apache-2.0
// Pinned keys over whole queries: sharing of the model, input, layers of several suites, output.
#include "conformance/pinned_queries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conformance/mutants.h"

namespace tercet::conformance {
namespace {

constexpr auto kSign = mpc::ActivationKind::kSign;
constexpr auto kRelu = mpc::ActivationKind::kRelu;
constexpr auto kSquare = mpc::ActivationKind::kSquare;

std::vector<std::string> FindingsOfAll(const std::function<Scenario(int receiver)>& scenario) {
  std::vector<std::string> findings;
  for (const int receiver : {0, 1, 2})
    for (auto& finding : Findings(scenario(receiver), receiver))
      findings.push_back(fmt::format("party {}: {}", receiver, std::move(finding)));
  return findings;
}

class PinnedQueries : public testing::TestWithParam<QueryCase> {};
INSTANTIATE_TEST_SUITE_P(
    Queries, PinnedQueries,
    testing::Values(
        QueryCase{.queries = 2}, QueryCase{.suite = "fss", .roles = {0, 1, 2, 2}},
        QueryCase{.suite = "aby3", .roles = {1, 2, 0, 0}},
        // Mixed, in both orders of those with a dealer and without.
        QueryCase{.layers = {{kSign, "fss"}, {kRelu, "lut", 0, 1}, {kSign, "aby3"}},
                  .roles = {2, 0, 1, 0}},
        QueryCase{.layers = {{kRelu, "aby3", 0, 1}, {kSign, "fss"}, {kSign, "lut:chunks=1"}},
                  .roles = {1, 2, 0, 2}},
        QueryCase{.layers = {{kSign, "lut", 2}}, .roles = {0, 2, 1, 1}, .side = 2},
        QueryCase{.layers = {{kSign, "fss", 3}}, .side = 3},
        QueryCase{.layers = {{kRelu, "lut:chunks=2", 0, 2}, {kSquare, "lut:form=bit", 0, 2}}},
        QueryCase{.roles = {1, 2, 0, 2}, .shortcut = true},
        QueryCase{.layers = {}, .roles = {0, 0, 1, 0}},
        QueryCase{.roles = {2, 0, 1, 0}, .ends = QueryCase::Ends::kClass},
        // Of clients outside, with each server as the helper.
        QueryCase{.roles = {0, mpc::kClients, 0, mpc::kClients}, .queries = 2},
        QueryCase{.suite = "fss", .roles = {1, mpc::kClients, 0, mpc::kClients}, .batch = 2},
        QueryCase{.suite = "aby3", .roles = {2, mpc::kClients, 1, mpc::kClients}}));

TEST_P(PinnedQueries, ViewsAreUniform) {
  EXPECT_THAT(FindingsOfAll([](int receiver) { return QueryScenario(GetParam(), receiver); }),
              testing::IsEmpty());
}

// The dealer's role goes round: three sessions over parts of the same links, each with its keys.
TEST(PinnedRotation, ViewsAreUniform) {
  const QueryCase c{.roles = {1, 0, 2, 0}, .batch = 3};  // each party is D, E1 and E2
  EXPECT_THAT(Findings(RotatedScenario(c, 1), 1), testing::IsEmpty());
}

// They open the same streams, so one key in common would be a mask used twice.
TEST(PinnedRotation, GroupsAgreeKeysOfTheirOwn) {
  const auto keys = FirstMessagesOfRotation({.batch = 3});
  ASSERT_EQ(keys.size(), 9u);
  for (std::size_t i = 0; i < keys.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(keys[i], keys[j]) << i << " and " << j;
}

class PinnedMutants : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Queries, PinnedMutants, testing::ValuesIn(MutantNames()));

TEST_P(PinnedMutants, AreFoundInAQuery) {
  // One has a wrong mask of tables alone.
  const bool table = GetParam() == "bare_index";
  const QueryLayer mutant{.kind = table ? mpc::ActivationKind::kTable : kSign,
                          .suite = GetParam() + ":chunks=2",
                          .shift = table ? 2U : 0U};
  const QueryCase c{.layers = {{kSign, "aby3"}, mutant}};
  EXPECT_THAT(FindingsOfAll([&](int receiver) { return QueryScenario(c, receiver); }),
              testing::Not(testing::IsEmpty()));
}

}  // namespace
}  // namespace tercet::conformance
