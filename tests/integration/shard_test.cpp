// SPDX-License-Identifier: Apache-2.0
// A job in shards: some run, one is killed, the job goes on, and all of it is one report.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "files/idx.h"
#include "integration/testbed.h"
#include "programs/inputs.h"
#include "tercet/compile/random_weights.h"
#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

namespace tercet::integration {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

class Shards : public Testbed {
 protected:
  std::string ReportOf(int id, std::size_t shard) const {
    return world_.File(fmt::format("p{}-{}.json", id, shard));
  }
  // The sockets stay the same, so it is the ports of the file that move.
  void MoveTo(std::size_t shard) {
    for (std::size_t p = 0; p < 2; ++p) config_["parties"][p]["port"] = ports_[p] - shard;
  }
  // All three parties of shard `i` of three.
  std::vector<Process> StartShard(std::size_t i, std::vector<std::string> more = {}) {
    MoveTo(i);
    more.insert(more.end(), {"--shard", fmt::format("{}/3", i), "--batch", "1"});
    std::vector<Process> parties;
    for (int id = 0; id < 3; ++id) {
      auto own = more;
      own.insert(own.end(), {"--json", world_.File(fmt::format("p{}-{{shard}}.json", id))});
      if (id == 1) own.insert(own.end(), {"--labels", world_.File("labels.idx")});
      parties.push_back(Start(id, "dense", own));
    }
    return parties;
  }
  // Each party ends well and says `text`.
  void RunShard(std::size_t i, const std::vector<std::string>& more, const std::string& text) {
    for (auto& party : StartShard(i, more)) {
      const auto result = party.Wait();
      EXPECT_EQ(result.status, 0) << result.err;
      EXPECT_THAT(result.out, HasSubstr(text));
    }
  }
  Result Join() const {
    return world_
        .Tercet({"join", world_.File("all.json"), ReportOf(1, 2), ReportOf(1, 0), ReportOf(1, 1)})
        .Wait();
  }
};

TEST_F(Shards, AreResumedAndJoinedToTheWhole) {
  RunShard(0, {}, "shard 0/3: images 0 to 3 of 10");
  {
    // Parties see a peer's death within the time-out.
    auto parties = StartShard(1, {"--link", "rtt_ms=300"});
    ASSERT_TRUE(
        Eventually([&] { return parties[1].OutSoFar().find("batches") != std::string::npos; }));
    ::kill(parties[2].Pid(), SIGKILL);
    for (auto& party : parties) EXPECT_NE(party.Wait().status, 0);
  }
  EXPECT_FALSE(std::filesystem::exists(ReportOf(1, 1)));
  RunShard(2, {}, "shard 2/3: images 7 to 9 of 10");
  EXPECT_THAT(Join().err, HasSubstr(ReportOf(1, 1)));

  const json before = ReadJson(ReportOf(1, 0));
  RunShard(0, {"--resume"}, "done already by all parties");
  EXPECT_EQ(ReadJson(ReportOf(1, 0)), before);
  RunShard(1, {"--resume"}, "images in batches");
  RunShard(2, {"--resume"}, "done already by all parties");

  const auto joined = Join();
  ASSERT_EQ(joined.status, 0) << joined.err;
  EXPECT_THAT(joined.out, HasSubstr("accuracy: "));
  MoveTo(0);
  auto whole = StartAll({"dense", "dense", "dense"},
                        {{{"--batch", "1"},
                          {"--batch", "1", "--labels", world_.File("labels.idx"), "--json",
                           world_.File("whole.json")},
                          {"--batch", "1"}}});
  for (auto& party : whole) ASSERT_EQ(party.Wait().status, 0);
  const json all = ReadJson(world_.File("all.json")), one = ReadJson(world_.File("whole.json"));
  for (const char* key : {"logits", "images", "correct", "accuracy", "bytes", "hops", "party"})
    EXPECT_EQ(all.at(key), one.at(key)) << key;
}

// What is another job is not taken for this one, whoever brought the difference.
TEST_F(Shards, OfAnotherJobAreRunAgainAndNotJoined) {
  for (const std::size_t i : {0U, 1U, 2U}) RunShard(i, {"--resume"}, "images in batches");
  const json before = ReadJson(ReportOf(1, 0));
  const auto spec = nn::LoadNetwork(world_.File("dense.json"));
  files::SaveTensors(compile::RandomWeights(spec, 12), world_.File("dense.safetensors"));
  RunShard(0, {"--resume"}, "images in batches");
  EXPECT_NE(ReadJson(ReportOf(1, 0)).at("logits"), before.at("logits"));
  const auto refused = Join();
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("another model, other images or other settings"));
  EXPECT_FALSE(std::filesystem::exists(world_.File("all.json")));

  auto images = IdxImages(10, 8, 8);
  images.back() ^= 1;  // of another shard
  world_.Write("images.idx", images);
  RunShard(0, {"--resume"}, "images in batches");
  RunShard(0, {"--resume"}, "done already");
  // Labels that change the receiver's report alone: it asks for another run.
  const json report = ReadJson(ReportOf(1, 0));
  std::vector<std::uint8_t> labels(10);
  for (std::size_t i = 0; i < 4; ++i) {
    const auto row = report.at("logits").begin() + static_cast<std::ptrdiff_t>(4 * i);
    labels[i] = static_cast<std::uint8_t>(std::max_element(row, row + 4) - row);
    if (report.at("correct") == 4) labels[i] = (labels[i] + 1) % 4;
  }
  world_.Write("labels.idx", files::Idx({0x801, 10}, labels));
  RunShard(0, {"--resume"}, "images in batches");
  EXPECT_NE(ReadJson(ReportOf(1, 0)).at("correct"), report.at("correct"));
  // A party that has lost its report, or has half of it.
  std::filesystem::resize_file(ReportOf(2, 0), 100);
  RunShard(0, {"--resume"}, "images in batches");
  EXPECT_EQ(ReadJson(ReportOf(2, 0)).at("party"), 2);
}

TEST_F(Shards, TellNothingOfModelAndImagesButWhetherTheyAreTheSame) {
  RunShard(0, {}, "images in batches");
  // Keys of other parties give other jobs, so nobody can compare with what they guess.
  const json before = ReadJson(ReportOf(0, 0));
  crypto::MakeCertificates(world_.Path() / "keys", 2, true);
  RunShard(0, {}, "images in batches");
  EXPECT_NE(ReadJson(ReportOf(0, 0)).at("shard").at("job"), before.at("shard").at("job"));
}

TEST_F(Shards, NeedAnImageEach) {
  const auto result = Start(1, "dense", {"--shard", "3/11"}).Wait();
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("--shard: 11 shards found, at most one for each of 10 images"));
}

TEST_F(Shards, NeedKeys) {
  config_["transport"] = "tcp-insecure";
  config_.erase("certificates");
  const auto result = Start(1, "dense", {"--shard", "0/3"}).Wait();
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("--shard: needs the transport tls"));
}

TEST(ShardsOfARun, OnOneMachine) {
  const World world;
  const auto run = [&](std::size_t i, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--transport", "memory", "--shard", fmt::format("{}/3", i), "--json",
                             world.File("s{shard}.json")});
    auto result = world.Run("conv", more).Wait();
    EXPECT_EQ(result.status, 0) << result.err;
    return result.out;
  };
  for (const std::size_t i : {0U, 1U, 2U})
    EXPECT_THAT(run(i, {"--resume"}), HasSubstr("every logit equals"));
  const auto refused =
      world.Tercet({"join", world.File("s0.json"), world.File("s0.json"), world.File("s1.json")})
          .Wait();
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("OUT: found " + world.File("s0.json")));
  const auto joined = world
                          .Tercet({"join", world.File("all.json"), world.File("s0.json"),
                                   world.File("s1.json"), world.File("s2.json")})
                          .Wait();
  ASSERT_EQ(joined.status, 0) << joined.err;
  ASSERT_EQ(
      world.Run("conv", {"--transport", "memory", "--json", world.File("one.json")}).Wait().status,
      0);
  const json all = ReadJson(world.File("all.json")), one = ReadJson(world.File("one.json"));
  for (const char* key : {"logits", "predictions", "images", "correct", "matches_plain", "equal"})
    EXPECT_EQ(all.at(key), one.at(key)) << key;
  EXPECT_EQ(all.at("bytes").at("online").at(1).get<int>() > 0, true);

  EXPECT_THAT(run(1, {"--resume"}), HasSubstr("shard 1/3: images 4 to 6 of 10: done already"));
  EXPECT_THAT(run(1, {"--resume", "--no-check"}), Not(HasSubstr("done already")));
  EXPECT_THAT(run(1, {"--resume"}), Not(HasSubstr("done already"))) << "this one is to be checked";
  EXPECT_THAT(run(1, {"--resume", "--limit", "9"}), Not(HasSubstr("done already")));
  world.ExpectClean();
}

}  // namespace
}  // namespace tercet::integration
