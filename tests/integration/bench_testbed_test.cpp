// SPDX-License-Identifier: Apache-2.0
// `tercet bench --testbed`: three parties that a remote shell starts, here one that leads nowhere
// else.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>

#include "integration/testbed.h"
#include "programs/bench_order.h"
#include "programs/build_identity.h"
#include "programs/events.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::programs {
namespace {

using integration::Eventually;
using integration::Process;
using integration::ReadJson;
using nlohmann::json;
using testing::HasSubstr;

class BenchTestbed : public integration::Testbed {
 protected:
  BenchTestbed() {
    // It stays the party's parent, as a shell from one machine to another does.
    world_.Write("shell", "#!/bin/sh\nsh -c \"$3\"\nexit $?\n");
    std::filesystem::permissions(world_.File("shell"), std::filesystem::perms::owner_all);
    for (int id = 0; id < 3; ++id) Set(id, "");
  }

  // How party `id` is started, and what a shell does before.
  void Set(int id, const std::string& before) {
    const auto p = static_cast<std::size_t>(id);
    config_["parties"][p]["bench"] = {
        {"login", fmt::format("host{}", id)},
        {"command",
         fmt::format("{}exec '{}' bench --id {} --testbed '{}'{}", before,
                     TERCET_BIN_DIR "/tercet-party", id, world_.File("testbed.json"),
                     id < 2 ? fmt::format(" --listen-fd {}", listening_[p].Get()) : "")}};
  }

  Process Bench(const std::vector<std::string>& more) {
    world_.Write("testbed.json", config_.dump());
    std::vector<std::string> command{TERCET_BIN_DIR "/tercet",
                                     "bench",
                                     world_.File("conv.json"),
                                     "--model",
                                     world_.File("conv.safetensors"),
                                     "--testbed",
                                     world_.File("testbed.json"),
                                     "--remote-shell",
                                     world_.File("shell") + " -x",
                                     "--no-charts",
                                     "--out",
                                     world_.File("out"),
                                     "--batches",
                                     "1"};
    command.insert(command.end(), more.begin(), more.end());
    return {world_.Path(), command, {listening_[0].Get(), listening_[1].Get()}};
  }
  json Results() const { return ReadJson(world_.File("out/results.json")); }

  void ExpectRefused(const std::string& problem) {
    const auto bench = Bench({}).Wait();
    EXPECT_NE(bench.status, 0);
    EXPECT_THAT(bench.err, HasSubstr(problem));
    EXPECT_FALSE(std::filesystem::exists(world_.File("out/results.json")));
  }
};

TEST_F(BenchTestbed, MeasuresAndComparesWithThePlainNetwork) {
  config_["roles"] = {{"helper", 2}, {"data_owner", 0}, {"model_owner", 1}, {"receiver", 1}};
  const auto bench =
      Bench({"--images", world_.File("images.idx"), "--labels", world_.File("labels.idx"),
             "--suites", "lut:chunks=1,lut,auto", "--links", "none,rtt_ms=2", "--schedules",
             "in-turn,ahead=1", "--repetitions", "1"})
          .Wait();
  EXPECT_EQ(bench.status, 1) << bench.err;
  EXPECT_THAT(bench.err, HasSubstr("4 of 12 settings failed"));
  const json results = Results();
  EXPECT_EQ(results.at("transport"), "tls");
  EXPECT_THAT(results.at("machine").get<std::string>(), testing::EndsWith(", a testbed"));
  EXPECT_EQ(results.at("commit"), OwnIdentity().commit);
  ASSERT_EQ(results.at("rows").size(), 12u);
  for (const json& row : results.at("rows")) {
    if (row.at("suite") == "lut:chunks=1") {
      EXPECT_THAT(row.at("state").get<std::string>(), HasSubstr("failed: party "));
      continue;
    }
    EXPECT_EQ(row.at("state"), "done") << row;
    EXPECT_EQ(row.at("runs").size(), 1u);
    EXPECT_GT(row.at("online_ms").at("median"), 0);
    EXPECT_FALSE(row.at("accuracy").is_null());
  }
  world_.ExpectClean();
}

TEST_F(BenchTestbed, APartyThatDiesMakesAFailedRowThatIsTriedAgain) {
  // The fourth start is the first counted run of the first row.
  Set(1, fmt::format("cd '{}'; echo >> starts; [ $(wc -l < starts) -ne 4 ] || kill -9 $$; ",
                     world_.Path().string()));
  const std::vector<std::string> more{"--suites", "lut,aby3", "--repetitions", "2"};
  const auto bench = Bench(more).Wait();
  EXPECT_EQ(bench.status, 1);
  EXPECT_THAT(bench.err, HasSubstr("1 of 2 settings failed"));
  const json rows = Results().at("rows");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_THAT(rows.at(0).at("failed").get<std::string>(),
              HasSubstr("party 1: ended with exit status 137 and without a report"));
  EXPECT_EQ(rows.at(1).at("state"), "done");
  auto again = more;
  again.emplace_back("--resume");
  EXPECT_EQ(Bench(again).Wait().status, 0);
  EXPECT_EQ(Results().at("rows").at(0).at("state"), "done");
  EXPECT_EQ(Results().at("rows").at(1).at("runs"), rows.at(1).at("runs"));
  world_.ExpectClean();
}

TEST_F(BenchTestbed, PartiesDoNotOutliveTheProgramThatStartedThem) {
  for (const int signal : {SIGKILL, SIGTERM}) {
    auto bench = Bench({"--links", "rtt_ms=60", "--queries", "1000", "--repetitions", "1"});
    ASSERT_TRUE(Eventually([&] {
      return !integration::ProcessesWith("bench --id 2 --testbed " + world_.File("testbed.json"))
                  .empty();
    })) << bench.ErrSoFar();
    ::kill(bench.Pid(), signal);
    const auto end = bench.Wait(std::chrono::seconds(20));
    EXPECT_EQ(end.status, signal == SIGKILL ? 128 + SIGKILL : 1) << end.err;
    EXPECT_FALSE(std::filesystem::exists(world_.File("out/results.json")))
        << "a run that was stopped is no failed row";
    world_.ExpectClean();
  }
}

TEST_F(BenchTestbed, SaysWhichPartyCannotBeStarted) {
  Set(2, "echo 'ssh: no route to host2' >&2; exit 255; ");
  ExpectRefused("party 2: ended with exit status 255 and without a report: ssh: no route to host2");
  Set(2, "echo Welcome to host2; ");
  ExpectRefused("what party 2 said, Welcome to host2");
  const auto other = EventToLine(ReportEvent{ToJson(BuildIdentity{"0.0.1", "abc", "gcc", "cpu"})});
  Set(2, fmt::format("printf '%s\\n' '{}'; exit 0; ", other.substr(0, other.size() - 1)));
  ExpectRefused("party 2 at host2: runs tercet 0.0.1 (abc), expected " + OwnIdentity().version);
  config_["parties"][1].erase("bench");
  ExpectRefused("testbed.json /parties/1: missing key 'bench'");
  config_["parties"][1]["bench"] = {{"command", "x"}, {"login", "-oProxyCommand=x"}};
  ExpectRefused("testbed.json /parties/1/bench/login: found");
}

BenchOrder Read(const std::string& text) {
  std::FILE* const file = std::tmpfile();
  std::fwrite(text.data(), 1, text.size(), file);
  std::rewind(file);
  std::shared_ptr<std::FILE> closes(file, std::fclose);
  return ReadBenchOrder(::fileno(file));
}

std::string Content(const std::optional<AnonymousFile>& file) {
  return file ? ReadTextFile(file->Path(), {"a part of an order", 1 << 24}) : "";
}

TEST(BenchOrder, ComesAsItWasSent) {
  RunOptions options;
  options.suite = "fss:fuse=yes";
  options.link = "wan";
  options.batch = 7;
  options.in_flight = 3;
  options.rotate_helper = true;
  const std::string model(3 << 20, 'm');
  const auto order = Read(RunOrder(options, {"{}", model, ""}));
  EXPECT_FALSE(order.describe);
  EXPECT_EQ(order.options.suite, options.suite);
  EXPECT_EQ(order.options.link, "wan");
  EXPECT_EQ(order.options.batch, 7u);
  EXPECT_EQ(order.options.in_flight, 3u);
  EXPECT_TRUE(order.options.rotate_helper);
  EXPECT_EQ(Content(order.network), "{}");
  EXPECT_EQ(Content(order.model), model);
  EXPECT_FALSE(order.images);
  EXPECT_TRUE(Read(DescribeOrder()).describe);
}

TEST(BenchOrder, WhatIsNoneIsRefused) {
  const auto whole = RunOrder(RunOptions{.batch = 1}, {"{}", "model", ""});
  const auto with = [&](const std::string& from, const std::string& to) {
    auto text = whole;
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  for (const auto& [text, problem] : std::initializer_list<std::pair<std::string, std::string>>{
           {"", "there is none"},
           {"{", "ended in its first line"},
           {whole.substr(0, whole.size() - 1), "ended in the model, of which it announced 5 bytes"},
           {std::string(20'000, ' ') + whole, "has no end of line in 16384 bytes"},
           {with("\"batch\":1", "\"batch\":0"), "/batch: found 0"},
           {with("\"model_bytes\":5", "\"model_bytes\":4294967297"), "/model_bytes: found"},
           {with("\"network_bytes\":2", "\"network_bytes\":0"), "/network_bytes: found 0"},
           {with("\"rotate_helper\"", "\"material\""), "unknown key 'material'"},
           {with("\"link\":\"none\",", ""), "has no link"}}) {
    try {
      Read(text);
      ADD_FAILURE() << problem;
    } catch (const ConfigError& e) {
      EXPECT_THAT(e.what(), HasSubstr("the order"));
      EXPECT_THAT(e.what(), HasSubstr(problem));
    }
  }
}

}  // namespace
}  // namespace tercet::programs
