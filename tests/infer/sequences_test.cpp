// SPDX-License-Identifier: Apache-2.0
// Whatever compiles runs securely in the default suite and gives the plain integers; whatever does
// not is refused by name. All sequences of layers up to a length.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "compile/float_weights.h"
#include "infer/run_securely.h"
#include "tercet/base/error.h"

namespace tercet::infer {
namespace {

constexpr std::size_t kLongest = 4;
/// The parts of a layer without its name.
const std::vector<std::string>& Kinds() {
  static const std::vector<std::string> kinds = {
      R"("type": "conv2d", "out_channels": 2, "kernel": 3, "padding": 1)",
      R"("type": "batch_norm")",
      R"("type": "sign")",
      R"("type": "relu")",
      R"("type": "square")",
      R"("type": "max_pool2d", "kernel": 2)",
      R"("type": "avg_pool2d", "kernel": 2)"};
  return kinds;
}

class SequencesTest : public testing::Test {
 protected:
  /// All sequences that begin with `layers`.
  void TryAll(const std::vector<std::string>& layers) {
    if (!layers.empty()) {
      Try(fmt::format("{}", fmt::join(layers, ",")));
      Try(fmt::format(R"({}, {{"name": "end", "type": "linear", "out_features": 3}})",
                      fmt::join(layers, ",")));
    }
    if (layers.size() == kLongest) return;
    for (const std::string& kind : Kinds()) {
      std::vector<std::string> longer = layers;
      longer.push_back(fmt::format(R"({{"name": "l{}", {}}})", layers.size(), kind));
      TryAll(longer);
    }
  }

  void Try(const std::string& layers) {
    nn::NetworkSpec spec;
    try {
      spec = compile::Spec(R"("shape": [2, 4, 4], "bits": 2, "mean": 0.3)", layers);
    } catch (const ConfigError&) {
      return;  // maps too small for a pool, or nothing before an activation
    }
    ++networks_;
    nn::IntegerNetwork network;
    try {
      compile::CompileOptions options;
      options.default_bits = 10;
      options.default_fixed_bits = 20;
      options.accept_loss = true;  // what is lost is not the question
      network = compile::Compile(compile::Weights(networks_).Fill(spec).Network(spec),
                                 compile::Oracle(), options, nullptr);
    } catch (const UnsupportedError& error) {
      ++refused_;
      EXPECT_THAT(error.what(), testing::StartsWith("layer ")) << layers;
      return;
    }
    // Networks that differ in weights alone run alike.
    nn::PublicNetwork kind = network.net;
    kind.spec_digest.clear();
    for (nn::PublicLayer& layer : kind.layers) {
      layer.type.clear();
      layer.name.clear();
    }
    if (!seen_.insert(nn::PublicNetworkToJson(kind)).second) return;
    SCOPED_TRACE(layers);
    Run(network);
  }

  void Run(const nn::IntegerNetwork& network) {
    const files::Images images = compile::RandomImages(network.net.input.shape, 2, 7);
    Plan plan;
    ASSERT_NO_THROW(plan = MakePlan(network.net, registry_, mpc::ParseSuiteChoice("lut", "test"),
                                    {}, images.count));
    EXPECT_EQ(RunSecurely(network, plan, registry_, images),
              nn::RunPlain(network, compile::Oracle(), images, 0, images.count));
  }

  const mpc::Registry registry_ = BuiltinProtocols();
  std::size_t networks_ = 0, refused_ = 0;
  std::set<std::string> seen_;
};

TEST_F(SequencesTest, WhatCompilesRunsInTheDefaultSuite) {
  TryAll({});
  RecordProperty("networks", static_cast<int>(networks_));
  RecordProperty("run", static_cast<int>(seen_.size()));
  EXPECT_GT(networks_, 2000U);
  EXPECT_GT(refused_, 100U);
  EXPECT_GT(seen_.size(), 100U);
}

}  // namespace
}  // namespace tercet::infer
