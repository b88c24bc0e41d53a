// SPDX-License-Identifier: Apache-2.0
// Pinned keys, what takes longer: every choice of roles, every helper, and whether a mask that is
// forgotten is seen, whichever it is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conformance/mutants.h"
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
                         testing::Combine(testing::ValuesIn(PrivateSuites()),
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

class Leaks : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(Layers, Leaks, testing::ValuesIn(LeakCases()));

TEST_P(Leaks, AreFoundWhoeverHelps) {
  const int usual = UsualHelper(GetParam());
  for (const int helper : {(usual + 1) % 3, (usual + 2) % 3})
    EXPECT_THAT(LayerFindings(GetParam(), helper), Not(IsEmpty())) << "helper " << helper;
}

// Of all private suites but lut, whose mutants pinned_queries_test has every day.
std::vector<std::string> OtherMutants() {
  std::vector<std::string> names;
  for (const auto& suite : PrivateSuites())
    if (suite != "lut")
      for (auto& name : MutantNames(suite)) names.push_back(std::move(name));
  return names;
}

class PinnedMutants : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Queries, PinnedMutants, testing::ValuesIn(OtherMutants()));

TEST_P(PinnedMutants, AreFoundInAQuery) {
  EXPECT_THAT(FindingsOfMutant(GetParam()), Not(IsEmpty()));
}

// Forms by name: each has steps of its own, and every draw of a query is another run of it.
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
  ExpectEveryDrawIsMissed([](int receiver) { return QueryScenario(GetParam(), receiver); }, 4);
}

}  // namespace
}  // namespace tercet::conformance
