// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/customise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tercet/base/error.h"

namespace tercet::compile {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

nn::NetworkSpec Shipped(const std::string& file) {
  return nn::LoadNetwork(std::string(TERCET_SOURCE_DIR) + "/nets/" + file);
}

struct Published {
  const char* file;
  std::uint64_t weights, biases, norm_channels, activations, pooled;
  double million_macs;
};

class PublishedCounts : public testing::TestWithParam<Published> {};

// The sizes that the papers print or that follow from their layer lists.
TEST_P(PublishedCounts, AreTheShippedNetworks) {
  const Published& expected = GetParam();
  const NetworkCounts counts = CountNetwork(Shipped(expected.file));
  EXPECT_EQ(counts.weights, expected.weights);
  EXPECT_EQ(counts.biases, expected.biases);
  EXPECT_EQ(counts.norm_channels, expected.norm_channels);
  EXPECT_EQ(counts.Activations(), expected.activations);
  EXPECT_EQ(counts.pooled, expected.pooled);
  EXPECT_NEAR(static_cast<double>(counts.macs) / 1e6, expected.million_macs, 0.0051);
}
INSTANTIATE_TEST_SUITE_P(
    Networks, PublishedCounts,
    testing::Values(
        Published{"mnistnet1.json", 118'016, 266, 266, 256, 0, 0.12},
        Published{"mobius128.json", 118'016, 266, 266, 256, 0, 0.12},
        Published{"mobius1000.json", 1'794'000, 2'010, 2'010, 2'000, 0, 1.79},
        Published{"mnistnet2.json", 73'125, 115, 115, 820, 0, 0.09},
        Published{"mnistnet3.json", 33'400, 142, 142, 10'340, 2'560, 0.67},
        Published{"cifarnet1.json", 164'544, 410, 400, 173'056, 20'480, 61.09},
        Published{"xonn-bc1.json", 155'744, 410, 410, 124'688, 14'144, 39.83},
        Published{"cifarnet2-typical.json", 380'768, 618, 618, 167'936, 14'336, 59.30},
        Published{"cifarnet2.json", 64'859, 618, 618, 167'936, 14'336, 7.74},
        Published{"cifarnet3-typical.json", 384'944, 602, 602, 151'552, 15'360, 53.84},
        Published{"cifarnet3.json", 65'179, 602, 602, 151'552, 15'360, 6.96},
        Published{"cifarnet4-typical.json", 705'632, 922, 922, 319'488, 23'552, 161.93},
        Published{"cifarnet4.json", 103'691, 922, 922, 319'488, 23'552, 20.26},
        Published{"cifarnet5-typical.json", 1'226'336, 1'450, 1'450, 368'640, 19'456, 190.83},
        Published{"cifarnet5.json", 166'299, 1'450, 1'450, 368'640, 19'456, 24.02},
        Published{"cifarnet6-typical.json", 15'239'872, 5'258, 5'258, 277'504, 31'232, 313.73},
        Published{"cifarnet6.json", 2'197'339, 5'258, 5'258, 277'504, 31'232, 37.00},
        Published{"falcon-alexnet.json", 3'879'456, 1'898, 352, 4'192, 2'656, 12.98},
        Published{"arrhythmia.json", 7'840, 56, 0, 40, 0, 0.01},
        Published{"sok-image.json", 73'125, 115, 0, 820, 0, 0.09}),
    [](const auto& test) {
      std::string name = test.param.file;
      name.resize(name.find('.'));
      for (char& c : name)
        if (c == '-') c = '_';
      return name;
    });

TEST(Counts, ParametersOfCbnnTable2) {
  EXPECT_EQ(CountNetwork(Shipped("cifarnet2-typical.json")).Parameters(), 383'858u);
  EXPECT_EQ(CountNetwork(Shipped("cifarnet2.json")).Parameters(), 67'949u);
}

TEST(Customise, TypicalCifarNetsBecomeTheSeparableOnes) {
  for (const char* number : {"2", "3", "4", "5", "6"}) {
    const std::string name = std::string("cifarnet") + number;
    const nn::NetworkSpec separable = Shipped(name + ".json");
    const Customised made = Customise(Shipped(name + "-typical.json"), {.name = separable.name});
    EXPECT_EQ(NetworkText(made.network), NetworkText(separable)) << name;
  }
}

nn::NetworkSpec Parse(const std::string& layers) {
  return nn::ParseNetwork(R"({"name": "n", "input": {"shape": [3, 8, 8]}, "layers": [)" + layers +
                              R"(], "output": "logits"})",
                          "net");
}

std::vector<std::string> Names(const nn::NetworkSpec& network) {
  std::vector<std::string> names;
  for (const nn::LayerSpec& layer : network.layers)
    names.push_back(layer.name + ":" + nn::LayerTypeName(layer.type));
  return names;
}

constexpr char kPoolFirst[] =
    R"({"name": "c", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},
       {"name": "p", "type": "max_pool2d", "kernel": 2},
       {"name": "a", "type": "relu"},
       {"name": "b", "type": "batch_norm"},
       {"name": "m", "type": "avg_pool2d", "kernel": 2},
       {"name": "f", "type": "linear", "out_features": 2})";

TEST(Customise, PoolsAfterSignAndNormalisesBefore) {
  const Customised made = Customise(Parse(kPoolFirst), {.sign = LayerSelection::Parse("a"),
                                                        .max_pool = LayerSelection::Parse("all")});
  EXPECT_THAT(Names(made.network),
              ElementsAre("c.depthwise:conv2d", "c:conv2d", "b:batch_norm", "a:sign",
                          "p:max_pool2d", "m:max_pool2d", "f:linear"));
  EXPECT_EQ(made.network.name, "n-customised");
  EXPECT_EQ(made.changes.size(), 5u);
}

TEST(Customise, AddsMissingNormalisation) {
  const Customised made =
      Customise(Parse(R"({"name": "c", "type": "conv2d", "out_channels": 4, "kernel": 3},
                         {"name": "a", "type": "sign"},
                         {"name": "f", "type": "linear", "out_features": 2})"),
                {.separable = {}});
  EXPECT_THAT(Names(made.network),
              ElementsAre("c:conv2d", "bn_a:batch_norm", "a:sign", "f:linear"));
}

TEST(Customise, LeavesWhatItIsNotAskedFor) {
  const nn::NetworkSpec network = Parse(kPoolFirst);
  const Customised made = Customise(network, {.name = "n", .separable = {}, .order = false});
  EXPECT_EQ(NetworkText(made.network), NetworkText(network));
  EXPECT_TRUE(made.changes.empty());
}

TEST(Customise, OneInputChannelIsSeparatedOnlyByName) {
  const nn::NetworkSpec network = Shipped("mnistnet2.json");
  EXPECT_TRUE(Customise(network, {}).changes.empty());
  EXPECT_EQ(Customise(network, {.separable = LayerSelection::Parse("conv1")}).changes.size(), 1u);
}

template <class Error>
std::string Message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Customise, RefusesByName) {
  const nn::NetworkSpec network = Parse(kPoolFirst);
  const auto with = [&](CustomiseOptions options) {
    return Message<ConfigError>([&] { Customise(network, options); });
  };
  EXPECT_THAT(with({.separable = LayerSelection::Parse("c,x")}), HasSubstr("'x'"));
  EXPECT_THAT(with({.separable = LayerSelection::Parse("f")}), HasSubstr("'f', a linear"));
  EXPECT_THAT(with({.sign = LayerSelection::Parse("b")}), HasSubstr("'b', a batch_norm"));
  const nn::NetworkSpec residual =
      Parse(R"({"name": "c", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},
               {"name": "p", "type": "max_pool2d", "kernel": 2},
               {"name": "a", "type": "sign"},
               {"name": "d", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},
               {"name": "s", "type": "add", "from": "p"})");
  EXPECT_THAT(Message<UnsupportedError>([&] { Customise(residual, {}); }), HasSubstr("layer p"));
}

TEST(NetworkText, ParsesToAnEqualNetwork) {
  for (const char* file : {"mnistnet3.json", "cifarnet2.json", "li2.json", "falcon-alexnet.json"}) {
    const nn::NetworkSpec network = Shipped(file);
    EXPECT_EQ(nn::ParseNetwork(NetworkText(network), file).Digest(), network.Digest()) << file;
  }
  const nn::NetworkSpec residual =
      Parse(R"({"name": "c", "type": "conv2d", "out_channels": 3, "kernel": 1, "bias": false},
               {"name": "b", "type": "batch_norm", "eps": 0.001},
               {"name": "s", "type": "add", "from": "c"},
               {"name": "r", "type": "relu", "suite": "fss"})");
  EXPECT_EQ(nn::ParseNetwork(NetworkText(residual), "n").Digest(), residual.Digest());
  const nn::NetworkSpec windows =
      Parse(R"({"name": "c", "type": "conv2d", "out_channels": 1, "kernel": 3, "padding": [1, 2],
                "pad_value": -1.5, "dilation": [1, 2]},
               {"name": "k", "type": "clip", "low": -1, "high": 1},
               {"name": "a", "type": "avg_pool2d", "kernel": 2, "padding": [0, 0, 1, 0],
                "count_include_pad": false})");
  EXPECT_EQ(nn::ParseNetwork(NetworkText(windows), "n").Digest(), windows.Digest());
  nn::NetworkSpec others = windows;
  others.layers[0].pad_value = 1;
  EXPECT_NE(others.Digest(), windows.Digest());
  others = windows;
  others.layers[2].count_include_pad = true;
  EXPECT_NE(others.Digest(), windows.Digest());
  const nn::NetworkSpec table = nn::ParseNetwork(
      R"({"name": "N", "input": {"shape": [1, 4, 4]}, "output": "logits", "layers": [
          {"name": "fc", "type": "linear", "out_features": 4},
          {"name": "t", "type": "table", "input_scale": 0.1, "output_scale": 3,
           "values": [1, -2, 3, 4]}]})",
      "n");
  EXPECT_EQ(nn::ParseNetwork(NetworkText(table), "n").Digest(), table.Digest());
  EXPECT_EQ(CountNetwork(table).activations.at("table"), 4U);
}

}  // namespace
}  // namespace tercet::compile
