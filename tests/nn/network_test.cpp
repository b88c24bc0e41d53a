// SPDX-License-Identifier: Apache-2.0
#include "tercet/nn/network.h"

#include <fmt/format.h>

#include "base/scratch.h"

namespace tercet::nn {
namespace {

constexpr char kInput[] = R"({"shape": [2, 8, 8]})";

std::string NetworkText(const std::string& layers, const std::string& input = kInput) {
  return fmt::format(R"({{"name": "net", "input": {}, "layers": [{}], "output": "logits"}})", input,
                     layers);
}

NetworkSpec ParseLayers(const std::string& layers, const std::string& input = kInput) {
  return ParseNetwork(NetworkText(layers, input), "a.json");
}

constexpr char kConv[] = R"({"name": "conv1", "type": "conv2d", "out_channels": 4, "kernel": 3})";

TEST(Network, HasAsManyClassesAsAByteTells) {
  const auto classes = [](int count) {
    return ParseLayers(
        fmt::format(R"({{"name": "fc", "type": "linear", "out_features": {}}})", count));
  };
  EXPECT_EQ(classes(256).Classes(), 256u);
  ExpectConfigError([&] { classes(257); }, "a.json /layers", "expected at most 256");
}

TEST(Network, ReadsEveryLayerType) {
  const NetworkSpec network = ParseNetwork(R"({
    "$schema": "network.schema.json",
    "name": "All types",
    "input": {"shape": [2, 9, 8], "scale": 128, "mean": -0.5, "std": 2, "bits": 4},
    "layers": [
      {"name": "c1", "type": "conv2d", "out_channels": 6, "kernel": 3, "stride": 2, "padding": 1, "groups": 2, "bias": false},
      {"name": "b1", "type": "batch_norm", "eps": 0.001},
      {"name": "s1", "type": "sign", "suite": "lut"},
      {"name": "c2", "type": "conv2d", "out_channels": 6, "kernel": 1},
      {"name": "add", "type": "add", "from": "s1"},
      {"name": "r1", "type": "relu"},
      {"name": "q1", "type": "square"},
      {"name": "m1", "type": "max_pool2d", "kernel": 2, "stride": 1, "suite": "ot3"},
      {"name": "a1", "type": "avg_pool2d", "kernel": 2},
      {"name": "f1", "type": "flatten"},
      {"name": "l1", "type": "linear", "out_features": 10, "bias": false}],
    "output": "logits"})",
                                           "a.json");
  EXPECT_EQ(network.name, "All types");
  EXPECT_EQ(network.input, (InputSpec{{2, 9, 8}, 128, -0.5, 2, 4}));
  EXPECT_EQ(network.output, "logits");
  ASSERT_EQ(network.layers.size(), 11U);

  const LayerSpec& conv = network.layers[0];
  EXPECT_EQ(conv.type, LayerType::kConv2d);
  EXPECT_EQ(conv.out_channels, 6U);
  EXPECT_EQ(conv.kernel, 3U);
  EXPECT_EQ(conv.stride, 2U);
  EXPECT_EQ(conv.padding, 1U);
  EXPECT_EQ(conv.groups, 2U);
  EXPECT_FALSE(conv.bias);
  EXPECT_EQ(conv.in, (Shape3{2, 9, 8}));
  EXPECT_EQ(conv.out, (Shape3{6, 5, 4}));
  EXPECT_EQ(network.layers[1].eps, 0.001);
  EXPECT_EQ(network.layers[2].suite, "lut");
  EXPECT_TRUE(network.layers[3].bias);
  EXPECT_EQ(network.layers[3].stride, 1U);
  EXPECT_EQ(network.layers[4].from, "s1");
  EXPECT_EQ(network.layers[7].suite, "ot3");
  EXPECT_EQ(network.layers[7].out, (Shape3{6, 4, 3}));
  EXPECT_EQ(network.layers[8].stride, 2U);  // its kernel
  EXPECT_EQ(network.layers[8].out, (Shape3{6, 2, 1}));
  EXPECT_EQ(network.layers[9].out, (Shape3{12, 1, 1}));
  EXPECT_EQ(network.layers[10].out_channels, 10U);
  EXPECT_EQ(network.OutputShape(), (Shape3{10, 1, 1}));
  EXPECT_EQ(network.Classes(), 10U);

  constexpr const char* kNames[] = {"conv2d",     "batch_norm", "sign",   "conv2d",
                                    "add",        "relu",       "square", "max_pool2d",
                                    "avg_pool2d", "flatten",    "linear"};
  for (std::size_t i = 0; i < network.layers.size(); ++i)
    EXPECT_STREQ(LayerTypeName(network.layers[i].type), kNames[i]);
}

TEST(Network, FillsInDefaults) {
  const NetworkSpec network = ParseLayers(kConv);
  EXPECT_EQ(network.input, (InputSpec{{2, 8, 8}, 255, 0, 1, 8}));
  EXPECT_EQ(network.layers[0].stride, 1U);
  EXPECT_EQ(network.layers[0].padding, 0U);
  EXPECT_EQ(network.layers[0].groups, 1U);
  EXPECT_TRUE(network.layers[0].bias);
}

TEST(Network, TablesAreOfTheArchitecture) {
  const auto of = [](const char* scales, const char* values) {
    return ParseLayers(
        std::string(kConv) +
        fmt::format(R"(, {{"name": "t", "type": "table", {}, "values": [{}]}})", scales, values));
  };
  constexpr const char* kScales = R"("input_scale": 0.5, "output_scale": 2)";
  const NetworkSpec network = of(kScales, "-3, 1, 4, 1");
  EXPECT_EQ(network.layers[1].values, (std::vector<std::int64_t>{-3, 1, 4, 1}));
  EXPECT_EQ(network.layers[1].input_scale, 0.5);
  EXPECT_EQ(network.layers[1].output_scale, 2);
  EXPECT_NE(of(kScales, "-3, 1, 4, 2").Digest(), network.Digest());
  EXPECT_NE(of(R"("input_scale": 0.5, "output_scale": 3)", "-3, 1, 4, 1").Digest(),
            network.Digest());
  EXPECT_NE(of(R"("input_scale": 0.25, "output_scale": 2)", "-3, 1, 4, 1").Digest(),
            network.Digest());
}

TEST(Network, LinearFlattensAMap) {
  const NetworkSpec network = ParseLayers(R"({"name": "fc", "type": "linear", "out_features": 3})");
  EXPECT_EQ(network.layers[0].in, (Shape3{2, 8, 8}));
  EXPECT_EQ(network.layers[0].out, (Shape3{3, 1, 1}));
}

TEST(Network, LoadsTheProjectsNetworks) {
  std::size_t loaded = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(TERCET_SOURCE_DIR) + "/nets")) {
    const std::string file = entry.path().filename().string();
    if (!file.ends_with(".json") || file.ends_with(".schema.json")) continue;
    const NetworkSpec network = LoadNetwork(entry.path());
    EXPECT_FALSE(network.name.empty());
    EXPECT_GT(network.Classes(), 1U);
    ++loaded;
  }
  EXPECT_GE(loaded, 3U);
}

TEST(Network, DigestSeesEveryField) {
  const std::string text = NetworkText(kConv);
  const NetworkSpec network = ParseNetwork(text, "a.json");
  const std::string digest = network.Digest();
  EXPECT_THAT(digest, testing::MatchesRegex("[0-9a-f]{64}"));
  EXPECT_EQ(ParseNetwork("\n " + text, "elsewhere.json").Digest(), digest);
  // The order of keys and a default written out change nothing.
  EXPECT_EQ(
      ParseLayers(
          R"({"type": "conv2d", "kernel": 3, "name": "conv1", "out_channels": 4, "stride": 1})",
          R"({"mean": -0.0, "shape": [2, 8, 8]})")
          .Digest(),
      digest);

  const std::vector<std::function<void(NetworkSpec&)>> changes = {
      [](NetworkSpec& n) { n.name = "other"; },
      [](NetworkSpec& n) { n.output = "other"; },
      [](NetworkSpec& n) { n.input.shape.width = 9; },
      [](NetworkSpec& n) { n.input.scale = 254; },
      [](NetworkSpec& n) { n.input.mean = 1e-9; },
      [](NetworkSpec& n) { n.input.std = 2; },
      [](NetworkSpec& n) { n.input.bits = 4; },
      [](NetworkSpec& n) { n.layers[0].name = "other"; },
      [](NetworkSpec& n) { n.layers[0].type = LayerType::kSign; },
      [](NetworkSpec& n) { n.layers[0].out_channels = 5; },
      [](NetworkSpec& n) { n.layers[0].kernel = 5; },
      [](NetworkSpec& n) { n.layers[0].stride = 2; },
      [](NetworkSpec& n) { n.layers[0].padding = 1; },
      [](NetworkSpec& n) { n.layers[0].groups = 2; },
      [](NetworkSpec& n) { n.layers[0].bias = false; },
      [](NetworkSpec& n) { n.layers[0].eps = 1e-4; },
      [](NetworkSpec& n) { n.layers[0].from = "x"; },
      [](NetworkSpec& n) { n.layers[0].suite = "x"; },
      [](NetworkSpec& n) { n.layers.push_back(n.layers[0]); },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    NetworkSpec changed = network;
    changes[i](changed);
    EXPECT_NE(changed.Digest(), digest) << "change " << i;
  }
}

TEST(Network, NamesAnUnreadableFile) {
  const ScratchDirectory scratch;
  const std::string missing = (scratch.Path() / "none.json").string();
  ExpectConfigError([&] { LoadNetwork(missing); }, missing, "No such file");
  ExpectConfigError([&] { LoadNetwork(scratch.Path()); }, scratch.Path().string(),
                    "is no regular file");
  const std::string huge = scratch.Write("huge.json", std::string((16 << 20) + 1, ' ')).string();
  ExpectConfigError([&] { LoadNetwork(huge); }, huge, "expected at most 16777216");
  const std::string bad = scratch.Write("bad.json", std::string("{}")).string();
  ExpectConfigError([&] { LoadNetwork(bad); }, bad, "missing key 'name'");
}

struct BadText {
  std::string text, place, message;
};

TEST(Network, RefusesTextThatIsNoGoodJson) {
  const std::string deep(1'000'000, '[');
  std::string many = "[0";
  for (int i = 0; i < 200'000; ++i) many += ",0";
  const std::vector<BadText> cases = {
      {"", "a.json", "line 1, column 1: "},
      {"{\n  \"name\": nul }", "a.json", "line 2, column 14: "},
      {"{} x", "a.json", "line 1, column 4: "},
      {"{\"a\": \"\xff\"}", "a.json",
       "line 1, column 8: syntax error while parsing value - invalid string: ill-formed UTF-8"},
      {"{\"a\": 1e999}", "a.json", "number overflow"},
      {R"({"name": "a", "name": "b"})", "a.json", "the key 'name' comes twice"},
      {R"({"layers": [{}, {"a/b~": {"x": 1, "y": 2, "x": 3}}]})", "a.json /layers/1/a~1b~0",
       "the key 'x' comes twice"},
      {R"({"layers": [1, [2, 9223372036854775808]]})", "a.json /layers/1/1",
       "found 9223372036854775808, expected at most 9223372036854775807"},
      {deep, "a.json /0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0", "nested more than 16 levels"},
      {many, "a.json", "more than 200000 values"},
      {"{\"name\": \"" + std::string(2000, 'a') + "\"}", "a.json /name",
       "a string of 2000 bytes, expected at most 1024"},
      {"{\"" + std::string(2000, 'a') + "\": 1}", "a.json",
       "a key of 2000 bytes, expected at most 1024"},
  };
  for (const BadText& bad : cases) {
    SCOPED_TRACE(bad.text.substr(0, 80));
    ExpectConfigError([&] { ParseNetwork(bad.text, "a.json"); }, bad.place, bad.message);
  }
}

TEST(Network, RefusesWhatTheSchemaForbidsAtTheTop) {
  const std::vector<BadText> cases = {
      {"[]", "a.json", "found [], expected"},
      {R"({"name": "a", "input": {"shape": [1, 1, 1]}, "layers": [], "output": "logits"})",
       "a.json /layers", "found [], expected an array of 1 to 4096 layers"},
      {R"({"name": "a", "input": {"shape": [1, 1, 1]}, "output": "logits"})", "a.json",
       "missing key 'layers'; the network needs name, input, layers, output"},
      {fmt::format(
           R"({{"name": "a", "input": {{"shape": [1, 8, 8]}}, "layers": [{}], "output": "max"}})",
           kConv),
       "a.json /output", "found \"max\", expected \"logits\" or \"class\""},
      {fmt::format(
           R"({{"name": "a", "input": {{"shape": [1, 8, 8]}}, "layers": [{}], "output": "logits", "inputs": 1}})",
           kConv),
       "a.json", "unknown key 'inputs'; allowed keys of the network: name, input, layers, output"},
      {fmt::format(
           R"({{"name": "", "input": {{"shape": [1, 8, 8]}}, "layers": [{}], "output": "logits"}})",
           kConv),
       "a.json /name", "found \"\", expected a string"},
  };
  for (const BadText& bad : cases) {
    SCOPED_TRACE(bad.text);
    ExpectConfigError([&] { ParseNetwork(bad.text, "a.json"); }, bad.place, bad.message);
  }
}

TEST(Network, RefusesABadInput) {
  const std::vector<BadText> cases = {
      {R"(7)", "a.json /input", "found 7, expected an object"},
      {R"({})", "a.json /input", "missing key 'shape'"},
      {R"({"shape": [1, 8, 8], "bit": 4})", "a.json /input",
       "unknown key 'bit'; allowed keys of input: shape, "},
      {R"({"shape": [1, 8]})", "a.json /input/shape",
       "found [1,8], expected [channels, height, width]"},
      {R"({"shape": [1, 8, 8, 8]})", "a.json /input/shape", "expected [channels, height, width]"},
      {R"({"shape": [1, 0, 8]})", "a.json /input/shape/1",
       "found 0, expected an integer from 1 to 4096"},
      {R"({"shape": [1, 8, 4097]})", "a.json /input/shape/2", "found 4097"},
      {R"({"shape": [65537, 8, 8]})", "a.json /input/shape/0",
       "found 65537, expected an integer from 1 to 65536"},
      {R"({"shape": [1.5, 8, 8]})", "a.json /input/shape/0", "found 1.5, expected an integer"},
      {R"({"shape": [128, 4096, 4096]})", "a.json /input/shape", "expected fewer than 2147483648"},
      {R"({"shape": [1, 8, 8], "bits": 0})", "a.json /input/bits",
       "found 0, expected an integer from 1 to 8"},
      {R"({"shape": [1, 8, 8], "bits": 9})", "a.json /input/bits", "found 9"},
      {R"({"shape": [1, 8, 8], "scale": 0})", "a.json /input/scale",
       "found 0, expected a number from 1e-6"},
      {R"({"shape": [1, 8, 8], "std": -1})", "a.json /input/std", "found -1"},
      {R"({"shape": [1, 8, 8], "mean": 1e7})", "a.json /input/mean",
       "expected a number from -1e6 to 1e6"},
      {R"({"shape": [1, 8, 8], "mean": "0"})", "a.json /input/mean", "found \"0\""},
  };
  for (const BadText& bad : cases) {
    SCOPED_TRACE(bad.text);
    ExpectConfigError([&] { ParseLayers(kConv, bad.text); }, bad.place, bad.message);
  }
}

TEST(Network, RefusesABadLayer) {
  const std::string conv = kConv;
  const auto layer = [](const std::string& fields) { return "{\"name\": \"x\", " + fields + "}"; };
  const std::vector<BadText> cases = {
      {"3", "a.json /layers/0", "found 3, expected an object"},
      {R"({"name": "x"})", "a.json /layers/0", "missing key 'type'; a layer needs name, type"},
      {R"({"type": "sign"})", "a.json /layers/0", "missing key 'name'"},
      {layer(R"("type": "conv3d")"), "a.json /layers/0/type",
       "found \"conv3d\", expected conv2d, linear"},
      {layer(R"("type": 5)"), "a.json /layers/0/type", "found 5, expected conv2d, linear"},
      {conv + "," + conv + "," + conv + "," +
           layer(R"("type": "conv2d", "out_channels": 1, "kernal": 3)"),
       "a.json /layers/3",
       "unknown key 'kernal'; allowed keys of conv2d: name, type, out_channels, kernel, bias, "
       "dilation, from, "
       "groups, pad_value, padding, stride"},
      {layer(R"("type": "linear")"), "a.json /layers/0",
       "missing key 'out_features'; linear needs name, type, out_features"},
      {layer(R"("type": "conv2d", "kernel": 1)"), "a.json /layers/0", "missing key 'out_channels'"},
      {layer(R"("type": "max_pool2d")"), "a.json /layers/0", "missing key 'kernel'"},
      {layer(R"("type": "add")"), "a.json /layers/0", "missing key 'from'"},
      {layer(R"("type": "batch_norm", "suite": "x")"), "a.json /layers/0", "unknown key 'suite'"},
      {layer(R"("type": "flatten", "kernel": 1)"), "a.json /layers/0", "unknown key 'kernel'"},
      {layer(R"("type": "max_pool2d", "kernel": 2, "dilation": 1)"), "a.json /layers/0",
       "unknown key 'dilation'"},
      {layer(R"("type": "max_pool2d", "kernel": [2, 3], "padding": [1, 3])"),
       "a.json /layers/0/padding", "found 3, expected at most the kernel less 1, 2"},
      {layer(R"("type": "max_pool2d", "kernel": [2, 3], "padding": [0, 0, 2, 0])"),
       "a.json /layers/0/padding", "found 2, expected at most the kernel less 1, 1"},
      {layer(R"("type": "avg_pool2d", "kernel": 3, "padding": [1, 1, 1])"),
       "a.json /layers/0/padding", "found 3 numbers, expected one, two or four"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": [1, 2, 3])"),
       "a.json /layers/0/kernel", "expected an integer from 1 to 64, or two, of rows and columns"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": [1, 65])"),
       "a.json /layers/0/kernel/1", "found 65, expected an integer from 1 to 64"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": [2, 5], "dilation": [1, 2])"),
       "a.json /layers/0/kernel", "found 2 x 9, expected at most the sides of the padded input"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": 1, "pad_value": "1")"),
       "a.json /layers/0/pad_value", "found \"1\", expected a number from -1e9 to 1e9"},
      {layer(R"("type": "avg_pool2d", "kernel": 2, "count_include_pad": 0)"),
       "a.json /layers/0/count_include_pad", "found 0, expected true or false"},
      {layer(R"("type": "avg_pool2d", "kernel": 4, "padding": 4, "count_include_pad": false)"),
       "a.json /layers/0/padding", "found 4, expected at most the kernel less 1, 3"},
      {layer(R"("type": "avg_pool2d", "kernel": 21, "padding": 20, "stride": 1,
                "count_include_pad": false)"),
       "a.json /layers/0/count_include_pad", "least common multiple is over 65536"},
      {layer(R"("type": "avg_pool2d", "kernel": 3, "padding": 2)"), "a.json /layers/0/padding",
       "found 2, expected at most half the kernel, 1"},
      {layer(R"("type": "avg_pool2d", "kernel": 64, "padding": 33)"), "a.json /layers/0/padding",
       "found 33, expected an integer from 0 to 32"},
      {layer(R"("type": "conv2d", "out_channels": 0, "kernel": 3)"),
       "a.json /layers/0/out_channels", "found 0, expected an integer from 1 to 65536"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": "3")"), "a.json /layers/0/kernel",
       "found \"3\", expected an integer from 1 to 64"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": 65)"), "a.json /layers/0/kernel",
       "found 65"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": 1, "stride": 0)"),
       "a.json /layers/0/stride", "found 0"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": 1, "padding": -1)"),
       "a.json /layers/0/padding", "found -1, expected an integer from 0 to 64"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": 1, "bias": 1)"),
       "a.json /layers/0/bias", "found 1, expected true or false"},
      {layer(R"("type": "linear", "out_features": 65537)"), "a.json /layers/0/out_features",
       "found 65537"},
      {layer(R"("type": "batch_norm", "eps": 0)"), "a.json /layers/0/eps",
       "found 0, expected a number"},
      {R"({"name": "a b", "type": "flatten"})", "a.json /layers/0/name",
       "found \"a b\", expected a string"},
      {conv + "," + layer(R"("type": "sign", "suite": "")"), "a.json /layers/1/suite",
       "found \"\", expected the name"},
      // What the schema cannot say:
      {conv + "," + conv, "a.json /layers/1/name", "found 'conv1', the name of layer 0 too"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": 9)"), "a.json /layers/0/kernel",
       "found 9, expected at most the sides of the padded input, 8 x 8"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": 11, "padding": 1)"),
       "a.json /layers/0/kernel", "padded input, 10 x 10"},
      {conv + "," + layer(R"("type": "max_pool2d", "kernel": 7)"), "a.json /layers/1/kernel",
       "found 7, expected at most the sides of the padded input, 6 x 6"},
      {layer(R"("type": "avg_pool2d", "kernel": 9)"), "a.json /layers/0/kernel", "found 9"},
      {layer(R"("type": "conv2d", "out_channels": 6, "kernel": 1, "groups": 3)"),
       "a.json /layers/0/groups",
       "found 3, expected a divisor of the 2 input channels and of the 6 output channels"},
      {layer(R"("type": "conv2d", "out_channels": 3, "kernel": 1, "groups": 2)"),
       "a.json /layers/0/groups", "the 3 output channels"},
      {layer(R"("type": "sign")"), "a.json /layers/0/type", "found sign with nothing before it"},
      {R"({"name": "f", "type": "flatten"},)" + layer(R"("type": "relu")"), "a.json /layers/1/type",
       "found relu with nothing before it"},
      {layer(R"("type": "square")"), "a.json /layers/0/type", "found square"},
      {conv + "," +
           layer(R"("type": "table", "input_scale": 1, "output_scale": 1, "values": [1, 2, 3])"),
       "a.json /layers/1/values", "expected an array of 4, 8"},
      {conv + "," +
           layer(
               R"("type": "table", "input_scale": 1, "output_scale": 1, "values": [1, 2, 3, 4, 5])"),
       "a.json /layers/1/values", "found 5 values, expected a power of two from 4 to 256"},
      {conv + "," +
           layer(
               R"("type": "table", "input_scale": 1, "output_scale": 1, "values": [1, 2, 3, 0.5])"),
       "a.json /layers/1/values/3", "found 0.5, expected an integer"},
      {conv + "," +
           layer(R"("type": "table", "input_scale": 0, "output_scale": 1, "values": [1, 2, 3, 4])"),
       "a.json /layers/1/input_scale", "found 0, expected a number"},
      {conv + "," + layer(R"("type": "table", "values": [1, 2, 3, 4])"), "a.json /layers/1",
       "missing key 'input_scale'"},
      {conv + "," + layer(R"("type": "add", "from": "x")"), "a.json /layers/1/from",
       "found 'x', expected the name of an earlier layer"},
      {layer(R"("type": "conv2d", "out_channels": 1, "kernel": 1, "from": "y")"),
       "a.json /layers/0/from", "found 'y', expected the name of an earlier layer"},
      {layer(R"("type": "linear", "out_features": 1, "from": "input")"), "a.json /layers/0",
       "unknown key 'from'"},
      {R"({"name": "input", "type": "flatten"})", "a.json /layers/0/name",
       "found 'input', which stands for the network's input"},
      {conv + R"(,{"name": "f", "type": "flatten"},)" + layer(R"("type": "add", "from": "conv1")"),
       "a.json /layers/2/from",
       "found 'conv1' with an output of 4 x 6 x 6, expected one of 144 x 1 x 1"},
  };
  for (const BadText& bad : cases) {
    SCOPED_TRACE(bad.text);
    ExpectConfigError([&] { ParseLayers(bad.text); }, bad.place, bad.message);
  }
}

TEST(Network, ConvolutionsMayTakeAnEarlierOutput) {
  const NetworkSpec network = ParseLayers(
      R"({"name": "a", "type": "conv2d", "out_channels": 3, "kernel": 3},
         {"name": "b", "type": "conv2d", "out_channels": 5, "kernel": 1, "stride": 2, "from": "a"},
         {"name": "c", "type": "conv2d", "out_channels": 4, "kernel": 3, "stride": 3,
          "from": "input"},
         {"name": "d", "type": "avg_pool2d", "kernel": 3, "stride": 2, "padding": 1})",
      R"({"shape": [2, 8, 8]})");
  EXPECT_EQ(network.layers[1].in, (Shape3{3, 6, 6}));
  EXPECT_EQ(network.layers[1].out, (Shape3{5, 3, 3}));
  EXPECT_EQ(network.layers[2].in, (Shape3{2, 8, 8}));
  EXPECT_EQ(network.layers[2].out, (Shape3{4, 2, 2}));
  EXPECT_EQ(network.layers[3].out, (Shape3{4, 1, 1}));
  NetworkSpec other = network;
  other.layers[2].from = "";
  EXPECT_NE(other.Digest(), network.Digest());
  other = network;
  other.layers[3].padding = 0;
  EXPECT_NE(other.Digest(), network.Digest());
}

TEST(Network, RefusesLayersTooLargeToCount) {
  ExpectConfigError(
      [] {
        ParseLayers(R"({"name": "c", "type": "conv2d", "out_channels": 65536, "kernel": 1})",
                    R"({"shape": [1, 4096, 4096]})");
      },
      "a.json /layers/0", "1099511627776 outputs from an input of 1 x 4096 x 4096");
  ExpectConfigError(
      [] {
        ParseLayers(R"({"name": "l", "type": "linear", "out_features": 65536})",
                    R"({"shape": [1, 4096, 4096]})");
      },
      "a.json /layers/0", "1099511627776 weights");
  ExpectConfigError(
      [] {
        ParseLayers(R"({"name": "f", "type": "flatten"}, {"name": "c", "type": "conv2d",
                        "out_channels": 256, "kernel": 1})",
                    R"({"shape": [1, 4096, 4096]})");
      },
      "a.json /layers/1", "4294967296 weights");
}

TEST(Network, RemarksOnLinearLayersWithNothingBetween) {
  const auto remarks = [](const std::string& layers) {
    return Remarks(ParseLayers(layers, R"({"shape": [2, 6, 6]})"));
  };
  const std::string conv = R"({"name": "c", "type": "conv2d", "out_channels": 2, "kernel": 1})";
  const std::string depthwise =
      R"({"name": "d", "type": "conv2d", "out_channels": 2, "kernel": 3, "groups": 2})";
  const std::string fc = R"({"name": "f", "type": "linear", "out_features": 3})";
  const std::string norm = R"({"name": "b", "type": "batch_norm"})";
  const std::string sign = R"({"name": "s", "type": "sign"})";
  EXPECT_TRUE(remarks(conv + "," + sign + "," + fc).empty());
  EXPECT_TRUE(remarks(depthwise + "," + conv + "," + sign + "," + fc).empty()) << "separable";
  EXPECT_THAT(remarks(conv + "," + norm + "," + fc),
              testing::ElementsAre(testing::HasSubstr("c and f")));
  EXPECT_THAT(remarks(conv + "," + depthwise + "," + fc),
              testing::ElementsAre(testing::HasSubstr("c and d, d and f")));
}

TEST(Network, KeepsControlCharactersOutOfMessages) {
  ExpectConfigError([] { ParseNetwork("{\"\\u001b[31m\": 1}", "a.json"); }, "a.json",
                    "unknown key '?[31m'");
}

}  // namespace
}  // namespace tercet::nn
