#include "tercet/nn/integer_network.h"

#include <fmt/format.h>

#include <functional>
#include <limits>
#include <string>

#include "nn/scratch.h"
#include "tercet/nn/tensor_file.h"

namespace tercet::nn {
namespace {

using mpc::ActivationKind;
using testing::ElementsAre;

/// conv 2 x 2 with padding, sign, pool; then 3 logits.
IntegerNetwork SmallNetwork() {
  IntegerNetwork network;
  PublicNetwork& net = network.net;
  net.name = "Small";
  net.input = {.shape = {1, 3, 3}, .scale = 255, .mean = 0.5, .std = 0.25, .bits = 2};
  net.logit_scale = 0.1;
  net.spec_digest = std::string(64, 'a');
  PublicLayer conv;
  conv.name = "conv1";
  conv.type = "conv2d+sign+max_pool2d";
  conv.linear = {.in = {1, 3, 3}, .out_channels = 2, .kernel_h = 2, .kernel_w = 2, .padding = 1};
  conv.activation = ActivationKind::kSign;
  conv.pool = mpc::PoolShape{2, 2};
  conv.value_bits = 6;
  conv.suite = "lut";
  PublicLayer fc;
  fc.name = "fc1";
  fc.type = "linear";
  fc.linear = {.in = {8, 1, 1}, .out_channels = 3};
  fc.value_bits = 12;
  net.layers = {conv, fc};
  // conv1: inputs 0..3, channel 0 spans 1 - 3 * 6 = -17 to 1 + 3 * 4 = 13, channel 1 spans -32 to
  // -8.
  network.weights.push_back({{1, -2, 3, -4, 8, 0, 0, 0}, {1, -32}});
  network.weights.push_back({std::vector<std::int64_t>(24, -100), {5, 0, 300}});
  return network;
}

std::string Json() { return PublicNetworkToJson(SmallNetwork().net); }

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from << " in " << text;
  return text.replace(at, from.size(), to);
}

void ExpectRefused(const std::string& from, const std::string& to, const std::string& pointer,
                   const std::string& text) {
  const std::string changed = Replaced(Json(), from, to);
  ExpectConfigError([&] { PublicNetworkFromJson(changed, "net"); }, "net" + pointer, text);
}

TEST(PublicNetworkTest, RoundTrips) {
  const PublicNetwork network = SmallNetwork().net;
  const std::string text = PublicNetworkToJson(network);
  const PublicNetwork back = PublicNetworkFromJson(text, "net");
  EXPECT_EQ(back, network);
  EXPECT_EQ(PublicNetworkToJson(back), text);
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
  EXPECT_NE(changed([](auto& n) { n.logit_scale += 1e-17; }), Json());
  EXPECT_EQ(changed([](auto&) {}), Json());
}

TEST(PublicNetworkTest, RefusesWhatIsNotStrict) {
  ExpectRefused("\"name\":\"Small\"", "\"name\":\"Small\",\"x\":1", "", "unknown key 'x'");
  ExpectRefused("\"suite\":\"lut\",", "", " /layers/0", "missing key 'suite'");
  ExpectRefused("\"value_bits\":6", "\"value_bits\":1", " /layers/0/value_bits", "from 2 to 64");
  ExpectRefused("\"value_bits\":6", "\"value_bits\":65", " /layers/0/value_bits", "from 2 to 64");
  ExpectRefused("\"value_bits\":6", "\"value_bits\":6.0", " /layers/0/value_bits", "an integer");
  ExpectRefused("\"value_bits\":6", "\"value_bits\":-6", " /layers/0/value_bits", "found -6");
  ExpectRefused("\"bits\":2", "\"bits\":9", " /input/bits", "from 1 to 8");
  ExpectRefused("\"std\":0.25", "\"std\":0", " /input/std", "a number from");
  ExpectRefused("\"logit_scale\":0.1", "\"logit_scale\":-1", " /logit_scale", "a number from");
  ExpectRefused("\"activation\":\"sign\"", "\"activation\":\"tanh\"", " /layers/0/activation",
                "none, sign, relu or square");
  ExpectRefused("aaaa\"", "aaaZ\"", " /spec_digest", "hexadecimal");
  ExpectRefused("\"kernel\":[2,2]", "\"kernel\":[2,2,2]", " /layers/0/linear/kernel", "3 elements");
  ExpectRefused("\"kernel\":[2,2]", "\"kernel\":[2,6]", " /layers/0/linear/kernel", "larger than");
  ExpectRefused("\"groups\":1", "\"groups\":2", " /layers/0/linear/groups", "divisor");
  ExpectRefused("\"stride\":1", "\"stride\":0", " /layers/0/linear/stride", "from 1");
  ExpectRefused("{\"kernel\":2,", "{\"kernel\":5,", " /layers/0/pool/kernel", "from 1 to 4");
  ExpectRefused("\"out_channels\":2", "\"out_channels\":2147483647", " /layers/0/linear",
                "too many");
  ExpectConfigError([] { PublicNetworkFromJson("[1", "net"); }, "net", "no valid JSON");
  ExpectConfigError([] { PublicNetworkFromJson("[1]", "net"); }, "net", "an object");
}

TEST(PublicNetworkTest, RefusesLayersThatDoNotFollowOneAnother) {
  ExpectRefused("\"in\":[8,1,1]", "\"in\":[9,1,1]", " /layers/1/linear/in", "expected 2 x 2 x 2");
  ExpectRefused("\"in\":[8,1,1]", "\"in\":[2,1,4]", " /layers/1/linear/in", "8 values flattened");
  ExpectRefused("\"activation\":\"none\"", "\"activation\":\"sign\"", " /layers/1/activation",
                "none in the last");
  ExpectRefused("\"activation\":\"sign\"", "\"activation\":\"none\"", " /layers/0/activation",
                "all layers but the last");
  ExpectRefused("\"name\":\"fc1\"", "\"name\":\"conv1\"", " /layers/1/name", "another layer");
  ExpectRefused("\"pool\":null", "\"pool\":{\"kernel\":1,\"stride\":1}", " /layers/1/pool", "null");
}

TEST(PublicNetworkTest, RefusesTooManyLayers) {
  PublicNetwork network;
  network.input.shape = {1, 1, 1};
  for (int l = 0; l < 1001; ++l) {
    PublicLayer layer;
    layer.name = fmt::format("l{}", l);
    layer.linear = {.in = {1, 1, 1}, .out_channels = 1};
    layer.activation = l == 1000 ? ActivationKind::kNone : ActivationKind::kSign;
    layer.value_bits = 8;
    network.layers.push_back(layer);
  }
  ExpectConfigError([&] { PublicNetworkFromJson(PublicNetworkToJson(network), "net"); },
                    "net /layers", "1001 elements");
  network.layers.erase(network.layers.begin());
  EXPECT_EQ(PublicNetworkFromJson(PublicNetworkToJson(network), "net"), network);
}

TEST(ProveWidthsTest, TightAtBothEnds) {
  IntegerNetwork network = SmallNetwork();
  EXPECT_NO_THROW(ProveWidths(network, "model"));
  network.weights[0].bias[1] = -33;  // the lowest value becomes -33, below -32
  ExpectConfigError([&] { ProveWidths(network, "model"); }, "model layer conv1", "6 bits");
  network.weights[0].bias[1] = 7;  // the highest value becomes 31
  EXPECT_NO_THROW(ProveWidths(network, "model"));
  network.weights[0].bias[1] = 8;
  ExpectConfigError([&] { ProveWidths(network, "model"); }, "model layer conv1", "6 bits");
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
  EXPECT_NO_THROW(ProveWidths(network, "model"));
  network.net.layers[0].linear.bias_per_element = true;
  network.weights = {{{7, 7, -8, 7}, {0, 0, 0, 1}}};  // the last output meets the first weight: 8
  EXPECT_THROW(ProveWidths(network, "model"), ConfigError);
  network.weights[0].bias = {0, 15, 0, 0};  // the second meets the third weight: 15 - 8 to 15
  EXPECT_THROW(ProveWidths(network, "model"), ConfigError);
  network.weights[0].bias = {0, 7, 0, 0};
  EXPECT_NO_THROW(ProveWidths(network, "model"));
}

TEST(ProveWidthsTest, HugeWeightsDoNotWrap) {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  constexpr auto kMin = std::numeric_limits<std::int64_t>::min();
  IntegerNetwork network = SmallNetwork();
  network.net.layers[1].value_bits = 64;
  network.weights[1].weight.assign(24, kMax);
  EXPECT_THROW(ProveWidths(network, "model"), ConfigError);
  network.weights[1].weight.assign(24, kMin);
  EXPECT_THROW(ProveWidths(network, "model"), ConfigError);
  network.weights[1].weight.assign(24, 0);
  network.weights[1].bias = {kMax, kMin, 0};
  EXPECT_NO_THROW(ProveWidths(network, "model"));
  network.weights[1].weight[0] = 1;
  EXPECT_THROW(ProveWidths(network, "model"), ConfigError);
}

TEST(ProveWidthsTest, ReluPassesItsRangeOn) {
  IntegerNetwork network = SmallNetwork();
  network.net.layers[0].activation = ActivationKind::kRelu;
  network.weights[0].bias[1] = 0;  // values up to 24
  network.weights[1].weight.assign(24, 1);
  network.weights[1].bias = {0, 0, 0};
  network.net.layers[1].value_bits = 9;  // 8 * 24 = 192 < 256
  EXPECT_NO_THROW(ProveWidths(network, "model"));
  network.net.layers[1].value_bits = 8;
  EXPECT_THROW(ProveWidths(network, "model"), ConfigError);
}

class CompiledFileTest : public testing::Test {
 protected:
  /// Saves the small network, changes the file and expects it to be refused.
  void ExpectRefusedFile(const std::function<void(TensorFile&)>& change, const std::string& place,
                         const std::string& text) const {
    SaveCompiled(SmallNetwork(), file_);
    TensorFile data = LoadTensors(file_);
    change(data);
    SaveTensors(data, file_);
    ExpectConfigError([&] { LoadCompiled(file_); }, file_.string() + place, text);
  }

  ScratchDirectory directory_;
  const std::filesystem::path file_ = directory_.Path() / "model.safetensors";
};

TEST_F(CompiledFileTest, RoundTripsInSmallTypes) {
  const IntegerNetwork network = SmallNetwork();
  SaveCompiled(network, file_);
  EXPECT_TRUE(IsCompiled(file_));
  const IntegerNetwork back = LoadCompiled(file_);
  EXPECT_EQ(back.net, network.net);
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(back.weights[l].weight, network.weights[l].weight);
    EXPECT_EQ(back.weights[l].bias, network.weights[l].bias);
  }
  const TensorFile data = LoadTensors(file_);
  EXPECT_EQ(data.tensors.at("conv1.weight").dtype, DType::kI8);
  EXPECT_EQ(data.tensors.at("fc1.bias").dtype, DType::kI16);
  EXPECT_THAT(data.tensors.at("conv1.weight").shape, ElementsAre(2, 4));
}

TEST_F(CompiledFileTest, FloatWeightsAreNotCompiled) {
  TensorFile data;
  data.tensors["w"] = TensorData::FromFloats({1}, {1.0F});
  SaveTensors(data, file_);
  EXPECT_FALSE(IsCompiled(file_));
  ExpectConfigError([&] { LoadCompiled(file_); }, file_.string() + " header", "compiled model");
}

TEST_F(CompiledFileTest, RefusesTruncatedFiles) {
  SaveCompiled(SmallNetwork(), file_);
  const auto size = std::filesystem::file_size(file_);
  for (std::uintmax_t left = 0; left < size; left += 1 + left / 7) {
    SaveCompiled(SmallNetwork(), file_);
    std::filesystem::resize_file(file_, left);
    EXPECT_THROW(LoadCompiled(file_), ConfigError) << left << " bytes";
  }
}

TEST_F(CompiledFileTest, RefusesAlteredTensors) {
  ExpectRefusedFile([](TensorFile& d) { d.tensors.erase("conv1.bias"); }, " tensor conv1.bias",
                    "missing");
  ExpectRefusedFile(
      [](TensorFile& d) {
        d.tensors["conv1.weight"].shape = {4, 2};
      },
      " tensor conv1.weight", "expected [2, 4]");
  ExpectRefusedFile(
      [](TensorFile& d) { d.tensors["more"] = TensorData::FromIntegers({1}, {1}, DType::kI8); },
      " tensor more", "no such tensor");
  ExpectRefusedFile(
      [](TensorFile& d) {
        d.tensors["conv1.bias"] = TensorData::FromFloats({2}, {1, 2});
      },
      " tensor conv1.bias", "integer type");
  ExpectRefusedFile(
      [](TensorFile& d) {
        d.tensors["conv1.bias"] = TensorData::FromIntegers({2}, {1, -33}, DType::kI8);
      },
      " layer conv1", "do not fit 6 bits");
}

TEST_F(CompiledFileTest, RefusesAlteredMetadata) {
  ExpectRefusedFile([](TensorFile& d) { d.metadata["tercet.format"] = "2"; }, " header",
                    "expected '1'");
  ExpectRefusedFile([](TensorFile& d) { d.metadata.erase("tercet.format"); }, " header",
                    "compiled model");
  ExpectRefusedFile(
      [](TensorFile& d) {
        std::string& text = d.metadata["tercet.network"];
        text = Replaced(text, "\"value_bits\":6", "\"value_bits\":5");
      },
      " layer conv1", "do not fit 5 bits");
  ExpectRefusedFile(
      [](TensorFile& d) {
        std::string& text = d.metadata["tercet.network"];
        text = Replaced(text, "\"groups\":1", "\"groups\":0");
      },
      " metadata tercet.network /layers/0/linear/groups", "from 1");
}

TEST(QuantiseInputTest, RoundsToNearestForEveryWidth) {
  Images images{{1, 16, 16}, 1, {}};
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
  const Images images{{1, 1, 2}, 3, {1, 2, 3, 4, 5, 6}};
  const InputSpec spec{.shape = {1, 1, 2}};
  EXPECT_THAT(QuantiseInput(spec, images, 1, 2), ElementsAre(3, 5, 4, 6));
  EXPECT_THROW(QuantiseInput(spec, images, 2, 2), InternalError);
  EXPECT_THROW(QuantiseInput({.shape = {2, 1, 1}}, images, 0, 1), InternalError);
}

}  // namespace
}  // namespace tercet::nn
