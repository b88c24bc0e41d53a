// SPDX-License-Identifier: Apache-2.0
#include "tercet/nn/integer_network.h"
#include "tercet/compile/compiled_file.h"

#include <functional>
#include <limits>
#include <string>

#include "compile/bounds.h"

#include "base/scratch.h"
#include "tercet/base/file_reader.h"
#include "tercet/compile/architecture.h"
#include "tercet/files/tensor_file.h"

namespace tercet::nn {
namespace {

using mpc::ActivationKind;
using testing::ElementsAre;

constexpr char kSmall[] = R"({
  "name": "Small",
  "input": {"shape": [1, 3, 3], "scale": 255, "mean": 0.5, "std": 0.25, "bits": 2},
  "layers": [
    {"name": "conv1", "type": "conv2d", "out_channels": 2, "kernel": 2},
    {"name": "act1", "type": "sign", "suite": "lut"},
    {"name": "pool1", "type": "max_pool2d", "kernel": 2, "stride": 1},
    {"name": "fc1", "type": "linear", "out_features": 3}
  ],
  "output": "logits"
})";

NetworkSpec SmallSpec() { return ParseNetwork(kSmall, "small.json"); }

/// conv 2 x 2, sign, pool; then 3 logits.
IntegerNetwork SmallNetwork() {
  IntegerNetwork network;
  network.net = compile::Architecture(SmallSpec(), false);
  network.net.layers[0].value_bits = 6;
  network.net.layers[1].value_bits = 12;
  // conv1: inputs 0..3, channel 0 spans 1 - 3 * 6 = -17 to 1 + 3 * 4 = 13, channel 1 spans -32 to
  // -8.
  network.weights.push_back({{1, -2, 3, -4, 8, 0, 0, 0}, {1, -32}, {}});
  network.weights.push_back({std::vector<std::int64_t>(6, -100), {5, 0, 300}, {}});
  return network;
}

std::string Json() { return PublicNetworkToJson(SmallNetwork().net); }

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from << " in " << text;
  return text.replace(at, from.size(), to);
}

TEST(PublicNetworkTest, TextTellsNetworksApart) {
  const auto changed = [](const std::function<void(PublicNetwork&)>& change) {
    PublicNetwork network = SmallNetwork().net;
    change(network);
    return PublicNetworkToJson(network);
  };
  EXPECT_NE(changed([](auto& n) { n.layers[0].value_bits = 7; }), Json());
  EXPECT_NE(changed([](auto& n) { n.layers[0].pool.reset(); }), Json());
  EXPECT_NE(changed([](auto& n) { n.spec_digest.back() = 'b'; }), Json());
  EXPECT_NE(changed([](auto& n) { n.layers[0].shift = 1; }), Json());
  EXPECT_NE(changed([](auto& n) { n.layers[1].shortcut = Shortcut{}; }), Json());
  EXPECT_EQ(changed([](auto&) {}), Json());
}

TEST(ProveWidthsTest, TightAtBothEnds) {
  IntegerNetwork network = SmallNetwork();
  EXPECT_NO_THROW(compile::ProveWidths(network, "model"));
  network.weights[0].bias[1] = -33;  // the lowest value becomes -33, below -32
  ExpectConfigError([&] { compile::ProveWidths(network, "model"); }, "model layer conv1", "6 bits");
  network.weights[0].bias[1] = 7;  // the highest value becomes 31
  EXPECT_NO_THROW(compile::ProveWidths(network, "model"));
  network.weights[0].bias[1] = 8;
  ExpectConfigError([&] { compile::ProveWidths(network, "model"); }, "model layer conv1", "6 bits");
}

TEST(ProveWidthsTest, CountsOnlyWeightsInsideTheInput) {
  // Of the 2 x 2 kernel on a single padded pixel, each output meets one weight.
  IntegerNetwork network;
  network.net.input = {.shape = {1, 1, 1}, .bits = 1};
  PublicLayer conv;
  conv.name = "conv1";
  conv.linear = {.in = {1, 1, 1}, .out_channels = 1, .kernel_h = 2, .kernel_w = 2, .padding = 1};
  conv.value_bits = 4;
  network.net.layers = {conv};
  network.weights = {{{7, 7, -8, 7}, {0}}};
  EXPECT_NO_THROW(compile::ProveWidths(network, "model"));
  network.net.layers[0].linear.bias_per_element = true;
  network.weights = {{{7, 7, -8, 7}, {0, 0, 0, 1}}};  // the last output meets the first weight: 8
  EXPECT_THROW(compile::ProveWidths(network, "model"), ConfigError);
  network.weights[0].bias = {0, 15, 0, 0};  // the second meets the third weight: 15 - 8 to 15
  EXPECT_THROW(compile::ProveWidths(network, "model"), ConfigError);
  network.weights[0].bias = {0, 7, 0, 0};
  EXPECT_NO_THROW(compile::ProveWidths(network, "model"));
}

TEST(ProveWidthsTest, HugeWeightsDoNotWrap) {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  constexpr auto kMin = std::numeric_limits<std::int64_t>::min();
  IntegerNetwork network = SmallNetwork();
  network.net.layers[1].value_bits = 64;
  network.weights[1].weight.assign(6, kMax);
  EXPECT_THROW(compile::ProveWidths(network, "model"), ConfigError);
  network.weights[1].weight.assign(6, kMin);
  EXPECT_THROW(compile::ProveWidths(network, "model"), ConfigError);
  network.weights[1].weight.assign(6, 0);
  network.weights[1].bias = {kMax, kMin, 0};
  EXPECT_NO_THROW(compile::ProveWidths(network, "model"));
  network.weights[1].weight[0] = 1;
  EXPECT_THROW(compile::ProveWidths(network, "model"), ConfigError);
}

TEST(ProveWidthsTest, ReluPassesItsRangeOn) {
  IntegerNetwork network = SmallNetwork();
  network.net.layers[0].activation = ActivationKind::kRelu;
  network.weights[0].bias[1] = 0;  // values up to 24
  network.weights[1].weight.assign(6, 1);
  network.weights[1].bias = {0, 0, 0};
  network.net.layers[1].value_bits = 7;  // 2 * 24 = 48 < 64
  EXPECT_NO_THROW(compile::ProveWidths(network, "model"));
  network.net.layers[1].value_bits = 6;
  EXPECT_THROW(compile::ProveWidths(network, "model"), ConfigError);
}

class CompiledFileTest : public testing::Test {
 protected:
  /// Saves the small network, changes the file, whose digest is right again, and expects it to be
  /// refused.
  void ExpectRefusedFile(const std::function<void(files::TensorFile&)>& change,
                         const std::string& place, const std::string& text) const {
    compile::SaveCompiled(SmallNetwork(), file_);
    files::TensorFile data = files::LoadTensors(file_);
    change(data);
    data.metadata["tercet.sha256"] = files::ContentDigest(data, "tercet.sha256");
    files::SaveTensors(data, file_);
    ExpectConfigError([&] { compile::LoadCompiled(file_, SmallSpec()); }, file_.string() + place,
                      text);
  }

  ScratchDirectory directory_;
  const std::filesystem::path file_ = directory_.Path() / "model.safetensors";
};

TEST_F(CompiledFileTest, RoundTripsInSmallTypes) {
  const IntegerNetwork network = SmallNetwork();
  compile::SaveCompiled(network, file_);
  EXPECT_TRUE(compile::IsCompiled(file_));
  const IntegerNetwork back = compile::LoadCompiled(file_, SmallSpec());
  EXPECT_EQ(back.net, network.net);
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(back.weights[l].weight, network.weights[l].weight);
    EXPECT_EQ(back.weights[l].bias, network.weights[l].bias);
  }
  const files::TensorFile data = files::LoadTensors(file_);
  EXPECT_EQ(data.tensors.at("conv1.weight").dtype, files::DType::kI8);
  EXPECT_EQ(data.tensors.at("fc1.bias").dtype, files::DType::kI16);
  EXPECT_THAT(data.tensors.at("conv1.weight").shape, ElementsAre(2, 4));
}

TEST_F(CompiledFileTest, KeepsWarnings) {
  IntegerNetwork network = SmallNetwork();
  network.warnings = {"layer conv1: \"next to nothing\"", "another"};
  compile::SaveCompiled(network, file_);
  EXPECT_EQ(compile::LoadCompiled(file_, SmallSpec()).warnings, network.warnings);
  compile::SaveCompiled(SmallNetwork(), file_);
  EXPECT_TRUE(compile::LoadCompiled(file_, SmallSpec()).warnings.empty());
  for (const char* text : {"{}", "[1]", R"(["\u001b[2J"])"})
    ExpectRefusedFile([&](files::TensorFile& d) { d.metadata["tercet.warnings"] = text; },
                      " metadata tercet.warnings", "expected an array of at most");
}

TEST_F(CompiledFileTest, WarnsOfLayersWithoutWeights) {
  IntegerNetwork network = SmallNetwork();
  std::fill(network.weights[1].weight.begin(), network.weights[1].weight.end(), 0);
  compile::SaveCompiled(network, file_);
  EXPECT_THAT(compile::LoadCompiled(file_, SmallSpec()).warnings,
              ElementsAre("layer fc1: all weights are zero, so no image makes a difference"));
  network.warnings = {"layer fc1: all weights round to zero with 2 bits"};  // said already
  compile::SaveCompiled(network, file_);
  EXPECT_EQ(compile::LoadCompiled(file_, SmallSpec()).warnings, network.warnings);
}

TEST_F(CompiledFileTest, FloatWeightsAreNotCompiled) {
  files::TensorFile data;
  data.tensors["w"] = files::TensorData::FromFloats({1}, {1.0F});
  files::SaveTensors(data, file_);
  EXPECT_FALSE(compile::IsCompiled(file_));
  ExpectConfigError([&] { compile::LoadCompiled(file_, SmallSpec()); }, file_.string() + " header",
                    "compiled model");
}

TEST_F(CompiledFileTest, RefusesEveryFlippedBit) {
  compile::SaveCompiled(SmallNetwork(), file_);
  auto bytes = ReadFile(file_, {"a test's file", 1 << 20});
  for (std::size_t bit = 0; bit < 8 * bytes.size(); bit += 3) {
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    directory_.Write("model.safetensors", bytes);
    EXPECT_THROW(compile::LoadCompiled(file_, SmallSpec()), ConfigError) << "bit " << bit;
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
  }
}

TEST_F(CompiledFileTest, RefusesFilesWhoseDataHaveNoDigestOrAnotherOne) {
  compile::SaveCompiled(SmallNetwork(), file_);
  const files::TensorFile good = files::LoadTensors(file_);
  files::TensorFile data = good;
  data.tensors.at("conv1.weight").bytes[0] ^= 1;
  files::SaveTensors(data, file_);
  ExpectConfigError([&] { compile::LoadCompiled(file_, SmallSpec()); }, file_,
                    "is damaged: what it holds has another SHA-256 than it states");
  data = good;
  data.metadata.erase("tercet.sha256");
  files::SaveTensors(data, file_);
  ExpectConfigError([&] { compile::LoadCompiled(file_, SmallSpec()); }, file_.string() + " header",
                    "has no tercet.sha256, which would show damage; compile the model again");
  // What has one of the keys is no file of float weights.
  data.metadata = {{"tercet.format", "2"}};
  files::SaveTensors(data, file_);
  EXPECT_TRUE(compile::IsCompiled(file_));
}

TEST_F(CompiledFileTest, RefusesTruncatedFiles) {
  compile::SaveCompiled(SmallNetwork(), file_);
  const auto size = std::filesystem::file_size(file_);
  for (std::uintmax_t left = 0; left < size; left += 1 + left / 7) {
    compile::SaveCompiled(SmallNetwork(), file_);
    std::filesystem::resize_file(file_, left);
    EXPECT_THROW(compile::LoadCompiled(file_, SmallSpec()), ConfigError) << left << " bytes";
  }
}

TEST_F(CompiledFileTest, RefusesAlteredTensors) {
  ExpectRefusedFile([](files::TensorFile& d) { d.tensors.erase("conv1.bias"); },
                    " tensor conv1.bias", "missing");
  ExpectRefusedFile(
      [](files::TensorFile& d) {
        d.tensors["conv1.weight"].shape = {4, 2};
      },
      " tensor conv1.weight", "expected [2, 4]");
  ExpectRefusedFile(
      [](files::TensorFile& d) {
        d.tensors["more"] = files::TensorData::FromIntegers({1}, {1}, files::DType::kI8);
      },
      " tensor more", "no such tensor");
  ExpectRefusedFile(
      [](files::TensorFile& d) {
        d.tensors["conv1.bias"] = files::TensorData::FromFloats({2}, {1, 2});
      },
      " tensor conv1.bias", "integer type");
  ExpectRefusedFile(
      [](files::TensorFile& d) {
        d.tensors["conv1.bias"] = files::TensorData::FromIntegers({2}, {1, -33}, files::DType::kI8);
      },
      " layer conv1", "do not fit 6 bits");
}

TEST_F(CompiledFileTest, RefusesAlteredMetadata) {
  ExpectRefusedFile([](files::TensorFile& d) { d.metadata["tercet.format"] = "1"; }, " header",
                    "expected '2'; compile the model again");
  ExpectRefusedFile([](files::TensorFile& d) { d.metadata.erase("tercet.format"); }, " header",
                    "compiled model");
  ExpectRefusedFile(
      [](files::TensorFile& d) {
        std::string& text = d.metadata["tercet.network"];
        text = Replaced(text, "\"value_bits\":6", "\"value_bits\":5");
      },
      " layer conv1", "do not fit 5 bits");
  ExpectRefusedFile(
      [](files::TensorFile& d) {
        std::string& text = d.metadata["tercet.network"];
        text = Replaced(text, "\"value_bits\":6", "\"suite\":\"cbnn\",\"value_bits\":6");
      },
      " metadata tercet.network /layers/0/suite", "found cbnn for layer conv1, expected none");
}

TEST(QuantiseInputTest, RoundsToNearestForEveryWidth) {
  files::Images images{{1, 16, 16}, 1, {}};
  for (int p = 0; p < 256; ++p) images.pixels.push_back(static_cast<std::uint8_t>(p));
  for (unsigned bits = 1; bits <= 8; ++bits) {
    const auto q = QuantiseInput({.shape = {1, 16, 16}, .bits = bits}, images, 0, 1);
    const std::int64_t max = (1 << bits) - 1;
    // 255 is odd, so no value lies in the middle of two integers.
    for (std::int64_t p = 0; p < 256; ++p)
      EXPECT_LE(std::abs(2 * (q[static_cast<std::size_t>(p)] * 255 - p * max)), 255) << p;
  }
}

TEST(QuantiseInputTest, FeaturesAreRows) {
  const files::Images images{{1, 1, 2}, 3, {1, 2, 3, 4, 5, 6}};
  const InputSpec spec{.shape = {1, 1, 2}};
  EXPECT_THAT(QuantiseInput(spec, images, 1, 2), ElementsAre(3, 5, 4, 6));
  EXPECT_THROW(QuantiseInput(spec, images, 2, 2), InternalError);
  EXPECT_THROW(QuantiseInput({.shape = {2, 1, 1}}, images, 0, 1), InternalError);
}

}  // namespace
}  // namespace tercet::nn
