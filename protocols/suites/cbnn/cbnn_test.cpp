// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "mpc/plan_of.h"
#include "suites/cbnn/msb.h"
#include "tercet/mpc/local.h"

namespace tercet::protocols::cbnn {
namespace {

using mpc::ActivationKind;
using mpc::ActivationSpec;
using net::Phase;

ActivationSpec Spec(ActivationKind kind) {
  return {.layer = "act1",
          .kind = kind,
          .in = {2, 4, 4},
          .pool = {},
          .value_bits = 10,
          .ring_bits = 32,
          .out_bits = 16};
}

std::string Refusal(const ActivationSpec& spec) { return mpc::RefusalOf(spec, "cbnn"); }

TEST(CbnnSuiteTest, SaysThatItLeaks) {
  const auto registry = BuiltinProtocols();
  const auto& info = registry.FindSuite("cbnn").Info();
  EXPECT_FALSE(info.is_private);
  EXPECT_NE(info.leaks.find("magnitude"), std::string::npos);
  EXPECT_FALSE(info.dealt_output);
}

TEST(CbnnSuiteTest, RingLeavesRoomForR) {
  const auto registry = BuiltinProtocols();
  const auto ring = [&](unsigned value_bits) {
    auto spec = Spec(ActivationKind::kSign);
    spec.value_bits = value_bits;
    return registry.FindSuite("cbnn").RingBits(spec);
  };
  EXPECT_EQ(ring(1), 16u);
  EXPECT_EQ(ring(7), 16u);
  EXPECT_EQ(ring(8), 32u);
  EXPECT_EQ(ring(23), 32u);
  EXPECT_EQ(ring(24), 64u);
  EXPECT_EQ(ring(55), 64u);
  EXPECT_THROW(ring(56), UnsupportedError);
}

TEST(CbnnSuiteTest, RefusesWhatItHasNot) {
  EXPECT_EQ(Refusal(Spec(ActivationKind::kSign)), "");
  EXPECT_EQ(Refusal(Spec(ActivationKind::kRelu)), "");
  EXPECT_NE(Refusal(Spec(ActivationKind::kNone)).find("act1"), std::string::npos);

  auto spec = Spec(ActivationKind::kSquare);
  EXPECT_NE(Refusal(spec).find("supported: sign, sign with max-pool, relu"), std::string::npos);
  spec = Spec(ActivationKind::kRelu);
  spec.pool = mpc::PoolShape{};
  EXPECT_EQ(Refusal(spec), "") << "a tournament";
  spec = Spec(ActivationKind::kRelu);
  spec.out_bits = 33;
  EXPECT_NE(Refusal(spec).find("at most 32 bits"), std::string::npos);
  spec = Spec(ActivationKind::kSign);
  spec.ring_bits = 18;
  EXPECT_NE(Refusal(spec).find("value width 10 and ring 18"), std::string::npos);
  spec.ring_bits = 19;
  EXPECT_EQ(Refusal(spec), "");
  spec = Spec(ActivationKind::kSign);
  spec.pool = mpc::PoolShape{5, 1};
  EXPECT_NE(Refusal(spec).find("must fit"), std::string::npos);
  EXPECT_THROW(mpc::OptionsOf("cbnn:chunks=2"), ConfigError);
}

// The figures of the README.
TEST(CbnnSuiteTest, CostsPerElement) {
  auto spec = Spec(ActivationKind::kSign);
  spec.out_bits = 32;
  auto cost = mpc::PlanOf(spec, "cbnn").cost;
  EXPECT_EQ(cost.OfflineTotal(), 28u * spec.Elements());
  EXPECT_EQ(cost.OnlineTotal(), 52u * spec.Elements());
  EXPECT_EQ(cost.OfflineHops(), 4u);
  EXPECT_EQ(cost.OnlineHops(), 6u);
  spec.kind = ActivationKind::kRelu;
  cost = mpc::PlanOf(spec, "cbnn").cost;
  EXPECT_EQ(cost.OnlineTotal(), (9u + 8u) * 4 * spec.Elements());
  EXPECT_EQ(cost.OnlineHops(), 6u);
  spec.kind = ActivationKind::kSign;
  spec.pool = mpc::PoolShape{};
  cost = mpc::PlanOf(spec, "cbnn").cost;
  EXPECT_EQ(cost.OfflineTotal(), 28u * spec.Elements() + 14u * spec.Outputs());
  EXPECT_EQ(cost.OnlineTotal(), (36u + 8u) * spec.Elements() + (12u + 16u) * spec.Outputs());
  EXPECT_EQ(cost.OfflineHops(), 8u);
  EXPECT_EQ(cost.OnlineHops(), 10u);
}

// r stays within its bounds and nothing wraps: |u| = |2x + 1| * r, with the sign that beta says.
TEST(MsbExtractionTest, MaskIsBoundedAndSigned) {
  constexpr unsigned kRing = 32, kValue = 20;
  constexpr std::size_t kRows = 41, kCols = 100;
  std::array<SignMask, 3> masks;
  mpc::RunParties([&](Party& party) {
    MsbExtraction msb(party, 1, kRing, kValue, "test/msb");
    Context ctx(party, Phase::kOffline);
    ctx.Enter(1, "test");
    masks[static_cast<std::size_t>(party.Id())] = msb.Prepare(ctx, kRows, kCols);
    ctx.Leave();
  });
  const auto share = [&](std::size_t p, std::size_t i) {
    return masks[p].product.mine.As<std::uint32_t>().flat(i);
  };
  std::int64_t largest = 0;
  std::size_t negative = 0;
  for (std::size_t i = 0; i < kRows * kCols; ++i) {
    const std::int64_t signed_r = ring::Decode(share(0, i) + share(1, i) + share(2, i), kRing);
    const bool beta = (masks[0].beta.mine[i] ^ masks[1].beta.mine[i] ^ masks[2].beta.mine[i]) != 0;
    ASSERT_EQ(signed_r < 0, beta) << i;
    ASSERT_GT(std::abs(signed_r), 0) << i;
    ASSERT_LT(std::abs(signed_r), std::int64_t{1} << RBits(kRing, kValue)) << i;
    largest = std::max(largest, std::abs(signed_r));
    negative += beta;
  }
  EXPECT_GT(largest, std::int64_t{1} << (RBits(kRing, kValue) - 1));  // all of its bits are used
  EXPECT_GT(negative, kRows * kCols / 3);
  EXPECT_LT(negative, kRows * kCols * 2 / 3);
}

}  // namespace
}  // namespace tercet::protocols::cbnn
