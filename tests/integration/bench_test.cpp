// SPDX-License-Identifier: Apache-2.0
// `tercet bench`: rows that fail, and a bench that is killed and goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <utility>

#include "integration/world.h"
#include "programs/bench_options.h"
#include "programs/bench_results.h"
#include "tercet/base/error.h"

namespace tercet::programs {
namespace {

using integration::Eventually;
using integration::ReadJson;
using integration::World;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::string ReadAll(const std::string& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<std::string> Command(const World& world, std::vector<std::string> more) {
  std::vector<std::string> command{"bench",
                                   world.File("conv.json"),
                                   "--model",
                                   "random:3",
                                   "--transport",
                                   "memory",
                                   "--no-charts",
                                   "--out",
                                   world.File("out"),
                                   "--batches",
                                   "1",
                                   "--queries",
                                   "2"};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

TEST(Bench, ARowThatFailsSaysWhyAndOthersGoOn) {
  const World world;
  const auto bench = world
                         .Tercet(Command(world, {"--suites", "lut:chunks=1,lut,aby3", "--links",
                                                 "none,lan", "--repetitions", "2"}))
                         .Wait();
  EXPECT_EQ(bench.status, 1) << bench.err;
  EXPECT_THAT(bench.err, HasSubstr("2 of 6 settings failed"));
  const json results = ReadJson(world.File("out/results.json"));
  ASSERT_EQ(results.at("rows").size(), 6u);
  for (const json& row : results.at("rows")) {
    const bool fails = row.at("suite") == "lut:chunks=1";
    EXPECT_EQ(row.at("runs").size(), fails ? 0u : 2u) << row;
    if (fails) {
      EXPECT_THAT(row.at("state").get<std::string>(), HasSubstr("failed: layer "));
      continue;
    }
    EXPECT_EQ(row.at("state"), "done");
    EXPECT_GT(row.at("online_ms").at("median"), 0);
    EXPECT_GT(row.at("hops"), 0);
    EXPECT_TRUE(row.at("accuracy").is_null()) << "weights are random";
    EXPECT_EQ(row.at("predicted_online_ms").is_null(), row.at("link") == "none");
  }
  for (const char* key : {"machine", "build", "commit", "version", "date"})
    EXPECT_FALSE(results.at(key).get<std::string>().empty()) << key;
  const auto csv = ReadAll(world.File("out/results.csv"));
  EXPECT_THAT(csv, HasSubstr("\"lut:chunks=1\",\"lan\",1,\"in-turn\",\"failed: layer "));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 7);
  EXPECT_THAT(ReadAll(world.File("out/results.md")),
              HasSubstr("(random weights) | `aby3` | lan |"));
  const auto again = world.Tercet(Command(world, {})).Wait();
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, HasSubstr("--resume goes on with it"));
  world.ExpectClean();
}

TEST(Bench, GoesOnAfterItWasKilledAndKeepsWhatItHad) {
  const World world;
  const auto file = world.File("out/results.json");
  {
    auto bench = world.Tercet(Command(world, {"--suites", "lut,aby3", "--repetitions", "12"}));
    ASSERT_TRUE(Eventually([&] {
      return std::filesystem::exists(file) && !ReadJson(file).at("rows").at(1).at("runs").empty();
    }));
    ::kill(bench.Pid(), SIGKILL);
    EXPECT_EQ(bench.Wait().status, 128 + SIGKILL);
  }
  const json before = ReadJson(file).at("rows");
  ASSERT_LT(before.at(1).at("runs").size(), 12u) << "it was killed too late to show anything";
  auto command = Command(world, {"--suites", "lut,aby3", "--repetitions", "13", "--resume"});
  const auto resumed = world.Tercet(command).Wait(std::chrono::minutes(5));
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  const json after = ReadJson(file).at("rows");
  ASSERT_EQ(after.size(), 2u);
  for (std::size_t k = 0; k < 2; ++k) {
    ASSERT_EQ(after.at(k).at("runs").size(), 13u);
    for (std::size_t r = 0; r < before.at(k).at("runs").size(); ++r)
      EXPECT_EQ(after.at(k).at("runs").at(r), before.at(k).at("runs").at(r)) << "measured again";
  }
  // Other settings are added, and what is done stays.
  command = Command(world, {"--suites", "fss", "--repetitions", "1", "--resume"});
  ASSERT_EQ(world.Tercet(command).Wait().status, 0);
  const json all = ReadJson(file).at("rows");
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all.at(1).at("runs"), after.at(0).at("runs"));
  world.ExpectClean();
}

// On a slow link `auto` takes more computation for fewer hops, whose time without a link is not
// known.
TEST(Bench, PredictsNothingFromAnotherPlan) {
  const World world;
  world.Write("pool.json", R"({"name": "Pool",
      "input": {"shape": [1, 28, 28], "scale": 255, "bits": 4}, "layers": [
      {"name": "conv1", "type": "conv2d", "out_channels": 16, "kernel": 5},
      {"name": "bn1", "type": "batch_norm"}, {"name": "sign1", "type": "sign"},
      {"name": "pool1", "type": "max_pool2d", "kernel": 2},
      {"name": "conv2", "type": "conv2d", "out_channels": 4, "kernel": 3},
      {"name": "bn2", "type": "batch_norm"}, {"name": "sign2", "type": "sign"},
      {"name": "fc", "type": "linear", "out_features": 4}], "output": "logits"})");
  const auto bench =
      world
          .Tercet({"bench", world.File("pool.json"), "--model", "random:3", "--transport", "memory",
                   "--no-charts", "--out", world.File("out"), "--batches", "1", "--queries", "1",
                   "--repetitions", "1", "--suites", "lut,auto", "--links", "none,rtt_ms=80"})
          .Wait();
  ASSERT_EQ(bench.status, 0) << bench.err;
  std::map<std::pair<std::string, bool>, json> rows;
  const json results = ReadJson(world.File("out/results.json"));
  for (const json& row : results.at("rows"))
    rows[{row.at("suite").get<std::string>(), row.at("link") == "none"}] = row;
  ASSERT_NE(rows.at({"auto", true}).at("hops"), rows.at({"auto", false}).at("hops"));
  EXPECT_TRUE(rows.at({"auto", false}).at("predicted_online_ms").is_null());
  EXPECT_FALSE(rows.at({"lut", false}).at("predicted_online_ms").is_null());
  world.ExpectClean();
}

TEST(Bench, TakesNetworksModelsAndAccuracyFromARunFile) {
  const World world;
  world.Write("bench.json", R"({"title": "Two networks", "networks": ["./dense.json",
      {"network": "./conv.json", "model": "conv.safetensors", "images": "images.idx",
       "labels": "labels.idx"}], "suites": ["lut"], "batches": [1], "queries": 2,
      "repetitions": 1, "transport": "memory", "weights": "public",
      "published": [{"framework": "Other", "network": "Conv", "lan_s": 0.25, "note": "a | b"}]})");
  const auto bench = world
                         .Tercet({"bench", "--config", world.File("bench.json"), "--out",
                                  world.File("out"), "--no-charts", "--links", "none"})
                         .Wait();
  ASSERT_EQ(bench.status, 0) << bench.err;
  const json rows = ReadJson(world.File("out/results.json")).at("rows");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows.at(0).at("model"), "random");
  EXPECT_EQ(rows.at(1).at("model"), "conv.safetensors");
  EXPECT_FALSE(rows.at(1).at("accuracy").is_null());
  const auto markdown = ReadAll(world.File("out/results.md"));
  EXPECT_THAT(markdown, HasSubstr("# Two networks\n"));
  EXPECT_THAT(markdown, HasSubstr(", transport memory, weights public, "));
  EXPECT_THAT(markdown, HasSubstr("| Conv | Other | 0.25 |"));
  EXPECT_THAT(markdown, HasSubstr("a \\| b"));
  const auto refuse = [&](const std::string& text, const std::string& problem) {
    world.Write("bad.json", text);
    const auto bad = world.Tercet({"bench", "--config", world.File("bad.json")}).Wait();
    EXPECT_EQ(bad.status, 2);
    EXPECT_THAT(bad.err, HasSubstr(problem));
  };
  refuse(R"({"networks": ["./conv.json"], "batches": [0]})", "bad.json /batches/0: found 0");
  refuse(R"({"networks": ["./conv.json"], "batch": 1})", "unknown key 'batch'");
  refuse(R"({"networks": ["./conv.json"], "weights": "open"})", "bad.json /weights: found");
  refuse(R"({"networks": ["nosuchnet"]})", "bad.json /networks/0: found nosuchnet");
  refuse(R"({"networks": ["./conv.json"], "schedules": ["ahead"]})",
         "found ahead, expected in-turn");
}

TEST(Bench, EveryShippedRunFileIsRead) {
  std::size_t files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(TERCET_SOURCE_DIR "/configs/bench")) {
    if (entry.path().extension() != ".json" || entry.path().filename() == "bench.schema.json")
      continue;
    const auto options = ReadBenchOptions(entry.path());
    EXPECT_FALSE(options.title.empty()) << entry.path();
    for (const auto& schedule : options.schedules) EXPECT_NO_THROW(ScheduleOptions(schedule));
    std::vector<std::string> names;
    for (const auto& network : options.networks)
      names.push_back(nn::LoadNetwork(network.file).name);
    for (const auto& published : options.published)
      EXPECT_THAT(names, testing::Contains(published.at("network").get<std::string>()))
          << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 6u);
}

TEST(BenchResults, MediansAreOfImagesAndOfTheClockWhereQueriesOverlap) {
  BenchRow row;
  row.images = 10;
  row.schedule = "in-turn";
  row.runs = {{0.1, 0.2, 0.9}, {0.3, 0.4, 0.8}, {0.1, 0.6, 0.7}};
  row.offline_bytes = {1000, 2000, 3000};
  EXPECT_DOUBLE_EQ(row.OnlineMs().median, 40);
  EXPECT_DOUBLE_EQ(row.OnlineMs().least, 20);
  EXPECT_DOUBLE_EQ(row.OnlineMs().most, 60);
  EXPECT_DOUBLE_EQ(row.TotalMs().median, 70);
  EXPECT_DOUBLE_EQ(row.OfflineKb(), 0.6);
  row.schedule = "ahead=4";
  EXPECT_DOUBLE_EQ(row.TotalMs().median, 80);
  EXPECT_DOUBLE_EQ(SpreadOf({4, 2}).median, 3);
}

TEST(BenchOptions, SchedulesAreOptionsOfARun) {
  EXPECT_THAT(ScheduleOptions("in-turn"), ElementsAre());
  EXPECT_THAT(ScheduleOptions("ahead=3"), ElementsAre("--ahead", "3"));
  EXPECT_THAT(ScheduleOptions("helper-leaves"), ElementsAre("--helper-leaves"));
  EXPECT_THAT(ScheduleOptions("dealer-leaves"), ElementsAre("--helper-leaves"));
  EXPECT_THAT(ScheduleOptions("rotate-dealer"), ElementsAre("--rotate-helper"));
  for (const char* bad : {"", "ahead", "ahead=0", "ahead=x", "--ahead=3", "ahead=3x"})
    EXPECT_THROW(ScheduleOptions(bad), ConfigError) << bad;
  BenchOptions options;
  EXPECT_EQ(QueriesOf(options, "in-turn", 1), 10u);
  EXPECT_EQ(QueriesOf(options, "in-turn", 128), 2u);
  EXPECT_EQ(QueriesOf(options, "ahead=8", 128), 32u);
}

}  // namespace
}  // namespace tercet::programs
