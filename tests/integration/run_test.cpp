// SPDX-License-Identifier: Apache-2.0
// Runs that succeed: every transport, suite, helper and shape of batches; the report against the
// plan.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <tuple>

#include "integration/world.h"
#include "programs/inputs.h"
#include "tercet/base/error.h"
#include "tercet/infer/plan.h"
#include "tercet/infer/run_cost.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/nn/run_plain.h"

namespace tercet::integration {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

using Case = std::tuple<const char*, const char*, int>;
class EveryRun : public testing::TestWithParam<Case> {};

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  auto name = fmt::format("{}_{}_helper{}", std::get<0>(info.param), std::get<1>(info.param),
                          std::get<2>(info.param));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Grid, EveryRun,
                         testing::Combine(testing::Values("tls", "tcp-insecure", "memory"),
                                          testing::Values("lut", "cbnn"), testing::Values(0, 1, 2)),
                         NameOf);

TEST_P(EveryRun, EqualsThePlainNetworkAndThePlan) {
  const auto& [transport, suite, helper] = GetParam();
  const World world;
  const auto registry = BuiltinProtocols();
  // Batches of one; of 7 with a remainder of 3; and one batch that holds all.
  for (const std::size_t batch : {std::size_t{1}, std::size_t{7}, std::size_t{64}}) {
    const std::string network = batch == 1 ? "dense" : "conv";
    SCOPED_TRACE(fmt::format("network {}, batch {}", network, batch));
    const auto result = world
                            .Run(network, {"--transport", transport, "--suite", suite, "--helper",
                                           std::to_string(helper), "--batch", std::to_string(batch),
                                           "--json", world.File("out.json")})
                            .Wait();
    ASSERT_EQ(result.status, 0) << result.err << result.out;
    EXPECT_THAT(result.out,
                HasSubstr("every logit equals the plain integer network: yes (40 of 40)"));
    EXPECT_THAT(result.out, HasSubstr("bytes and hops are what the plan says: yes"));
    const json report = ReadJson(world.File("out.json"));
    EXPECT_EQ(report.at("matches_plain"), true);
    EXPECT_EQ(report.at("matches_plan"), true);

    // The same from the files alone.
    const auto spec = nn::LoadNetwork(world.File(network + ".json"));
    const auto model = programs::LoadModel(spec, {world.File(network + ".safetensors"), {}, {}},
                                           registry, [](const std::string&) {});
    const mpc::Roles roles{helper, (helper + 1) % 3, (helper + 2) % 3, (helper + 1) % 3};
    const mpc::SuiteChoice choice{suite, {}};
    const auto plan =
        infer::MakePlan(model.net, registry, choice, roles, std::min(batch, World::kImages));
    const auto cost = infer::RunCost(plan, registry, choice, World::kImages);
    EXPECT_EQ(report.at("bytes").at("offline"), json(cost.offline_bytes));
    EXPECT_EQ(report.at("bytes").at("online"), json(cost.online_bytes));
    EXPECT_EQ(report.at("hops").at("offline"), cost.offline_hops);
    EXPECT_EQ(report.at("hops").at("online"), cost.online_hops);
    const auto steps = plan.Steps();
    ASSERT_EQ(report.at("layers").size(), steps.size());
    for (std::size_t k = 0; k < steps.size(); ++k)
      EXPECT_EQ(report.at("layers").at(k).at("hops"), steps[k].hops) << "layer " << k;
    const auto images = files::LoadImages(world.File("images.idx"), 0, {});
    const auto plain = programs::PlainLogits(model, registry.PlainOracle(), images);
    std::vector<std::int64_t> logits;
    for (const json& row : report.at("logits")) logits.insert(logits.end(), row.begin(), row.end());
    EXPECT_EQ(logits, plain);
  }
  world.ExpectClean();
}

// More images than a thread takes at a time.
TEST(PlainLogits, AreThoseOfOneThread) {
  const World world;
  const auto registry = BuiltinProtocols();
  const auto spec = nn::LoadNetwork(world.File("conv.json"));
  auto model = programs::LoadModel(spec, {world.File("conv.safetensors"), {}, {}}, registry,
                                   [](const std::string&) {});
  const auto images = programs::RandomImages(spec.input.shape, 300);
  const auto& oracle = registry.PlainOracle();
  std::vector<nn::ValueRange> expected;
  const auto logits = nn::RunPlain(model, oracle, images, 0, images.count, &expected);

  std::vector<nn::ValueRange> ranges;
  std::size_t reported = 0;
  const auto found = programs::PlainLogits(model, oracle, images, &ranges,
                                           [&](std::size_t done, std::size_t total) {
                                             EXPECT_GT(done, reported);
                                             EXPECT_EQ(total, images.count);
                                             reported = done;
                                           });
  EXPECT_EQ(found, logits);
  EXPECT_EQ(reported, images.count);
  ASSERT_EQ(ranges.size(), expected.size());
  for (std::size_t l = 0; l < ranges.size(); ++l) {
    EXPECT_EQ(ranges[l].low, expected[l].low);
    EXPECT_EQ(ranges[l].high, expected[l].high);
  }

  model.net.layers[0].value_bits = 2;  // too few for its values
  EXPECT_THROW(programs::PlainLogits(model, oracle, images), ConfigError);
}

TEST(RunOptions, RolesMayBeMixed) {
  const World world;
  // One party owns both, the third receives; the owner of the model receives; the helper owns the
  // model, and has all roles.
  for (const auto& roles :
       {std::vector<std::string>{"--helper", "0", "--data-owner", "2", "--model-owner", "2",
                                 "--receiver", "1"},
        {"--helper", "1", "--data-owner", "0", "--model-owner", "2", "--receiver", "2"},
        {"--helper", "0", "--model-owner", "0"},
        {"--helper", "2", "--data-owner", "2", "--model-owner", "2", "--receiver", "2"}}) {
    auto arguments = roles;
    arguments.insert(arguments.end(), {"--transport", "memory"});
    const auto result = world.Run("conv", arguments).Wait();
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("yes (40 of 40)"));
  }
}

TEST(RunOptions, JsonHasTheDocumentedKeys) {
  const World world;
  const auto result =
      world.Run("dense", {"--limit", "5", "--batch", "2", "--json", world.File("out.json")}).Wait();
  ASSERT_EQ(result.status, 0) << result.err;
  const json report = ReadJson(world.File("out.json"));
  EXPECT_EQ(report.at("network"), "Dense");
  EXPECT_EQ(report.at("suite"), "lut");
  EXPECT_EQ(report.at("link"), "none");
  EXPECT_EQ(report.at("batch"), 2);
  EXPECT_EQ(report.at("images"), 5);
  ASSERT_TRUE(report.at("correct").is_number_unsigned());
  EXPECT_DOUBLE_EQ(report.at("accuracy"), 20.0 * report.at("correct").get<int>());
  for (const char* key : {"setup_s", "offline_s", "online_s", "total_s"})
    EXPECT_TRUE(report.at("time").at(key).is_number()) << key;
  EXPECT_EQ(report.at("bytes").at("offline").size(), 3u);
  EXPECT_EQ(report.at("bytes").at("online").size(), 3u);
  EXPECT_EQ(report.at("predictions").size(), 5u);
  EXPECT_EQ(report.at("logits").size(), 5u);
  ASSERT_EQ(report.at("layers").size(), 5u);
  std::uint64_t online = 0, hops = 0;
  for (const json& layer : report.at("layers")) {
    for (const char* key :
         {"name", "type", "suite", "width", "hops", "offline_bytes", "online_bytes", "online_s"})
      EXPECT_TRUE(layer.contains(key)) << key;
    online += layer.at("online_bytes").get<std::uint64_t>();
    hops += layer.at("hops").get<std::uint64_t>();
  }
  EXPECT_EQ(report.at("layers").at(1).at("name"), "fc1");
  EXPECT_EQ(report.at("suite_per_layer").at("fc1"), "lut");
  EXPECT_EQ(online, report.at("bytes").at("online").at(0).get<std::uint64_t>() +
                        report.at("bytes").at("online").at(1).get<std::uint64_t>() +
                        report.at("bytes").at("online").at(2).get<std::uint64_t>());
  EXPECT_EQ(hops, report.at("hops").at("online"));
}

TEST(RunOptions, WorksWithoutImagesLabelsAndCheck) {
  const World world;
  const auto result =
      world
          .Tercet({"run", world.File("dense.json"), "--model", world.File("dense.safetensors"),
                   "--batch", "4", "--no-check", "--json", world.File("out.json")})
          .Wait();
  ASSERT_EQ(result.status, 0) << result.err;
  const json report = ReadJson(world.File("out.json"));
  EXPECT_EQ(report.at("images"), 4);
  EXPECT_TRUE(report.at("matches_plain").is_null());
  EXPECT_TRUE(report.at("accuracy").is_null());
  EXPECT_THAT(result.out, HasSubstr("random images"));
}

TEST(RunOptions, WarnsOfWhatIsNotSafe) {
  const World world;
  const auto insecure = world.Run("dense", {"--transport", "tcp-insecure"}).Wait();
  EXPECT_EQ(insecure.status, 0);
  EXPECT_THAT(insecure.err, HasSubstr("WARNING: transport tcp-insecure"));
  const auto open =
      world.Run("dense", {"--public-weights", "--json", world.File("public.json")}).Wait();
  EXPECT_EQ(open.status, 0) << open.err;
  const std::string warning(
      "the model is PUBLIC: party 2, its owner, tells all parties the weights");
  EXPECT_THAT(open.err, HasSubstr("WARNING: " + warning));
  EXPECT_THAT(open.out, AllOf(HasSubstr("linear layers public"), HasSubstr("the plan says: yes")));
  EXPECT_EQ(ReadJson(world.File("public.json")).at("warnings"), json::array({warning}));
  const auto both = world.Run("dense", {"--public-weights", "--linear", "clear"}).Wait();
  EXPECT_EQ(both.status, 2);
  EXPECT_THAT(both.err, HasSubstr("--linear"));
  const auto secure = world.Run("dense", {}).Wait();
  EXPECT_EQ(secure.status, 0);
  EXPECT_THAT(secure.err, Not(HasSubstr("WARNING")));
}

TEST(RunOptions, ShowsPicturesWithTheirClasses) {
  const World world;
  const auto result = world.Run("dense", {"--transport", "memory", "--show", "3"}).Wait();
  ASSERT_EQ(result.status, 0);
  EXPECT_THAT(result.out, HasSubstr("true 2, predicted "));
  EXPECT_THAT(result.out, Not(HasSubstr("true 3, predicted ")));
}

TEST(RunOptions, ADelayedLinkTakesItsTime) {
  const World world;
  const auto result =
      world.Run("conv", {"--link", "rtt_ms=20", "--json", world.File("out.json")}).Wait();
  ASSERT_EQ(result.status, 0) << result.err;
  const json report = ReadJson(world.File("out.json"));
  // A lower bound that no machine can beat.
  EXPECT_GE(report.at("time").at("online_s").get<double>(),
            report.at("hops").at("online").get<double>() * 0.010 - 0.010);
  EXPECT_EQ(report.at("link"), "rtt_ms=20");
}

TEST(Commands, CompiledModelRunsLikeTheWeightsItCameFrom) {
  const World world;
  auto compiled =
      world
          .Tercet({"compile", world.File("conv.json"), "--model", world.File("conv.safetensors"),
                   "--out", world.File("compiled.safetensors"), "--images",
                   world.File("images.idx"), "--labels", world.File("labels.idx")})
          .Wait();
  ASSERT_EQ(compiled.status, 0) << compiled.err;
  const auto run =
      world
          .Tercet({"run", world.File("conv.json"), "--model", world.File("compiled.safetensors"),
                   "--images", world.File("images.idx"), "--labels", world.File("labels.idx")})
          .Wait();
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("yes (40 of 40)"));
  const auto plain =
      world
          .Tercet({"plain", world.File("conv.json"), "--model", world.File("compiled.safetensors"),
                   "--images", world.File("images.idx"), "--labels", world.File("labels.idx")})
          .Wait();
  EXPECT_EQ(plain.status, 0) << plain.err;
  EXPECT_THAT(plain.out, HasSubstr("integer network, accuracy: "));
  const auto other =
      world.Tercet({"run", world.File("dense.json"), "--model", world.File("compiled.safetensors")})
          .Wait();
  EXPECT_EQ(other.status, 2);
  EXPECT_THAT(other.err, HasSubstr("compiled for another architecture"));
}

TEST(Commands, PlainComparesWithTheFloatNetworkAndWritesAReport) {
  const World world;
  const auto result =
      world
          .Tercet({"plain", world.File("dense.json"), "--model", world.File("dense.safetensors"),
                   "--images", world.File("images.idx"), "--labels", world.File("labels.idx"),
                   "--limit", "8", "--json", world.File("plain.json")})
          .Wait();
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("float network, accuracy: "));
  EXPECT_THAT(result.out, HasSubstr("both predict the same: "));
  EXPECT_THAT(result.out, HasSubstr("of 8 images"));
  const auto report = ReadJson(world.File("plain.json"));
  EXPECT_EQ(report.at("images"), 8);
  EXPECT_EQ(report.at("logits").size(), 8U);
  EXPECT_EQ(report.at("predictions").size(), 8U);
  EXPECT_EQ(report.at("accuracy"), report.at("correct").get<double>() / 8 * 100);
  EXPECT_LE(report.at("same_as_float"), 8);
  EXPECT_TRUE(report.at("warnings").is_array());
  for (const auto& layer : report.at("layers")) {
    EXPECT_GT(layer.at("width"), 1);
    EXPECT_LE(layer.at("low"), layer.at("high"));
  }
}

// What a model lost when it was compiled is in every report on it.
TEST(Commands, LossIsAnErrorOrAWarningForGood) {
  const World world;
  std::vector<std::string> command = {"compile",    world.File("conv.json"),
                                      "--model",    world.File("conv.safetensors"),
                                      "--max-bits", "3",
                                      "--out",      world.File("lossy.safetensors")};
  const auto refused = world.Tercet(command).Wait();
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr(" layer "));
  EXPECT_THAT(refused.err, HasSubstr("--accept-loss"));
  EXPECT_FALSE(std::filesystem::exists(world.File("lossy.safetensors")));
  command.emplace_back("--accept-loss");
  const auto accepted = world.Tercet(command).Wait();
  ASSERT_EQ(accepted.status, 0) << accepted.err;
  EXPECT_THAT(accepted.out, HasSubstr("warning: layer "));
  for (const char* name : {"run", "plain", "plan"}) {
    command = {name,     world.File("conv.json"), "--model", world.File("lossy.safetensors"),
               "--json", world.File("lossy.json")};
    if (std::string(name) == "plan") {
      command.insert(command.end(), {"--suite", "lut"});
    } else {
      command.insert(command.end(), {"--images", world.File("images.idx"), "--limit", "4"});
    }
    const auto result = world.Tercet(command).Wait();
    ASSERT_EQ(result.status, 0) << name << result.err;
    EXPECT_THAT(result.err, HasSubstr("WARNING: layer ")) << name;
    const auto report = ReadJson(world.File("lossy.json"));
    const auto& warnings = std::string(name) == "plan" ? report.at("plans").at(0).at("warnings")
                                                       : report.at("warnings");
    ASSERT_FALSE(warnings.empty()) << name;
    EXPECT_THAT(warnings.at(0).get<std::string>(), HasSubstr("bits"));
  }
}

TEST(Commands, PlanNeedsNoModelAndComparesSuites) {
  const World world;
  const auto result =
      world
          .Tercet({"plan", world.File("conv.json"), "--suite", "lut", "--suite", "cbnn", "--link",
                   "wan", "--json", world.File("plan.json"), "--csv", world.File("plan.csv")})
          .Wait();
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("every layer is taken to need 14 bits"));
  EXPECT_THAT(result.out, HasSubstr("On link wan (round trip 80 ms, 320 Mbit/s)"));
  EXPECT_THAT(result.out, HasSubstr("online time"));
  EXPECT_GT(std::filesystem::file_size(world.File("plan.csv")), 0u);
  const json plans = ReadJson(world.File("plan.json")).at("plans");
  ASSERT_EQ(plans.size(), 2u);
  EXPECT_EQ(plans.at(0).at("suite"), "lut");
  EXPECT_EQ(plans.at(1).at("suite"), "cbnn");
  EXPECT_EQ(plans.at(0).at("layers").size(), 4u);
  // 40 ms a hop.
  EXPECT_GE(plans.at(0).at("predicted").at("online_s").get<double>(),
            plans.at(0).at("hops").at("online").get<double>() * 0.04 - 1e-9);
}

// A suite that cannot do a layer is a row that says why, in the table and in the files.
TEST(Commands, PlanGoesOnWhereASuiteCannotDoALayer) {
  const World world;
  std::vector<std::string> command{"plan",     world.File("conv.json"),
                                   "--bits",   "28",
                                   "--suite",  "lut:chunks=2,aby3",
                                   "--link",   "lan,wan",
                                   "--batch",  "1,16",
                                   "--json",   world.File("plan.json"),
                                   "--csv",    world.File("plan.csv"),
                                   "--summary"};
  const auto result = world.Tercet(command).Wait();
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("not supported: layer "));
  EXPECT_THAT(result.out, HasSubstr("On link wan (round trip 80 ms, 320 Mbit/s), one batch of 16"));
  EXPECT_THAT(result.out, testing::Not(HasSubstr("sent by party"))) << "no layers in a summary";
  const json plans = ReadJson(world.File("plan.json")).at("plans");
  ASSERT_EQ(plans.size(), 8u);
  for (std::size_t k = 0; k < plans.size(); ++k) {
    EXPECT_EQ(plans.at(k).at("suite"), k % 2 == 0 ? "lut:chunks=2" : "aby3");
    EXPECT_EQ(plans.at(k).contains("not_supported"), k % 2 == 0);
    EXPECT_EQ(plans.at(k).contains("layers"), k % 2 == 1);
    EXPECT_EQ(plans.at(k).at("batch"), k < 4 ? 1 : 16);
    EXPECT_EQ(plans.at(k).at("link").at("name"), k % 4 < 2 ? "lan" : "wan");
  }
  std::ifstream csv(world.File("plan.csv"));
  const std::string text(std::istreambuf_iterator<char>(csv), {});
  EXPECT_THAT(text, HasSubstr("\"lut:chunks=2\",1,\"lan\",\"not supported: layer "));
  command[5] = "lut:chunks=2";
  EXPECT_EQ(world.Tercet(command).Wait().status, 1) << "no suite can";
  EXPECT_EQ(ReadJson(world.File("plan.json")).at("plans").size(), 4u);
}

TEST(Commands, RandomWeightsRunAndAreMarked) {
  const World world;
  const auto run = [&](const std::string& command, const std::string& model,
                       const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{
        command,    world.File("conv.json"),  "--model", model,
        "--images", world.File("images.idx"), "--json",  world.File("out.json")};
    words.insert(words.end(), more.begin(), more.end());
    return world.Tercet(words).Wait();
  };
  const auto first = run("run", "random:5");
  ASSERT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("WARNING: the weights are RANDOM (seed 5)"));
  const json report = ReadJson(world.File("out.json"));
  EXPECT_THAT(report.at("warnings").dump(), HasSubstr("RANDOM (seed 5)"));
  EXPECT_TRUE(report.at("accuracy").is_null());
  EXPECT_GT(report.at("layers").at(1).at("width"), 2);
  ASSERT_EQ(run("plain", "random:5").status, 0);
  EXPECT_EQ(ReadJson(world.File("out.json")).at("logits"), report.at("logits"))
      << "the same network of a seed";
  ASSERT_EQ(run("plain", "random").status, 0);
  EXPECT_NE(ReadJson(world.File("out.json")).at("logits"), report.at("logits"));
  // What is compiled of them stays marked.
  ASSERT_EQ(world
                .Tercet({"compile", world.File("conv.json"), "--model", "random:5", "--out",
                         world.File("random.safetensors")})
                .Wait()
                .status,
            0);
  ASSERT_EQ(run("plain", world.File("random.safetensors")).status, 0);
  EXPECT_THAT(ReadJson(world.File("out.json")).at("warnings").dump(), HasSubstr("RANDOM (seed 5)"));
  for (const char* command : {"run", "plain"}) {
    const auto labels = run(command, "random", {"--labels", world.File("labels.idx")});
    EXPECT_EQ(labels.status, 2);
    EXPECT_THAT(labels.err, HasSubstr("--labels: random weights have no accuracy"));
  }
  const auto seed = run("run", "random:x");
  EXPECT_EQ(seed.status, 2);
  EXPECT_THAT(seed.err, HasSubstr("--model: found random:x, expected random:SEED"));
}

TEST(Commands, NameTheNearestOfWhatDoesNotExist) {
  const World world;
  const auto expect = [](Process process, const std::string& text) {
    const auto result = process.Wait();
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.err, HasSubstr("error: command line: " + text));
  };
  const auto net = world.File("dense.json");
  expect(world.Tercet({"pan", net}), "unknown command pan; did you mean plan? (see tercet --help)");
  expect(world.Tercet({"everything"}), "unknown command everything (see tercet --help)");
  expect(world.Tercet({"plan", net, "--suit=lut"}),
         "unknown option --suit; did you mean --suite? (see tercet plan --help)");
  expect(world.Tercet({"run", net, "--modle", "x"}),
         "unknown option --modle; did you mean --model?");
  expect(world.Tercet({"plan", net, "--colour"}), "unknown option --colour (see tercet plan");
  expect(world.Party({"--testbd", "x"}), "unknown option --testbd; did you mean --testbed?");
  // What only programs say is no advice.
  expect(world.Party({"--report-f", "x"}), "unknown option --report-f (see tercet-party");
  expect(world.Tercet({"plan"}), "network is required (see tercet plan --help)");
}

TEST(Commands, HelpVersionSuitesAndKeygen) {
  const World world;
  for (const char* command : {"run", "plan", "plain", "compile", "customise", "keygen", "suites"}) {
    const auto help = world.Tercet({command, "--help"}).Wait();
    EXPECT_EQ(help.status, 0);
    EXPECT_THAT(help.out, HasSubstr("Example")) << command;
  }
  EXPECT_THAT(world.Tercet({"--version"}).Wait().out, HasSubstr("tercet " TERCET_VERSION));
  EXPECT_THAT(world.Party({"--version"}).Wait().out, HasSubstr("tercet-party " TERCET_VERSION));
  EXPECT_THAT(world.Tercet({"suites"}).Wait().out, HasSubstr("lut (private)"));
  const auto keys = world.Tercet({"keygen", world.File("keys"), "--days", "2"}).Wait();
  EXPECT_EQ(keys.status, 0);
  EXPECT_TRUE(std::filesystem::exists(world.File("keys/party2-key.pem")));
  const auto again = world.Tercet({"keygen", world.File("keys")}).Wait();
  EXPECT_EQ(again.status, 2);
  EXPECT_EQ(world.Tercet({"keygen", world.File("keys"), "--force"}).Wait().status, 0);
}

}  // namespace
}  // namespace tercet::integration
