// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/random_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "tercet/nn/float_network.h"

namespace tercet::compile {
namespace {

const nn::NetworkSpec& Net() {
  static const auto spec = nn::ParseNetwork(
      R"({"name": "N", "input": {"shape": [2, 4, 4]}, "layers": [
          {"name": "conv", "type": "conv2d", "out_channels": 4, "kernel": 3, "bias": false},
          {"name": "norm", "type": "batch_norm"}, {"name": "sign", "type": "sign"},
          {"name": "fc", "type": "linear", "out_features": 3}], "output": "logits"})",
      "net");
  return spec;
}

// Every party, and every machine, has the same network of a seed.
TEST(RandomWeights, AreTheSameForASeedAndOthersForAnother) {
  const auto file = RandomWeights(Net(), 5);
  ASSERT_EQ(file.tensors.size(), 7u);
  EXPECT_EQ(file.tensors.at("conv.weight").shape, (std::vector<std::size_t>{4, 2, 3, 3}));
  for (const auto& [name, tensor] : file.tensors)
    EXPECT_EQ(tensor.bytes, RandomWeights(Net(), 5).tensors.at(name).bytes) << name;
  EXPECT_NE(file.tensors.at("conv.weight").bytes,
            RandomWeights(Net(), 6).tensors.at("conv.weight").bytes);
  // The first two numbers of mt19937_64 with this seed; sqrt(6 / 18).
  const auto values = file.tensors.at("conv.weight").AsDoubles();
  EXPECT_FLOAT_EQ(static_cast<float>(values.at(0)), 0.199838119F);
  EXPECT_FLOAT_EQ(static_cast<float>(values.at(1)), -0.532900549F);
  for (const double value : values) EXPECT_LE(std::abs(value), 0.57736);
}

TEST(RandomWeights, FitEveryShippedArchitecture) {
  std::size_t networks = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TERCET_SOURCE_DIR "/nets")) {
    const std::string name = entry.path().filename();
    if (!name.ends_with(".json") || name.ends_with(".schema.json")) continue;
    const auto spec = nn::LoadNetwork(entry.path());
    EXPECT_NO_THROW(nn::FloatNetwork(spec, RandomWeights(spec, 1), "random")) << name;
    ++networks;
  }
  EXPECT_GE(networks, 32u);
}

}  // namespace
}  // namespace tercet::compile
