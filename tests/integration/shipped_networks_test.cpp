// SPDX-License-Identifier: Apache-2.0
// Every architecture in nets/ runs securely, with random weights, and gives what the plain network
// gives; so does every model that is there, and it belongs to the weights beside it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "infer/run_securely.h"
#include "integration/world.h"
#include "programs/inputs.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/compile/customise.h"
#include "tercet/compile/random_weights.h"
#include "tercet/files/tensor_file.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet {
namespace {

const mpc::Registry& Protocols() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry;
}

std::string InNets(const std::string& name) {
  return std::string(TERCET_SOURCE_DIR) + "/nets/" + name;
}

// The files NAME`ending` in nets/, without the ending.
std::vector<std::string> Shipped(const std::string& ending) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(InNets(""))) {
    const std::string file = entry.path().filename();
    if (file.ends_with(ending) && !file.ends_with(".schema.json"))
      names.push_back(file.substr(0, file.size() - ending.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string TestName(const testing::TestParamInfo<std::string>& test) {
  std::string name = test.param;
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
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
INSTANTIATE_TEST_SUITE_P(Networks, ShippedNetwork, testing::ValuesIn(Shipped(".json")), TestName);

TEST_P(ShippedNetwork, SecureEqualsPlain) {
  const auto spec = nn::LoadNetwork(InNets(GetParam() + ".json"));
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

class ShippedModel : public testing::TestWithParam<std::string> {
 protected:
  // NAME-binary.* are weights of -1 and +1 for NAME.json.
  static constexpr std::string_view kBinary = "-binary";
  bool Binary() const { return GetParam().ends_with(kBinary); }
  nn::NetworkSpec Spec() const {
    const std::string& name = GetParam();
    return nn::LoadNetwork(
        InNets(name.substr(0, name.size() - (Binary() ? kBinary.size() : 0)) + ".json"));
  }
};
INSTANTIATE_TEST_SUITE_P(Models, ShippedModel, testing::ValuesIn(Shipped(".compiled.safetensors")),
                         TestName);

TEST_P(ShippedModel, SecureEqualsPlain) {
  const nn::NetworkSpec spec = Spec();
  const auto& oracle = Protocols().PlainOracle();
  const auto network = compile::LoadCompiled(InNets(GetParam() + ".compiled.safetensors"), spec);
  const auto images = programs::RandomImages(spec.input.shape, 2);
  const auto plan = infer::MakePlan(network.net, Protocols(), mpc::ParseSuiteChoice("lut", "test"),
                                    {}, images.count);
  EXPECT_EQ(infer::RunSecurely(network, plan, Protocols(), images),
            nn::RunPlain(network, oracle, images, 0, images.count));
}

TEST_P(ShippedModel, HasTheFloatWeightsOfItsNetwork) {
  const std::filesystem::path file = InNets(GetParam() + ".safetensors");
  const files::TensorFile weights = files::LoadTensors(file);
  EXPECT_LE(std::filesystem::file_size(file), 2'000'000u);
  const nn::NetworkSpec spec = Spec();
  const nn::FloatNetwork floats(spec, weights, file.string());  // every tensor, in its shape
  if (!Binary()) return;
  for (const nn::LayerSpec& layer : spec.layers) {
    if (layer.type != nn::LayerType::kLinear && layer.type != nn::LayerType::kConv2d) continue;
    for (const double weight : weights.tensors.at(layer.name + ".weight").AsDoubles())
      ASSERT_EQ(std::abs(weight), 1) << layer.name;
  }
}

}  // namespace
}  // namespace tercet
