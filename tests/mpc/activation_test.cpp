#include "tercet/mpc/activation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

// What tournaments compute is shown by the conformance tests, with real suites; here how they are
// made of a suite's ReLU.
namespace tercet::mpc {
namespace {

/// Writes down what it is asked for; takes values of up to 20 bits.
class RecordingSuite final : public Suite {
 public:
  explicit RecordingSuite(bool dealt_output) { info_.dealt_output = dealt_output; }
  const SuiteInfo& Info() const override { return info_; }
  unsigned RingBits(unsigned value_bits) const override { return value_bits + 2; }
  void Check(const ActivationSpec& spec, const SuiteChoice& /*choice*/) const override {
    specs.push_back(spec);
    if (spec.value_bits > 20) throw UnsupportedError(fmt::format("layer {}: too wide", spec.layer));
  }
  Cost Costs(const ActivationSpec& spec, const SuiteChoice& /*choice*/,
             const Roles& /*roles*/) const override {
    specs.push_back(spec);
    Cost cost;
    cost.Add(Phase::kOnline, {{1, 2, spec.Elements()}, {2, 1, spec.Elements()}});
    return cost;
  }
  std::unique_ptr<Activation> Create(Party& /*party*/, const ActivationSpec& /*spec*/,
                                     const SuiteChoice& /*choice*/,
                                     const Roles& /*roles*/) const override {
    return nullptr;
  }

  mutable std::vector<ActivationSpec> specs;

 private:
  SuiteInfo info_{.name = "recording", .summary = "", .leaks = "", .options = {}};
};

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
  auto spec = Spec(2, 12);
  EXPECT_TRUE(IsTournament(spec));
  EXPECT_EQ(ActivationRingBits(RecordingSuite(true), spec), 15u);
  spec.kind = ActivationKind::kSign;
  EXPECT_FALSE(IsTournament(spec));
  EXPECT_EQ(ActivationRingBits(RecordingSuite(true), spec), 14u);
  spec.kind = ActivationKind::kRelu;
  spec.pool.reset();
  EXPECT_FALSE(IsTournament(spec));
}

// 9 members: 4 pairs and one, 2 and one, 1 and one, 1. Differences have a bit more than values and
// go back into the ring they came from; the layer's truncation comes last.
TEST(TournamentTest, RoundsHalveTheWindows) {
  for (bool dealt_output : {true, false}) {
    const RecordingSuite suite(dealt_output);
    CheckActivation(suite, Spec(3, 12), {});
    ASSERT_EQ(suite.specs.size(), 5u);
    const std::array<std::size_t, 4> pairs{4, 2, 1, 1};
    for (std::size_t k = 0; k < 4; ++k) {
      const auto& round = suite.specs[k];
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
    const auto& last = suite.specs[4];
    EXPECT_EQ(last.layer, "act1/relu");
    EXPECT_EQ(last.in, (Shape3{2, 2, 2}));
    EXPECT_EQ(last.shift, 4u);
    EXPECT_EQ(last.value_bits, 12u);
    EXPECT_EQ(last.out_bits, 9u);
    EXPECT_EQ(last.dealt, dealt_output);
  }
}

TEST(TournamentTest, CostsAddUp) {
  const auto cost = ActivationCosts(RecordingSuite(true), Spec(3, 12), {}, Roles{});
  EXPECT_EQ(cost.OnlineHops(), 5u);
  EXPECT_EQ(cost.OnlineTotal(), 2u * (4 + 2 + 1 + 1 + 1) * 2 * 2 * 2 * 5);
}

TEST(TournamentTest, RefusalsNameTheLayer) {
  const auto error = [](const ActivationSpec& spec) -> std::string {
    try {
      CheckActivation(RecordingSuite(true), spec, {});
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
