// SPDX-License-Identifier: Apache-2.0
// Offline apart from online: material made while queries run, or in files; helpers that go.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>
#include <tuple>

#include "integration/testbed.h"
#include "net/failing_link.h"
#include "programs/inputs.h"
#include "tercet/infer/material.h"
#include "tercet/infer/session.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::integration {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// The secret parts of a file, shares of the model first.
std::vector<std::string> SecretParts(const fs::path& file) {
  const std::string content = ReadAll(file);
  const auto number = [&](std::size_t at) {
    std::size_t value = 0;
    for (std::size_t i = 0; i < 8; ++i)
      value |= static_cast<std::size_t>(static_cast<std::uint8_t>(content.at(at + i))) << 8 * i;
    return value;
  };
  std::vector<std::string> parts;
  for (std::size_t at = 8 + 8 + number(8) + 64; at < content.size();) {
    const std::size_t length = number(at + 8);
    parts.push_back(content.substr(at + 16, length));
    at += 16 + length + 64;
  }
  return parts;
}

// Every byte that was a secret is zero.
void ExpectErased(const fs::path& file) {
  const auto parts = SecretParts(file);
  EXPECT_GT(parts.size(), 1u);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    EXPECT_FALSE(parts[i].empty());
    EXPECT_EQ(parts[i].find_first_not_of('\0'), std::string::npos)
        << file << " part " << i << " of " << parts.size();
  }
}

// The logits of the ten images, in the clear.
std::vector<std::int64_t> PlainLogits(const World& world, const std::string& network) {
  const auto registry = BuiltinProtocols();
  const auto model = programs::LoadModel(nn::LoadNetwork(world.File(network + ".json")),
                                         {world.File(network + ".safetensors"), {}, {}}, registry,
                                         [](const std::string&) {});
  return programs::PlainLogits(model, registry.PlainOracle(),
                               files::LoadImages(world.File("images.idx"), 0, {}));
}

using Case = std::tuple<const char*, const char*, const char*>;
class MaterialAhead : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Grid, MaterialAhead,
                         testing::Combine(testing::Values("tls", "memory"),
                                          testing::Values("lut", "fss", "aby3", "cbnn"),
                                          testing::Values("1", "2", "100")));

TEST_P(MaterialAhead, EqualsThePlainNetworkAndThePlan) {
  const auto& [transport, suite, ahead] = GetParam();
  const World world;
  const auto result = world
                          .Run("conv", {"--transport", transport, "--suite", suite, "--ahead",
                                        ahead, "--batch", "2", "--json", world.File("out.json")})
                          .Wait();
  ASSERT_EQ(result.status, 0) << result.err << result.out;
  EXPECT_THAT(result.out, AllOf(HasSubstr("yes (40 of 40)"),
                                HasSubstr("bytes and hops are what the plan says: yes")));
  const json report = ReadJson(world.File("out.json"));
  EXPECT_EQ(report.at("material"), fmt::format("{} ahead", ahead));
  EXPECT_GT(report.at("time").at("wall_s"), 0.0);
  world.ExpectClean();
}

class MaterialFiles : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Grid, MaterialFiles,
                         testing::Values(Case{"tls", "lut", "0"}, Case{"memory", "lut", "2"},
                                         Case{"tls", "fss", "1"}, Case{"tls", "aby3", "0"},
                                         Case{"memory", "cbnn", "1"}));

// Ten images in batches of 4 use up three queries, the last one in part. A helper without a part
// online has no file: what it would hold gives every image to who has seen a message.
TEST_P(MaterialFiles, AreUsedOnce) {
  const auto& [transport, suite, helper] = GetParam();
  const World world;
  const auto made =
      world
          .Tercet({"run", world.File("conv.json"), "--model", world.File("conv.safetensors"),
                   "--transport", transport, "--suite", suite, "--helper", helper, "--batch", "4",
                   "--material-out", world.File("material"), "--queries", "4"})
          .Wait();
  ASSERT_EQ(made.status, 0) << made.err;
  const bool dealt = suite == std::string("lut") || suite == std::string("fss");
  const auto file = [&](int p) { return world.File(fmt::format("material/party{}.material", p)); };
  std::vector<int> holders;
  for (int p = 0; p < 3; ++p) {
    struct stat status {};
    if (dealt && p == std::stoi(helper)) {
      EXPECT_FALSE(fs::exists(file(p)));
      EXPECT_THAT(made.out, HasSubstr(fmt::format("no file for party {}, the helper", p)));
      continue;
    }
    holders.push_back(p);
    ASSERT_EQ(::stat(file(p).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u);
    for (const auto& part : SecretParts(file(p)))
      EXPECT_NE(part.find_first_not_of('\0'), std::string::npos);
  }
  const auto use = [&, transport = transport, helper = helper] {
    return world
        .Run("conv", {"--transport", transport, "--helper", helper, "--material",
                      world.File("material"), "--json", world.File("out.json")})
        .Wait();
  };
  const auto result = use();
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("yes (40 of 40)"),
                                HasSubstr("bytes and hops are what the plan says: yes")));
  const json report = ReadJson(world.File("out.json"));
  EXPECT_EQ(report.at("bytes").at("offline"), json({0, 0, 0}));
  EXPECT_EQ(report.at("hops").at("offline"), 0);
  EXPECT_EQ(report.at("suite"), suite);
  EXPECT_EQ(report.at("batch"), 4);
  EXPECT_EQ(report.at("presence").at(std::stoul(helper)),
            dealt ? "not started" : "stayed to the end");
  // One is left, three are needed.
  const auto again = use();
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, HasSubstr("holds 1 unused queries of 4 images, 3 are needed"));
  const auto last = world
                        .Run("conv", {"--transport", transport, "--helper", helper, "--limit", "4",
                                      "--material", world.File("material")})
                        .Wait();
  EXPECT_EQ(last.status, 0) << last.err;
  const auto none = use();
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.err, HasSubstr("all of its 4 queries are used up"));
  for (const int p : holders) ExpectErased(file(p));
  world.ExpectClean();
}

class MaterialDirectory : public testing::Test {
 protected:
  Result Make() const {
    return world_
        .Tercet({"run", world_.File("conv.json"), "--model", world_.File("conv.safetensors"),
                 "--transport", "memory", "--batch", "10", "--material-out",
                 world_.File("material"), "--queries", "3"})
        .Wait();
  }
  Result Use(const std::string& directory, std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--material", world_.File(directory)});
    return world_.Run("conv", more).Wait();
  }
  static void ExpectRefused(const Result& result, const std::string& text) {
    EXPECT_EQ(result.status, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(text));
  }
  const World world_;
};

TEST_F(MaterialDirectory, ACopyIsRefusedUntilItIsTheOnlyOne) {
  ASSERT_EQ(Make().status, 0);
  fs::copy(world_.File("material"), world_.File("copy"));
  for (const char* transport : {"tls", "memory"}) {
    ExpectRefused(Use("copy", {"--transport", transport}), "is a copy, or was moved");
    ExpectRefused(Use("copy", {"--transport", transport, "--material-moved"}),
                  "is a copy: the material that was bound to");
  }
  EXPECT_EQ(Use("material").status, 0);
  fs::remove_all(world_.File("material"));
  ExpectRefused(Use("copy"), "--material-moved");
  const auto moved = Use("copy", {"--material-moved"});
  EXPECT_EQ(moved.status, 0) << moved.err;
  EXPECT_EQ(Use("copy").status, 0) << "bound to its new place";
  ExpectRefused(Use("copy"), "all of its 3 queries are used up");
}

// A header that says nonsense, with the digest that fits.
TEST_F(MaterialDirectory, RolesOutOfRangeAreRefused) {
  ASSERT_EQ(Make().status, 0);
  const auto file = world_.File("material/party1.material");
  std::string content = ReadAll(file);
  const auto at = content.find("\"roles\":[0,1,2,1]");
  ASSERT_NE(at, std::string::npos);
  content[at + 9] = '9';
  const std::size_t end = content.find('}', content.find("\"suite\":\"lut\"", at)) + 1;
  content.replace(end, 64, crypto::Sha256Hex(content.substr(16, end - 16)));
  std::ofstream(file, std::ios::binary) << content;
  ExpectRefused(Use("material"),
                "party1.material header /roles/0: found 9, expected a party's number");
}

// Three parties of one process make material, and one of them fails with each of its messages.
class MaterialFaults : public testing::Test {
 protected:
  MaterialFaults() {
    spec_ = nn::LoadNetwork(world_.File("conv.json"));
    model_ = programs::LoadModel(spec_, {world_.File("conv.safetensors"), {}, {}}, registry_,
                                 [](const std::string&) {});
  }
  fs::path File(int party) const { return world_.File(fmt::format("party{}.material", party)); }
  // How many parties failed.
  int Make(const char* suite, int failing, std::atomic<int>& left) const {
    auto links = net::MakeMemoryLinks();
    for (auto& link : links[static_cast<std::size_t>(failing)])
      if (link) link = std::make_unique<net::FailingLink>(std::move(link), left);
    std::atomic<int> failed = 0;
    {
      std::vector<std::jthread> threads;
      for (int id = 0; id < 3; ++id)
        threads.emplace_back([&, id] {
          infer::SessionSettings settings;
          settings.id = id;
          settings.spec = spec_;
          settings.suite.name = suite;
          settings.batch = 2;
          settings.schedule = infer::MakeMaterial{File(id), 2};
          if (id == settings.roles.model_owner) settings.model = &model_;
          try {
            infer::Session(settings, registry_).Run([&] {
              return std::move(links[static_cast<std::size_t>(id)]);
            });
          } catch (const Error&) {
            ++failed;
          }
        });
    }
    return failed;
  }
  bool Exists(int party) const { return fs::exists(File(party)); }
  World world_;
  mpc::Registry registry_ = BuiltinProtocols();
  nn::NetworkSpec spec_;
  nn::IntegerNetwork model_;
};

TEST_F(MaterialFaults, NoFileIsLeftWhereverAPartyFails) {
  constexpr int kMany = 1 << 20;
  // A party that has sent all of the last meeting knows that all have their files.
  constexpr int kLastMeeting = 4;
  for (const char* suite : {"lut", "aby3"}) {
    for (int party = 0; party < 3; ++party) {
      std::atomic<int> left = kMany;
      ASSERT_EQ(Make(suite, party, left), 0);
      const int messages = kMany - left;
      for (int p = 0; p < 3; ++p) {
        EXPECT_EQ(Exists(p), p != 0 || suite == std::string("aby3"));
        fs::remove(File(p));
      }
      for (int n = 0; n < messages; ++n) {
        left = n;
        EXPECT_GE(Make(suite, party, left), 1);
        EXPECT_FALSE(Exists(party)) << suite << " party " << party << " message " << n;
        for (int p = 0; p < 3; ++p) {
          EXPECT_TRUE(!Exists(p) || n >= messages - kLastMeeting)
              << suite << " party " << p << " has a file, and party " << party
              << " failed with message " << n << " of " << messages;
          fs::remove(File(p));
        }
      }
    }
  }
}

// What counts is what auto chose, layer by layer: lut and fss, fused, for a long link, aby3 for one
// of low rate when all bytes count.
const std::vector<std::string> kLong{"--suite", "auto", "--link", "rtt_ms=20"};
const std::vector<std::string> kSlow{"--suite", "auto", "--link", "mbit=1", "--optimise", "total"};

class MaterialAuto : public testing::TestWithParam<const char*> {
 protected:
  Result Make(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"run",
                                       world_.File("dense.json"),
                                       "--model",
                                       world_.File("dense.safetensors"),
                                       "--transport",
                                       GetParam(),
                                       "--batch",
                                       "4",
                                       "--material-out",
                                       world_.File("material"),
                                       "--queries",
                                       "6"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return world_.Tercet(arguments).Wait();
  }
  Result Use(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"--transport", GetParam(),
                                       "--material",  world_.File("material"),
                                       "--json",      world_.File("out.json")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return world_.Run("dense", arguments).Wait();
  }
  void ExpectRight(const Result& result, const std::vector<std::string>& suites) const {
    ASSERT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.out, AllOf(HasSubstr("yes (40 of 40)"),
                                  HasSubstr("bytes and hops are what the plan says: yes")));
    const json report = ReadJson(world_.File("out.json"));
    EXPECT_EQ(report.at("logits").size(), World::kImages);
    EXPECT_EQ(report.at("bytes").at("offline"), json({0, 0, 0}));
    std::vector<std::string> found;
    for (const auto& layer : report.at("layers"))
      if (const auto suite = layer.at("suite").get<std::string>(); !suite.empty())
        found.push_back(suite);
    EXPECT_EQ(found, suites);
  }
  static void ExpectRefused(const Result& result, const std::string& text) {
    EXPECT_EQ(result.status, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(text));
  }
  const World world_;
};

INSTANTIATE_TEST_SUITE_P(Grid, MaterialAuto, testing::Values("tls", "memory"));

TEST_P(MaterialAuto, IsForTheSuitesThatWereChosen) {
  const auto made = Make(kLong);
  ASSERT_EQ(made.status, 0) << made.err;
  ExpectRight(Use(kLong), {"lut", "fss:fuse=yes"});
  ExpectRefused(Use(kSlow),
                "was made for suite auto, this run has auto on link mbit=1: layer fc1 has lut in "
                "the material, aby3 in this run");
  ExpectRefused(Use({"--suite", "fss", "--link", "rtt_ms=20"}),
                "was made for suite auto, this run has fss on link rtt_ms=20: layer fc1 has "
                "lut in the material, fss in this run");
  // Where no suite is asked for, the material's are taken on any link.
  ExpectRight(Use({}), {"lut", "fss:fuse=yes"});
  world_.ExpectClean();
}

TEST_P(MaterialAuto, MayComeUnderAnotherName) {
  const auto made = Make({"--suite", "aby3"});
  ASSERT_EQ(made.status, 0) << made.err;
  ExpectRefused(
      Use(kLong),
      "was made for suite aby3, this run has auto on link rtt_ms=20: layer fc1 has aby3 in "
      "the material, lut in this run");
  ExpectRight(Use(kSlow), {"aby3", "aby3"});
}

class MaterialTestbed : public Testbed {
 protected:
  std::string File(int party) const { return world_.File(fmt::format("party{}.material", party)); }
  // Makes the files of all parties.
  void Make(const std::string& network, const std::string& queries,
            const std::vector<std::string>& more = {}) {
    std::vector<Process> parties;
    for (int id = 0; id < 3; ++id) {
      std::filesystem::remove(File(id));
      auto arguments = more;
      arguments.insert(arguments.end(), {"--material-out", File(id), "--queries", queries});
      if (id == 2)
        arguments.insert(arguments.end(), {"--model", world_.File(network + ".safetensors")});
      parties.push_back(StartBare(id, network, arguments));
    }
    for (auto& party : parties) {
      const auto result = party.Wait();
      ASSERT_EQ(result.status, 0) << result.err;
    }
  }
  Process Use(int id, const std::string& network, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--material", File(id)});
    if (id == 1)
      more.insert(more.end(),
                  {"--images", world_.File("images.idx"), "--json", world_.File("p1.json")});
    return StartBare(id, network, more);
  }
  void ExpectRefused(Process process, const std::string& text) {
    const auto result = process.Wait();
    EXPECT_EQ(result.status, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(text));
  }
  void ExpectRightLogits(const std::string& network) {
    EXPECT_EQ(ReadJson(world_.File("p1.json")).at("logits"), json(PlainLogits(world_, network)));
  }
};

TEST_F(MaterialTestbed, TheHelperNeedNotBeThere) {
  Make("conv", "5", {"--batch", "2"});
  auto first = Use(1, "conv"), second = Use(2, "conv");
  const auto result = first.Wait();
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(second.Wait().status, 0);
  ExpectRightLogits("conv");
  const json report = ReadJson(world_.File("p1.json"));
  EXPECT_EQ(report.at("material"), "from a file");
  EXPECT_EQ(report.at("bytes").at("offline"), 0);
  ExpectRefused(Use(0, "conv"), "party 0, the helper, has no part in the online phase");
}

TEST_F(MaterialTestbed, IsForTheSuitesThatAutoChose) {
  auto making = kLong;
  making.insert(making.end(), {"--batch", "5"});
  Make("dense", "2", making);
  ExpectRefused(Use(2, "dense", kSlow), "layer fc1 has lut in the material, aby3 in");
  auto first = Use(1, "dense", kLong), second = Use(2, "dense", kLong);
  const auto result = first.Wait();
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(second.Wait().status, 0);
  ExpectRightLogits("dense");
}

TEST_F(MaterialTestbed, IsRefusedByWhatDiffers) {
  Make("conv", "5", {"--batch", "2"});
  ExpectRefused(Use(1, "dense"), "was made for network \"Conv\"");
  ExpectRefused(Use(1, "conv", {"--suite", "fss"}), "was made for suite lut, this run has fss");
  ExpectRefused(Use(1, "conv", {"--batch", "3"}), "was made for batch 2, this run has 3");
  ExpectRefused(StartBare(2, "conv", {"--material", File(1)}),
                "was made for party 1, this run has 2");
  ExpectRefused(Use(2, "conv", {"--model", world_.File("conv.safetensors")}),
                "--model: the material holds");
  config_["roles"] = {{"helper", 0}, {"data_owner", 2}, {"model_owner", 1}, {"receiver", 1}};
  ExpectRefused(Use(1, "conv"), "was made for roles helper 0, data owner 1");
  config_.erase("roles");
  ExpectRefused(Use(1, "conv", {"--material-out", world_.File("x"), "--queries", "1"}),
                "--material-out");
  ExpectRefused(StartBare(0, "conv", {"--material-out", File(1), "--queries", "1"}),
                "exists already");

  // Party 2's file of another session.
  fs::rename(File(2), world_.File("old"));
  Make("conv", "5", {"--batch", "2"});
  fs::rename(world_.File("old"), File(2));
  std::vector<Process> parties;
  parties.push_back(Use(1, "conv"));
  parties.push_back(Use(2, "conv"));
  ExpectAllFail(std::move(parties), "differs in material");
}

TEST_F(MaterialTestbed, IsRefusedWhenDamaged) {
  Make("conv", "5", {"--batch", "2"});
  const auto size = std::filesystem::file_size(File(1));
  {
    std::fstream file(File(1), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(size - 1000));
    file.write("damaged", 7);
  }
  std::vector<Process> parties;
  parties.push_back(Use(1, "conv"));
  parties.push_back(Use(2, "conv"));
  ExpectAllFail(std::move(parties), "party1.material: is damaged: the digest of query 4 is wrong");
  std::filesystem::resize_file(File(1), size / 2);
  ExpectRefused(Use(1, "conv"), "is truncated");
}

// A party that stopped in the middle is ahead of the other; what only one of them used is skipped.
TEST_F(MaterialTestbed, NoQueryIsUsedTwiceAfterAFailure) {
  Make("conv", "3", {"--batch", "10"});
  std::filesystem::copy_file(File(2), world_.File("before"));
  for (int round = 0; round < 2; ++round) {
    // Party 2 comes back with an old copy of its file.
    std::filesystem::copy_file(world_.File("before"), File(2),
                               std::filesystem::copy_options::overwrite_existing);
    auto first = Use(1, "conv"), second = Use(2, "conv");
    EXPECT_EQ(first.Wait().status, 0);
    EXPECT_EQ(second.Wait().status, 0);
    ExpectRightLogits("conv");
    const infer::MaterialFile material(File(2));
    EXPECT_EQ(material.Next(), static_cast<std::size_t>(round + 1));
  }
}

// Party 2 comes from another machine, with a copy of its file that is older than party 1's.
TEST_F(MaterialTestbed, AnOldCopyFromElsewhereIsSkippedForward) {
  Make("conv", "2", {"--batch", "10"});
  const auto old = world_.File("old");
  fs::copy_file(File(2), old);
  const auto query = SecretParts(old).at(1);
  const auto use = [&](const std::vector<std::string>& more) {
    std::vector<Process> parties;
    parties.push_back(Use(1, "conv"));
    parties.push_back(Use(2, "conv", more));
    return parties;
  };
  for (auto& party : use({})) EXPECT_EQ(party.Wait().status, 0);
  fs::remove_all(world_.File("state/tercet/material") /
                 fs::path(infer::MaterialFile(File(2)).Header().session + "-party2.json"));
  fs::remove(File(2));
  fs::rename(old, File(2));
  ExpectRefused(Use(2, "conv"), "is not known to this machine");
  EXPECT_EQ(SecretParts(File(2)).at(1), query);
  for (auto& party : use({"--material-moved"})) {
    const auto result = party.Wait();
    EXPECT_EQ(result.status, 0) << result.err;
  }
  ExpectRightLogits("conv");
  ExpectErased(File(1));
  ExpectErased(File(2));
}

// Where the other party has used everything, what is left here is erased as well.
TEST_F(MaterialTestbed, WhatOnlyTheOtherHasUsedIsErased) {
  Make("conv", "1", {"--batch", "10"});
  const auto old = world_.File("old");
  fs::copy_file(File(2), old);
  {
    auto first = Use(1, "conv"), second = Use(2, "conv");
    EXPECT_EQ(first.Wait().status, 0);
    EXPECT_EQ(second.Wait().status, 0);
  }
  fs::remove_all(world_.File("state"));
  fs::remove(File(2));
  fs::rename(old, File(2));
  std::vector<Process> parties;
  parties.push_back(Use(1, "conv", {"--material-moved"}));
  parties.push_back(Use(2, "conv", {"--material-moved"}));
  ExpectAllFail(std::move(parties), "all of its 1 queries are used up");
  ExpectErased(File(2));
}

TEST_F(MaterialTestbed, NoFileIsLeftWhenADiskIsFull) {
  std::vector<Process> parties;
  for (int id = 0; id < 3; ++id) {
    std::vector<std::string> arguments{"--batch",        "10",     "--suite",   "aby3",
                                       "--material-out", File(id), "--queries", "20"};
    if (id == 2) arguments.insert(arguments.end(), {"--model", world_.File("conv.safetensors")});
    const auto limit = [] {
      const rlimit bytes{32 << 10, 32 << 10};
      ::setrlimit(RLIMIT_FSIZE, &bytes);
    };
    parties.push_back(
        StartBare(id, "conv", arguments, id == 1 ? std::function<void()>(limit) : nullptr));
  }
  ExpectAllFail(std::move(parties), "party1.material: cannot be written");
  for (int id = 0; id < 3; ++id) EXPECT_FALSE(fs::exists(File(id))) << id;
}

TEST_F(MaterialTestbed, NoFileIsLeftOfAFailedRun) {
  std::vector<Process> parties;
  config_["connect_timeout_s"] = 2;
  for (int id = 0; id < 2; ++id)
    parties.push_back(StartBare(id, "conv", {"--material-out", File(id), "--queries", "3"}));
  ExpectAllFail(std::move(parties), "party 2");
  for (int id = 0; id < 2; ++id) EXPECT_FALSE(fs::exists(File(id)));
}

// A party is stopped or killed while material is made.
class MaterialStopped : public MaterialTestbed,
                        public testing::WithParamInterface<std::tuple<int, int>> {};

INSTANTIATE_TEST_SUITE_P(Grid, MaterialStopped,
                         testing::Combine(testing::Values(0, 1, 2),
                                          testing::Values(SIGTERM, SIGKILL)));

TEST_P(MaterialStopped, LeavesNoFile) {
  const auto& [party, signal] = GetParam();
  const std::vector<std::string> slow{"--suite", "aby3", "--link", "rtt_ms=200"};
  std::vector<Process> parties;
  for (int id = 0; id < 3; ++id) {
    auto arguments = slow;
    arguments.insert(arguments.end(), {"--material-out", File(id), "--queries", "1000"});
    if (id == 2) arguments.insert(arguments.end(), {"--model", world_.File("conv.safetensors")});
    parties.push_back(StartBare(id, "conv", arguments));
  }
  for (int id = 0; id < 3; ++id) ASSERT_TRUE(Eventually([&] { return fs::exists(File(id)); }));
  ::kill(parties[static_cast<std::size_t>(party)].Pid(), signal);
  for (int id = 0; id < 3; ++id) {
    const auto result = parties[static_cast<std::size_t>(id)].Wait();
    if (id == party && signal == SIGKILL) {
      // Nothing could be done there, but what is left is not taken for material.
      EXPECT_EQ(result.status, 128 + SIGKILL);
      EXPECT_TRUE(fs::exists(File(id)));
      EXPECT_THROW(infer::MaterialFile{File(id)}, ConfigError);
      continue;
    }
    EXPECT_EQ(result.status, 1) << result.err;
    EXPECT_FALSE(fs::exists(File(id))) << id;
  }
}

class DealingHelper : public Testbed {
 protected:
  std::vector<Process> StartSlowly(const std::vector<std::string>& more) {
    std::array<std::vector<std::string>, 3> arguments;
    for (auto& list : arguments) {
      list = {"--link", "rtt_ms=100", "--batch", "1"};
      list.insert(list.end(), more.begin(), more.end());
    }
    arguments[1].insert(arguments[1].end(), {"--json", world_.File("p1.json")});
    return StartAll({"dense", "dense", "dense"}, arguments);
  }
  static bool IsDelivered(const Process& party) {
    return party.ErrSoFar().find("the helper is not needed any more") != std::string::npos;
  }
};

TEST_F(DealingHelper, LeavesWhenEverythingIsDelivered) {
  auto parties = StartSlowly({"--helper-leaves"});
  const auto helper = parties[0].Wait();
  EXPECT_EQ(helper.status, 0) << helper.err;
  EXPECT_THAT(helper.out, HasSubstr("left when all material was delivered"));
  for (const std::size_t p : {1, 2}) {
    // The others have still to work when it is gone.
    int status = 0;
    EXPECT_EQ(::waitpid(parties[p].Pid(), &status, WNOHANG), 0);
  }
  for (const std::size_t p : {1, 2}) {
    const auto result = parties[p].Wait();
    EXPECT_EQ(result.status, 0) << result.err;
  }
  EXPECT_EQ(ReadJson(world_.File("p1.json")).at("logits"), json(PlainLogits(world_, "dense")));
}

TEST_F(DealingHelper, MayDieOnceEverythingIsDelivered) {
  auto parties = StartSlowly({"--ahead", "100"});
  ASSERT_TRUE(Eventually([&] { return IsDelivered(parties[1]) && IsDelivered(parties[2]); }));
  ::kill(parties[0].Pid(), SIGKILL);
  EXPECT_EQ(parties[0].Wait().status, 128 + SIGKILL);
  for (const std::size_t p : {1, 2}) {
    const auto result = parties[p].Wait();
    EXPECT_EQ(result.status, 0) << result.err;
  }
  EXPECT_EQ(ReadJson(world_.File("p1.json")).at("logits"), json(PlainLogits(world_, "dense")));
}

TEST_F(DealingHelper, IsNeededWhereItTakesPartOnline) {
  ExpectAllFail(StartSlowly({"--helper-leaves", "--suite", "aby3"}),
                "--helper-leaves: party 0, the helper, has a part in the online phase of fc1 "
                "(aby3), fc2 (aby3)");
  auto parties = StartSlowly({"--ahead", "100", "--suite", "aby3"});
  ASSERT_NO_FATAL_FAILURE(AwaitImages(parties[1]));
  ::kill(parties[0].Pid(), SIGKILL);
  for (const std::size_t p : {1, 2}) {
    const auto result = parties[p].Wait();
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, AllOf(HasSubstr("party 0"), HasSubstr("tercet-party: error: "),
                                  Not(HasSubstr("is not needed any more"))));
  }
}

// It dies while it still has to deal.
TEST_F(DealingHelper, IsNeededUntilEverythingIsDelivered) {
  auto parties = StartSlowly({"--ahead", "1"});
  ASSERT_NO_FATAL_FAILURE(AwaitImages(parties[1]));
  ::kill(parties[0].Pid(), SIGKILL);
  for (const std::size_t p : {1, 2}) {
    const auto result = parties[p].Wait();
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, HasSubstr("party 0"));
  }
}

}  // namespace
}  // namespace tercet::integration
