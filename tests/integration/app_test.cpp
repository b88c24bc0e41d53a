// SPDX-License-Identifier: Apache-2.0
// What the programs are made of, without processes.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <variant>

#include "base/sanitizers.h"
#include "integration/world.h"
#include "programs/anonymous_file.h"
#include "programs/auto_suite.h"
#include "programs/core_dumps.h"
#include "programs/cost_table.h"
#include "programs/events.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/pictures.h"
#include "programs/run_options.h"
#include "programs/shard_options.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/crypto/certificates.h"
#include "tercet/infer/run_cost.h"
#include "tercet/infer/testbed.h"
#include "tercet/mpc/builtin_protocols.h"

#ifdef __linux__
#include <sys/prctl.h>
#endif

namespace tercet::programs {
namespace {

using integration::World;
using nlohmann::json;
using testing::HasSubstr;

#ifdef __linux__
// In a child, so that this process stays as it is: whether it may be dumped, and with a limit of 0.
TEST(CoreDumps, AreForbiddenUnlessAskedFor) {
  const auto dumpable = [](const char* asked) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::setenv("TERCET_CORE_DUMPS", asked, 1);
      ::prctl(PR_SET_DUMPABLE, 1);
      rlimit limit{};
      ::getrlimit(RLIMIT_CORE, &limit);
      limit.rlim_cur = limit.rlim_max;
      ::setrlimit(RLIMIT_CORE, &limit);
      const auto before = limit.rlim_cur;
      ForbidCoreDumps();
      ::getrlimit(RLIMIT_CORE, &limit);
      const bool lowered = limit.rlim_cur == 0, kept = limit.rlim_cur == before;
      ::_exit(::prctl(PR_GET_DUMPABLE) * 4 + lowered * 2 + kept);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  };
#if TERCET_ADDRESS_SANITIZER
  constexpr int kDumpable = 4;  // its leak checker needs that
#else
  constexpr int kDumpable = 0;
#endif
  for (const char* asked : {"", "0", "yes"}) EXPECT_EQ(dumpable(asked) & ~1, kDumpable + 2);
  EXPECT_EQ(dumpable("1") & ~2, 4 + 1);
}
#endif

TEST(Events, ComeBackFromTheirLines) {
  const auto progress =
      std::get<ProgressEvent>(EventFromLine(EventToLine(ProgressEvent{3, 9}), "pipe"));
  EXPECT_EQ(progress.done, 3u);
  EXPECT_EQ(progress.total, 9u);
  const auto report =
      std::get<ReportEvent>(EventFromLine(EventToLine(ReportEvent{"{\n\"a\": 1}"}), "pipe"));
  EXPECT_EQ(report.json, "{\n\"a\": 1}");
  for (const auto kind :
       {FailureKind::kInput, FailureKind::kOwn, FailureKind::kNetwork, FailureKind::kAbort}) {
    const auto failure =
        std::get<Failure>(EventFromLine(EventToLine(Failure{kind, "why\n\xff"}), "pipe"));
    EXPECT_EQ(failure.kind, kind);
    EXPECT_THAT(failure.text, HasSubstr("why"));
  }
  for (const char* line :
       {"", "{}", "{\"event\": \"nonesuch\"}", "{\"event\": \"progress\", \"done\": \"x\"}"})
    EXPECT_THROW(EventFromLine(line, "pipe"), ConfigError) << line;
}

TEST(Failures, AreClassedAndThrownAgain) {
  EXPECT_EQ(Classify(ConfigError("a", "b")).kind, FailureKind::kInput);
  EXPECT_EQ(Classify(UnsupportedError("a")).kind, FailureKind::kInput);
  EXPECT_EQ(Classify(NetworkError("a")).kind, FailureKind::kNetwork);
  EXPECT_EQ(Classify(AbortError("a")).kind, FailureKind::kAbort);
  EXPECT_EQ(Classify(ProtocolError("a")).kind, FailureKind::kOwn);
  EXPECT_EQ(Classify(std::bad_alloc()).kind, FailureKind::kOwn);
  for (const auto kind :
       {FailureKind::kInput, FailureKind::kOwn, FailureKind::kNetwork, FailureKind::kAbort}) {
    try {
      ThrowFailure({kind, "text"}, "party 1");
    } catch (const std::exception& e) {
      EXPECT_EQ(Classify(e).kind, kind);
      EXPECT_STREQ(e.what(), "party 1: text");
    }
  }
}

class TestbedFile : public testing::Test {
 protected:
  TestbedFile() {
    const std::array<net::Endpoint, 3> endpoints{{{"a", 1}, {"b", 2}, {"c", 0}}};
    config_ = json::parse(infer::TestbedToJson(endpoints, std::nullopt, {1, 2, 0, 0}, 3.5, 90, 7));
    config_["transport"] = "tls";
    config_["certificates"] = "keys";
  }
  infer::Testbed Load(int id = 1) {
    world_.Write("t.json", config_.dump());
    return infer::LoadTestbed(world_.File("t.json"), id);
  }
  void ExpectRefused(const std::string& pointer, const std::string& text) {
    try {
      Load();
      ADD_FAILURE() << "no error, expected: " << text;
    } catch (const ConfigError& e) {
      EXPECT_EQ(e.Place(), world_.File("t.json") + (pointer.empty() ? "" : " " + pointer));
      EXPECT_THAT(e.what(), HasSubstr(text));
    }
  }
  World world_;
  json config_;
};

TEST_F(TestbedFile, IsReadAsWritten) {
  const infer::Testbed testbed = Load();
  EXPECT_EQ(testbed.endpoints[1].host, "b");
  EXPECT_EQ(testbed.endpoints[1].port, 2);
  EXPECT_EQ(testbed.roles, (mpc::Roles{1, 2, 0, 0}));
  EXPECT_EQ(testbed.timeout.count(), 3500);
  EXPECT_EQ(testbed.connect_timeout.count(), 7000);
  ASSERT_TRUE(testbed.tls.has_value());
  EXPECT_EQ(testbed.tls->key, world_.Path() / "keys/party1-key.pem");
}

TEST_F(TestbedFile, OfTheLauncherNamesOnePartysFiles) {
  const net::TlsFiles files{"/a/ca.pem", "/b/own.pem", "/c/own-key.pem"};
  config_ =
      json::parse(infer::TestbedToJson({{{"a", 1}, {"b", 2}, {"c", 0}}}, files, {}, 3, 60, 7));
  const auto tls = Load().tls;
  ASSERT_TRUE(tls.has_value());
  EXPECT_EQ(tls->ca, files.ca);
  EXPECT_EQ(tls->certificate, files.certificate);
  EXPECT_EQ(tls->key, files.key);
  EXPECT_FALSE(tls->pins.has_value());
}

TEST_F(TestbedFile, WrongKeysAndValuesAreNamed) {
  const json good = config_;
  config_["port"] = 3;
  ExpectRefused("", "unknown key 'port'");
  config_ = good;
  config_["parties"][1]["port"] = 70000;
  ExpectRefused("/parties/1/port", "found 70000, expected a port from 1 to 65535");
  config_ = good;
  config_["parties"].erase(2);
  ExpectRefused("/parties", "three parties");
  config_ = good;
  config_["parties"][0].erase("port");
  ExpectRefused("/parties/0", "missing key 'port'");
  config_ = good;
  config_.erase("parties");
  ExpectRefused("", "missing key 'parties'");
  config_ = good;
  config_["roles"]["receiver"] = 3;
  ExpectRefused("/roles/receiver", "found 3");
  config_ = good;
  config_["timeout_s"] = "long";
  ExpectRefused("/timeout_s", "a number of seconds");
}

TEST_F(TestbedFile, TheTransportIsExplicit) {
  const json good = config_;
  config_.erase("certificates");
  ExpectRefused("", "neither 'certificates' and 'tls' given");
  config_["transport"] = "tcp-insecure";
  EXPECT_FALSE(Load().tls.has_value());
  config_ = good;
  config_["transport"] = "tcp-insecure";
  ExpectRefused("", "would not use them");
}

class PinnedTestbedFile : public TestbedFile {
 protected:
  PinnedTestbedFile() {
    for (int p = 0; p < 3; ++p) {
      made_.push_back(crypto::MakePartyCertificate(world_.Path() / "keys", p, 30, false));
      config_["parties"][static_cast<std::size_t>(p)]["fingerprint"] =
          made_.back().fingerprint.Text();
    }
  }
  std::vector<crypto::Certificate> made_;
};

TEST_F(PinnedTestbedFile, PinsTakeThePlaceOfAnAuthority) {
  config_["parties"][2]["fingerprint"] = {made_[2].fingerprint.Text(),
                                          "sha256:" + std::string(64, 'F')};
  auto tls = Load().tls.value();
  EXPECT_TRUE(tls.ca.empty());
  EXPECT_EQ(tls.certificate, world_.Path() / "keys/party1.pem");
  ASSERT_TRUE(tls.pins);
  EXPECT_EQ(tls.pins->at(0), std::vector{made_[0].fingerprint});
  EXPECT_EQ(tls.pins->at(2).size(), 2u);
  EXPECT_EQ(tls.pins->at(2)[1].Text(), "sha256:" + std::string(64, 'f'));
  // Files give keys where there are no fingerprints; the own entry may be missing.
  config_["parties"][0].erase("fingerprint");
  config_["parties"][0]["certificate"] = "keys/party0.pem";
  config_["parties"][1].erase("fingerprint");
  config_["parties"][2]["certificate"] = {"keys/party2.pem"};
  config_.erase("certificates");
  config_["tls"] = {{"certificate", "keys/party1.pem"}, {"key", "keys/party1-key.pem"}};
  tls = Load().tls.value();
  EXPECT_EQ(tls.pins->at(0), std::vector{made_[0].fingerprint});
  EXPECT_TRUE(tls.pins->at(1).empty());
  EXPECT_EQ(tls.pins->at(2).size(), 2u);
}

TEST_F(PinnedTestbedFile, WhatIsAmbiguousIsRefused) {
  const json good = config_;
  const auto refused = [&](const std::string& pointer, const std::string& text) {
    ExpectRefused(pointer, text);
    config_ = good;
  };
  config_["parties"][0].erase("fingerprint");
  refused("/parties/0", "missing key 'fingerprint' or 'certificate' of party 0");
  config_["parties"][2]["fingerprint"] = made_[0].fingerprint.Text();
  refused("/parties/2", "is pinned for party 0 too");
  config_["parties"][2]["fingerprint"] = "sha256:12";
  refused("/parties/2/fingerprint", "expected \"sha256:\" and 64 hex digits");
  config_["parties"][2]["fingerprint"] = {made_[2].fingerprint.Text(), "md5"};
  refused("/parties/2/fingerprint/1", "expected \"sha256:\" and 64 hex digits");
  config_["parties"][2]["fingerprint"] = json::array();
  refused("/parties/2/fingerprint", "an array of 1 to 8");
  config_["parties"][2]["certificate"] = "keys/party0.pem";
  refused("/parties/2/certificate", "is a certificate of \"tercet party 0\", expected party 2");
  config_["parties"][2]["fingerprint"] = "sha256:" + std::string(64, 'a');
  config_["parties"][2]["certificate"] = {"keys/party2.pem"};
  refused("/parties/2/certificate/0", "not among the fingerprints that are pinned for party 2");
  config_["transport"] = "tcp-insecure";
  config_.erase("certificates");
  refused("", "would not use them");
  config_.erase("certificates");
  config_["tls"] = {{"ca", "c"}, {"certificate", "a"}, {"key", "b"}};
  refused("/tls/ca", "no authority is asked");
  config_.erase("certificates");
  config_["tls"] = {{"certificate", "a"}, {"key", "b"}};
  for (auto& party : config_["parties"]) party.erase("fingerprint");
  refused("/tls", "missing key 'ca'");
}

TEST_F(TestbedFile, EachShardHasItsPortsAndHosts) {
  config_["parties"][0]["host"] = "p0-{shard}.example";
  config_["parties"][1]["listen"] = "worker{shard}";
  Load();
  auto testbed = infer::LoadTestbed(world_.File("t.json"), 1, 12);
  EXPECT_EQ(testbed.endpoints[0].host, "p0-12.example");
  EXPECT_EQ(testbed.endpoints[0].port, 13);
  EXPECT_EQ(testbed.endpoints[1].port, 14);
  EXPECT_EQ(testbed.listen, "worker12");
  try {
    infer::LoadTestbed(world_.File("t.json"), 1, 65'534);
    FAIL() << "port 65536 is taken";
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), HasSubstr("/parties/1/port: 2 found, 1 or less expected"));
  }
}

TEST(ShardOption, IsSaidOrTakenFromTheEnvironment) {
  std::map<std::string, std::string> variables;
  const Environment environment = [&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
  const auto text = [&](const std::string& option) {
    return ParseShard(option, environment).shard->Text();
  };
  const auto refused = [&](const std::string& option, const std::string& reason,
                           const std::string& place = "--shard") {
    try {
      ParseShard(option, environment);
      ADD_FAILURE() << option << " is taken";
    } catch (const ConfigError& e) {
      EXPECT_EQ(e.Place(), place);
      EXPECT_THAT(e.what(), HasSubstr(reason));
    }
  };
  EXPECT_EQ(text("2/3"), "2/3");
  for (const char* wrong : {"", "3/3", "-1/3", "1", "1/", "/3", "1/3/4", "a/3", "0/0", "0/1000001",
                            "auto/", "auto/0", "auto/x", "Auto", " 1/3"})
    refused(wrong, "I/N with I from 0 to N - 1");
  refused("auto", "none of OMPI_COMM_WORLD_RANK, SLURM_PROCID and JOB_COMPLETION_INDEX is set");
  variables = {{"JOB_COMPLETION_INDEX", "4"}};
  EXPECT_EQ(text("auto/5"), "4/5");
  refused("auto/4", "I from 0 to N - 1");
  refused("auto", "auto/N expected");
  variables["SLURM_PROCID"] = "1";
  refused("auto", "SLURM_NTASKS is not set");
  variables["SLURM_NTASKS"] = "two";
  refused("auto", "a whole number expected", "SLURM_NTASKS");
  variables["SLURM_NTASKS"] = "2";
  EXPECT_EQ(text("auto"), "1/2");
  EXPECT_EQ(text("auto/2"), "1/2");
  refused("auto/3", "auto/3 found, but SLURM_NTASKS is 2");
  variables["OMPI_COMM_WORLD_RANK"] = "6";
  variables["OMPI_COMM_WORLD_SIZE"] = "7";
  EXPECT_EQ(text("auto"), "6/7") << "mpirun within a job of Slurm";
}

TEST(ShardOption, ReportsHaveNamesOfTheirOwn) {
  ShardOptions options;
  EXPECT_EQ(options.ReportOf("r-{shard}.json"), "r-{shard}.json");
  options.shard = {2, 3};
  EXPECT_EQ(options.ReportOf("r-{shard}.json"), "r-2.json");
  EXPECT_EQ(options.ReportOf("r.json"), "r.json");
  options.by_environment = true;
  EXPECT_EQ(options.ReportOf("r-{shard}.json"), "r-2.json");
  EXPECT_EQ(options.ReportOf(""), "");
  EXPECT_THROW(options.ReportOf("r.json"), ConfigError);
}

TEST(TakeShard, KeepsItsImagesAndLabels) {
  LabelledImages data, labels;
  data.images.shape = {1, 1, 2};
  data.images.count = 5;
  data.images.pixels = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  data.labels = labels.labels = {10, 11, 12, 13, 14};
  const auto digest = ImagesDigest(data.images);
  TakeShard(data, {1, 2});
  EXPECT_EQ(data.images.count, 2u);
  EXPECT_EQ(data.images.pixels, (std::vector<std::uint8_t>{6, 7, 8, 9}));
  EXPECT_EQ(data.labels, (std::vector<std::uint8_t>{13, 14}));
  EXPECT_NE(ImagesDigest(data.images), digest);
  TakeShard(labels, {0, 2});
  EXPECT_EQ(labels.labels, (std::vector<std::uint8_t>{10, 11, 12}));
  EXPECT_THROW(TakeShard(data, {0, 3}), ConfigError);
}

TEST(TestbedExamples, AreValid) {
  for (const char* name : {"loopback.json", "three-hosts.json"})
    for (int id = 0; id < 3; ++id)
      EXPECT_NO_THROW(infer::LoadTestbed(std::string(TERCET_SOURCE_DIR "/configs/") + name, id));
}

TEST(RoleOptionsTest, FollowTheHelper) {
  for (int helper = 0; helper < 3; ++helper) {
    RoleOptions options;
    options.helper = helper;
    EXPECT_EQ(options.Resolve(),
              (mpc::Roles{helper, (helper + 1) % 3, (helper + 2) % 3, (helper + 1) % 3}));
  }
  RoleOptions options;
  options.data_owner = 2;
  EXPECT_EQ(options.Resolve(), (mpc::Roles{0, 2, 1, 2}));
  options.helper = 2;
  EXPECT_EQ(options.Resolve(), (mpc::Roles{2, 2, 0, 2})) << "the helper may own the images";
}

TEST(Inputs, RandomImagesComeBackFromTheirFile) {
  const World world;
  const auto images = RandomImages({3, 5, 7}, 4);
  world.Write("i.npy", NpyHeader(images).append(images.pixels.begin(), images.pixels.end()));
  const auto back = files::LoadImages(world.File("i.npy"), 0, {3, 5, 7});
  EXPECT_EQ(back.count, 4u);
  EXPECT_EQ(back.pixels, images.pixels);
}

TEST(Inputs, PlaceholdersFitEveryNetworkThatIsShipped) {
  const auto registry = BuiltinProtocols();
  for (const char* name : {"mnistnet1", "mnistnet2", "mnistnet3"}) {
    const auto spec = nn::LoadNetwork(std::string(TERCET_SOURCE_DIR "/nets/") + name + ".json");
    const auto network = PlaceholderNetwork(spec, 12);
    EXPECT_EQ(network.spec_digest, spec.Digest());
    for (const auto& layer : network.layers) EXPECT_EQ(layer.value_bits, 12u);
  }
}

TEST(Options, OfARunCrossToAPartyWhole) {
  RunOptions options;
  options.network = "a \xff\xc3\xa9.json";  // no UTF-8, then some
  options.model = {"m", "c", "l", true};
  options.suite = "lut:chunks=3";
  options.linear = "replicated";
  options.batch = 7;
  options.ahead = 3;
  options.in_flight = 5;
  options.material = "party1.material";
  options.batch_given = true;
  const auto back = RunOptionsFromJson(ToJson(options), "test");
  EXPECT_EQ(back.network, options.network);
  EXPECT_EQ(back.model.calibration_labels, "l");
  EXPECT_EQ(back.in_flight, 5u);
  EXPECT_TRUE(back.model.accept_loss && back.batch_given && !back.suite_given);
  EXPECT_EQ(ToJson(back), ToJson(options));
  for (const char* text : {"", "{}", "[1]", "{\"network\": 1}"})
    EXPECT_THROW(RunOptionsFromJson(text, "test"), ConfigError) << text;
}

// Command lines that name the options of the helper as they were called go on; nobody is told so.
TEST(Options, GoOnUnderTheirFormerNames) {
  const auto parse = [](std::vector<std::string> words, RunOptions& options) {
    CLI::App app("", "tercet");
    AddSchedule(app, options, "", "");
    words.insert(words.begin(), "tercet");
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    ParseAndRun(app, static_cast<int>(arguments.size()), arguments.data(), [] { return 0; });
    return app.help();
  };
  RunOptions leaves, rotates, none;
  EXPECT_THAT(parse({"--dealer-leaves"}, leaves),
              testing::AllOf(HasSubstr("--helper-leaves"), testing::Not(HasSubstr("dealer"))));
  EXPECT_TRUE(leaves.helper_leaves);
  EXPECT_FALSE(leaves.rotate_helper);
  parse({"--rotate-dealer=true"}, rotates);
  EXPECT_TRUE(rotates.rotate_helper);
  EXPECT_FALSE(rotates.helper_leaves);
  EXPECT_THAT(
      [&] {
        parse({"--dealer-leaves", "--rotate-helper"}, none);
      },
      testing::ThrowsMessage<ConfigError>(testing::AllOf(
          HasSubstr("--helper-leaves"), HasSubstr("excludes"), testing::Not(HasSubstr("dealer")))));
  EXPECT_THAT([&] { parse({"--dealer-leave"}, none); },
              testing::ThrowsMessage<ConfigError>(HasSubstr("unknown option --dealer-leave")));
}

TEST(Options, MakeOneSchedule) {
  RunOptions options;
  const auto text = [&] { return infer::ScheduleText(options.Schedule()); };
  const auto held = [&] { return infer::QueriesHeld(options.Schedule(), 9, options.in_flight); };
  EXPECT_EQ(text(), "in turn");
  EXPECT_EQ(held(), 1u);
  options.ahead = 2;
  EXPECT_EQ(text(), "2 ahead");
  EXPECT_EQ(held(), 4u);
  options.in_flight = 3;
  EXPECT_EQ(held(), 7u);
  options.in_flight = 1;
  options.ahead = 20;
  EXPECT_EQ(held(), 9u);
  options.helper_leaves = true;  // which excludes --ahead: what is there is the default
  EXPECT_EQ(text(), "all ahead");
  EXPECT_EQ(held(), 9u);
  options.material_out = "file";
  options.helper_leaves = false;
  EXPECT_EQ(text(), "to a file");
  EXPECT_EQ(held(), 1u);
  options.material = "file";
  EXPECT_EQ(text(), "from a file");
  EXPECT_EQ(std::get<infer::UseMaterial>(options.Schedule()).ahead, 20u);
}

class PlanTest : public testing::Test {
 protected:
  const World world_;
  const mpc::Registry registry_ = BuiltinProtocols();
  const nn::PublicNetwork network_ =
      PlaceholderNetwork(nn::LoadNetwork(world_.File("dense.json")), 14);
  const mpc::SuiteChoice suite_{"lut", {}};
  const infer::Plan plan_ = infer::MakePlan(network_, registry_, suite_, {}, 4);
};

TEST_F(PlanTest, CostsWithMaterialAreThoseOfWholeBatchesOnline) {
  const auto cost = infer::RunCost(plan_, registry_, suite_, 10, infer::UseMaterial{});
  for (std::size_t p = 0; p < 3; ++p) {
    EXPECT_EQ(cost.online_bytes[p], 3 * plan_.Total().OnlineBytes()[p]);
    EXPECT_EQ(cost.offline_bytes[p], 0u);
  }
  EXPECT_EQ(cost.offline_hops, 0u);
  EXPECT_EQ(cost.online_hops, plan_.Total().OnlineHops());
}

TEST_F(PlanTest, CostsOfARunAddUpOverBatches) {
  const auto rest = infer::MakePlan(network_, registry_, suite_, {}, 2).Total();
  const auto cost = RunCost(plan_, registry_, suite_, 10);
  for (std::size_t p = 0; p < 3; ++p)
    EXPECT_EQ(cost.online_bytes[p], 2 * plan_.Total().OnlineBytes()[p] + rest.OnlineBytes()[p]);
  EXPECT_EQ(cost.online_hops, plan_.Total().OnlineHops());
}

TEST_F(PlanTest, PredictionAddsTheLinkToWhatARunHasMeasured) {
  // 10 images are 3 queries, each 2 ms offline and 1 ms online.
  json report{{"network", network_.name},
              {"suite", "lut"},
              {"link", "none"},
              {"batch", 4},
              {"images", 10},
              {"time", {{"offline_s", 0.006}, {"online_s", 0.003}}}};
  for (std::size_t k = 0; k < plan_.layers.size() + 2; ++k)
    report["layers"].push_back({{"offline_s", 0.1}, {"online_s", k == 1 ? 0.2 : 0.0}});
  const auto file = world_.File("report.json");
  std::ofstream(file) << report;
  const net::LinkProfile link{"slow", 10, 0};
  const auto prediction = Predict(plan_, suite_, registry_, link, {file});
  EXPECT_TRUE(prediction.measured);
  ASSERT_EQ(prediction.steps.size(), plan_.layers.size() + 2);
  EXPECT_NEAR(static_cast<double>(prediction.steps.back().online_ns),
              1e6 + plan_.Total().OnlineHops() * 5e6, 10);
  EXPECT_NEAR(static_cast<double>(prediction.steps.back().offline_ns),
              2e6 + plan_.Total().OfflineHops() * 5e6, 10);
  // Of another batch, it says nothing.
  report["batch"] = 5;
  std::ofstream(file) << report;
  EXPECT_FALSE(Predict(plan_, suite_, registry_, link, {file}).measured);
  std::ofstream(file) << "{}";
  try {
    Predict(plan_, suite_, registry_, link, {file});
    FAIL() << "a file that is no report is taken";
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), HasSubstr("report.json"));
  }
}

TEST_F(PlanTest, AReportOfSomethingElseIsRefused) {
  json report{{"network", network_.name}, {"suite", "lut"}, {"link", "none"}, {"batch", 4}};
  report["layers"] = json::array();
  for (std::size_t k = 0; k < plan_.layers.size() + 2; ++k)
    report["layers"].push_back({{"width", 14}, {"suite", ""}});
  const auto check = [&](const char* key, const json& value) -> std::string {
    json other = report;
    other[json::json_pointer(key)] = value;
    std::ofstream(world_.File("report.json")) << other;
    try {
      CheckMeasured(world_.File("report.json"), network_, {suite_}, {1, 4});
      return "";
    } catch (const ConfigError& e) {
      return e.what();
    }
  };
  EXPECT_EQ(check("/batch", 4), "");
  EXPECT_THAT(check("/batch", 5), HasSubstr("has batch 5, the plan 1, 4"));
  EXPECT_THAT(check("/layers/1/width", 12),
              HasSubstr("at layer " + network_.layers[0].name + " the width 12, the plan 14"));
  EXPECT_THAT(check("/suite", "fss"), HasSubstr("has suite fss, the plan lut"));
  EXPECT_THAT(check("/network", "other"), HasSubstr("has network other"));
  EXPECT_THAT(check("/link", "wan"), HasSubstr("has link wan"));
  EXPECT_THAT(check("/batch", "many"), HasSubstr("no report"));
}

TEST(Options, ListsKeepWhatBelongsTogether) {
  using testing::ElementsAre;
  EXPECT_THAT(SplitList("lut"), ElementsAre("lut"));
  EXPECT_THAT(SplitList("lut,fss;auto"), ElementsAre("lut", "fss", "auto"));
  EXPECT_THAT(SplitList("lut:form=bit,chunks=2,fss,lut:chunks=3,lut:form=bit"),
              ElementsAre("lut:form=bit,chunks=2", "fss", "lut:chunks=3", "lut:form=bit"));
  EXPECT_THAT(SplitList("none,rtt_ms=40,mbit=5,rtt_ms=80"),
              ElementsAre("none", "rtt_ms=40,mbit=5", "rtt_ms=80"));
  EXPECT_THAT(SplitList("rtt_ms=40,rtt_ms=80"), ElementsAre("rtt_ms=40", "rtt_ms=80"));
  EXPECT_THAT(SplitList("rtt_ms=40;mbit=5"), ElementsAre("rtt_ms=40", "mbit=5"));
}

TEST_F(PlanTest, LinesOfCsvAddUpToTheWhole) {
  std::istringstream lines(PlanToCsv(
      plan_, suite_, Predict(plan_, suite_, registry_, net::ParseLinkProfile("wan"), {})));
  std::vector<double> times;
  for (std::string line; std::getline(lines, line);)
    times.push_back(std::stod(line.substr(line.rfind(',') + 1)));
  ASSERT_EQ(times.size(), plan_.layers.size() + 3);
  const double whole = times.back();
  times.pop_back();
  EXPECT_NEAR(std::accumulate(times.begin(), times.end(), 0.0), whole, 1e-7);
}

TEST(Auto, NamesASuiteForEveryLayerThatAsks) {
  const World world;
  const auto registry = BuiltinProtocols();
  for (const auto& candidate : infer::AutoCandidates(registry))
    EXPECT_TRUE(registry.FindSuite(candidate.suite.name).Info().is_private);
  auto network = PlaceholderNetwork(nn::LoadNetwork(world.File("conv.json")), 12);
  const auto unnamed = network;
  const net::LinkProfile wan{"wan", 80, 320};
  ResolveAuto(network, registry, {"lut", {}}, wan, infer::Objective::kOnline, {}, 1);
  EXPECT_EQ(network, unnamed);
  ResolveAuto(network, registry, {"auto", {}}, wan, infer::Objective::kOnline, {}, 1);
  for (const auto& layer : network.layers)
    EXPECT_EQ(layer.suite.empty(), layer.activation == mpc::ActivationKind::kNone) << layer.name;
  auto mixed = unnamed;
  mixed.layers.front().suite = "auto";
  ResolveAuto(mixed, registry, {"cbnn", {}}, wan, infer::Objective::kOnline, {}, 1);
  EXPECT_NE(mixed.layers.front().suite, "cbnn");
  for (std::size_t k = 1; k < mixed.layers.size(); ++k)
    if (mixed.layers[k].activation != mpc::ActivationKind::kNone) {
      EXPECT_EQ(mixed.layers[k].suite, "cbnn");
    }
}

TEST(AnonymousFiles, AreReadUnderTheirPathByTheirOwnerAlone) {
  const AnonymousFile file("secret");
  struct stat status {};
  ASSERT_EQ(::fstat(file.Fd(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  EXPECT_EQ(status.st_nlink, 0U);
  EXPECT_EQ(::fcntl(file.Fd(), F_GETFD), FD_CLOEXEC);
  WriteFile(file.Path(), ", more");
  for (int reader = 0; reader < 2; ++reader) {
    std::ifstream stream(file.Path());
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(stream), {}), "secret, more");
  }
}

TEST(Pictures, ShowBrightnessAndClasses) {
  files::Images images{{1, 2, 3}, 2, {0, 0, 255, 0, 255, 255, 0, 0, 0, 0, 0, 0}};
  const std::string text = DrawPictures(images, 5, {4, 1}, {4, 2}, false);
  EXPECT_THAT(text, HasSubstr(" :#"));
  EXPECT_THAT(text, HasSubstr("true 4, predicted 4 "));
  EXPECT_THAT(text, HasSubstr("true 1, predicted 2 !"));
}

}  // namespace
}  // namespace tercet::programs
