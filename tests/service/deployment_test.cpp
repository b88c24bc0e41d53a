// SPDX-License-Identifier: Apache-2.0
#include "tercet/service/deployment.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/scratch.h"

namespace tercet::service {
namespace {

using nlohmann::json;

class Files : public testing::Test {
 protected:
  Files() { MakeDeployment(root_, LoopbackAddresses(), 30, false); }

  ScratchDirectory scratch_;
  std::filesystem::path root_ = scratch_.Path() / "demo";
};

TEST_F(Files, OfKeygenFitTogether) {
  const auto deployment = LoadDeployment(root_ / "deployment.json");
  EXPECT_EQ(deployment.lanes, 3U);
  for (int id = 0; id < 3; ++id) {
    const auto store = root_ / fmt::format("server{}", id);
    const auto key = LoadSealingKey(store, deployment, id);
    EXPECT_EQ(key.Public(), deployment.servers[static_cast<std::size_t>(id)].sealing_key);
    const auto own = crypto::ReadCertificate(store / fmt::format("party{}.pem", id));
    EXPECT_EQ(own.party, id);
    EXPECT_EQ(own.fingerprint, deployment.pins[static_cast<std::size_t>(id)].front());
    const auto https = crypto::ReadCertificate(store / "https.pem");
    EXPECT_FALSE(https.party);
    for (const char* secret : {"sealing.key", "https-key.pem"}) {
      struct stat status {};
      ASSERT_EQ(::stat((store / secret).c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 0777U, 0600U);
    }
  }
}

TEST_F(Files, AreNotOverwritten) {
  ExpectConfigError([&] { MakeDeployment(root_, LoopbackAddresses(), 30, false); },
                    (root_ / "deployment.json").string(), "exists already");
  const auto before = LoadDeployment(root_ / "deployment.json").Id();
  MakeDeployment(root_, LoopbackAddresses(), 30, true);
  EXPECT_NE(LoadDeployment(root_ / "deployment.json").Id(), before);
}

// Whoever may replace deployment.json names the keys that models are sealed to.
TEST_F(Files, AreNotMadeWhereOthersMayReplaceThem) {
  const auto open = root_ / "open";
  std::filesystem::create_directory(open);
  std::filesystem::permissions(open, std::filesystem::perms::all);
  ExpectConfigError([&] { MakeDeployment(open, LoopbackAddresses(), 10, false); }, open.string(),
                    "others than its owner may replace");
  EXPECT_TRUE(std::filesystem::is_empty(open));
}

TEST_F(Files, OfAnotherServerAreRefused) {
  const auto deployment = LoadDeployment(root_ / "deployment.json");
  ExpectConfigError([&] { LoadSealingKey(root_ / "server1", deployment, 2); },
                    (root_ / "server1/sealing.key").string(), "not the key");
  ::chmod((root_ / "server1/sealing.key").c_str(), 0644);
  EXPECT_THROW(LoadSealingKey(root_ / "server1", deployment, 1), ConfigError);
}

TEST_F(Files, WithMistakesAreRefusedByField) {
  const json good = json::parse(LoadDeployment(root_ / "deployment.json").text);
  const auto refused = [&](const json& document, const std::string& place,
                           const std::string& text) {
    ExpectConfigError([&] { ParseDeployment(document.dump(), "d"); }, place, text);
  };
  json bad = good;
  bad["servers"][1]["url"] = "http://plain:80";
  refused(bad, "d /servers/1/url", "https://HOST:PORT");
  bad = good;
  bad["servers"][1]["sealing_key"] = bad["servers"][0]["sealing_key"];
  refused(bad, "d /servers/1/sealing_key", "is that of server 0 too");
  bad = good;
  bad["servers"][2]["fingerprint"] = bad["servers"][1]["fingerprint"];
  refused(bad, "d /servers/2/fingerprint", "is that of server 1 too");
  bad = good;
  bad["lanes"] = 65;
  refused(bad, "d /lanes", "from 1 to 64");
  bad = good;
  bad["servers"].erase(2);
  refused(bad, "d /servers", "three servers");
  bad = good;
  bad["servers"][0].erase("sealing_key");
  refused(bad, "d /servers/0", "sealing_key");
}

// Six lanes, and two workers a server with these.
json WithWorkers(const json& plain, const std::string& first, const std::string& second) {
  json document = plain;
  document["lanes"] = 6;
  for (json& server : document["servers"]) {
    json workers = json::array();
    for (const auto& lanes : {first, second}) {
      json worker{{"lanes", lanes}};
      for (const char* key : {"url", "host", "port", "authority"}) worker[key] = server[key];
      workers.push_back(worker);
    }
    for (const char* key : {"url", "host", "port", "authority"}) server.erase(key);
    server["workers"] = workers;
  }
  return document;
}

TEST_F(Files, MayDivideLanesAmongWorkers) {
  const auto plain = LoadDeployment(root_ / "deployment.json");
  ASSERT_EQ(plain.servers[1].workers.size(), 1U);
  EXPECT_EQ(plain.servers[1].workers[0].lanes, (Lanes{0, 1, 2}));
  EXPECT_EQ(plain.WorkerOf(2), 0U);
  json document = WithWorkers(json::parse(plain.text), "0,2-4", "5,1");
  document["servers"][2]["workers"][1]["url"] = "https://other:1";
  document["servers"][2]["workers"][1]["listen"] = "::";
  const auto divided = ParseDeployment(document.dump(), "d");
  for (const auto& server : divided.servers) {
    ASSERT_EQ(server.workers.size(), 2U);
    EXPECT_EQ(server.workers[0].lanes, (Lanes{0, 2, 3, 4}));
    EXPECT_EQ(server.workers[1].lanes, (Lanes{1, 5}));
    EXPECT_EQ(server.workers[1].authority,
              plain.servers[&server - divided.servers.data()].workers[0].authority);
  }
  EXPECT_EQ(divided.servers[2].workers[0].url, plain.servers[2].workers[0].url);
  EXPECT_EQ(divided.servers[2].workers[1].url, "https://other:1");
  EXPECT_EQ(divided.servers[2].workers[1].listen, "::");
  EXPECT_EQ(divided.Id(), plain.Id());
  const std::array<std::size_t, 6> expected{0, 1, 0, 0, 0, 1};
  for (std::size_t lane = 0; lane < 6; ++lane) EXPECT_EQ(divided.WorkerOf(lane), expected[lane]);
}

TEST_F(Files, ThatDivideLanesWronglyAreRefused) {
  const json plain = json::parse(LoadDeployment(root_ / "deployment.json").text);
  const auto refused = [&](const json& document, const std::string& place,
                           const std::string& text) {
    ExpectConfigError([&] { ParseDeployment(document.dump(), "d"); }, place, text);
  };
  refused(WithWorkers(plain, "0-2", "2-5"), "d /servers/0/workers/1/lanes",
          "lane 2 is one of worker 0 too");
  refused(WithWorkers(plain, "0-2", "3,5"), "d /servers/0/workers", "none has lane 4");
  refused(WithWorkers(plain, "0-2", "3-6"), "d /servers/0/workers/1/lanes", "from 0 to 5");
  refused(WithWorkers(plain, "0-2", "x"), "d /servers/0/workers/1/lanes", "the lanes that it runs");
  json bad = WithWorkers(plain, "0-2", "3-5");
  std::swap(bad["servers"][1]["workers"][0], bad["servers"][1]["workers"][1]);
  refused(bad, "d /servers/1/workers", "in another way than those of server 0");
  bad = WithWorkers(plain, "0-2", "3-5");
  bad["servers"][2] = plain["servers"][2];
  refused(bad, "d /servers/2/workers", "in another way than those of server 0");
  bad = WithWorkers(plain, "0-2", "3-5");
  bad["servers"][1]["url"] = "https://localhost:1";
  refused(bad, "d /servers/1", "or, of several machines, workers");
  bad["servers"][1].erase("url");
  bad["servers"][1].erase("workers");
  refused(bad, "d /servers/1", "either url, host and port");
  bad = WithWorkers(plain, "0-2", "3-5");
  bad["servers"][1]["workers"][0].erase("port");
  refused(bad, "d /servers/1/workers/0", "missing key 'port' of a worker");
}

TEST(LanesText, IsReadAsItIsWritten) {
  for (const char* text : {"0", "63", "0-3", "0,2", "0-1,3,5-7", "0-63"}) {
    EXPECT_EQ(LanesText(ParseLanes(text, 64, "lanes")), text);
  }
  EXPECT_EQ(ParseLanes("7,0-1,4-4", 8, "lanes"), (Lanes{0, 1, 4, 7}));
  for (const char* text : {"", "8", "-1", "0-", "3-1", "0,", ",0", "0,0", "0-2,1", "0 1", "0x1",
                           "1-2-3", "99999999999999999999", "auto"})
    ExpectConfigError([&] { ParseLanes(text, 8, "lanes"); }, "lanes", "expected lanes from 0 to 7");
}

TEST(Roles, GoRoundOverTheLanes) {
  for (std::size_t lane = 0; lane < 6; ++lane) {
    const auto roles = RolesOf(lane);
    EXPECT_EQ(roles.helper, static_cast<int>(lane % 3));
    EXPECT_EQ(roles.Evaluator1(), static_cast<int>((lane + 1) % 3));
    EXPECT_TRUE(roles.AreForClients());
  }
}

}  // namespace
}  // namespace tercet::service
