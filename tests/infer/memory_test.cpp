// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <new>

#include "tercet/infer/run_cost.h"
#include "tercet/infer/secure_network.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/local.h"

namespace tercet::infer {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// One dense layer of 8 x 6 with Sign, and one of 6 x 3.
nn::PublicNetwork Dense() {
  nn::PublicNetwork network;
  network.name = "dense";
  network.input.shape = {1, 2, 4};
  network.input.bits = 4;
  for (const auto& [name, in, out] : {std::tuple{"fc1", 8, 6}, {"fc2", 6, 3}}) {
    nn::PublicLayer layer;
    layer.name = name;
    layer.type = "linear";
    layer.linear.in = {static_cast<std::size_t>(in), 1, 1};
    layer.linear.out_channels = static_cast<std::size_t>(out);
    layer.value_bits = 10;
    network.layers.push_back(layer);
  }
  network.layers[0].activation = mpc::ActivationKind::kSign;
  return network;
}

Plan PlanFor(const mpc::Registry& registry, const std::string& suite, std::size_t batch) {
  return MakePlan(Dense(), registry, {suite, {}}, {}, batch);
}

TEST(EstimateMemory, GrowsWithBatchQueriesAndImages) {
  const mpc::Registry registry = BuiltinProtocols();
  for (const char* suite : {"lut", "fss", "aby3", "cbnn"}) {
    const auto small = EstimateMemory(PlanFor(registry, suite, 1), 1, 1);
    const auto large = EstimateMemory(PlanFor(registry, suite, 4096), 1, 4096);
    const auto many = EstimateMemory(PlanFor(registry, suite, 4096), 10, 4096);
    for (std::size_t p = 0; p < 3; ++p) {
      EXPECT_GT(small[p], 0u) << suite;
      EXPECT_GT(large[p], small[p] + 4096 * 6) << suite;
      EXPECT_GT(many[p], large[p]) << suite;
    }
    const auto running = EstimateMemory(PlanFor(registry, suite, 4096), 10, 4096, 8);
    for (std::size_t p = 0; p < 3; ++p) EXPECT_GT(running[p], many[p]) << suite;
    const auto images = EstimateMemory(PlanFor(registry, suite, 1), 1, 1'000'001);
    EXPECT_EQ(images[1] - small[1], 8'000'000u);  // at their owner
    EXPECT_EQ(images[0], small[0]);
  }
}

TEST(LeastMemory, IsWhatIsDealtAndLessThanTheEstimate) {
  const mpc::Registry registry = BuiltinProtocols();
  for (const char* suite : {"lut", "fss", "aby3", "cbnn"}) {
    const auto plan = PlanFor(registry, suite, 4096);
    const auto least = LeastMemory(plan), most = EstimateMemory(plan, 1, 0);
    for (std::size_t p = 0; p < 3; ++p) {
      EXPECT_GT(least[p], 0u) << suite;
      EXPECT_LT(least[p], most[p]) << suite;
    }
  }
  const auto plan = PlanFor(registry, "fss", 65536);
  const auto dealt = plan.layers[0].cost.OfflineTotal();
  const auto least = LeastMemory(plan);
  EXPECT_GE(least[1] + least[2], dealt);  // and kept, which the helper does not
  EXPECT_LT(least[0], dealt);
}

// What is ahead may be used up as fast as it is dealt.
TEST(RunMemory, MaterialAheadIsNoPartOfTheLeast) {
  const mpc::Registry registry = BuiltinProtocols();
  const std::vector<Plan> plans{PlanFor(registry, "fss", 4096)};
  const auto one = RunMemory(plans, 1, 0), many = RunMemory(plans, 5, 0);
  for (std::size_t p = 0; p < 3; ++p) {
    EXPECT_EQ(many[p].least, one[p].least);
    EXPECT_GT(many[p].most, one[p].most);
  }
}

// Neither what a run surely needs nor what it may need is left.
TEST(CheckMemory, RefusesTheLeastAndWarnsOfTheMost) {
  constexpr std::uint64_t kTooMuch = std::uint64_t{1} << 60;
  EXPECT_EQ(CheckMemory({1, 1}, 8, 1), std::nullopt);
  const auto warning = CheckMemory({1, kTooMuch}, 8, 3);
  ASSERT_TRUE(warning);
  EXPECT_THAT(*warning, HasSubstr("batches of 8 images, with material of 3 at once, may need"));
  try {
    CheckMemory({kTooMuch, kTooMuch}, 8, 1);
    FAIL() << "so much memory";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("batches of 8 images need at least about"),
                                HasSubstr("take smaller batches")));
  }
}

TEST(MemoryAvailable, KnowsTheLimitOfTheAddressSpace) {
  const auto before = MemoryAvailable();
  ASSERT_TRUE(before);
  EXPECT_GT(before->bytes, 0u);
  std::ifstream status("/proc/self/status");
  std::uint64_t used_kb = 0;
  for (std::string word; status >> word && word != "VmSize:";) {
  }
  status >> used_kb;
  constexpr std::uint64_t kMore = std::uint64_t{64} << 20;
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &old), 0);
  const rlimit low{used_kb * 1024 + kMore, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &low), 0);
  const auto limited = MemoryAvailable();
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &old), 0);
  ASSERT_TRUE(limited);
  EXPECT_LE(limited->bytes, kMore);
  EXPECT_THAT(limited->limit, HasSubstr("ulimit -v"));
}

TEST(MemoryText, IsShort) {
  EXPECT_EQ(MemoryText(1), "about 1 MB");
  EXPECT_EQ(MemoryText(23'400'000), "about 24 MB");
  EXPECT_EQ(MemoryText(1'230'000'000), "about 1.2 GB");
}

// Of a suite whose material takes more than there is.
class Hungry final : public mpc::Activation {
 public:
  std::unique_ptr<mpc::Correlation> Prepare(mpc::Context& ctx, std::size_t) override {
    if (ctx.Is(1)) throw std::bad_alloc();
    return nullptr;
  }
  mpc::AnyShare Run(mpc::Context&, std::unique_ptr<mpc::Correlation>,
                    const mpc::AnyMatrix&) override {
    return {};
  }
};

TEST(SecureNetwork, SaysWhereMemoryRanOut) {
  mpc::Registry registry = BuiltinProtocols();
  registry.AddSuite({.name = "hungry"}, [](const auto&, const auto&, const auto&) {
    return mpc::ActivationPlan{{}, [](mpc::Party&) { return std::make_unique<Hungry>(); }};
  });
  const auto plan = PlanFor(registry, "hungry", 5);
  nn::IntegerNetwork network{plan.network, {}};
  network.weights.resize(2);
  for (std::size_t k = 0; k < 2; ++k) {
    const auto& shape = plan.network.layers[k].linear;
    network.weights[k].weight.assign(shape.WeightCount(), 1);
    network.weights[k].bias.assign(shape.BiasCount(), 0);
  }
  try {
    mpc::RunParties(
        [&](mpc::Party& party) {
          SecureNetwork net(party, plan, registry);
          net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
          if (party.Id() == 1) net.Prepare(5);
        },
        {.layers = 2});
    FAIL() << "there is memory enough";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("out of memory in layer fc1 (offline phase)"),
                                HasSubstr("a query of 5 images needs about ")));
  }
}

}  // namespace
}  // namespace tercet::infer
