// SPDX-License-Identifier: Apache-2.0
// Runs with several queries under way at once: same results and bytes as one after the other, with
// every schedule; and ends when a party dies.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "integration/testbed.h"
#include "integration/world.h"

namespace tercet::integration {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

using Arguments = std::vector<std::string>;

json RunFor(const World& world, Arguments more, std::size_t in_flight, std::size_t batch) {
  more.insert(more.end(), {"--in-flight", std::to_string(in_flight), "--batch",
                           std::to_string(batch), "--json", world.File("out.json")});
  const auto result = world.Run("conv", more).Wait();
  EXPECT_EQ(result.status, 0) << result.err << result.out;
  EXPECT_THAT(result.out, AllOf(HasSubstr("yes (40 of 40)"), HasSubstr("what the plan says: yes")));
  return ReadJson(world.File("out.json"));
}

void ExpectSame(const json& report, const json& expected) {
  for (const char* key : {"logits", "bytes", "hops", "presence"})
    EXPECT_EQ(report.at(key), expected.at(key)) << key;
  ASSERT_EQ(report.at("layers").size(), expected.at("layers").size());
  for (std::size_t k = 0; k < expected.at("layers").size(); ++k)
    for (const char* key : {"hops", "offline_hops", "offline_bytes", "online_bytes"})
      EXPECT_EQ(report.at("layers").at(k).at(key), expected.at("layers").at(k).at(key))
          << key << " of layer " << k;
}

// Ten images: with 8 in flight ten queries of one image, and four of three, the last of one.
using Case = std::tuple<const char*, const char*, Arguments>;
class InFlight : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Schedules, InFlight,
    testing::Values(Case{"memory", "lut", {}}, Case{"memory", "fss", {}},
                    Case{"memory", "aby3", {}}, Case{"memory", "cbnn", {}}, Case{"tls", "lut", {}},
                    Case{"memory", "lut", {"--link", "rtt_ms=4,mbit=100"}},
                    Case{"tls", "aby3", {"--link", "rtt_ms=4", "--ahead", "2"}},
                    Case{"memory", "lut", {"--ahead", "1"}},
                    Case{"memory", "fss", {"--ahead", "12"}},
                    Case{"tls", "lut", {"--helper-leaves"}},
                    Case{"memory", "fss", {"--helper-leaves", "--link", "rtt_ms=4"}},
                    Case{"memory", "aby3", {"--rotate-helper"}},
                    Case{"tls", "lut", {"--rotate-helper"}},
                    Case{"memory", "lut", {"--public-weights"}},
                    Case{"tls", "fss", {"--public-weights", "--rotate-helper"}},
                    Case{"memory", "fss", {"--public-weights", "--helper-leaves"}}));

TEST_P(InFlight, GivesTheSameAsOneAfterTheOther) {
  const auto& [transport, suite, schedule] = GetParam();
  const World world;
  Arguments more{"--transport", transport, "--suite", suite};
  more.insert(more.end(), schedule.begin(), schedule.end());
  for (const std::size_t batch : {1, 3}) {
    const json alone = RunFor(world, more, 1, batch);
    for (const std::size_t in_flight : {2, 8}) {
      SCOPED_TRACE(fmt::format("batch {}, {} in flight", batch, in_flight));
      const json report = RunFor(world, more, in_flight, batch);
      ExpectSame(report, alone);
      EXPECT_THAT(report.at("material").get<std::string>(),
                  testing::EndsWith(fmt::format(", {} in flight", in_flight)));
      const json& time = report.at("time");
      EXPECT_LE(time.at("offline_s"), time.at("wall_s"));
      EXPECT_LE(time.at("online_s"), time.at("wall_s"));
    }
  }
  world.ExpectClean();
}

// Material is made in order and used in order, whatever the number in flight; each query once.
TEST(InFlightMaterial, IsUsedOnceAndInOrder) {
  const World world;
  for (const auto& [suite, transport, with] :
       {std::tuple("lut", "tls", Arguments{}), std::tuple("aby3", "memory", Arguments{}),
        std::tuple("fss", "memory", Arguments{"--public-weights"})}) {
    const std::string directory = world.File(fmt::format("material-{}", suite));
    Arguments make{"run",
                   world.File("conv.json"),
                   "--model",
                   world.File("conv.safetensors"),
                   "--transport",
                   transport,
                   "--suite",
                   suite,
                   "--batch",
                   "2",
                   "--material-out",
                   directory,
                   "--queries",
                   "20",
                   "--in-flight",
                   "3"};
    make.insert(make.end(), with.begin(), with.end());
    const auto made = world.Tercet(make).Wait();
    ASSERT_EQ(made.status, 0) << made.err;
    Arguments use{"--transport", transport, "--suite", suite, "--material", directory};
    if (!with.empty()) {
      const auto secret = world.Run("conv", use).Wait();
      EXPECT_EQ(secret.status, 2);
      EXPECT_THAT(secret.err, HasSubstr("--public-weights: not given, and"));
    }
    use.insert(use.end(), with.begin(), with.end());
    const json alone = RunFor(world, use, 1, 2);
    for (const auto& ahead : {Arguments{}, Arguments{"--ahead", "3"}}) {
      Arguments more = use;
      more.insert(more.end(), ahead.begin(), ahead.end());
      ExpectSame(RunFor(world, more, 4, 2), alone);
    }
    ExpectSame(RunFor(world, use, 8, 2), alone);
    const auto none = world.Run("conv", use).Wait();
    EXPECT_EQ(none.status, 2);
    EXPECT_THAT(none.err, HasSubstr("all of its 20 queries are used up"));
  }
}

TEST(InFlightOption, IsANumberFromOneTo64) {
  const World world;
  for (const char* number : {"0", "65", "x"}) {
    const auto result = world.Run("dense", {"--in-flight", number}).Wait();
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.err, AllOf(HasSubstr("--in-flight"), HasSubstr("from 1 to 64")));
  }
}

class InFlightTestbed : public Testbed {
 protected:
  std::vector<Process> StartSlow(const Arguments& more) {
    Arguments slow{"--in-flight", "3", "--batch", "1", "--link", "rtt_ms=300"};
    slow.insert(slow.end(), more.begin(), more.end());
    return StartAll({"dense", "dense", "dense"}, {slow, slow, slow});
  }
};

TEST_F(InFlightTestbed, RefusesAPartyWithAnotherNumber) {
  ExpectAllFail(StartAll({"dense", "dense", "dense"},
                         {{{"--in-flight", "2"}, {"--in-flight", "2"}, {"--in-flight", "4"}}}),
                "batches in flight: here ");
}

TEST_F(InFlightTestbed, AHelperMayLeave) {
  const Arguments more{"--in-flight", "4", "--batch", "1", "--helper-leaves"};
  auto parties = StartAll({"dense", "dense", "dense"}, {more, more, more});
  for (auto& party : parties) {
    const auto result = party.Wait();
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.err, HasSubstr("the material of all 10 queries is delivered"));
  }
}

TEST_F(InFlightTestbed, NamesThePartyThatDiesOrFallsSilent) {
  for (const int number : {SIGKILL, SIGSTOP})
    for (const auto& schedule : {Arguments{"--ahead", "0"}, Arguments{"--ahead", "2"}})
      for (const std::size_t victim : {std::size_t{1}, std::size_t{2}}) {
        SCOPED_TRACE(fmt::format("signal {} to party {}", number, victim));
        auto parties = StartSlow(schedule);
        ASSERT_NO_FATAL_FAILURE(AwaitImages(parties[0]));
        ::kill(parties[victim].Pid(), number);
        for (std::size_t p = 0; p < 3; ++p) {
          if (p == victim) continue;
          const auto result = parties[p].Wait(std::chrono::seconds(20));
          EXPECT_EQ(result.status, 1);
          EXPECT_THAT(result.err, HasSubstr(fmt::format("party {} ", victim)));
        }
        ::kill(parties[victim].Pid(), SIGKILL);
        EXPECT_EQ(parties[victim].Wait().status, 128 + SIGKILL);
      }
}

}  // namespace
}  // namespace tercet::integration
