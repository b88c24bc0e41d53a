// SPDX-License-Identifier: Apache-2.0
// `tercet run` with wrong input, and with parties that die: each ends in time, says why, and leaves
// nothing behind.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <utility>
#include <vector>

#include "integration/world.h"
#include "tercet/compile/random_weights.h"
#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

namespace tercet::integration {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Usage and input errors: exit status 2 and one line that names the thing.
void ExpectRefused(Process process, const std::string& text) {
  const auto result = process.Wait();
  EXPECT_EQ(result.status, 2) << result.err;
  const auto line = result.err.substr(result.err.find("tercet: error: "));
  EXPECT_THAT(line, AllOf(StartsWith("tercet: error: "), HasSubstr(text)));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
}

TEST(WrongOptions, NameOptionAndRange) {
  const World world;
  ExpectRefused(world.Run("dense", {"--batch", "0"}),
                "--batch: \"0\" found, a whole number from 1 to 4096 expected");
  ExpectRefused(world.Run("dense", {"--batch=-3"}), "--batch: \"-3\" found");
  ExpectRefused(world.Run("dense", {"--batch", "5000"}), "from 1 to 4096");
  ExpectRefused(world.Run("dense", {"--batch", "7x"}), "--batch: \"7x\" found");
  ExpectRefused(world.Run("dense", {"--limit", "0"}), "--limit");
  ExpectRefused(world.Run("dense", {"--timeout", "nan"}), "--timeout");
  ExpectRefused(world.Run("dense", {"--helper", "3"}), "--helper");
  ExpectRefused(
      world.Run("dense", {"--suite", "nonesuch"}),
      "--suite: there is no suite \"nonesuch\"; known suites: aby3, cbnn, fss, lut, and auto");
  ExpectRefused(world.Run("dense", {"--link", "fast"}),
                "--link: expected none, lan, wan or a list");
  ExpectRefused(world.Tercet({"bench", world.File("dense.json"), "--suites", "nonesuch", "--out",
                              world.File("results")}),
                "--suites: there is no suite");
  ExpectRefused(world.Tercet({"bench", world.File("dense.json"), "--links", "fast", "--out",
                              world.File("results")}),
                "--links: expected none");
  ExpectRefused(world.Run("dense", {"--transport", "udp"}), "--transport");
  ExpectRefused(world.Run("dense", {"--json", world.File("no/such/directory.json")}), "--json");
  ExpectRefused(world.Run("dense", {"--nonsense"}), "--nonsense");
  ExpectRefused(world.Run("dense", {"--queries", "2"}), "--queries requires --material-out");
  ExpectRefused(world.Run("dense", {"--json", ""}), "--json: found an empty value");
  ExpectRefused(world.Tercet({"plan", ""}), "network: found an empty value");
  ExpectRefused(world.Tercet({"run", world.File("dense.json")}), "--model is required");
  ExpectRefused(world.Tercet({}), "subcommand");
  world.ExpectClean();
}

TEST(WrongOptions, NoInputIsReplaced) {
  const World world;
  const std::string before = ReadAll(world.File("images.idx"));
  std::filesystem::create_symlink("images.idx", world.File("link"));
  for (const char* name : {"images.idx", "link"})
    ExpectRefused(world.Run("dense", {"--json", world.File(name)}),
                  "--json: found " + world.File("images.idx") + ", which is --images and would be");
  ExpectRefused(world.Run("dense", {"--json", world.File("dense.json")}), "which is network");
  EXPECT_EQ(ReadAll(world.File("images.idx")), before);
}

// A reader that waited for the FIFO's other end, or took memory for the sparse file, would hang or
// die.
TEST(WrongInput, WhatIsNoFileOfItsKindIsRefusedAtOnce) {
  const World world;
  ASSERT_EQ(::mkfifo(world.File("fifo").c_str(), 0600), 0);
  world.Write("sparse", "");
  std::filesystem::resize_file(world.File("sparse"), std::uintmax_t{60} << 30);
  const std::string network = world.File("dense.json"), model = world.File("dense.safetensors"),
                    images = world.File("images.idx");
  for (const auto& [bad, reason] : std::vector<std::pair<std::string, std::string>>{
           {world.File("fifo"), "is no regular file but a FIFO, expected "},
           {world.Path().string(), "is no regular file but a directory, expected "},
           {"/dev/zero", "is no regular file but a device, expected "},
           {world.File("sparse"), "is 64424509440 bytes long, expected at most "}}) {
    SCOPED_TRACE(bad);
    const std::string text = bad + ": " + reason;
    // A folder may be one of pictures, but this one is not.
    const std::string of_data =
        std::filesystem::is_directory(bad) ? bad + ": has both files and folders (" : text;
    ExpectRefused(world.Tercet({"plain", bad, "--model", model, "--images", images}), text);
    ExpectRefused(world.Tercet({"plain", network, "--model", bad, "--images", images}), text);
    ExpectRefused(world.Tercet({"run", network, "--model", bad}), text);
    ExpectRefused(world.Tercet({"plain", network, "--model", model, "--images", bad}), of_data);
    ExpectRefused(
        world.Tercet({"plain", network, "--model", model, "--images", images, "--labels", bad}),
        of_data);
    ExpectRefused(
        world.Tercet({"plain", network, "--model", model, "--images", images, "--check", bad}),
        text);
    ExpectRefused(world.Tercet({"plan", network, "--measured", bad}), text);
  }
  world.ExpectClean();
}

TEST(WrongInput, NamesTheFileAndWhatIsWrong) {
  const World world;
  auto run = [&](const std::string& network, const std::string& model, const std::string& images) {
    return world.Tercet(
        {"run", world.File(network), "--model", world.File(model), "--images", world.File(images)});
  };
  ExpectRefused(run("missing.json", "dense.safetensors", "images.idx"), "missing.json");
  ExpectRefused(run("dense.json", "missing.safetensors", "images.idx"), "missing.safetensors");
  ExpectRefused(run("dense.json", "dense.safetensors", "missing.idx"), "missing.idx");

  const std::string text = ReadAll(world.File("dense.json"));
  std::string unknown = text;
  unknown.replace(unknown.find("\"out_features\": 12"), 0, "\"strides\": 2, ");
  world.Write("unknown.json", unknown);
  ExpectRefused(run("unknown.json", "dense.safetensors", "images.idx"),
                "unknown.json /layers/0: unknown key 'strides'");
  world.Write("syntax.json", "{\"name\": ");
  ExpectRefused(run("syntax.json", "dense.safetensors", "images.idx"), "syntax.json");

  const auto spec = nn::LoadNetwork(world.File("dense.json"));
  const auto good = compile::RandomWeights(spec, 11);
  const auto bytes = files::SerializeTensors(good);
  world.Write("truncated.safetensors", std::string(bytes.begin(), bytes.end() - 5));
  ExpectRefused(run("dense.json", "truncated.safetensors", "images.idx"), "truncated.safetensors");
  auto bad = good;
  std::vector<float> values(7, 0.5F);
  values[3] = std::numeric_limits<float>::quiet_NaN();
  bad.tensors["fc2.bias"] = files::TensorData::FromFloats({7}, values);
  files::SaveTensors(bad, world.File("nan.safetensors"));
  ExpectRefused(run("dense.json", "nan.safetensors", "images.idx"),
                "nan.safetensors tensor fc2.bias");
  bad.tensors["fc2.bias"] = files::TensorData::FromFloats({8}, std::vector<float>(8));
  files::SaveTensors(bad, world.File("shape.safetensors"));
  ExpectRefused(run("dense.json", "shape.safetensors", "images.idx"),
                "shape.safetensors tensor fc2.bias");

  world.Write("large.idx", IdxImages(3, 9, 8));
  ExpectRefused(run("dense.json", "dense.safetensors", "large.idx"), "large.idx");
  world.Write("empty.idx", "");
  ExpectRefused(run("dense.json", "dense.safetensors", "empty.idx"), "empty.idx");
  world.Write("none.idx", IdxImages(0, 8, 8));
  ExpectRefused(run("dense.json", "dense.safetensors", "none.idx"), "none.idx");
  world.Write("few.idx", files::Idx({0x801, 3}, {0, 1, 2}));
  ExpectRefused(
      world.Tercet({"run", world.File("dense.json"), "--model", world.File("dense.safetensors"),
                    "--images", world.File("images.idx"), "--labels", world.File("few.idx")}),
      "few.idx: 3 labels found, 10 expected");
  world.ExpectClean();
}

TEST(WrongInput, LeavesNoOutputFile) {
  const World world;
  ExpectRefused(
      world.Tercet({"compile", world.File("dense.json"), "--model", world.File("conv.safetensors"),
                    "--out", world.File("compiled.safetensors")}),
      "conv.safetensors");
  EXPECT_FALSE(std::filesystem::exists(world.File("compiled.safetensors")));
  world.ExpectClean();
}

// A run that takes many seconds, caught when its first images are done.
class LongRun : public testing::Test {
 protected:
  Process Start(std::vector<std::string> more) {
    more.insert(more.end(),
                {"--link", "rtt_ms=120", "--batch", "1", "--json", world_.File("out.json")});
    Process process = world_.Run("dense", more);
    EXPECT_TRUE(Eventually([&] {
      return process.ErrSoFar().find("images/s") != std::string::npos;
    })) << process.ErrSoFar();
    return process;
  }
  pid_t Party(int id) {
    const auto found = ProcessesWith("tercet-party --id " + std::to_string(id) + " ");
    for (const pid_t pid : found) {
      const auto mine = ProcessesWith(world_.Path().string());
      if (std::find(mine.begin(), mine.end(), pid) != mine.end()) return pid;
    }
    ADD_FAILURE() << "no process of party " << id;
    return 0;
  }
  void ExpectFailed(Process& process, const testing::Matcher<std::string>& message) {
    const auto result = process.Wait(std::chrono::seconds(20));
    EXPECT_EQ(result.status, 1) << result.err;
    EXPECT_THAT(result.err, AllOf(HasSubstr("tercet: error: "), message));
    EXPECT_FALSE(std::filesystem::exists(world_.File("out.json")));
    world_.ExpectClean();
  }
  World world_;
};

TEST_F(LongRun, EndsWhenAPartyIsKilled) {
  for (int victim = 0; victim < 3; ++victim) {
    Process process = Start({});
    const pid_t pid = Party(victim);
    ASSERT_GT(pid, 0);
    ::kill(pid, SIGKILL);
    ExpectFailed(process,
                 HasSubstr("party " + std::to_string(victim) + ": was killed by signal 9"));
  }
}

TEST_F(LongRun, EndsWhenAPartyIsStopped) {
  Process process = Start({"--timeout", "1"});
  const pid_t pid = Party(2);
  ASSERT_GT(pid, 0);
  ::kill(pid, SIGSTOP);
  ExpectFailed(process, HasSubstr("party 2"));
}

TEST_F(LongRun, EndsWhenAPartyIsAskedToStop) {
  Process process = Start({});
  const pid_t pid = Party(0);
  ASSERT_GT(pid, 0);
  ::kill(pid, SIGTERM);
  ExpectFailed(process, HasSubstr("party 0: stopped by a signal"));
}

TEST_F(LongRun, CleansUpWhenTheLauncherIsAskedToStop) {
  for (const int number : {SIGINT, SIGTERM}) {
    Process process = Start({});
    ::kill(process.Pid(), number);
    ExpectFailed(process, HasSubstr("stopped by a signal"));
  }
}

// Both programs take the limit down that this process has, unless they are asked not to.
TEST_F(LongRun, LeavesNoCoreDumps) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_CORE, &limit), 0);
  if (limit.rlim_max == 0) GTEST_SKIP() << "no core dumps are allowed here";
  const rlimit raised{limit.rlim_max, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_CORE, &raised), 0);
  for (const bool asked : {false, true}) {
    if (asked) ::setenv("TERCET_CORE_DUMPS", "1", 1);
    {
      const Process process = Start({});
      const pid_t party = Party(1);
      ASSERT_GT(party, 0);
      for (const pid_t pid : {process.Pid(), party}) {
        rlimit found{};
        ASSERT_EQ(::prlimit(pid, RLIMIT_CORE, nullptr, &found), 0);
        EXPECT_EQ(found.rlim_cur, asked ? limit.rlim_max : 0);
      }
    }
    EXPECT_TRUE(Eventually([&] { return ProcessesWith(world_.Path().string()).empty(); }));
    ::unsetenv("TERCET_CORE_DUMPS");
  }
  ::setrlimit(RLIMIT_CORE, &limit);
}

TEST_F(LongRun, LeavesNoPartyWhenTheLauncherIsKilled) {
  Process process = Start({});
  ::kill(process.Pid(), SIGKILL);
  EXPECT_EQ(process.Wait().status, 128 + SIGKILL);
  EXPECT_TRUE(Eventually([&] { return ProcessesWith(world_.Path().string()).empty(); }));
}

}  // namespace
}  // namespace tercet::integration
