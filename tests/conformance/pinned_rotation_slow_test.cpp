// SPDX-License-Identifier: Apache-2.0
// Pinned keys where the helper's role goes round, for every choice of the other roles: which helper
// comes first only changes the order of the three groups.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conformance/harness.h"
#include "conformance/pinned_queries.h"

namespace tercet::conformance {
namespace {

constexpr auto kSign = mpc::ActivationKind::kSign;
constexpr auto kRelu = mpc::ActivationKind::kRelu;
constexpr auto kTable = mpc::ActivationKind::kTable;

// Sign by each private suite, and three layers that send other messages. Each layer more makes the
// test a sixth longer, so these are chosen by hand.
std::vector<QueryLayer> Layers() {
  std::vector<QueryLayer> layers{
      {kTable, "lut", 0, 2}, {kRelu, "fss", 0, 1}, {kRelu, "aby3", 0, 1}};
  for (const auto& suite : PrivateSuites()) layers.push_back({kSign, suite});
  return layers;
}

class EveryRoleRotated : public testing::TestWithParam<std::tuple<QueryLayer, int>> {};
INSTANTIATE_TEST_SUITE_P(Layers, EveryRoleRotated,
                         testing::Combine(testing::ValuesIn(Layers()), testing::Values(0, 1, 2)));

// One party looks at each choice, which is another one in the two that are the same but for the
// parties' numbers: so every view is looked at once.
TEST_P(EveryRoleRotated, ViewsAreUniform) {
  const auto& [layer, data_owner] = GetParam();
  for (const int model_owner : {0, 1, 2})
    for (const int receiver : {0, 1, 2}) {
      const QueryCase c{
          .layers = {layer}, .roles = {0, data_owner, model_owner, receiver}, .batch = 3};
      const int viewer = (data_owner + model_owner + receiver) % 3;
      EXPECT_THAT(Findings(SideBySideScenario(c, kRotated, viewer), viewer), testing::IsEmpty())
          << testing::PrintToString(c) << ", party " << viewer;
    }
}

}  // namespace
}  // namespace tercet::conformance
