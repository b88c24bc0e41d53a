// SPDX-License-Identifier: Apache-2.0
// Every architecture in nets/ runs securely, with random weights, and gives what the plain network
// gives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "infer/run_securely.h"
#include "integration/world.h"
#include "programs/inputs.h"
#include "tercet/compile/customise.h"
#include "tercet/compile/random_weights.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet {
namespace {

const mpc::Registry& Protocols() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry;
}

std::vector<std::string> ShippedNetworks() {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(TERCET_SOURCE_DIR) + "/nets")) {
    const std::string file = entry.path().filename();
    if (file.ends_with(".json") && !file.ends_with(".schema.json"))
      names.push_back(file.substr(0, file.size() - 5));
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// Networks above this take seconds an image in the clear and minutes with sanitizers; they are run
/// when the environment variable TERCET_LARGE_NETWORKS is set.
constexpr std::uint64_t kMaxMacs = 25'000'000;

/// Proven bounds of deep fixed-point networks grow beyond 32 bits; theirs are measured.
bool IsDeepFixedPoint(const nn::NetworkSpec& spec) {
  return std::count_if(spec.layers.begin(), spec.layers.end(), [](const nn::LayerSpec& layer) {
           return layer.type == nn::LayerType::kRelu || layer.type == nn::LayerType::kSquare;
         }) > 6;
}

class ShippedNetwork : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Networks, ShippedNetwork, testing::ValuesIn(ShippedNetworks()),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

TEST_P(ShippedNetwork, SecureEqualsPlain) {
  const auto spec =
      nn::LoadNetwork(std::string(TERCET_SOURCE_DIR) + "/nets/" + GetParam() + ".json");
  if (compile::CountNetwork(spec).macs > kMaxMacs &&
      std::getenv("TERCET_LARGE_NETWORKS") == nullptr)
    GTEST_SKIP() << "too large for every day; set TERCET_LARGE_NETWORKS to run it";
  const auto& oracle = Protocols().PlainOracle();
  const auto images = programs::RandomImages(spec.input.shape, 2);
  const nn::FloatNetwork floats(spec, compile::RandomWeights(spec, 3), "random weights");
  compile::CompileOptions options;
  options.accept_loss = true;  // of weights that mean nothing
  if (IsDeepFixedPoint(spec)) {
    options.measured = true;
    options.calibration = &images;
  } else {
    options.default_bits = 14;
  }
  const auto network = compile::Compile(floats, oracle, options, nullptr);
  const auto plan = infer::MakePlan(network.net, Protocols(), mpc::ParseSuiteChoice("lut", "test"),
                                    {}, images.count);
  EXPECT_EQ(infer::RunSecurely(network, plan, Protocols(), images),
            nn::RunPlain(network, oracle, images, 0, images.count));
}

}  // namespace
}  // namespace tercet
