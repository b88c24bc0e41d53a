// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/auto_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tercet/base/error.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::infer {
namespace {

using mpc::Phase;
using testing::HasSubstr;

const mpc::Registry& Protocols() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry;
}

std::vector<Candidate> Candidates() {
  const auto choice = [](const char* text) { return mpc::ParseSuiteChoice(text, "test"); };
  return {{choice("lut"), {{30, 10}, {}}},
          {choice("lut:chunks=3,form=bit"), {{20, 15}, {}}},
          {choice("fss"), {{250, 70}, {}}},
          {choice("aby3"), {{0, 40}, {}}}};
}

std::vector<Candidate> WithFused() {
  auto candidates = Candidates();
  candidates.push_back({mpc::ParseSuiteChoice("fss:fuse=yes", "test"), {{250, 70}, {}}});
  return candidates;
}

// Fully connected layers of these widths (bits) with Sign; the last gives the logits.
nn::PublicNetwork Dense(const std::vector<unsigned>& bits, std::size_t features = 64) {
  nn::PublicNetwork network;
  network.name = "dense";
  network.input.shape = {features, 1, 1};
  for (std::size_t k = 0; k < bits.size(); ++k) {
    nn::PublicLayer layer;
    layer.name = "fc" + std::to_string(k + 1);
    layer.type = "linear";
    layer.linear.in = {features, 1, 1};
    layer.linear.out_channels = k + 1 < bits.size() ? features : 10;
    if (k + 1 < bits.size()) layer.activation = mpc::ActivationKind::kSign;
    layer.value_bits = bits[k];
    network.layers.push_back(layer);
  }
  return network;
}

net::LinkProfile Link(double rtt_ms, double mbit) { return {"test", rtt_ms, mbit}; }

std::pair<std::int64_t, std::int64_t> ValueOf(const nn::PublicNetwork& network,
                                              const AutoSettings& settings, std::size_t batch) {
  const auto plan = MakePlan(network, Protocols(), {}, {}, batch);
  const auto total = plan.Total();
  const auto hops = static_cast<std::int64_t>(total.OnlineHops()),
             bytes = static_cast<std::int64_t>(total.OfflineTotal() + total.OnlineTotal());
  if (settings.objective == Objective::kHops) return {hops, bytes};
  if (settings.objective == Objective::kBytes) return {bytes, hops};
  const auto time = PlanTime(plan, settings.candidates, settings.link);
  return settings.objective == Objective::kOnline ? std::pair(time.online_ns, time.offline_ns)
                                                  : std::pair(time.Total(), time.online_ns);
}

std::pair<std::int64_t, std::int64_t> Exhaustive(nn::PublicNetwork network,
                                                 const AutoSettings& settings, std::size_t batch,
                                                 std::size_t k = 0) {
  if (k == network.layers.size()) return ValueOf(network, settings, batch);
  if (network.layers[k].activation == mpc::ActivationKind::kNone)
    return Exhaustive(network, settings, batch, k + 1);
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  std::pair best(kMost, kMost);
  for (const auto& candidate : settings.candidates) {
    network.layers[k].suite = candidate.suite.Text();
    best = std::min(best, Exhaustive(network, settings, batch, k + 1));
  }
  return best;
}

TEST(LinkTime, IsHopsTimesHalfARoundTripWithoutARate) {
  for (const auto& candidate : Candidates()) {
    const auto total = MakePlan(Dense({9, 12, 11}), Protocols(), candidate.suite, {}, 3).Total();
    const auto time = LinkTime(total, Link(10, 0));
    EXPECT_EQ(time.online_ns, total.OnlineHops() * 5'000'000);
    EXPECT_EQ(time.offline_ns, total.OfflineHops() * 5'000'000);
  }
}

TEST(LinkTime, DirectionsWorkAtTheSameTimeAndOneAfterTheOther) {
  constexpr std::int64_t kMs = 1'000'000;
  // 1 MB at 8 Mbit/s takes 1 s.
  mpc::Cost exchange;
  exchange.Add(Phase::kOnline, {{1, 2, 1'000'000}, {2, 1, 1'000'000}, {0, 1, 500'000}});
  EXPECT_EQ(LinkTime(exchange, Link(20, 8)).online_ns, 1010 * kMs);
  EXPECT_EQ(LinkTime(exchange, Link(20, 8)).offline_ns, 0);
  // The second message waits for the first to leave, not for its arrival.
  mpc::Cost same;
  same.Add(Phase::kOffline, {{0, 1, 1'000'000}});
  same.Add(Phase::kOffline, {{0, 1, 1'000'000}});
  EXPECT_EQ(LinkTime(same, Link(20, 8)).offline_ns, 2010 * kMs);
  // An answer waits for what it answers.
  mpc::Cost answer;
  answer.Add(Phase::kOnline, {{0, 1, 1'000'000}});
  answer.Add(Phase::kOnline, {{1, 0, 1'000'000}});
  EXPECT_EQ(LinkTime(answer, Link(20, 8)).online_ns, 2020 * kMs);
}

TEST(StepTimes, DealingAndSendingOverlapAndOnlineTheyDoNot) {
  auto network = Dense({12, 10});
  network.linear = mpc::kReplicatedLinear;  // so that the helper alone sends offline
  const auto plan = MakePlan(network, Protocols(), {"lut", {}}, {}, 16);
  const auto link = Link(2, 8);
  std::vector<PredictedTime> computation(plan.layers.size() + 2);
  const auto alone = StepTimes(plan, computation, link).back();
  // The helper's part of the result follows what is dealt.
  const std::int64_t last = LinkTime(plan.output, link).offline_ns;
  ASSERT_GT(alone.offline_ns, 2 * last);
  for (const std::int64_t ns : {alone.offline_ns / 2, 3 * alone.offline_ns}) {
    computation[1] = {ns, ns};
    const auto time = StepTimes(plan, computation, link).back();
    EXPECT_EQ(time.offline_ns, std::max(alone.offline_ns, ns + last));
    EXPECT_EQ(time.online_ns, alone.online_ns + ns);
  }
}

TEST(ModelledComputation, CountsActivationsByKindAndMultiplications) {
  auto network = Dense({12, 12, 10});
  network.layers[1].activation = mpc::ActivationKind::kRelu;
  const auto plan = MakePlan(network, Protocols(), {"lut", {}}, {}, 3);
  const std::vector<Candidate> candidates{{{"lut", {}}, {{20, 10}, {200, 100}}}};
  const MachineModel machine{.hop_ns = 500, .linear = {2, 1}};
  const auto steps = ModelledComputation(plan, candidates, machine);
  ASSERT_EQ(steps.size(), 5u);
  EXPECT_EQ(steps[0].Total(), 0);
  EXPECT_EQ(steps[1].online_ns, 3 * (64 * 10 + 64 * 64 * 1));
  EXPECT_EQ(steps[1].offline_ns, 3 * (64 * 20 + 64 * 64 * 2));
  EXPECT_EQ(steps[2].online_ns, 3 * (64 * 100 + 64 * 64 * 1));
  EXPECT_EQ(steps[3].online_ns, 3 * 64 * 10 * 1);
  EXPECT_EQ(steps[4].Total(), 0);
  const auto total = plan.Total();
  EXPECT_EQ(LinkTime(total, WithMessageTime(Link(10, 0), machine)).online_ns,
            total.OnlineHops() * (5'000'000 + 500));
}

TEST(Auto, IsAsGoodAsTheBestOfAllCombinations) {
  for (const auto& bits : {std::vector<unsigned>{12, 10}, {8, 15, 11}, {20, 9, 14, 12}})
    for (const auto& link : {Link(0, 0), Link(0.2, 5000), Link(80, 320), Link(5, 1)})
      for (const std::size_t batch : {1u, 128u})
        for (const auto objective :
             {Objective::kOnline, Objective::kTotal, Objective::kHops, Objective::kBytes}) {
          const AutoSettings settings{WithFused(), link, objective};
          const auto network = Dense(bits);
          const auto chosen = ChooseSuites(network, Protocols(), settings, {}, batch);
          EXPECT_EQ(ValueOf(chosen, settings, batch), Exhaustive(network, settings, batch))
              << bits.size() << " layers, " << link.rtt_ms << " ms, " << link.mbit
              << " Mbit/s, batch " << batch;
        }
}

// Where evaluators' messages cross, a hop more in one layer lengthens nothing: then the suite that
// computes less is taken there, though layer by layer the one with fewer hops would win.
// A minute's work where the effort grows with the square of the layers or faster, well below a
// second where it grows with them.
TEST(Auto, ChoosesForHundredsOfLayers) {
  const std::size_t count = 330;
  auto network = Dense(std::vector<unsigned>(count + 1, 9));
  // Shortcuts, whose outputs stay open, near and far.
  for (std::size_t k = 10; k < count; k += 10)
    network.layers[k].shortcut = nn::Shortcut{.from = k % 20 == 0 ? k - 9 : k / 2};
  const AutoSettings settings{WithFused(), Link(1, 1000), Objective::kOnline};
  const auto chosen = ChooseSuites(network, Protocols(), settings, {}, 1);
  const auto value = ValueOf(chosen, settings, 1);
  for (const auto& candidate : Candidates()) {
    auto same = network;
    for (std::size_t k = 0; k < count; ++k) same.layers[k].suite = candidate.suite.Text();
    EXPECT_LE(value, ValueOf(same, settings, 1)) << candidate.suite.Text();
  }
}

TEST(Auto, ComparesWholePlansOnALongLink) {
  auto network = Dense({12, 12, 12});
  const AutoSettings settings{Candidates(), Link(80, 0)};
  const auto hops = [&](const char* suite) {
    return MakePlan(network, Protocols(), {suite, {}}, {}, 1).Total().OnlineHops();
  };
  EXPECT_EQ(hops("lut"), hops("fss"));  // where the model's owner multiplies in the clear
  network.linear = mpc::kReplicatedLinear;
  const auto chosen = ChooseSuites(network, Protocols(), settings, {}, 1);
  EXPECT_EQ(chosen.layers[2].suite, "");
  const auto plan = MakePlan(chosen, Protocols(), {}, {}, 1);
  const auto fewest = MakePlan(network, Protocols(), {"fss", {}}, {}, 1);
  EXPECT_EQ(plan.Total().OnlineHops(), fewest.Total().OnlineHops());
  EXPECT_LT(plan.Total().OnlineHops(), hops("lut"));
  EXPECT_LT(PlanTime(plan, settings.candidates, settings.link).online_ns,
            PlanTime(fewest, settings.candidates, settings.link).online_ns);
}

// Fused before the logits alone: an exchange less there saves two hops, and elsewhere the products
// with 64 outputs cost more bytes than another hop.
TEST(Auto, FusesWhereThatSavesHops) {
  auto network = Dense({12, 12, 12});
  network.linear = mpc::kClearLinear;  // where lut takes as few hops as fss
  EXPECT_EQ(ChooseSuites(network, Protocols(), {WithFused(), Link(80, 0), Objective::kHops}, {}, 1)
                .layers[0]
                .suite,
            "lut");
  network.linear = mpc::kReplicatedLinear;
  const auto chosen =
      ChooseSuites(network, Protocols(), {WithFused(), Link(80, 0), Objective::kHops}, {}, 1);
  EXPECT_EQ(chosen.layers[0].suite, "fss");
  EXPECT_EQ(chosen.layers[1].suite, "fss:fuse=yes");
  const auto plan = MakePlan(chosen, Protocols(), {}, {}, 1);
  EXPECT_EQ(plan.Total().OnlineHops(), 4u);
  EXPECT_TRUE(plan.layers[1].fused);
  const auto bytes =
      ChooseSuites(network, Protocols(), {WithFused(), Link(80, 0), Objective::kBytes}, {}, 1);
  for (const auto& layer : bytes.layers) EXPECT_NE(layer.suite, "fss:fuse=yes");
}

TEST(Auto, TakesTheFewestBytesOnASlowLink) {
  const auto chosen = ChooseSuites(Dense({12, 12, 12}), Protocols(),
                                   {Candidates(), Link(0, 0.1), Objective::kTotal}, {}, 128);
  // The links between the parties are busy side by side: one suite each loads them most evenly.
  EXPECT_EQ(chosen.layers[0].suite, "lut:chunks=3,form=bit");
  EXPECT_EQ(chosen.layers[1].suite, "aby3");
}

TEST(Auto, LeavesLayersThatNameASuite) {
  auto network = Dense({12, 12, 12});
  network.layers[0].suite = "cbnn";
  network.layers[1].suite = nn::kAutoSuite;
  const auto chosen = ChooseSuites(network, Protocols(), {Candidates(), Link(80, 0)}, {}, 1);
  EXPECT_EQ(chosen.layers[0].suite, "cbnn");
  EXPECT_EQ(chosen.layers[1].suite, "fss");
}

TEST(Auto, RefusesSuitesThatAreNotPrivateAndLayersWithoutAny) {
  const auto network = Dense({12, 12});
  EXPECT_THROW(ChooseSuites(network, Protocols(), {{{{"cbnn", {}}, {}}}, Link(1, 1)}, {}, 1),
               InternalError);
  try {
    ChooseSuites(network, Protocols(), {{}, Link(1, 1)}, {}, 1);
    FAIL();
  } catch (const UnsupportedError& e) {
    EXPECT_THAT(e.what(), HasSubstr("layer fc1"));
  }
}

TEST(Objective, IsParsed) {
  EXPECT_EQ(ParseObjective("online", "x"), Objective::kOnline);
  EXPECT_EQ(ParseObjective("total", "x"), Objective::kTotal);
  EXPECT_EQ(ParseObjective("hops", "x"), Objective::kHops);
  EXPECT_EQ(ParseObjective("bytes", "x"), Objective::kBytes);
  EXPECT_THROW(ParseObjective("both", "x"), ConfigError);
}

}  // namespace
}  // namespace tercet::infer
