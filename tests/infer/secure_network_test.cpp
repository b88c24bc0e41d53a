// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/secure_network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <random>
#include <tuple>

#include "compile/float_weights.h"
#include "tercet/compile/compile.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/local.h"
#include "tercet/net/wrappers.h"

namespace tercet::infer {
namespace {

const mpc::Registry& Protocols() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry;
}

// The networks that are shipped, with random weights: exactness does not depend on what they are.
nn::IntegerNetwork RandomWeights(const std::string& name, std::uint64_t seed, unsigned bits) {
  const auto spec = nn::LoadNetwork(std::string(TERCET_SOURCE_DIR) + "/nets/" + name + ".json");
  std::mt19937_64 rng(seed);
  files::TensorFile file;
  const auto put = [&](const std::string& tensor, std::vector<std::size_t> shape, double mean,
                       double spread) {
    std::size_t count = 1;
    for (const auto n : shape) count *= n;
    std::normal_distribution<float> normal(static_cast<float>(mean), static_cast<float>(spread));
    std::vector<float> values(count);
    for (auto& v : values) v = normal(rng);
    file.tensors[tensor] = files::TensorData::FromFloats(std::move(shape), values);
  };
  for (const auto& layer : spec.layers) {
    if (layer.type == nn::LayerType::kConv2d)
      put(layer.name + ".weight",
          {layer.out_channels, layer.in.channels, layer.kernel.h, layer.kernel.w}, 0, 1);
    if (layer.type == nn::LayerType::kLinear)
      put(layer.name + ".weight", {layer.out_channels, layer.in.Size()}, 0, 1);
    if (layer.type == nn::LayerType::kConv2d || layer.type == nn::LayerType::kLinear)
      put(layer.name + ".bias", {layer.out_channels}, 0, 0.5);
    if (layer.type != nn::LayerType::kBatchNorm) continue;
    const std::size_t channels = layer.in.channels;
    put(layer.name + ".weight", {channels}, 0.2, 1);  // gamma of either sign
    put(layer.name + ".bias", {channels}, 0, 0.5);
    put(layer.name + ".running_mean", {channels}, 0, 0.5);
    put(layer.name + ".running_var", {channels}, 4, 0.1);
  }
  compile::CompileOptions options;
  options.default_bits = bits;
  options.accept_loss = true;  // narrow on purpose
  return compile::Compile(nn::FloatNetwork(spec, file, "random"), Protocols().PlainOracle(),
                          options, nullptr);
}

files::Images RandomImages(const mpc::Shape3& shape, std::size_t count) {
  std::mt19937_64 rng(11);
  files::Images images{shape, count, {}};
  images.pixels.resize(shape.Size() * count);
  for (auto& p : images.pixels) p = rng() % 4 == 0 ? static_cast<std::uint8_t>(rng()) : 0;
  return images;
}

struct Outcome {
  std::vector<std::int64_t> logits;
  std::array<std::vector<net::Meter::Cell>, 3> offline, online;
  std::uint32_t hops = 0;
};

// All images in batches of plan.batch, each query prepared before the first is run.
Outcome RunSecurely(const nn::IntegerNetwork& network, const Plan& plan,
                    const files::Images& images, crypto::PrfLedger* ledger = nullptr) {
  Outcome outcome;
  std::mutex mutex;
  mpc::LocalOptions options;
  options.layers = plan.layers.size();
  options.ledger = ledger;
  mpc::RunParties(
      [&](mpc::Party& party) {
        SecureNetwork net(party, plan, Protocols());
        net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
        std::vector<SecureNetwork::Query> queries;
        for (std::size_t first = 0; first < images.count; first += plan.batch)
          queries.push_back(net.Prepare(std::min(plan.batch, images.count - first)));
        std::vector<std::int64_t> logits;
        std::size_t first = 0;
        for (auto& query : queries) {
          const std::size_t count = query.batch;
          const auto input = nn::QuantiseInput(plan.network.input, images, first, count);
          const auto part =
              net.Run(std::move(query), party.Id() == plan.roles.data_owner ? &input : nullptr);
          logits.insert(logits.end(), part.begin(), part.end());
          first += count;
        }
        const std::lock_guard lock(mutex);
        if (party.Id() == plan.roles.receiver) {
          outcome.logits = logits;
        } else {
          EXPECT_TRUE(logits.empty());
        }
        outcome.offline[static_cast<std::size_t>(party.Id())] =
            party.Meter().Layers(mpc::Phase::kOffline);
        outcome.online[static_cast<std::size_t>(party.Id())] =
            party.Meter().Layers(mpc::Phase::kOnline);
        outcome.hops = std::max(outcome.hops, net.OnlineHops());
      },
      options);
  return outcome;
}

std::uint64_t Sent(const net::Meter::Cell& cell) {
  return cell.sent_bytes[0] + cell.sent_bytes[1] + cell.sent_bytes[2];
}

// Bytes of every party and layer, and hops, of one query.
void ExpectCosts(const Plan& plan, const Outcome& outcome) {
  for (std::size_t p = 0; p < 3; ++p) {
    std::size_t k = 0;
    for (const auto& step : plan.Steps()) {
      EXPECT_EQ(Sent(outcome.offline[p][k]), step.cost->OfflineBytes()[p])
          << "party " << p << ", offline, " << step.name;
      EXPECT_EQ(Sent(outcome.online[p][k++]), step.cost->OnlineBytes()[p])
          << "party " << p << ", online, " << step.name;
    }
  }
  EXPECT_EQ(outcome.hops, plan.Total().OnlineHops());
}

// Flips a bit of each message of the setup.
class LyingLink final : public net::LinkWrapper {
 public:
  using LinkWrapper::LinkWrapper;
  void Send(net::Message message) override {
    if (message.phase == mpc::Phase::kSetup && !message.payload.empty()) message.payload[0] ^= 1;
    inner_->Send(std::move(message));
  }
};
std::unique_ptr<net::Link> MakeLyingLink(std::unique_ptr<net::Link> link) {
  return std::make_unique<LyingLink>(std::move(link));
}

struct Setting {
  const char* network;
  const char* suite;
  int helper;
  std::size_t batch;
};
void PrintTo(const Setting& s, std::ostream* out) {
  *out << s.network << ", " << s.suite << ", helper " << s.helper << ", batch " << s.batch;
}

std::vector<Setting> Settings() {
  std::vector<Setting> settings;
  for (const char* network : {"mnistnet1", "mnistnet2", "mnistnet3"})
    for (const char* suite : {"lut", "lut:chunks=2", "lut:chunks=3,form=bit", "cbnn",
                              "lut:fuse=yes", "lut:form=bit,fuse=yes", "fss:fuse=yes"})
      for (int helper : {0, 1, 2})
        for (std::size_t batch : {1u, 7u}) settings.push_back({network, suite, helper, batch});
  for (const char* network : {"mnistnet1", "mnistnet2", "mnistnet3"})
    for (const char* suite : {"lut", "cbnn"}) settings.push_back({network, suite, 0, 128});
  return settings;
}

class WholeNetwork : public testing::TestWithParam<Setting> {};

TEST_P(WholeNetwork, EqualsThePlainIntegersAtThePlannedCost) {
  const auto& [name, suite, helper, batch] = GetParam();
  const auto network = RandomWeights(name, 5, 12);
  const auto images = RandomImages(network.net.input.shape, batch);
  const mpc::Roles roles{helper, (helper + 1) % 3, (helper + 2) % 3, (helper + 1) % 3};
  const auto plan =
      MakePlan(network.net, Protocols(), mpc::ParseSuiteChoice(suite, "test"), roles, batch);
  const auto outcome = RunSecurely(network, plan, images);
  EXPECT_EQ(outcome.logits, nn::RunPlain(network, Protocols().PlainOracle(), images, 0, batch));
  ExpectCosts(plan, outcome);
}
INSTANTIATE_TEST_SUITE_P(Nets, WholeNetwork, testing::ValuesIn(Settings()));

// What clients give and get: an additive share of the input to and of the logits from each
// evaluator, of which the client alone has both.
class ForClients : public testing::TestWithParam<std::tuple<const char*, const char*, int>> {};

TEST_P(ForClients, SharesInAndOutGiveThePlainIntegersAtThePlannedCost) {
  const auto& [name, suite, helper] = GetParam();
  constexpr std::size_t kBatch = 3;
  const auto network = RandomWeights(name, 5, 12);
  const auto images = RandomImages(network.net.input.shape, kBatch);
  const auto choice = mpc::ParseSuiteChoice(suite, "test");
  const auto plan =
      MakePlan(network.net, Protocols(), choice, mpc::Roles::ForClients(helper), kBatch);
  // Shares of the model from a session of its own, as a package would bring them.
  std::array<SecureNetwork::ModelShares, 3> model;
  const auto owned = MakePlan(network.net, Protocols(), choice, {helper, 0, 0, 0}, kBatch);
  mpc::LocalOptions options;
  options.layers = plan.layers.size();
  mpc::RunParties(
      [&](mpc::Party& party) {
        SecureNetwork net(party, owned, Protocols());
        model[static_cast<std::size_t>(party.Id())] =
            net.ShareModel(party.Id() == 0 ? &network : nullptr);
      },
      options);

  std::mt19937_64 rng(3);
  const auto input = nn::QuantiseInput(plan.network.input, images, 0, kBatch);
  const std::size_t features = plan.network.input.shape.Size();
  std::array<mpc::AnyMatrix, 3> in, out;
  ring::DispatchWord(plan.input_bits, [&]<ring::Word W>(W) {
    auto first = ring::MakeMatrix<W>(features, kBatch), second = first;
    for (std::size_t i = 0; i < input.size(); ++i) {
      first.data()[i] = ring::Reduce(static_cast<W>(rng()), plan.input_bits);
      second.data()[i] = static_cast<W>(static_cast<W>(input[i]) - first.data()[i]);
    }
    in[static_cast<std::size_t>(plan.roles.Evaluator1())] = {std::move(first), plan.input_bits};
    in[static_cast<std::size_t>(plan.roles.Evaluator2())] = {std::move(second), plan.input_bits};
  });
  Outcome outcome;
  std::mutex mutex;
  mpc::RunParties(
      [&](mpc::Party& party) {
        const auto id = static_cast<std::size_t>(party.Id());
        SecureNetwork net(party, plan, Protocols());
        net.UseModel(model[id], "model");
        auto query = net.Prepare(kBatch);
        if (party.Id() != plan.roles.helper || plan.HelperActsOnline())
          out[id] = net.RunForClients(std::move(query), std::move(in[id]));
        const std::lock_guard lock(mutex);
        outcome.offline[id] = party.Meter().Layers(mpc::Phase::kOffline);
        outcome.online[id] = party.Meter().Layers(mpc::Phase::kOnline);
        outcome.hops = std::max(outcome.hops, net.OnlineHops());
      },
      options);
  EXPECT_TRUE(out[static_cast<std::size_t>(helper)].Empty());
  const auto& e1 = out[static_cast<std::size_t>(plan.roles.Evaluator1())];
  const auto& e2 = out[static_cast<std::size_t>(plan.roles.Evaluator2())];
  const std::size_t classes = plan.network.Classes();
  std::vector<std::int64_t> logits(classes * kBatch);
  ring::DispatchWord(plan.output_bits, [&]<ring::Word W>(W) {
    for (std::size_t c = 0; c < classes; ++c)
      for (std::size_t b = 0; b < kBatch; ++b) {
        const W sum = static_cast<W>(e1.As<W>()(c, b) + e2.As<W>()(c, b));
        logits[b * classes + c] =
            ring::Decode(ring::Reduce(sum, plan.output_bits), plan.output_bits);
      }
  });
  EXPECT_EQ(logits, nn::RunPlain(network, Protocols().PlainOracle(), images, 0, kBatch));
  ExpectCosts(plan, outcome);
}
INSTANTIATE_TEST_SUITE_P(Nets, ForClients,
                         testing::Combine(testing::Values("mnistnet1", "mnistnet3"),
                                          testing::Values("lut", "lut:chunks=3,form=bit", "fss",
                                                          "lut:fuse=yes", "fss:fuse=yes", "aby3"),
                                          testing::Values(0, 1, 2)));

// Both evaluators multiply shares: 1 for the input, 3 for a Sign, 4 with max-pool, 1 for the
// output; where evaluators' messages cross in an odd number of exchanges, the owner's first message
// beside its input saves one: the longest chain of MnistNet3 is 12, not 13. The model's owner
// multiplies in the clear: 2 for a Sign, 4 with max-pool. fss: 2 for either.
TEST(Plan, HopsOfTheMnistNets) {
  struct Hops {
    const char *network, *suite;
    std::uint32_t replicated, clear;
  };
  for (const auto& [name, suite, replicated, clear] :
       {Hops{"mnistnet1", "lut:chunks=2", 8, 6}, Hops{"mnistnet2", "lut:chunks=2", 8, 6},
        Hops{"mnistnet3", "lut:chunks=2", 12, 12}, Hops{"mnistnet1", "fss", 6, 6},
        Hops{"mnistnet2", "fss", 6, 6}, Hops{"mnistnet3", "fss", 10, 8}}) {
    auto network = RandomWeights(name, 1, 12).net;
    for (const auto& [linear, hops] :
         {std::pair{"replicated", replicated}, std::pair{"clear", clear}, std::pair{"", clear}}) {
      network.linear = linear;
      const auto plan = MakePlan(network, Protocols(), mpc::ParseSuiteChoice(suite, "test"), {}, 1);
      EXPECT_EQ(plan.Total().OnlineHops(), hops) << name << " " << suite << " " << linear;
      std::uint32_t sum = 0;
      for (const auto& step : plan.Steps()) sum += step.hops;
      EXPECT_EQ(sum, hops);
    }
  }
}

// The fewest: 2 for a Sign, 3 with max-pool, and one less before the logits, which are computed on
// what is opened. In the clear 2 with max-pool too, and before the logits the model's owner sends
// its part of the result together with what it opens.
TEST(Plan, FewestHopsOfTheMnistNets) {
  struct Hops {
    const char *name, *linear;
    std::uint32_t hops;
  };
  for (const auto& [name, linear, hops] :
       {Hops{"mnistnet1", "replicated", 4}, Hops{"mnistnet2", "replicated", 4},
        Hops{"mnistnet3", "replicated", 8}, Hops{"mnistnet1", "clear", 4},
        Hops{"mnistnet2", "clear", 4}, Hops{"mnistnet3", "clear", 6}}) {
    auto network = RandomWeights(name, 1, 12).net;
    network.linear = linear;
    const std::size_t last = network.layers.size() - 2;
    network.layers[last].suite = "fss:fuse=yes";
    const auto plan = MakePlan(network, Protocols(), {"fss", {}}, {}, 1);
    EXPECT_EQ(plan.Total().OnlineHops(), hops) << name;
    for (std::size_t k = 0; k < plan.layers.size(); ++k)
      EXPECT_EQ(plan.layers[k].fused, k == last) << name << ", layer " << k;
    auto unfused = network;
    unfused.layers[last].suite = "fss";
    EXPECT_NE(plan.Digest(), MakePlan(unfused, Protocols(), {"fss", {}}, {}, 1).Digest());
  }
}

// Where all know the weights, nothing is opened before an activation: an exchange for a Sign by
// fss, two by lut, and one more for max-pool. The owner of the image begins beside its input, and
// the result goes to its receiver offline but for what that computes itself.
TEST(Plan, HopsOfPublicWeights) {
  struct Hops {
    const char *name, *suite;
    std::uint32_t hops;
  };
  for (const auto& [name, suite, hops] :
       {Hops{"mnistnet1", "fss", 2}, Hops{"mnistnet3", "fss", 6}, Hops{"mnistnet1", "lut", 4},
        Hops{"mnistnet3", "lut", 8}}) {
    auto network = RandomWeights(name, 1, 12).net;
    network.linear = "public";
    const auto plan = MakePlan(network, Protocols(), mpc::ParseSuiteChoice(suite, "test"), {}, 1);
    EXPECT_EQ(plan.Total().OnlineHops(), hops) << name << " " << suite;
    const auto warnings = plan.Warnings(Protocols());
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_EQ(warnings[0],
              "the model is PUBLIC: party 2, its owner, tells all parties the weights");
  }
}

// The owner tells the others their weights; who is told another model than the third says so.
TEST(SecureNetworkPublic, WhoIsToldAnotherModelSaysSo) {
  const auto network = RandomWeights("mnistnet1", 2, 11);
  auto named = network.net;
  named.linear = "public";
  const auto plan = MakePlan(named, Protocols(), {"lut", {}}, {}, 1);
  for (const bool lies : {false, true}) {
    std::mutex mutex;
    std::vector<std::string> refusals;
    mpc::LocalOptions options;
    options.layers = plan.layers.size();
    options.wrap = [&](std::unique_ptr<net::Link> link, int owner) {
      return lies && owner == 2 && link->Peer() == 0 ? MakeLyingLink(std::move(link))
                                                     : std::move(link);
    };
    mpc::RunParties(
        [&](mpc::Party& party) {
          SecureNetwork net(party, plan, Protocols());
          try {
            net.ShareModel(party.Id() == 2 ? &network : nullptr);
          } catch (const ProtocolError& e) {
            const std::lock_guard lock(mutex);
            refusals.emplace_back(e.what());
          }
        },
        options);
    EXPECT_EQ(refusals.size(), lies ? 2u : 0u);
    for (const auto& text : refusals)
      EXPECT_THAT(text, testing::HasSubstr("says that party 2 told it another model"));
  }
}

// Only a fully connected layer that takes in the output, and is alone in that.
TEST(Plan, FusesWhereNothingElseTakesInTheOutput) {
  const auto network = RandomWeights("mnistnet1", 1, 12).net;
  const auto fused = [](const nn::PublicNetwork& net, std::size_t k) {
    const auto plan =
        MakePlan(net, Protocols(), mpc::ParseSuiteChoice("lut:fuse=yes", "test"), {}, 1);
    return plan.layers[k].fused;
  };
  EXPECT_TRUE(fused(network, 0));
  auto relu = network;
  relu.layers[0].activation = mpc::ActivationKind::kRelu;
  EXPECT_FALSE(fused(relu, 0));
  auto shortcut = network;
  shortcut.layers[2].shortcut = nn::Shortcut{.from = 1, .linear = network.layers[2].linear};
  EXPECT_FALSE(fused(shortcut, 0));
  EXPECT_TRUE(fused(shortcut, 1));  // takes in another output besides
  auto grouped = network;
  grouped.layers[1].linear.groups = 2;
  EXPECT_FALSE(fused(grouped, 0));
}

TEST(Roles, OwnersAndReceiverMayBeAnyParty) {
  const auto network = RandomWeights("mnistnet1", 2, 11);
  const auto images = RandomImages(network.net.input.shape, 3);
  const auto plain = nn::RunPlain(network, Protocols().PlainOracle(), images, 0, 3);
  for (int helper = 0; helper < 3; ++helper)
    for (int data_owner = 0; data_owner < 3; ++data_owner)
      for (int model_owner = 0; model_owner < 3; ++model_owner)
        for (int receiver = 0; receiver < 3; ++receiver) {
          const mpc::Roles roles{helper, data_owner, model_owner, receiver};
          for (const auto& [suite, linear] :
               {std::pair{"lut", ""}, std::pair{"fss", ""}, std::pair{"lut", "replicated"},
                std::pair{"lut:fuse=yes", ""}, std::pair{"fss:fuse=yes", ""},
                std::pair{"lut:fuse=yes", "replicated"}, std::pair{"aby3", ""},
                std::pair{"lut", "public"}, std::pair{"fss", "public"}, std::pair{"aby3", "public"},
                std::pair{"cbnn", "public"}}) {
            SCOPED_TRACE(fmt::format("{}, linear {}, roles {} {} {} {}", suite, linear, helper,
                                     data_owner, model_owner, receiver));
            auto named = network.net;
            named.linear = linear;
            const auto plan =
                MakePlan(named, Protocols(), mpc::ParseSuiteChoice(suite, "test"), roles, 3);
            const bool clear = *linear == 0 && model_owner != helper;
            EXPECT_EQ(plan.linear, clear ? "clear" : *linear == 0 ? "replicated" : linear);
            EXPECT_EQ(plan.HelperActsOnline(), suite == std::string("aby3") ||
                                                   suite == std::string("cbnn") ||
                                                   data_owner == helper || receiver == helper);
            const auto outcome = RunSecurely(network, plan, images);
            EXPECT_EQ(outcome.logits, plain);
            ExpectCosts(plan, outcome);
          }
        }
}

TEST(Mixing, SuitesMayDifferLayerByLayer) {
  auto network = RandomWeights("mnistnet3", 3, 12);
  const auto images = RandomImages(network.net.input.shape, 5);
  const auto plain = nn::RunPlain(network, Protocols().PlainOracle(), images, 0, 5);
  for (const auto& [first, second] :
       {std::pair{"cbnn", "lut"}, std::pair{"lut:chunks=4", "cbnn"}}) {
    network.net.layers[0].suite = first;
    network.net.layers[1].suite = second;
    const auto plan = MakePlan(network.net, Protocols(), {"lut", {}}, {}, 5);
    EXPECT_EQ(plan.Warnings(Protocols()).size(), 1u);
    const auto outcome = RunSecurely(network, plan, images);
    EXPECT_EQ(outcome.logits, plain);
    ExpectCosts(plan, outcome);
  }
}

TEST(DealingHelper, ReceivesNothingAndSendsNothingOnline) {
  const auto network = RandomWeights("mnistnet3", 4, 12);
  const auto images = RandomImages(network.net.input.shape, 2);
  for (int helper = 0; helper < 3; ++helper) {
    const mpc::Roles roles{helper, (helper + 1) % 3, (helper + 2) % 3, (helper + 2) % 3};
    const auto plan = MakePlan(network.net, Protocols(), {"lut", {}}, roles, 2);
    const auto outcome = RunSecurely(network, plan, images);
    for (std::size_t p = 0; p < 3; ++p)
      for (const auto& cell : outcome.online[p]) {
        EXPECT_EQ(cell.sent_bytes[static_cast<std::size_t>(helper)], 0u);
        if (p == static_cast<std::size_t>(helper)) {
          EXPECT_EQ(Sent(cell), 0u);
        }
      }
  }
}

// Over a whole run with several queries: setup, offline and online together.
TEST(Counters, NoneIsUsedTwiceInARun) {
  const auto network = RandomWeights("mnistnet2", 6, 12);
  const auto images = RandomImages(network.net.input.shape, 7);
  for (const char* suite : {"lut", "lut:form=bit,chunks=3", "cbnn"}) {
    const auto plan =
        MakePlan(network.net, Protocols(), mpc::ParseSuiteChoice(suite, "test"), {}, 3);
    crypto::PrfLedger ledger;
    RunSecurely(network, plan, images, &ledger);
    // Each range of a key's stream is drawn by at most its two holders; ranges of a nonce never
    // overlap otherwise.
    std::map<std::pair<int, std::uint64_t>, std::vector<std::pair<std::uint64_t, std::uint64_t>>>
        ranges;
    std::map<std::pair<int, std::uint64_t>, std::string> purposes;
    for (const auto& use : ledger.Uses()) {
      const std::pair stream{use.key, use.nonce};
      EXPECT_EQ(purposes.emplace(stream, use.purpose).first->second, use.purpose);
      ranges[stream].emplace_back(use.first_block, use.blocks);
    }
    EXPECT_GT(ranges.size(), 10u);
    for (auto& [stream, drawn] : ranges) {
      std::map<std::pair<std::uint64_t, std::uint64_t>, int> times;
      for (const auto& range : drawn) ++times[range];
      std::uint64_t end = 0;
      for (const auto& [range, count] : times) {
        EXPECT_LE(count, 2) << purposes[stream];
        EXPECT_GE(range.first, end) << purposes[stream];
        end = range.first + range.second;
      }
    }
  }
}

// Prepared, written down, and run by parties with fresh keys.
class LaterSession : public testing::TestWithParam<const char*> {};

TEST_P(LaterSession, RunsTheMaterialOfAnEarlierOne) {
  const auto network = RandomWeights("mnistnet2", 8, 12);
  constexpr std::size_t kBatch = 3, kQueries = 2;
  const auto images = RandomImages(network.net.input.shape, kBatch * kQueries);
  const auto plan =
      MakePlan(network.net, Protocols(), mpc::ParseSuiteChoice(GetParam(), "test"), {}, kBatch);
  std::array<Bytes, 3> models;
  std::array<std::array<Bytes, kQueries>, 3> queries;
  const auto copy = [](const mpc::Archive& archive) {
    return Bytes(archive.Written().begin(), archive.Written().end());
  };
  mpc::RunParties(
      [&](mpc::Party& party) {
        const auto p = static_cast<std::size_t>(party.Id());
        SecureNetwork net(party, plan, Protocols());
        auto shares = net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
        mpc::Archive model;
        model(shares);
        models[p] = copy(model);
        for (auto& each : queries[p]) {
          auto query = net.Prepare(kBatch);
          mpc::Archive archive;
          net.Visit(archive, query);
          each = copy(archive);
        }
      },
      {.layers = plan.layers.size()});

  std::vector<std::int64_t> logits;
  mpc::RunParties(
      [&](mpc::Party& party) {
        const auto p = static_cast<std::size_t>(party.Id());
        SecureNetwork net(party, plan, Protocols());
        SecureNetwork::ModelShares shares;
        mpc::Archive model(models[p], "model");
        model(shares);
        model.Finish();
        net.UseModel(shares, "model");
        for (std::size_t q = 0; q < kQueries; ++q) {
          SecureNetwork::Query query;
          mpc::Archive archive(queries[p][q], "query");
          net.Visit(archive, query);
          const auto input = nn::QuantiseInput(plan.network.input, images, q * kBatch, kBatch);
          const auto part =
              net.Run(std::move(query), party.Id() == plan.roles.data_owner ? &input : nullptr);
          if (party.Id() == plan.roles.receiver)
            logits.insert(logits.end(), part.begin(), part.end());
        }
        EXPECT_EQ(Sent(party.Meter().Total(mpc::Phase::kOffline)), 0u);
        EXPECT_EQ(Sent(party.Meter().Total(mpc::Phase::kOnline)),
                  kQueries * plan.Total().OnlineBytes()[p]);
      },
      {.layers = plan.layers.size()});
  EXPECT_EQ(logits, nn::RunPlain(network, Protocols().PlainOracle(), images, 0, images.count));
}
INSTANTIATE_TEST_SUITE_P(Suites, LaterSession,
                         testing::Values("lut", "lut:chunks=3,form=bit", "fss", "aby3", "cbnn"));

TEST(LaterSessions, RefuseWhatDoesNotFit) {
  const auto network = RandomWeights("mnistnet1", 8, 12);
  const auto plan = MakePlan(network.net, Protocols(), {"lut", {}}, {}, 2);
  const auto other = MakePlan(network.net, Protocols(), {"aby3", {}}, {}, 2);
  mpc::RunParties(
      [&](mpc::Party& party) {
        SecureNetwork net(party, plan, Protocols());
        auto shares = net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
        auto query = net.Prepare(2);
        mpc::Archive archive;
        net.Visit(archive, query);
        const ByteSpan whole = archive.Written();
        const auto refused = [&](const SecureNetwork& reader, ByteSpan bytes) {
          SecureNetwork::Query read;
          mpc::Archive again(bytes, "query 7");
          try {
            reader.Visit(again, read);
            ADD_FAILURE() << "no error at party " << party.Id();
          } catch (const ConfigError& e) {
            EXPECT_EQ(e.Place(), "query 7");
          }
        };
        refused(net, whole.first(whole.size() - 1));
        refused(net, whole.first(whole.size() / 2));
        refused(net, {});
        Bytes longer(whole.begin(), whole.end());
        longer.push_back(0);
        refused(net, longer);
        longer.pop_back();
        longer[0] ^= 1;  // the batch
        refused(net, longer);
        shares.layers.pop_back();
        EXPECT_THROW(net.UseModel(shares, "model"), ConfigError);
      },
      {.layers = plan.layers.size()});
  EXPECT_FALSE(plan.HelperActsOnline());
  EXPECT_TRUE(other.HelperActsOnline());
}

// Material that was made for another form of the suite, or another batch, can be read, since its
// fields are the same; none of it is taken for what is needed.
class OtherMaterial
    : public testing::TestWithParam<std::tuple<const char*, std::pair<const char*, const char*>>> {
};

TEST_P(OtherMaterial, IsRefusedWhenItRuns) {
  const auto [name, suites] = GetParam();
  const auto network = RandomWeights(name, 8, 12);
  constexpr std::size_t kBatch = 3;
  const auto plan_for = [&](const char* suite) {
    return MakePlan(network.net, Protocols(), mpc::ParseSuiteChoice(suite, "test"), {}, kBatch);
  };
  const auto made = plan_for(suites.first), used = plan_for(suites.second);
  std::array<Bytes, 3> queries;
  const auto prepare = [&](const Plan& plan, std::size_t batch) {
    mpc::RunParties(
        [&](mpc::Party& party) {
          SecureNetwork net(party, plan, Protocols());
          net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
          auto query = net.Prepare(batch);
          mpc::Archive archive;
          net.Visit(archive, query);
          queries[static_cast<std::size_t>(party.Id())] =
              Bytes(archive.Written().begin(), archive.Written().end());
        },
        {.layers = plan.layers.size()});
  };
  // `victim` alone has the other material.
  const auto run = [&](int victim, const std::array<Bytes, 3>& right) {
    mpc::RunParties(
        [&](mpc::Party& party) {
          const auto p = static_cast<std::size_t>(party.Id());
          SecureNetwork net(party, used, Protocols());
          net.ShareModel(party.Id() == used.roles.model_owner ? &network : nullptr);
          SecureNetwork::Query query;
          mpc::Archive archive(party.Id() == victim ? queries[p] : right[p], "query");
          net.Visit(archive, query);
          const std::vector<std::int64_t> input(network.net.input.shape.Size() * kBatch, 3);
          net.Run(std::move(query), party.Id() == used.roles.data_owner ? &input : nullptr);
        },
        {.layers = used.layers.size()});
  };
  prepare(used, kBatch);
  const auto right = queries;
  run(-1, right);
  if (suites.first != suites.second) {
    prepare(made, kBatch);
    for (const int victim : {used.roles.Evaluator1(), used.roles.Evaluator2()})
      EXPECT_THROW(run(victim, right), Error) << "party " << victim;
  }
  prepare(used, kBatch - 1);
  for (int victim = 0; victim < 3; ++victim)
    if (victim != used.roles.helper || used.HelperActsOnline()) {
      EXPECT_THROW(run(victim, right), Error) << "party " << victim;
    }
}
using Suites = std::pair<const char*, const char*>;
INSTANTIATE_TEST_SUITE_P(
    Forms, OtherMaterial,
    testing::Combine(testing::Values("mnistnet1"),
                     testing::Values(Suites{"lut:chunks=2,form=bit", "lut:chunks=3,form=bit"},
                                     Suites{"lut:chunks=3,form=bit", "lut:chunks=2,form=bit"},
                                     Suites{"lut:form=bit", "lut:form=arith"},
                                     Suites{"fss:form=arith", "fss:form=bit"},
                                     Suites{"fss:form=bit", "fss:form=arith"},
                                     Suites{"aby3", "aby3"}, Suites{"cbnn", "cbnn"})));
INSTANTIATE_TEST_SUITE_P(Pools, OtherMaterial,
                         testing::Combine(testing::Values("mnistnet2"),
                                          testing::Values(Suites{"lut:chunks=2", "lut:chunks=3"},
                                                          Suites{"lut:chunks=3", "lut:chunks=2"})));

TEST(Plan, RefusesBatchZero) {
  const auto network = RandomWeights("mnistnet1", 2, 11);
  EXPECT_THROW(MakePlan(network.net, Protocols(), {"lut", {}}, {}, 0), ConfigError);
  EXPECT_THROW(MakePlan(network.net, Protocols(), {"nosuch", {}}, {}, 1), UnsupportedError);
}

TEST(Plan, DigestTellsSuitesRolesAndWidthsApart) {
  auto network = RandomWeights("mnistnet1", 2, 11).net;
  const auto digest = [&](const char* suite, mpc::Roles roles) {
    return MakePlan(network, Protocols(), mpc::ParseSuiteChoice(suite, "test"), roles, 1).Digest();
  };
  const auto base = digest("lut", {});
  EXPECT_EQ(base, digest("lut", {}));
  EXPECT_NE(base, digest("cbnn", {}));
  EXPECT_NE(base, digest("lut:chunks=3", {}));
  EXPECT_NE(base, digest("lut", {0, 2, 1, 1}));
  network.linear = "clear";  // which is what the roles say
  const auto clear = digest("lut", {});
  network.linear = "replicated";
  EXPECT_NE(base, digest("lut", {}));
  EXPECT_NE(clear, digest("lut", {}));
  network.linear.clear();
  network.layers[0].value_bits += 1;
  EXPECT_NE(base, digest("lut", {}));
}

}  // namespace
}  // namespace tercet::infer
