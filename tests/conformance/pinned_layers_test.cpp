// SPDX-License-Identifier: Apache-2.0
// Pinned keys: what a party receives in one activation layer is uniform over the key that it lacks.
#include "conformance/pinned_layers.h"

#include <gmock/gmock.h>

#include "conformance/mutants.h"

namespace tercet::conformance {
namespace {

constexpr auto kRelu = ActivationKind::kRelu;

class PinnedLayers : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(Suites, PinnedLayers, testing::ValuesIn(LayerCases()));

TEST_P(PinnedLayers, ViewsAreUniform) {
  EXPECT_THAT(LayerFindings(GetParam(), UsualHelper(GetParam())), testing::IsEmpty());
}

class Leaks : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(Suites, Leaks, testing::ValuesIn(LeakCases()));

TEST_P(Leaks, AreFound) {
  EXPECT_THAT(LayerFindings(GetParam(), UsualHelper(GetParam())), testing::Not(testing::IsEmpty()));
}

class MutantTest : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Suites, MutantTest, testing::Values("lut", "fss", "aby3"));

TEST_P(MutantTest, ComputeTheRightFunctionAtTheSameCost) {
  const std::string options = GetParam() == "lut" ? ":chunks=2" : "";
  for (const auto& name : MutantNames(GetParam()))
    for (const int helper : {0, 1, 2})
      for (const bool dealt : {true, false}) {
        SCOPED_TRACE(fmt::format("{}, helper {}", name, helper));
        const auto check = [&](LayerCase c, const Values& z) {
          c.choice = name + options;
          c.dealt = dealt;
          const auto layer = MakeLayer(c, helper);
          ASSERT_TRUE(layer.has_value());
          CheckAgainstOracle(*layer, Repeat(z, layer->spec.Elements()), 1);
        };
        check({.value_bits = 6, .batch = 64}, WholeRing(6));
        check({.pool = 2, .batch = 16}, WholeRing(5));
        check({.kind = kRelu, .shift = 1, .batch = 32}, WholeRing(5));
        if (const auto fused = Fused(name + options)) {
          LayerCase c{.choice = *fused, .value_bits = 6, .batch = 64, .dealt = dealt, .fan_out = 3};
          const auto layer = MakeLayer(c, helper);
          ASSERT_TRUE(layer.has_value());
          CheckAgainstOracle(*layer, Repeat(WholeRing(6), layer->spec.Elements()), 1);
        }
      }
}

// What is independent is so under the affine relations that there are.
TEST(DependentBitsTest, AreThoseThatFollowFromOthers) {
  std::vector<Bytes> views(200, Bytes(4));
  std::uint64_t seed = 0;
  for (auto& view : views) {
    FillFrom(++seed, view);
    view[3] = static_cast<std::uint8_t>((view[0] & 7) | (view[1] ^ view[2]) << 4 | 8);
  }
  // Bits 0..2 are copies, 3 is constant, 4..7 are sums.
  EXPECT_THAT(DependentBits(views), testing::ElementsAre(24, 25, 26, 27, 28, 29, 30, 31));
  for (auto& view : views) FillFrom(++seed, view);
  EXPECT_THAT(DependentBits(views), testing::IsEmpty());
}

}  // namespace
}  // namespace tercet::conformance
