// SPDX-License-Identifier: Apache-2.0
// Networks with a suite that is not exact: how far their results may be off, and are.
#include "tercet/infer/tolerance.h"

#include <gmock/gmock.h>

#include "compile/float_weights.h"
#include "conformance/harness.h"
#include "tercet/compile/compile.h"
#include "tercet/infer/auto_plan.h"
#include "tercet/infer/secure_network.h"
#include "tercet/nn/run_plain.h"

namespace tercet::infer {
namespace {

using mpc::ActivationKind;
using nn::IntegerNetwork;

// Two rows of weights whose magnitudes add up to 7 and 9.
IntegerNetwork Network(std::vector<ActivationKind> kinds) {
  IntegerNetwork network;
  network.net.name = "tolerance";
  network.net.input.shape = {2, 1, 1};
  kinds.push_back(ActivationKind::kNone);
  for (const auto kind : kinds) {
    nn::PublicLayer layer;
    layer.name = fmt::format("fc{}", network.net.layers.size() + 1);
    layer.type = "linear";
    layer.linear = {.in = {2, 1, 1}, .out_channels = 2};
    layer.activation = kind;
    layer.shift = kind == ActivationKind::kRelu || kind == ActivationKind::kSquare ? 2 : 0;
    layer.value_bits = 12;
    network.net.layers.push_back(layer);
    network.weights.push_back({{3, -4, 8, 1}, {0, 0}, {}});
  }
  return network;
}

std::uint64_t Tolerance(const IntegerNetwork& network, std::vector<std::uint64_t> stated) {
  auto plan = MakePlan(network.net, conformance::AllProtocols(), {"aby3", {}}, {}, 1);
  for (std::size_t k = 0; k < stated.size(); ++k) plan.layers[k].tolerance = stated[k];
  return ResultTolerance(network, plan);
}

TEST(ResultTolerance, FollowsTheWeights) {
  using enum ActivationKind;
  EXPECT_EQ(Tolerance(Network({kRelu, kRelu}), {}), 0u);
  EXPECT_EQ(Tolerance(Network({kRelu}), {1}), 9u);
  EXPECT_EQ(Tolerance(Network({kRelu, kRelu}), {1}), 9u * 3);  // 9 / 4, rounded up
  EXPECT_EQ(Tolerance(Network({kRelu, kRelu}), {1, 1}), 9u * 4);
  EXPECT_EQ(Tolerance(Network({kRelu, kSign}), {2}), 9u * 1);
  EXPECT_EQ(Tolerance(Network({kRelu, kSquare}), {1}), 9u * 3 * ((1 << 10) + 3));
  auto shortcut = Network({kRelu, kRelu});
  shortcut.net.layers[2].shortcut = nn::Shortcut{.from = 1};
  shortcut.weights[2].shortcut = {-5};
  EXPECT_EQ(Tolerance(shortcut, {1}), 9u * 3 + 5);
  auto wide = Network({kRelu, kRelu, kRelu});
  for (auto& weights : wide.weights) weights.weight.assign(4, std::int64_t{1} << 40);
  EXPECT_EQ(Tolerance(wide, {1}), std::uint64_t{1} << 62);
}

TEST(ApproximateSuite, RunsWithinItsTolerance) {
  const auto spec = compile::Spec(R"("shape": [2, 6, 6], "mean": 0.4, "bits": 4)", R"(
    {"name": "c1", "type": "conv2d", "out_channels": 3, "kernel": 3, "padding": 1},
    {"name": "r1", "type": "relu"},
    {"name": "p1", "type": "max_pool2d", "kernel": 2},
    {"name": "f1", "type": "linear", "out_features": 10},
    {"name": "r2", "type": "relu"},
    {"name": "f2", "type": "linear", "out_features": 4})");
  compile::CompileOptions options;
  options.default_fixed_bits = 24;
  const auto network = compile::Compile(compile::Weights(3).FillReal(spec).Network(spec),
                                        compile::Oracle(), options, nullptr);
  constexpr std::size_t kImages = 16;
  const auto images = compile::RandomImages(network.net.input.shape, kImages, 11);
  const auto& protocols = conformance::AllProtocols();
  const auto plan = MakePlan(network.net, protocols, {"local_truncation", {}}, {}, kImages);
  EXPECT_THAT(plan.Warnings(protocols), testing::Contains(testing::HasSubstr("not exact")));
  const auto plain = nn::RunPlain(network, compile::Oracle(), images, 0, kImages);
  const auto input = nn::QuantiseInput(network.net.input, images, 0, kImages);
  std::vector<std::int64_t> logits;
  mpc::RunParties(
      [&](mpc::Party& party) {
        SecureNetwork net(party, plan, protocols);
        net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
        auto part =
            net.Run(net.Prepare(kImages), party.Id() == plan.roles.data_owner ? &input : nullptr);
        if (party.Id() == plan.roles.receiver) logits = std::move(part);
      },
      {.layers = plan.layers.size()});
  const auto tolerance = static_cast<std::int64_t>(ResultTolerance(network, plan));
  EXPECT_GT(tolerance, 0);
  ASSERT_EQ(logits.size(), plain.size());
  std::size_t differ = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    EXPECT_LE(std::abs(logits[i] - plain[i]), tolerance) << i;
    differ += logits[i] != plain[i];
  }
  EXPECT_GT(differ, 0u) << "the suite truncates exactly";
}

TEST(ApproximateSuite, IsNotChosenUnasked) {
  const auto& protocols = conformance::AllProtocols();
  EXPECT_TRUE(protocols.FindSuite("local_truncation").Info().is_private);
  for (const auto& candidate : AutoCandidates(protocols))
    EXPECT_TRUE(protocols.FindSuite(candidate.suite.name).Info().exact);
}

}  // namespace
}  // namespace tercet::infer
