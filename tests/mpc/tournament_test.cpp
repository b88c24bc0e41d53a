// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/suite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

// What tournaments compute is shown by the conformance tests, with real suites; here how they are
// made of a suite's ReLU.
namespace tercet::mpc {
namespace {

/// A suite that writes down what it is asked for, and takes values of up to 20 bits.
Suite Recording(std::vector<ActivationSpec>& specs, bool dealt_output,
                std::uint64_t tolerance = 0) {
  return {
      {.name = "recording", .exact = tolerance == 0, .dealt_output = dealt_output, .spare_bits = 2},
      [&specs, tolerance](const ActivationSpec& spec, const OptionValues&, const Roles&) {
        specs.push_back(spec);
        if (spec.value_bits > 20)
          throw UnsupportedError(fmt::format("layer {}: too wide", spec.layer));
        ActivationPlan plan{.tolerance = tolerance};
        plan.cost.Add(Phase::kOnline, {{1, 2, spec.Elements()}, {2, 1, spec.Elements()}});
        return plan;
      }};
}

ActivationSpec Spec(std::size_t kernel, unsigned value_bits) {
  return {.layer = "act1",
          .kind = ActivationKind::kRelu,
          .shift = 4,
          .in = {2, 6, 6},
          .pool = PoolShape{kernel, 3},
          .value_bits = value_bits,
          .ring_bits = value_bits + 3,
          .out_bits = 9,
          .batch = 5};
}

TEST(TournamentTest, OnlyReluWithMaxPoolIsOne) {
  std::vector<ActivationSpec> specs;
  const Suite suite = Recording(specs, true);
  auto spec = Spec(2, 12);
  EXPECT_TRUE(IsTournament(spec));
  EXPECT_EQ(suite.RingBits(spec), 15u);
  spec.kind = ActivationKind::kSign;
  EXPECT_FALSE(IsTournament(spec));
  EXPECT_EQ(suite.RingBits(spec), 14u);
  spec.kind = ActivationKind::kRelu;
  spec.pool.reset();
  EXPECT_FALSE(IsTournament(spec));
}

// 9 members: 4 pairs and one, 2 and one, 1 and one, 1. Differences have a bit more than values and
// go back into the ring they came from; the layer's truncation comes last.
TEST(TournamentTest, RoundsHalveTheWindows) {
  for (bool dealt_output : {true, false}) {
    std::vector<ActivationSpec> specs;
    Recording(specs, dealt_output).Plan(Spec(3, 12), {}, {});
    ASSERT_EQ(specs.size(), 5u);
    const std::array<std::size_t, 4> pairs{4, 2, 1, 1};
    for (std::size_t k = 0; k < 4; ++k) {
      const auto& round = specs[k];
      EXPECT_EQ(round.layer, fmt::format("act1/round{}", k + 1));
      EXPECT_EQ(round.kind, ActivationKind::kRelu);
      EXPECT_EQ(round.in, (Shape3{2 * pairs[k], 2, 2}));
      EXPECT_FALSE(round.pool);
      EXPECT_EQ(round.shift, 0u);
      EXPECT_EQ(round.value_bits, 13u);
      EXPECT_EQ(round.ring_bits, 15u);
      EXPECT_EQ(round.out_bits, 15u);
      EXPECT_EQ(round.dealt, k == 0 || dealt_output);
    }
    const auto& last = specs[4];
    EXPECT_EQ(last.layer, "act1/relu");
    EXPECT_EQ(last.in, (Shape3{2, 2, 2}));
    EXPECT_EQ(last.shift, 4u);
    EXPECT_EQ(last.value_bits, 12u);
    EXPECT_EQ(last.out_bits, 9u);
    EXPECT_EQ(last.dealt, dealt_output);
  }
}

TEST(TournamentTest, CostsAddUp) {
  std::vector<ActivationSpec> specs;
  const auto plan = Recording(specs, true).Plan(Spec(3, 12), {}, {});
  EXPECT_EQ(plan.cost.OnlineHops(), 5u);
  EXPECT_EQ(plan.cost.OnlineTotal(), 2u * (4 + 2 + 1 + 1 + 1) * 2 * 2 * 2 * 5);
  EXPECT_EQ(plan.tolerance, 0u);
}

// Four rounds that are off by 9 each, what is left of that after a division by 16, rounded up, and
// the last ReLU's own.
TEST(TournamentTest, TolerancesAddUp) {
  std::vector<ActivationSpec> specs;
  EXPECT_EQ(Recording(specs, true, 9).Plan(Spec(3, 12), {}, {}).tolerance, 3u + 9);
}

TEST(TournamentTest, RefusalsNameTheLayer) {
  const auto error = [](const ActivationSpec& spec) -> std::string {
    std::vector<ActivationSpec> specs;
    try {
      Recording(specs, true).Plan(spec, {}, {});
    } catch (const UnsupportedError& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(error(Spec(2, 19)), "accepted");
  EXPECT_THAT(error(Spec(2, 20)), testing::HasSubstr("layer act1/round1: too wide"));
  EXPECT_THAT(error(Spec(7, 12)),
              testing::HasSubstr("layer act1: cannot pool 7 x 7 windows with stride 3 over maps of "
                                 "6 x 6"));
}

}  // namespace
}  // namespace tercet::mpc
