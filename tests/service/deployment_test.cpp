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
