// SPDX-License-Identifier: Apache-2.0
// Runs in which the helper's role rotates over the images of a batch.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "infer/rotation.h"
#include "integration/testbed.h"
#include "integration/world.h"
#include "programs/inputs.h"
#include "tercet/infer/run_cost.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::integration {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

using Bytes = std::array<std::uint64_t, 3>;
Bytes BytesOf(const json& report, const char* phase) {
  return report.at("bytes").at(phase).get<Bytes>();
}

TEST(Groups, FollowEachOtherAndDifferByAtMostOne) {
  for (std::size_t images = 0; images <= 11; ++images) {
    std::size_t next = 0;
    for (std::size_t g = 0; g < infer::kGroups; ++g) {
      const auto group = infer::GroupOf(images, g);
      EXPECT_EQ(group.first, next);
      EXPECT_GE(group.count, images / 3);
      EXPECT_LE(group.count, (images + 2) / 3);
      next += group.count;
    }
    EXPECT_EQ(next, images);
  }
}

TEST(Groups, HaveAHelperEachAndTheOtherRolesInCommon) {
  const World world;
  const auto registry = BuiltinProtocols();
  const mpc::SuiteChoice suite{"lut", {}};
  const auto network = programs::PlaceholderNetwork(nn::LoadNetwork(world.File("conv.json")), 14);
  const auto plan = infer::MakePlan(network, registry, suite, {2, 0, 1, 0}, 8);
  const auto plans = infer::PlansOf(plan, registry, suite, 8, infer::HelperRotates{});
  ASSERT_EQ(plans.size(), 3u);
  const std::array<std::size_t, 3> sizes{3, 3, 2};
  for (int g = 0; g < 3; ++g) {
    const auto& group = plans[static_cast<std::size_t>(g)];
    EXPECT_EQ(group.roles, (mpc::Roles{(2 + g) % 3, 0, 1, 0}));
    EXPECT_EQ(group.batch, sizes[static_cast<std::size_t>(g)]);
  }
  EXPECT_EQ(infer::PlansOf(plan, registry, suite, 2, infer::HelperRotates{}).size(), 2u);
}

class EverySuite : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Rotation, EverySuite, testing::Values("lut", "fss", "aby3", "cbnn"),
                         [](const auto& one) { return std::string(one.param); });

// With one or two images to a batch, groups stay empty; ten images leave a last batch of one (of
// three, so that two groups have nothing to do) and of three (of seven).
TEST_P(EverySuite, EqualsThePlainNetworkAndThePlans) {
  const World world;
  const auto registry = BuiltinProtocols();
  const auto spec = nn::LoadNetwork(world.File("conv.json"));
  const auto model = programs::LoadModel(spec, {world.File("conv.safetensors"), {}, {}}, registry,
                                         [](const std::string&) {});
  const auto plain = programs::PlainLogits(model, registry.PlainOracle(),
                                           files::LoadImages(world.File("images.idx"), 0, {}));
  const mpc::SuiteChoice suite{GetParam(), {}};
  for (const std::size_t batch : {1, 2, 3, 7}) {
    SCOPED_TRACE(fmt::format("batch {}", batch));
    const auto result =
        world
            .Run("conv",
                 {"--rotate-helper", "--transport", batch == 3 ? "tls" : "memory", "--suite",
                  GetParam(), "--batch", std::to_string(batch), "--json", world.File("out.json")})
            .Wait();
    ASSERT_EQ(result.status, 0) << result.err << result.out;
    EXPECT_THAT(result.out, AllOf(HasSubstr("yes (40 of 40)"), HasSubstr("the plan says: yes"),
                                  HasSubstr("Material: in turn, the helper's role rotates.")));
    const json report = ReadJson(world.File("out.json"));
    std::vector<std::int64_t> logits;
    for (const json& row : report.at("logits")) logits.insert(logits.end(), row.begin(), row.end());
    EXPECT_EQ(logits, plain);

    const auto plan = infer::MakePlan(model.net, registry, suite, {}, batch);
    const auto cost = infer::RunCost(plan, registry, suite, World::kImages, infer::HelperRotates{});
    EXPECT_EQ(BytesOf(report, "offline"), cost.offline_bytes);
    EXPECT_EQ(BytesOf(report, "online"), cost.online_bytes);
    EXPECT_EQ(report.at("hops").at("offline"), cost.offline_hops);
    EXPECT_EQ(report.at("hops").at("online"), cost.online_hops);
    std::uint32_t hops = 0;
    std::uint64_t bytes = 0;
    for (const json& layer : report.at("layers")) {
      hops += layer.at("hops").get<std::uint32_t>();
      bytes += layer.at("online_bytes").get<std::uint64_t>();
    }
    EXPECT_EQ(hops, cost.online_hops);
    EXPECT_EQ(bytes, cost.online_bytes[0] + cost.online_bytes[1] + cost.online_bytes[2]);
  }
  world.ExpectClean();
}

TEST(Rotation, CostsWhatThreeRunsWithAHelperEachCost) {
  const World world;
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--data-owner", "1", "--model-owner", "2", "--receiver", "0",
                             "--transport", "memory", "--json", world.File("out.json")});
    const auto result = world.Run("conv", more).Wait();
    EXPECT_EQ(result.status, 0) << result.err;
    return ReadJson(world.File("out.json"));
  };
  const json rotated = run({"--rotate-helper", "--limit", "9"});
  Bytes offline{}, online{};
  for (int helper = 0; helper < 3; ++helper) {
    const json one = run({"--helper", std::to_string(helper), "--limit", "3"});
    for (std::size_t p = 0; p < 3; ++p) {
      offline[p] += BytesOf(one, "offline")[p];
      online[p] += BytesOf(one, "online")[p];
    }
  }
  EXPECT_EQ(BytesOf(rotated, "offline"), offline);
  EXPECT_EQ(BytesOf(rotated, "online"), online);
}

TEST(Rotation, SpreadsTheLoad) {
  const World world;
  // Dealing is what is spread, so in the form that deals most.
  const auto most_to_least = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--limit", "9", "--suite", "lut:form=arith", "--transport", "memory",
                             "--json", world.File("out.json")});
    const auto result = world.Run("conv", more).Wait();
    EXPECT_EQ(result.status, 0) << result.err;
    const json report = ReadJson(world.File("out.json"));
    std::array<double, 3> sent{};
    for (std::size_t p = 0; p < 3; ++p)
      sent[p] = static_cast<double>(BytesOf(report, "offline")[p] + BytesOf(report, "online")[p]);
    const auto [least, most] = std::minmax_element(sent.begin(), sent.end());
    return *most / *least;
  };
  EXPECT_GT(most_to_least({}), 2.0);
  EXPECT_LT(most_to_least({"--rotate-helper"}), 1.25);
}

TEST(Rotation, RefusesWhatItDoesNotCombineWith) {
  const World world;
  for (const auto& other : {std::vector<std::string>{"--ahead", "1"},
                            {"--helper-leaves"},
                            {"--material", world.File("material")}}) {
    auto arguments = other;
    arguments.emplace_back("--rotate-helper");
    const auto result = world.Run("dense", arguments).Wait();
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.err, AllOf(HasSubstr("--rotate-helper"), HasSubstr(other.front()),
                                  HasSubstr("excludes")));
  }
  const auto result =
      world
          .Tercet({"run", world.File("dense.json"), "--model", world.File("dense.safetensors"),
                   "--rotate-helper", "--material-out", world.File("material"), "--queries", "1"})
          .Wait();
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("--rotate-helper"), HasSubstr("--material-out")));
  EXPECT_FALSE(std::filesystem::exists(world.File("material")));
}

using RotatedTestbed = Testbed;

TEST_F(RotatedTestbed, ShowsThePlanOfEachGroup) {
  auto parties = StartAll({"conv", "conv", "conv"}, {{{"--rotate-helper", "--batch", "4"},
                                                      {"--rotate-helper", "--batch", "4"},
                                                      {"--rotate-helper", "--batch", "4"}}});
  for (auto& party : parties) {
    const auto result = party.Wait();
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.out, AllOf(HasSubstr("10 images in groups of 2; helper 0, data owner 1"),
                                  HasSubstr("10 images in groups of 1; helper 1, data owner 1"),
                                  HasSubstr("10 images in groups of 1; helper 2, data owner 1")));
  }
}

TEST_F(RotatedTestbed, RefusesAPartyThatDoesNotRotate) {
  ExpectAllFail(StartAll({"dense", "dense", "dense"},
                         {{{"--rotate-helper"}, {"--rotate-helper"}, {"--ahead", "0"}}}),
                "rotation of the helper: here ");
}

TEST_F(RotatedTestbed, NamesThePartyThatDies) {
  const std::vector<std::string> more{"--rotate-helper", "--batch", "3", "--link", "rtt_ms=200"};
  auto parties = StartAll({"dense", "dense", "dense"}, {more, more, more});
  ASSERT_NO_FATAL_FAILURE(AwaitImages(parties[0]));
  ::kill(parties[2].Pid(), SIGKILL);
  EXPECT_EQ(parties[2].Wait().status, 128 + SIGKILL);
  for (std::size_t p = 0; p < 2; ++p) {
    const auto result = parties[p].Wait(std::chrono::seconds(20));
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, HasSubstr("party 2 "));
  }
}

}  // namespace
}  // namespace tercet::integration
