// SPDX-License-Identifier: Apache-2.0
// Networks of every kind of layer, compiled from random weights, computed securely.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <random>
#include <string>
#include <tuple>

#include "compile/float_weights.h"
#include "infer/run_securely.h"
#include "tercet/compile/compile.h"
#include "tercet/mpc/local.h"

namespace tercet::infer {
namespace {

struct LayersCase {
  const char* what;
  std::string layers;
  bool only_class = false;
};
void PrintTo(const LayersCase& c, std::ostream* out) { *out << c.what; }

std::string Table(const char* name) {
  return fmt::format(R"({{"name": "{}", "type": "table", "input_scale": 4, "output_scale": 0.1,
      "values": [0, 0, -1, 0, -1, -3, -9, -7, 0, 17, 39, 58, 80, 99, 120, 141]}},)",
                     name);
}
std::vector<LayersCase> TableCases() {
  const std::string conv =
      R"({"name": "c1", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},)";
  const std::string next =
      R"({"name": "c2", "type": "conv2d", "out_channels": 2, "kernel": 1, "padding": 1},)";
  const std::string scale = R"({"name": "wide", "type": "table", "input_scale": 100,
      "output_scale": 0.5, "values": [1, 2, 5, 7]},)";
  const std::string average =
      R"({"name": "a1", "type": "avg_pool2d", "kernel": 3, "stride": 2, "padding": 1},)";
  const std::string last = R"({"name": "fc", "type": "linear", "out_features": 5})";
  const std::string clip =
      R"({"name": "l1", "type": "clip", "low": -3, "high": 6, "input_scale": 0.5},)";
  return {{"table", conv + Table("t1") + last},
          {"clip", conv + clip + last},
          {"averaged table", conv + Table("t1") + average + last},
          {"tables and sign", conv + Table("t1") + next + R"({"name": "s1", "type": "sign"},)" +
                                  R"({"name": "p1", "type": "max_pool2d", "kernel": 2},)" + last},
          {"table after relu", conv + R"({"name": "r1", "type": "relu"},)" + next + scale + last},
          {"the class of a table", conv + Table("t1") + last, true}};
}

std::vector<LayersCase> LayersCases() {
  const std::string conv =
      R"({"name": "c1", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},)";
  const std::string relu = R"({"name": "r1", "type": "relu"},)";
  const std::string square = R"({"name": "q1", "type": "square"},)";
  const std::string sign = R"({"name": "s1", "type": "sign"},)";
  const std::string pool = R"({"name": "p1", "type": "max_pool2d", "kernel": 2},)";
  const std::string average =
      R"({"name": "a1", "type": "avg_pool2d", "kernel": 3, "stride": 2, "padding": 1},)";
  const std::string last = R"({"name": "fc", "type": "linear", "out_features": 5})";
  // Whatever differs between axes and sides.
  const std::string uneven =
      R"({"name": "c1", "type": "conv2d", "out_channels": 4, "kernel": [3, 2], "stride": [1, 2],
          "padding": [2, 0, 1, 1], "dilation": [2, 1]},)";
  const std::string padded_pool =
      R"({"name": "p1", "type": "max_pool2d", "kernel": [3, 2], "stride": [2, 1],
          "padding": [1, 1, 2, 0]},)";
  const std::string columns = R"({"name": "p1", "type": "max_pool2d", "kernel": [3, 1]},)";
  const std::string uneven_average =
      R"({"name": "a1", "type": "avg_pool2d", "kernel": [2, 3], "stride": [1, 2],
          "padding": [1, 1, 0, 0]},)";
  const std::string second =
      R"({"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": [1, 3], "padding": [0, 1],
          "groups": 2},)";
  const std::string sign2 = R"({"name": "s2", "type": "sign"},)";
  const std::string exact_clip = R"({"name": "h1", "type": "clip", "low": -1, "high": 1},)";
  const std::string norm = R"({"name": "b1", "type": "batch_norm"},)";
  const std::string norm_after_pool = uneven + padded_pool + norm + sign;
  const std::string turned = R"({"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 1},
      {"name": "add2", "type": "add", "from": "s1"}, {"name": "r2", "type": "relu"},)";
  const std::string numbers =
      R"({"name": "c2", "type": "conv2d", "out_channels": 3, "kernel": 3, "padding": 1,
          "pad_value": 1},)";
  const std::string inside =
      R"({"name": "a1", "type": "avg_pool2d", "kernel": [2, 3], "stride": [1, 2],
          "padding": [1, 1, 0, 1], "count_include_pad": false},)";
  const std::string residual = R"(
      {"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},
      {"name": "add2", "type": "add", "from": "r1"},
      {"name": "r2", "type": "relu"},
      {"name": "c3", "type": "conv2d", "out_channels": 6, "kernel": 3, "stride": 2, "padding": 1},
      {"name": "c4", "type": "conv2d", "out_channels": 6, "kernel": 1, "stride": 2, "from": "r2"},
      {"name": "b4", "type": "batch_norm"},
      {"name": "add4", "type": "add", "from": "c3"},
      {"name": "r4", "type": "relu"},)";
  return {{"relu", conv + relu + last},
          {"pooled relu", conv + relu + pool + last},
          {"averaged relu", conv + relu + average + last},
          {"square", conv + square + last},
          {"averaged square", conv + square + average + last},
          {"averaged sign", conv + sign + pool + average + last},
          {"residuals", conv + relu + residual + last},
          {"relu at the end", conv + relu + last + R"(, {"name": "r2", "type": "relu"})"},
          {"the class of relu at the end",
           conv + relu + last + R"(, {"name": "r2", "type": "relu"})", true},
          {"the class of sign", conv + sign + pool + last, true},
          {"the class of relu", conv + relu + last, true},
          {"uneven windows of sign", uneven + sign + padded_pool + second + sign2 + last},
          {"uneven windows of relu", uneven + relu + padded_pool + second + last},
          {"uneven averages", uneven + sign + uneven_average + second + relu + last},
          {"columns of sign", uneven + sign + columns + last},
          {"clip", uneven + exact_clip + pool + second + sign2 + last},
          {"norm between pool and sign", norm_after_pool + second + sign2 + last},
          {"norm between sign and pool", uneven + sign + norm + pool + second + relu + last},
          {"residual of turned signs", norm_after_pool + turned + last},
          {"padded with numbers", uneven + sign + numbers + sign2 + last},
          {"averages of what is inside", uneven + relu + inside + second + sign + last},
          {"dense product", uneven + uneven_average + second + sign + last}};
}

class SecureLayers : public testing::TestWithParam<std::tuple<LayersCase, const char*>> {};

TEST_P(SecureLayers, EqualThePlainIntegers) {
  const auto& [layers, suite] = GetParam();
  const auto spec = compile::Spec(R"("shape": [2, 6, 6], "mean": 0.4, "bits": 4)", layers.layers);
  compile::CompileOptions options;
  options.default_fixed_bits = 24;
  options.only_class = layers.only_class;
  const auto network = compile::Compile(compile::Weights(3).FillReal(spec).Network(spec),
                                        compile::Oracle(), options, nullptr);
  const auto images = compile::RandomImages(network.net.input.shape, 3, 11);
  const auto plain = nn::RunPlain(network, compile::Oracle(), images, 0, 3);
  const mpc::Registry registry = BuiltinProtocols();
  for (const int helper : {0, 1, 2})
    for (const auto& [linear, owner] : {std::pair{"replicated", 2}, std::pair{"clear", 1},
                                        std::pair{"clear", 2}, std::pair{"public", 2}}) {
      SCOPED_TRACE(fmt::format("helper {}, linear {}, evaluator {}", helper, linear, owner));
      const mpc::Roles roles{helper, (helper + 1) % 3, (helper + owner) % 3, (helper + 1) % 3};
      auto named = network.net;
      named.linear = linear;
      const auto plan = MakePlan(named, registry, mpc::ParseSuiteChoice(suite, "test"), roles, 3);
      std::uint32_t hops = 0;
      const auto logits = RunSecurely(network, plan, registry, images, &hops);
      EXPECT_EQ(logits, plain);
      EXPECT_EQ(hops, plan.Total().OnlineHops());
    }
}
INSTANTIATE_TEST_SUITE_P(Layers, SecureLayers,
                         testing::Combine(testing::ValuesIn(LayersCases()),
                                          testing::Values("lut", "fss", "aby3")));

/// Those of Sign alone, which is all that cbnn has without a shift.
std::vector<LayersCase> SignCases() {
  std::vector<LayersCase> cases = LayersCases();
  std::erase_if(cases, [](const LayersCase& c) {
    return c.layers.find("relu") != std::string::npos ||
           c.layers.find("clip") != std::string::npos ||
           c.layers.find("square") != std::string::npos;
  });
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Signs, SecureLayers,
                         testing::Combine(testing::ValuesIn(SignCases()), testing::Values("cbnn")));

INSTANTIATE_TEST_SUITE_P(Tables, SecureLayers,
                         testing::Combine(testing::ValuesIn(TableCases()),
                                          testing::Values("lut", "lut:form=bit", "fss")));

// A linear protocol that sends something: the local products, randomised anew by masks that go
// around.
class Masked final : public mpc::Linear {
 public:
  Masked(std::unique_ptr<mpc::Linear> products, std::uint32_t seed)
      : products_(std::move(products)), rng_(seed) {}
  mpc::AnyMatrix Prepare(mpc::Context& ctx, std::size_t batch,
                         const mpc::AnyShare& known) override {
    return products_->Prepare(ctx, batch, known);
  }
  mpc::AnyMatrix Run(mpc::Context& ctx, mpc::AnyMatrix partial, mpc::KnownHalves known,
                     const mpc::AnyShare& x) override {
    auto z = products_->Run(ctx, std::move(partial), known, x);
    ring::DispatchWord(z.Bits(), [&]<ring::Word W>(W) {
      auto mask = ring::MakeMatrix<W>(z.Rows(), z.Cols());
      for (auto& v : mask) v = static_cast<W>(rng_());
      ctx.Send(ctx.Next(), mask, z.Bits());
      z.As<W>() -= mask;
      z.As<W>() += ctx.Receive<W>(ctx.Prev(), z.Rows(), z.Cols(), z.Bits());
    });
    return z;
  }

 private:
  std::unique_ptr<mpc::Linear> products_;
  std::mt19937 rng_;
};

mpc::Registry WithMaskedLinear() {
  mpc::Registry registry = BuiltinProtocols();
  const auto products = registry.FindLinear(mpc::kReplicatedLinear).plan;
  registry.AddLinear(
      {.name = "masked", .local = false, .plan = [=](const auto& spec, const auto& roles) {
         auto plan = products(spec, roles);
         const auto bytes = ring::PackedBytes(spec.shape.Out().Size() * spec.batch, spec.ring_bits);
         plan.cost.Add(mpc::Phase::kOnline, {{0, 1, bytes}, {1, 2, bytes}, {2, 0, bytes}});
         plan.make = [make = plan.make](mpc::Party& party, const auto& weight, const auto& bias,
                                        const auto& clear) {
           const auto seed = static_cast<std::uint32_t>(party.Id() + 1);
           return std::make_unique<Masked>(make(party, weight, bias, clear), seed);
         };
         return plan;
       }});
  return registry;
}

// What it sends is in the plan, and the helper's shares are not known offline behind it.
TEST(SecureLinear, MayBeAnotherProtocol) {
  const auto spec =
      compile::Spec(R"("shape": [2, 6, 6], "mean": 0.4, "bits": 4)", LayersCases()[0].layers);
  compile::CompileOptions options;
  options.default_fixed_bits = 24;
  const auto network = compile::Compile(compile::Weights(3).FillReal(spec).Network(spec),
                                        compile::Oracle(), options, nullptr);
  const auto images = compile::RandomImages(network.net.input.shape, 3, 11);
  const auto input = nn::QuantiseInput(network.net.input, images, 0, 3);
  const mpc::Registry registry = WithMaskedLinear();
  for (const char* suite : {"lut", "aby3"}) {
    auto masked = network.net;
    masked.linear = "masked";
    const auto plan = MakePlan(masked, registry, {suite, {}}, {}, 3);
    EXPECT_TRUE(plan.HelperActsOnline());
    EXPECT_NE(plan.Digest(), MakePlan(network.net, registry, {suite, {}}, {}, 3).Digest());
    std::vector<std::int64_t> logits;
    std::array<std::uint64_t, 3> sent{};
    std::array<std::uint32_t, 3> hops{};
    mpc::RunParties(
        [&](mpc::Party& party) {
          SecureNetwork net(party, plan, registry);
          net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
          auto result =
              net.Run(net.Prepare(3), party.Id() == plan.roles.data_owner ? &input : nullptr);
          if (party.Id() == plan.roles.receiver) logits = std::move(result);
          const auto id = static_cast<std::size_t>(party.Id());
          for (const auto bytes : party.Meter().Total(mpc::Phase::kOnline).sent_bytes)
            sent[id] += bytes;
          hops[id] = net.OnlineHops();
        },
        {.layers = plan.layers.size()});
    EXPECT_EQ(logits, nn::RunPlain(network, compile::Oracle(), images, 0, 3)) << suite;
    EXPECT_EQ(sent, plan.Total().OnlineBytes()) << suite;
    EXPECT_EQ(*std::max_element(hops.begin(), hops.end()), plan.Total().OnlineHops()) << suite;
  }
}

// A residual's factor is a weight: shared once, and of use in a later session.
TEST(SecureShortcut, SharesItsFactor) {
  std::string residual;
  for (const auto& each : LayersCases())
    if (each.what == std::string("residuals")) residual = each.layers;
  const auto spec = compile::Spec(R"("shape": [2, 6, 6], "mean": 0.4, "bits": 4)", residual);
  compile::CompileOptions options;
  options.default_fixed_bits = 24;
  const auto network = compile::Compile(compile::Weights(3).FillReal(spec).Network(spec),
                                        compile::Oracle(), options, nullptr);
  ASSERT_TRUE(network.net.layers[1].shortcut && !network.net.layers[1].shortcut->linear);
  ASSERT_EQ(network.weights[1].shortcut.size(), 1U);
  const mpc::Registry registry = BuiltinProtocols();
  const auto plan = MakePlan(network.net, registry, mpc::ParseSuiteChoice("lut", "test"), {}, 2);
  mpc::LocalOptions local;
  local.layers = plan.layers.size();
  std::array<SecureNetwork::ModelShares, 3> shares;
  mpc::RunParties(
      [&](mpc::Party& party) {
        SecureNetwork net(party, plan, registry);
        shares[static_cast<std::size_t>(party.Id())] =
            net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
      },
      local);
  std::uint32_t sum = 0;
  for (const auto& share : shares) {
    const auto& factor = share.layers[1].shortcut;
    EXPECT_EQ(factor.mine.Rows(), 1U);
    EXPECT_EQ(factor.mine.Cols(), 1U);
    sum += factor.mine.As<std::uint32_t>().data()[0];
  }
  const std::uint32_t mask = (1U << plan.layers[1].activation.ring_bits) - 1;
  EXPECT_EQ(sum & mask, static_cast<std::uint32_t>(network.weights[1].shortcut[0]) & mask);

  const auto images = compile::RandomImages(network.net.input.shape, 2, 11);
  std::mutex mutex;
  std::vector<std::int64_t> logits;
  mpc::RunParties(
      [&](mpc::Party& party) {
        SecureNetwork net(party, plan, registry);
        net.UseModel(shares[static_cast<std::size_t>(party.Id())], "model");
        auto query = net.Prepare(2);
        const auto input = nn::QuantiseInput(network.net.input, images, 0, 2);
        const auto result =
            net.Run(std::move(query), party.Id() == plan.roles.data_owner ? &input : nullptr);
        const std::lock_guard lock(mutex);
        if (party.Id() == plan.roles.receiver) logits = result;
      },
      local);
  EXPECT_EQ(logits, nn::RunPlain(network, compile::Oracle(), images, 0, 2));
}

}  // namespace
}  // namespace tercet::infer
