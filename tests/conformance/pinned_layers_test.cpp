// SPDX-License-Identifier: Apache-2.0
// Pinned keys: what a party receives in one activation layer is uniform over the key that it lacks.
#include "conformance/pinned_layers.h"

#include <gmock/gmock.h>

#include "conformance/mutants.h"

namespace tercet::conformance {
namespace {

constexpr auto kRelu = ActivationKind::kRelu;
constexpr auto kSquare = ActivationKind::kSquare;
constexpr auto kTable = ActivationKind::kTable;

class PinnedLayers : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(Suites, PinnedLayers, testing::ValuesIn(LayerCases()));

TEST_P(PinnedLayers, ViewsAreUniform) {
  EXPECT_THAT(LayerFindings(GetParam(), UsualHelper(GetParam())), testing::IsEmpty());
}

/// What must be caught: suites that leak, and those whose masks are wrong.
class Leaks : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(
    Suites, Leaks,
    testing::Values(
        LayerCase{.choice = "insecure_open"}, LayerCase{.choice = "cbnn", .out_bits = 8},
        LayerCase{.choice = "lut_own_key:chunks=2"}, LayerCase{.choice = "lut_bare_bits:chunks=2"},
        LayerCase{.choice = "lut_bare_share:chunks=2"},
        LayerCase{.choice = "lut_mask_twice:chunks=2"},
        LayerCase{.choice = "lut_bare_top:chunks=2"},
        LayerCase{.choice = "lut_own_key", .kind = kRelu},
        LayerCase{.choice = "lut_bare_bits", .pool = 2},
        LayerCase{.choice = "lut_bare_share", .dealt = false},
        LayerCase{.choice = "lut_bare_top", .kind = kSquare},
        LayerCase{.choice = "lut_own_key", .kind = kTable, .shift = 2},
        // its first draw after that of open_masked: the table's
        LayerCase{.choice = "lut_bare_bits", .kind = kTable, .value_bits = 3},
        LayerCase{.choice = "lut_bare_index", .kind = kTable, .shift = 2},
        LayerCase{.choice = "lut_bare_share", .kind = kTable, .value_bits = 3},
        LayerCase{.choice = "lut_bare_top", .kind = kTable, .value_bits = 3},
        LayerCase{.choice = "fss_own_key"}, LayerCase{.choice = "fss_own_key:form=bit"},
        LayerCase{.choice = "fss_own_key", .kind = kRelu, .shift = 2},
        LayerCase{.choice = "fss_bare_bits:form=bit"},
        LayerCase{.choice = "fss_bare_bits", .kind = kRelu, .shift = 2, .dealt = false},
        LayerCase{.choice = "fss_bare_bits", .pool = 2}, LayerCase{.choice = "fss_bare_share"},
        LayerCase{.choice = "fss_bare_share", .kind = kTable, .shift = 2},
        LayerCase{.choice = "fss_mask_twice"},
        LayerCase{.choice = "fss_mask_twice", .value_bits = 8, .batch = 4},
        LayerCase{.choice = "fss_bare_top"}, LayerCase{.choice = "fss_bare_top", .kind = kSquare},
        LayerCase{.choice = "aby3_own_key"},
        LayerCase{.choice = "aby3_own_key", .kind = kRelu, .shift = 2},
        LayerCase{.choice = "aby3_bare_bits"},
        LayerCase{.choice = "aby3_bare_bits", .kind = kRelu, .shift = 2},
        LayerCase{.choice = "aby3_bare_bits", .pool = 2}, LayerCase{.choice = "aby3_bare_share"},
        LayerCase{.choice = "aby3_bare_share", .kind = kSquare},
        LayerCase{.choice = "aby3_bare_share", .kind = kRelu, .shift = 2},
        LayerCase{.choice = "aby3_mask_twice"},
        LayerCase{.choice = "aby3_mask_twice", .kind = kRelu, .out_bits = 9},
        LayerCase{.choice = "aby3_bare_top"},
        LayerCase{.choice = "aby3_bare_top", .kind = kSquare, .shift = 2}));

TEST_P(Leaks, AreFound) {
  for (const int helper : {0, 1, 2})
    EXPECT_THAT(LayerFindings(GetParam(), helper), testing::Not(testing::IsEmpty()))
        << "helper " << helper;
}

// A mutant that computed something else would be found by the function tests: it is no mask that is
// wrong.
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
