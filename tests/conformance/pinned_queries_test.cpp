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
constexpr auto kTable = mpc::ActivationKind::kTable;

class PinnedQueries : public testing::TestWithParam<QueryCase> {};
INSTANTIATE_TEST_SUITE_P(
    Queries, PinnedQueries,
    testing::Values(
        QueryCase{.queries = 2}, QueryCase{.suite = "fss", .roles = {0, 1, 2, 2}},
        // Both evaluators multiply shares, or the model's owner alone: as evaluator 1 and 2, with
        // the images at each of the parties.
        QueryCase{.queries = 2, .linear = "replicated"},
        QueryCase{.suite = "fss", .roles = {1, 0, 2, 1}, .linear = "replicated"},
        QueryCase{.layers = {{kSign}, {kSign}}, .roles = {1, 0, 2, 0}, .linear = "clear"},
        QueryCase{.layers = {{kRelu, "", 2, 1}}, .roles = {2, 0, 0, 1}, .side = 2},
        QueryCase{.layers = {{kSign, "fss", 2}}, .roles = {0, 2, 2, 0}, .side = 2},
        QueryCase{.roles = {1, 1, 0, 2}}, QueryCase{.suite = "fss", .roles = {2, 2, 0, 0}},
        QueryCase{.suite = "aby3", .roles = {1, 2, 0, 0}},
        // Weights that all know, with each kind of layer, and one suite that takes nothing opened.
        QueryCase{.queries = 2, .linear = "public"},
        QueryCase{.suite = "fss", .roles = {1, 0, 2, 1}, .linear = "public"},
        QueryCase{.layers = {{kSign, "fss"}, {kRelu, "lut", 0, 1}, {kSign, "aby3"}},
                  .roles = {2, 0, 1, 0},
                  .linear = "public"},
        QueryCase{.layers = {{kRelu, "aby3", 0, 1}, {kSign, "fss"}, {kSign, "lut:chunks=1"}},
                  .roles = {1, 2, 1, 0},
                  .linear = "public"},
        QueryCase{
            .layers = {{kRelu, "", 2, 1}}, .roles = {2, 2, 0, 1}, .side = 2, .linear = "public"},
        QueryCase{.roles = {1, 2, 0, 2}, .linear = "public", .shortcut = true},
        QueryCase{.roles = {2, 0, 1, 0}, .ends = QueryCase::Ends::kClass, .linear = "public"},
        // Mixed, in both orders of those that deal and those that do not.
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
        // Fused with the logits' map, whose weights are secret too.
        QueryCase{.suite = "lut:fuse=yes", .roles = {1, 2, 0, 2}, .outputs = 3},
        QueryCase{.suite = "lut:form=bit,fuse=yes", .roles = {2, 1, 1, 0}, .outputs = 2},
        QueryCase{.suite = "fss:fuse=yes", .queries = 2, .outputs = 2},
        QueryCase{.suite = "fss:fuse=yes",
                  .roles = {0, mpc::kClients, 0, mpc::kClients},
                  .batch = 2,
                  .outputs = 1},
        QueryCase{.layers = {{kSign, "lut:fuse=yes", 2}}, .side = 2, .outputs = 1},
        // Of clients outside, with each server as the helper.
        QueryCase{.roles = {0, mpc::kClients, 0, mpc::kClients}, .queries = 2},
        QueryCase{.suite = "fss", .roles = {1, mpc::kClients, 0, mpc::kClients}, .batch = 2},
        QueryCase{.suite = "aby3", .roles = {2, mpc::kClients, 1, mpc::kClients}}));

TEST_P(PinnedQueries, ViewsAreUniform) {
  EXPECT_THAT(FindingsOfAll([](int receiver) { return QueryScenario(GetParam(), receiver); }),
              testing::IsEmpty());
}

// The helper's role goes round: three sessions over parts of the same links, each with its keys, in
// which each party is D, E1 and E2. All choices of the other roles are among the slow tests.
class PinnedRotation : public testing::TestWithParam<std::tuple<QueryCase, int>> {};
INSTANTIATE_TEST_SUITE_P(
    Queries, PinnedRotation,
    testing::Values(std::tuple(QueryCase{.roles = {1, 0, 2, 0}, .batch = 3}, 1),
                    std::tuple(QueryCase{.layers = {{kTable, "lut", 0, 2}}, .batch = 3}, 0),
                    std::tuple(QueryCase{.layers = {{kRelu, "fss", 0, 1}}, .batch = 3}, 2),
                    std::tuple(QueryCase{.suite = "aby3", .roles = {2, 1, 1, 0}, .batch = 3}, 0),
                    std::tuple(QueryCase{.layers = {{kRelu, "aby3", 0, 1}}, .batch = 3}, 1),
                    std::tuple(QueryCase{.batch = 3, .linear = "public"}, 2)));

TEST_P(PinnedRotation, ViewsAreUniform) {
  const auto& [query, receiver] = GetParam();
  EXPECT_THAT(Findings(SideBySideScenario(query, kRotated, receiver), receiver),
              testing::IsEmpty());
}

// Two queries under way at once, which follow the same streams under keys of their own, and a third
// one on the track of the first.
class PinnedInFlight : public testing::TestWithParam<std::tuple<QueryCase, infer::Schedule, int>> {
};
INSTANTIATE_TEST_SUITE_P(
    Queries, PinnedInFlight,
    testing::Values(std::tuple(QueryCase{.queries = 3}, infer::InTurn{}, 2),
                    std::tuple(QueryCase{.roles = {1, 0, 2, 0}, .queries = 3}, infer::Ahead{1}, 1),
                    std::tuple(QueryCase{.queries = 3}, infer::HelperLeaves{}, 0),
                    std::tuple(QueryCase{.layers = {{kRelu, "fss", 0, 1}}, .queries = 3},
                               infer::InTurn{}, 2),
                    std::tuple(QueryCase{.suite = "aby3", .roles = {2, 1, 1, 0}, .queries = 3},
                               infer::Ahead{1}, 0)));

TEST_P(PinnedInFlight, ViewsAreUniform) {
  const auto& [query, schedule, receiver] = GetParam();
  EXPECT_THAT(Findings(SideBySideScenario(query, {schedule, 2}, receiver), receiver),
              testing::IsEmpty());
}

// They open the same streams, so one key in common would be a mask used twice.
TEST(PinnedKeys, AreNeverThoseOfAnotherTrack) {
  for (const auto& [side, tracks] :
       {std::pair(kRotated, 3U), std::pair(Side{infer::InTurn{}, 4}, 4U),
        std::pair(Side{infer::Ahead{2}, 4}, 4U), std::pair(Side{infer::HelperRotates{}, 2}, 6U)}) {
    const auto keys = KeysAgreed({.batch = 3, .queries = 5}, side);
    ASSERT_EQ(keys.size(), 3 * tracks);
    for (std::size_t i = 0; i < keys.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) EXPECT_NE(keys[i], keys[j]) << i << " and " << j;
  }
}

class PinnedMutants : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Queries, PinnedMutants, testing::ValuesIn(MutantNames("lut")));

TEST_P(PinnedMutants, AreFoundInAQuery) {
  EXPECT_THAT(FindingsOfMutant(GetParam()), testing::Not(testing::IsEmpty()));
}

// Around linear layers, which send nothing: the model's and the input's sharing, that of clients a
// reshare, and the output. Any mask that is forgotten there is missed.
class PinnedLinear : public testing::TestWithParam<QueryCase> {};
INSTANTIATE_TEST_SUITE_P(
    Queries, PinnedLinear,
    testing::Values(QueryCase{.layers = {}, .roles = {0, 1, 2, 1}},
                    QueryCase{.layers = {}, .roles = {0, 2, 1, 0}},
                    QueryCase{.layers = {}, .roles = {0, 1, 2, 1}, .linear = "replicated"},
                    QueryCase{.layers = {}, .roles = {0, 2, 2, 1}, .linear = "public"},
                    QueryCase{.layers = {}, .roles = {2, 2, 0, 1}},
                    QueryCase{.layers = {}, .roles = {1, mpc::kClients, 1, mpc::kClients}}));

TEST_P(PinnedLinear, EveryForgottenMaskIsFound) {
  ExpectEveryDrawIsMissed([](int receiver) { return QueryScenario(GetParam(), receiver); }, 2);
}

}  // namespace
}  // namespace tercet::conformance
