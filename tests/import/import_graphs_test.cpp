// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstring>
#include <map>

#include "base/scratch.h"
#include "base/sizes_text.h"
#include "import/expect_same.h"
#include "import/model.h"
#include "tercet/nn/float_network.h"

/// Graphs as exporters write them, against an evaluator of ONNX that shares nothing with the
/// importer.
namespace tercet::importer {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(ImportGraphsTest, MnistOfTheOnnxZoo) {
  Model m({1, 1, 28, 28}, 8);
  m.Weights("w1", {8, 1, 5, 5}, 1);
  m.Weights("b1", {8, 1, 1}, 2);
  m.Weights("w2", {16, 8, 5, 5}, 3);
  m.Weights("b2", {16, 1, 1}, 4);
  m.Weights("w3", {16, 4, 4, 10}, 5);
  m.Weights("b3", {1, 10}, 6);
  m.Ints("rows", {256, 10});
  m.Ints("flat", {1, 256});
  m.Node("Reshape", {"w3", "rows"}, "Times212_reshape1");
  const auto block = [&](const std::string& from, const std::string& w, const std::string& b,
                         std::int64_t pool, const std::string& to) {
    auto& conv = m.Node("Conv", {from, w}, to + "_conv");
    SetString(conv, "auto_pad", "SAME_UPPER");
    SetInts(conv, "dilations", {1, 1});
    SetInt(conv, "group", 1);
    m.Node("Add", {to + "_conv", b}, to + "_plus");
    m.Node("Relu", {to + "_plus"}, to + "_relu");
    auto& node = m.Node("MaxPool", {to + "_relu"}, to);
    SetInts(node, "kernel_shape", {pool, pool});
    SetInts(node, "strides", {pool, pool});
    SetInts(node, "pads", {0, 0, 0, 0});
    SetString(node, "auto_pad", "NOTSET");
  };
  block("x", "w1", "b1", 2, "one");
  block("one", "w2", "b2", 3, "two");
  m.Node("Reshape", {"two", "flat"}, "Times212_reshape0");
  m.Node("MatMul", {"Times212_reshape0", "Times212_reshape1"}, "Times212");
  m.Node("Add", {"Times212", "b3"}, "Plus214");
  EXPECT_THAT(LayersOf(ExpectSame(m)),
              ElementsAre("one_conv conv2d", "one_relu relu", "one max_pool2d", "two_conv conv2d",
                          "two_relu relu", "two max_pool2d", "Times212_reshape0 flatten",
                          "Times212 linear"));
}

/// x [N, 2, 5, 5] -> conv "c" [N, 3, 5, 5], padded.
class GraphTest : public testing::Test {
 protected:
  GraphTest() : m({-1, 2, 5, 5}) { Restart(); }
  void Restart() {
    m = Model({-1, 2, 5, 5});
    m.Weights("w", {3, 2, 3, 3}, 1);
    Conv("x", "w", "c");
  }
  void Conv(const std::string& from, const std::string& w, const std::string& to) {
    SetInts(m.Node("Conv", {from, w}, to), "pads", {1, 1, 1, 1});
  }
  /// Behind "y": a convolution, so that what the importer leaves open is done.
  ImportedNetwork ExpectSameBefore(const std::string& y) {
    m.Weights("w_end", {2, 3, 3, 3}, 7);
    Conv(y, "w_end", "end");
    return ExpectSame(m);
  }
  void Integer(const std::string& name, std::int64_t value) {
    auto& tensor = m.Tensor(name, {});
    tensor.set_data_type(onnx::TensorProto::INT64);
    tensor.add_int64_data(value);
  }

  Model m;
};

TEST_F(GraphTest, ViewOfTheBatchSize) {
  m.Node("Shape", {"c"}, "shape");
  Integer("zero", 0);
  m.Ints("axes", {0});
  m.Ints("minus", {-1});
  m.Node("Gather", {"shape", "zero"}, "size");
  m.Node("Unsqueeze", {"size", "axes"}, "sizes");
  SetInt(m.Node("Concat", {"sizes", "minus"}, "target"), "axis", 0);
  m.Node("Reshape", {"c", "target"}, "flat");
  m.Weights("fc", {4, 75}, 2);
  SetInt(m.Node("Gemm", {"flat", "fc"}, "y"), "transB", 1);
  EXPECT_THAT(LayersOf(ExpectSame(m)), ElementsAre("c conv2d", "flat flatten", "y linear"));
}

TEST_F(GraphTest, RefusesArithmeticOnTheBatchSize) {
  m.Node("Shape", {"c"}, "shape");
  Integer("zero", 0);
  Integer("two", 2);
  m.Node("Gather", {"shape", "zero"}, "size");
  m.Node("Mul", {"size", "two"}, "twice");
  m.Node("Reshape", {"c", "twice"}, "y");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Mul 'twice'",
                "computes with the number of images");
}

TEST_F(GraphTest, BiasesBehindConvolutions) {
  for (const Dims& dims : {Dims{3, 1, 1}, Dims{1, 3, 1, 1}, Dims{1}, Dims{}}) {
    m = Model({-1, 2, 5, 5});
    m.Weights("w", {3, 2, 3, 3}, 1);
    m.Weights("b", dims, 2);
    Conv("x", "w", "c");
    m.Node("Add", {"b", "c"}, "y");
    m.Node("Relu", {"y"}, "r");
    EXPECT_THAT(LayersOf(ExpectSame(m)), ElementsAre("c conv2d", "r relu"));
  }
}

TEST_F(GraphTest, MulAndAddAreABatchNorm) {
  m.Floats("factor", {1, 3, 1, 1}, {0.5, -2, 1.5});
  m.Weights("shift", {3, 1, 1}, 3);
  m.Floats("divisor", {}, {4});
  m.Node("Mul", {"c", "factor"}, "scaled");
  m.Node("Sub", {"scaled", "shift"}, "moved");
  m.Node("Div", {"moved", "divisor"}, "less");
  m.Node("Neg", {"less"}, "negative");
  m.Node("Sub", {"divisor", "negative"}, "norm");
  m.Node("Relu", {"norm"}, "y");
  EXPECT_THAT(LayersOf(ExpectSameBefore("y")),
              ElementsAre("c conv2d", "norm batch_norm", "y relu", "end conv2d"));
}

TEST_F(GraphTest, ArithmeticBetweenActivationAndConvolution) {
  m.Floats("factor", {3, 1, 1}, {0.5, -2, 1.5});
  m.Weights("shift", {3, 1, 1}, 3);
  m.Node("Relu", {"c"}, "r");
  m.Node("Mul", {"r", "factor"}, "scaled");
  m.Node("Add", {"scaled", "shift"}, "moved");
  EXPECT_THAT(LayersOf(ExpectSameBefore("moved")),
              ElementsAre("c conv2d", "r relu", "moved batch_norm", "end conv2d"));
}

TEST(ImportGraphsTest, OneMeanAndStdBecomeTheInputs) {
  Model m({1, 2, 4, 4});
  m.Floats("mean", {}, {0.25});
  m.Floats("std", {1, 1, 1, 1}, {0.5});
  m.Weights("w", {3, 2, 3, 3}, 1);
  m.Node("Sub", {"x", "mean"}, "centred");
  m.Node("Div", {"centred", "std"}, "normal");
  SetInts(m.Node("Conv", {"normal", "w"}, "y"), "pads", {1, 1, 1, 1});
  const ImportedNetwork network = ExpectSame(m);
  EXPECT_THAT(LayersOf(network), ElementsAre("y conv2d"));
  const auto input = nn::ParseNetwork(network.architecture, "imported").input;
  EXPECT_EQ(input.std, 0.5);
  EXPECT_EQ(input.mean, 2.25);
}

TEST(ImportGraphsTest, MeansAndStdsOfChannelsAreABatchNorm) {
  Model m({1, 2, 4, 4});
  m.Floats("mean", {1, 2, 1, 1}, {0.25, -0.5});
  m.Floats("std", {2, 1, 1}, {0.5, 2});
  m.Weights("w", {3, 2, 3, 3}, 1);
  m.Node("Sub", {"x", "mean"}, "centred");
  m.Node("Div", {"centred", "std"}, "normal");
  SetInts(m.Node("Conv", {"normal", "w"}, "y"), "pads", {1, 1, 1, 1});
  EXPECT_THAT(LayersOf(ExpectSame(m)), ElementsAre("normal batch_norm", "y conv2d"));
}

// --- Shapes and orders

/// As tf2onnx writes Keras: channels last outside of convolutions.
TEST(ImportGraphsTest, ChannelsLast) {
  Model m({-1, 6, 5, 2});
  const auto transpose = [&](const std::string& from, const Dims& perm, const std::string& to) {
    SetInts(m.Node("Transpose", {from}, to), "perm", perm);
  };
  m.Weights("w", {3, 2, 3, 3}, 1);
  m.Weights("b", {3}, 2);
  m.Weights("dense", {3, 4}, 3);
  m.Weights("fc", {48, 5}, 4);
  m.Weights("fc_b", {5}, 5);
  m.Floats("mean", {2}, {0.5, 0.25});
  m.Node("Sub", {"x", "mean"}, "centred");
  transpose("centred", {0, 3, 1, 2}, "first");
  SetString(m.Node("Conv", {"first", "w"}, "conv"), "auto_pad", "SAME_LOWER");
  transpose("conv", {0, 2, 3, 1}, "last");
  m.Node("Add", {"last", "b"}, "biased");
  m.Node("Relu", {"biased"}, "relu");
  // A dense layer at each place.
  m.Node("MatMul", {"relu", "dense"}, "each");
  m.Node("Relu", {"each"}, "relu2");
  transpose("relu2", {0, 3, 1, 2}, "again");
  auto& pool = m.Node("MaxPool", {"again"}, "pool");
  SetInts(pool, "kernel_shape", {2, 2});
  transpose("pool", {0, 2, 3, 1}, "back");
  m.Ints("shape", {-1, 80});
  m.Node("Reshape", {"back", "shape"}, "flat");
  m.Weights("fc80", {80, 5}, 4);
  m.Node("MatMul", {"flat", "fc80"}, "fc1");
  m.Node("Add", {"fc1", "fc_b"}, "y");
  EXPECT_THAT(LayersOf(ExpectSame(m, true)),
              ElementsAre("centred batch_norm", "conv conv2d", "relu relu", "each conv2d",
                          "relu2 relu", "pool max_pool2d", "flat flatten", "fc1 linear"));
}

TEST(ImportGraphsTest, ImagesThatGoStraightIntoAFlatten) {
  const std::vector<std::pair<Dims, bool>> cases = {{{-1, 5, 6, 1}, true},  {{-1, 5, 6, 3}, true},
                                                    {{-1, 3, 4, 5}, false}, {{1, 20, 1}, false},
                                                    {{-1, 4, 5}, false},    {{2, 3, 4, 4}, false}};
  for (const auto& [dims, last] : cases) {
    SCOPED_TRACE(SizesText(dims));
    Model m(dims);
    const std::int64_t features = reference::Count({dims.begin() + 1, dims.end()});
    m.Node("Flatten", {"x"}, "flat");
    m.Weights("w", {features, 3}, 1);
    m.Node("MatMul", {"flat", "w"}, "y");
    const auto spec = nn::ParseNetwork(ExpectSame(m, last).architecture, "imported");
    if (dims.size() != 4) continue;
    EXPECT_EQ(spec.input.shape.channels, static_cast<std::size_t>(last ? dims[3] : dims[1]));
  }
}

TEST(ImportGraphsTest, VectorsThatAreReshapedToImages) {
  Model m({-1, 24});
  m.Ints("shape", {-1, 2, 3, 4});
  m.Node("Reshape", {"x", "shape"}, "image");
  m.Weights("w", {3, 2, 3, 3}, 1);
  SetInts(m.Node("Conv", {"image", "w"}, "y"), "pads", {1, 1, 1, 1});
  const auto spec = nn::ParseNetwork(ExpectSame(m).architecture, "imported");
  EXPECT_EQ(spec.input.shape, (mpc::Shape3{2, 3, 4}));
}

TEST(ImportGraphsTest, AModelOfOneVector) {
  Model m({6});
  m.Weights("w", {6, 3}, 1);
  m.Ints("axes", {0});
  m.Node("Unsqueeze", {"x", "axes"}, "row");
  m.Node("MatMul", {"row", "w"}, "y");
  EXPECT_THAT(LayersOf(ExpectSame(m)), ElementsAre("y linear"));
}

TEST_F(GraphTest, FlattensAndSqueezes) {
  m.Node("GlobalAveragePool", {"c"}, "pool");
  m.Ints("axes", {-1, -2});
  m.Node("Squeeze", {"pool", "axes"}, "flat");
  m.Weights("fc", {3, 4}, 2);
  m.Node("MatMul", {"flat", "fc"}, "y");
  EXPECT_THAT(LayersOf(ExpectSame(m)),
              ElementsAre("c conv2d", "pool avg_pool2d", "flat flatten", "y linear"));
}

TEST_F(GraphTest, ReducesOverMaps) {
  for (const char* op : {"ReduceMean", "ReduceSum", "ReduceMax"}) {
    for (const bool last : {false, true}) {
      for (const bool keeps : {false, true}) {
        SCOPED_TRACE(op);
        m = Model({-1, 2, 5, 5});
        m.Weights("w", {3, 2, 3, 3}, 1);
        Conv("x", "w", "c");
        SetInts(m.Node("Transpose", {"c"}, "t"), "perm", {0, 2, 3, 1});
        auto& node = m.Node(op, {last ? "t" : "c"}, "y");
        SetInts(node, "axes", last ? Dims{1, 2} : Dims{-2, -1});
        SetInt(node, "keepdims", keeps ? 1 : 0);
        m.Node("Flatten", {"y"}, "flat");
        m.Weights("fc", {3, 4}, 2);
        m.Node("MatMul", {"flat", "fc"}, "end");
        ExpectSame(m);
        if (last) continue;
        node.mutable_attribute(0)->set_ints(0, 1);
        ExpectRefused([&] { m.Import(); }, fmt::format("m.onnx node {} 'y'", op),
                      "expected height and width");
      }
    }
  }
}

// --- Products

TEST_F(GraphTest, GemmsWithFactorsAndTransposes) {
  for (int variant = 0; variant < 16; ++variant) {
    SCOPED_TRACE(variant);
    const bool a = (variant & 1) != 0, b = (variant & 2) != 0, first = (variant & 4) != 0;
    m = Model({-1, 6});
    m.Weights("w", first ? (a ? Dims{6, 4} : Dims{4, 6}) : (b ? Dims{4, 6} : Dims{6, 4}), 1);
    m.Weights("bias", (variant & 8) != 0 ? (first ? Dims{4, 1} : Dims{1, 4}) : Dims{1}, 2);
    SetInts(m.Node("Transpose", {"x"}, "t"), "perm", {1, 0});
    const std::string value = first != (first ? b : a) ? "t" : "x";
    auto& gemm = m.Node("Gemm",
                        first ? std::vector<std::string>{"w", value, "bias"}
                              : std::vector<std::string>{value, "w", "bias"},
                        "g");
    SetInt(gemm, "transA", a ? 1 : 0);
    SetInt(gemm, "transB", b ? 1 : 0);
    SetFloat(gemm, "alpha", 0.5);
    SetFloat(gemm, "beta", -2);
    if (first) SetInts(m.Node("Transpose", {"g"}, "y"), "perm", {1, 0});
    EXPECT_THAT(LayersOf(ExpectSame(m)), ElementsAre("g linear"));
  }
}

TEST_F(GraphTest, WeightsTimesColumns) {
  m = Model({-1, 6, 1});
  m.Weights("w", {4, 6}, 1);
  m.Weights("b", {4, 1}, 2);
  m.Node("MatMul", {"w", "x"}, "p");
  m.Node("Add", {"p", "b"}, "s");
  m.Node("Relu", {"s"}, "r");
  m.Weights("w2", {1, 3, 4}, 3);
  m.Node("MatMul", {"w2", "r"}, "y");
  EXPECT_THAT(LayersOf(ExpectSame(m)), ElementsAre("p linear", "r relu", "y linear"));
}

TEST_F(GraphTest, NumbersAroundAMap) {
  for (const float value : {0.0F, 1.0F, -1.0F}) {
    m = Model({-1, 2, 5, 5});
    m.Weights("w", {3, 2, 3, 3}, 1);
    m.Weights("w2", {2, 3, 3, 3}, 2);
    m.Weights("b2", {2}, 3);
    m.Node("Conv", {"x", "w"}, "c");
    m.Node("Sign", {"c"}, "s");
    m.Ints("pads", {0, 0, 1, 1, 0, 0, 1, 1});
    m.Floats("value", {}, {value});
    m.Node("Pad", {"s", "pads", "value"}, "p");
    m.Node("Conv", {"p", "w2", "b2"}, "y");
    ExpectSame(m);
  }
}

// --- Windows

TEST_F(GraphTest, WindowsThatDifferBetweenAxesAndSides) {
  struct Case {
    Dims kernel, strides, pads, dilations;
    const char* automatic;
  };
  const std::vector<Case> cases = {{{3, 2}, {1, 2}, {1, 0, 2, 1}, {1, 1}, "NOTSET"},
                                   {{1, 4}, {1, 1}, {0, 2, 0, 1}, {1, 1}, "NOTSET"},
                                   {{2, 2}, {2, 1}, {0, 0, 1, 0}, {2, 3}, "NOTSET"},
                                   {{3, 3}, {2, 2}, {0, 0, 0, 0}, {1, 1}, "SAME_UPPER"},
                                   {{2, 4}, {1, 2}, {0, 0, 0, 0}, {1, 1}, "SAME_LOWER"},
                                   {{2, 2}, {2, 2}, {0, 0, 0, 0}, {2, 2}, "SAME_UPPER"},
                                   {{5, 5}, {1, 1}, {0, 0, 0, 0}, {1, 1}, "VALID"}};
  for (const Case& c : cases) {
    for (const char* op : {"Conv", "MaxPool", "AveragePool"}) {
      if (*op != 'C' && (c.dilations != Dims{1, 1} || c.pads[2] > 1)) continue;
      SCOPED_TRACE(fmt::format("{} {}", op, SizesText(c.kernel)));
      GraphTest::m = Model({-1, 2, 5, 5});
      m.Weights("w", {3, 2, 3, 3}, 1);
      Conv("x", "w", "c");
      m.Weights("w2", {4, 3, c.kernel[0], c.kernel[1]}, 2);
      const bool is_conv = *op == 'C';
      auto& node = m.Node(
          op, is_conv ? std::vector<std::string>{"c", "w2"} : std::vector<std::string>{"c"}, "y");
      SetInts(node, "kernel_shape", c.kernel);
      SetInts(node, "strides", c.strides);
      if (std::string(c.automatic) == "NOTSET") SetInts(node, "pads", c.pads);
      SetString(node, "auto_pad", c.automatic);
      if (is_conv) SetInts(node, "dilations", c.dilations);
      if (*op == 'A') SetInt(node, "count_include_pad", 1);
      if (*op == 'M') m.Node("Relu", {"y"}, "r");
      // Where an average's own padding is not counted there is none.
      ExpectSame(m);
    }
  }
}

TEST_F(GraphTest, MaxPoolsBeyondTheMap) {
  for (const Dims& strides : {Dims{2, 2}, Dims{3, 3}, Dims{1, 2}}) {
    for (const std::int64_t pad : {0, 1}) {
      SCOPED_TRACE(SizesText(strides));
      m = Model({-1, 2, 5, 5});
      m.Weights("w", {3, 2, 3, 3}, 1);
      Conv("x", "w", "c");
      auto& node = m.Node("MaxPool", {"c"}, "y");
      SetInts(node, "kernel_shape", {2, 2});
      SetInts(node, "strides", strides);
      SetInts(node, "pads", {pad, pad, pad, pad});
      SetInt(node, "ceil_mode", 1);
      m.Node("Relu", {"y"}, "r");
      ExpectSame(m);
    }
  }
}

TEST_F(GraphTest, AveragesThatDoNotCountTheirPadding) {
  struct Case {
    Dims strides, pads;
    bool ceils;
  };
  for (const Case& c : {Case{{1, 1}, {1, 1, 1, 1}, false},
                        {{2, 2}, {0, 0, 0, 0}, true},
                        {{3, 2}, {1, 0, 0, 1}, true}}) {
    SCOPED_TRACE(SizesText(c.strides));
    m = Model({-1, 2, 5, 5});
    m.Weights("w", {3, 2, 3, 3}, 1);
    Conv("x", "w", "c");
    m.Node("Relu", {"c"}, "r");
    auto& node = m.Node("AveragePool", {"r"}, "y");
    SetInts(node, "kernel_shape", {2, 2});
    SetInts(node, "strides", c.strides);
    SetInts(node, "pads", c.pads);
    SetInt(node, "ceil_mode", c.ceils ? 1 : 0);
    EXPECT_THAT(ExpectSame(m).architecture, HasSubstr("\"count_include_pad\": false"));
  }
}

TEST_F(GraphTest, ZerosAroundAReluBeforeAMaxPool) {
  m.Node("Relu", {"c"}, "r");
  SetInts(m.Node("Pad", {"r"}, "p"), "pads", {0, 0, 0, 1, 0, 0, 1, 0});
  SetInts(m.Node("MaxPool", {"p"}, "y"), "kernel_shape", {2, 2});
  ExpectSameBefore("y");
}

TEST(ImportGraphsTest, OneDimensionalConvolutions) {
  Model m({-1, 2, 12});
  m.Weights("w", {3, 2, 3}, 1);
  m.Weights("b", {3}, 2);
  auto& conv = m.Node("Conv", {"x", "w", "b"}, "c");
  SetInts(conv, "pads", {1, 0});
  SetInts(conv, "strides", {2});
  m.Node("Relu", {"c"}, "r");
  SetInts(m.Node("MaxPool", {"r"}, "p"), "kernel_shape", {2});
  m.Node("GlobalAveragePool", {"p"}, "y");
  EXPECT_THAT(LayersOf(ExpectSame(m)),
              ElementsAre("c conv2d", "r relu", "p max_pool2d", "y avg_pool2d"));
}

TEST(ImportGraphsTest, MapsThatAreNotSquare) {
  Model m({-1, 2, 3, 7});
  m.Weights("w", {3, 2, 2, 3}, 1);
  m.Node("Conv", {"x", "w"}, "c");
  m.Node("GlobalAveragePool", {"c"}, "y");
  ExpectSame(m);
}

// --- Activations

TEST_F(GraphTest, Clips) {
  const std::vector<std::pair<float, float>> bounds = {{0, 6}, {-1, 1}, {0.5, 2}, {-3, -1}};
  for (const auto& [low, high] : bounds) {
    SCOPED_TRACE(fmt::format("{} {}", low, high));
    GraphTest::m = Model({-1, 2, 5, 5});
    m.Weights("w", {3, 2, 3, 3}, 1);
    Conv("x", "w", "c");
    m.Floats("low", {}, {low});
    m.Floats("high", {}, {high});
    m.Node("Clip", {"c", "low", "high"}, "y");
    ExpectSameBefore("y");
  }
}

TEST_F(GraphTest, OneSidedClips) {
  const std::vector<std::pair<std::string, float>> nodes = {
      {"Max", 0}, {"Max", 0.5}, {"Min", 1}, {"min", -1}, {"max", 1}};
  for (const auto& [op, value] : nodes) {
    for (const bool first : {false, true}) {
      SCOPED_TRACE(op);
      GraphTest::m = Model({-1, 2, 5, 5}, 7);
      m.Weights("w", {3, 2, 3, 3}, 1);
      Conv("x", "w", "c");
      m.Floats("bound", {1}, {value});
      if (op == "Max" || op == "Min") {
        m.Node(
            op,
            first ? std::vector<std::string>{"bound", "c"} : std::vector<std::string>{"c", "bound"},
            "y");
      } else {
        SetFloat(m.Node("Clip", {"c"}, "y"), op, value);
      }
      ExpectSameBefore("y");
    }
  }
}

TEST_F(GraphTest, SlopesBelowZero) {
  m.Weights("w2", {2, 3, 3, 3}, 4);
  m.Floats("slopes", {3, 1, 1}, {0.25, -0.5, 2});
  SetFloat(m.Node("LeakyRelu", {"c"}, "leaky"), "alpha", 0.125);
  m.Node("PRelu", {"leaky", "slopes"}, "prelu");
  m.Node("Abs", {"prelu"}, "y");
  ExpectSameBefore("y");
  Restart();
  m.Floats("some", {3, 1, 1}, {0.25, 0, 2});
  m.Node("PRelu", {"c", "some"}, "y");
  ExpectSameBefore("y");
  m.Weights("each", {3, 5, 5}, 1);
  m.Node("PRelu", {"c", "each"}, "z");
  ExpectRefused([&] { m.Import(); }, "m.onnx node PRelu 'z'", "differs within a channel");
}

TEST_F(GraphTest, ASigmoidAtTheEndIsLeftOut) {
  m.Weights("fc", {75, 2}, 2);
  m.Node("Flatten", {"c"}, "f");
  m.Node("MatMul", {"f", "fc"}, "y");
  m.Node("Sigmoid", {"y"}, "s");
  EXPECT_THAT(m.Import().notes, ElementsAre(HasSubstr("Sigmoid 's' is left out")));
}

TEST_F(GraphTest, ClipOfReluAndHardSigmoid) {
  m.Floats("six", {}, {1});
  m.Node("Relu", {"c"}, "r");
  m.Node("Min", {"r", "six"}, "relu6");
  m.Node("HardSigmoid", {"relu6"}, "y");
  EXPECT_THAT(LayersOf(ExpectSameBefore("y")),
              ElementsAre("c conv2d", "r relu", HasSubstr("batch_norm"), HasSubstr("relu"),
                          HasSubstr("batch_norm"), HasSubstr("relu"), HasSubstr("batch_norm"),
                          HasSubstr("relu"), HasSubstr("batch_norm"), "end conv2d"));
}

TEST_F(GraphTest, AClipThatLeavesTheSignIsLeftOut) {
  m.Floats("low", {}, {-1});
  m.Floats("high", {}, {1});
  m.Node("Clip", {"c", "low", "high"}, "clip");
  m.Node("Sign", {"clip"}, "y");
  EXPECT_THAT(LayersOf(ExpectSameBefore("y")), ElementsAre("c conv2d", "y sign", "end conv2d"));
}

TEST_F(GraphTest, ClipAndMaxPool) {
  m.Floats("low", {}, {0});
  m.Floats("high", {}, {1.5});
  m.Node("Clip", {"c", "low", "high"}, "y");
  SetInts(m.Node("MaxPool", {"y"}, "pool"), "kernel_shape", {2, 2});
  EXPECT_THAT(LayersOf(ExpectSameBefore("pool"))[1], "pool max_pool2d");
}

TEST_F(GraphTest, ComparisonsAreSigns) {
  for (const char* op : {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}) {
    for (const bool first : {false, true}) {
      for (const bool opposite : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {} {}", op, first, opposite));
        m = Model({-1, 2, 5, 5});
        m.Weights("w", {3, 2, 3, 3}, 1);
        Conv("x", "w", "c");
        m.Floats("bound", {3, 1, 1}, {0, 0.5, -0.25});
        m.Floats("a", {}, {1});
        m.Floats("b", {3, 1, 1}, {-1, -1, 2});
        m.Node(
            op,
            first ? std::vector<std::string>{"bound", "c"} : std::vector<std::string>{"c", "bound"},
            "flag");
        if (opposite) m.Node("Not", {"flag"}, "other");
        m.Node("Where", {opposite ? "other" : "flag", "a", "b"}, "y");
        ExpectSameBefore("y");
      }
    }
  }
}

TEST_F(GraphTest, ACastComparisonIsASign) {
  m.Floats("zero", {}, {0});
  m.Floats("two", {}, {2});
  m.Floats("one", {}, {1});
  m.Node("GreaterOrEqual", {"c", "zero"}, "flag");
  SetInt(m.Node("Cast", {"flag"}, "number"), "to", onnx::TensorProto::FLOAT);
  m.Node("Mul", {"number", "two"}, "twice");
  m.Node("Sub", {"twice", "one"}, "y");
  EXPECT_THAT(LayersOf(ExpectSameBefore("y")),
              ElementsAre("c conv2d", HasSubstr("sign"), "end conv2d"));
}

TEST_F(GraphTest, ConstantsOfTheBatchSizeAreAlikeForAllImages) {
  for (const std::string negative : {"ConstantOfShape", "Neg", "Expand"}) {
    SCOPED_TRACE(negative);
    m = Model({-1, 2, 5, 5});
    m.Weights("w", {3, 2, 3, 3}, 1);
    Conv("x", "w", "c");
    m.Floats("zero", {}, {0});
    m.Floats("minus", {3, 1, 1}, {-1, -1, -1});
    m.Node("GreaterOrEqual", {"c", "zero"}, "flag");
    m.Node("Shape", {"c"}, "shape");
    const auto fill = [&](const std::string& name, float number) {
      auto& value = *m.Node("ConstantOfShape", {"shape"}, name).add_attribute();
      value.set_name("value");
      value.set_type(onnx::AttributeProto::TENSOR);
      value.mutable_t()->set_data_type(onnx::TensorProto::FLOAT);
      value.mutable_t()->add_dims(1);
      value.mutable_t()->add_float_data(number);
    };
    fill("a", 1);
    if (negative == "ConstantOfShape") {
      fill("b", -1);
    } else if (negative == "Neg") {
      m.Node("Neg", {"a"}, "b");
    } else {
      m.Node("Expand", {"minus", "shape"}, "b");
    }
    m.Node("Where", {"flag", "a", "b"}, "y");
    EXPECT_THAT(LayersOf(ExpectSameBefore("y")),
                ElementsAre("c conv2d", HasSubstr("sign"), "end conv2d"));
  }
}

TEST_F(GraphTest, ASignThatZeroIsAddedToIsOne) {
  m.Floats("little", {}, {0.1F});
  m.Node("Sign", {"c"}, "s");
  m.Node("Add", {"s", "little"}, "more");
  m.Node("Sign", {"more"}, "y");
  const ImportedNetwork network = ExpectSameBefore("y");
  EXPECT_THAT(LayersOf(network), ElementsAre("c conv2d", "s sign", "end conv2d"));
  EXPECT_THAT(network.notes, IsEmpty());
}

TEST_F(GraphTest, SignedWeightsAndTheirScale) {
  m.Weights("latent", {2, 3, 3, 3}, 5);
  m.Node("Sign", {"c"}, "s");
  m.Node("Sign", {"latent"}, "signs");
  m.Node("Abs", {"latent"}, "sizes");
  auto& mean = m.Node("ReduceMean", {"sizes"}, "scale");
  SetInts(mean, "axes", {1, 2, 3});
  m.Node("Mul", {"signs", "scale"}, "scaled");
  Conv("s", "scaled", "y");
  EXPECT_THAT(LayersOf(ExpectSame(m)), ElementsAre("c conv2d", "s sign", "y conv2d"));
}

TEST_F(GraphTest, WeightsByWhere) {
  m.Weights("latent", {2, 3, 3, 3}, 5);
  m.Floats("zero", {}, {0});
  m.Floats("one", {}, {1});
  m.Floats("minus", {}, {-1});
  m.Node("GreaterOrEqual", {"latent", "zero"}, "flags");
  m.Node("Where", {"flags", "one", "minus"}, "signs");
  Conv("c", "signs", "y");
  ExpectSame(m);
}

TEST_F(GraphTest, BipolarQuantOfValuesAndWeights) {
  m.Weights("latent", {2, 3, 3, 3}, 5);
  m.Floats("scale", {}, {0.25});
  m.Floats("one", {}, {1});
  m.Node("BipolarQuant", {"c", "scale"}, "s").set_domain("qonnx.custom_op.general");
  m.Node("BipolarQuant", {"latent", "one"}, "signs").set_domain("qonnx.custom_op.general");
  SetInts(m.Node("MaxPool", {"s"}, "pool"), "kernel_shape", {2, 2});
  Conv("pool", "signs", "y");
  const ImportedNetwork network = ExpectSame(m);
  EXPECT_THAT(LayersOf(network), ElementsAre("c conv2d", HasSubstr("sign"), "pool max_pool2d",
                                             HasSubstr("batch_norm"), "y conv2d"));
}

TEST_F(GraphTest, MultiThresholdOfOneBit) {
  m.Weights("t", {3, 1}, 5);
  auto& node = m.Node("MultiThreshold", {"c", "t"}, "y");
  node.set_domain("finn.custom_op.general");
  SetFloat(node, "out_scale", 2);
  SetFloat(node, "out_bias", -1);
  SetString(node, "out_dtype", "BIPOLAR");
  EXPECT_THAT(LayersOf(ExpectSameBefore("y")), ElementsAre("c conv2d", "y sign", "end conv2d"));
}

// Each step is a sign, and a ReLU before steps above 0 makes no difference.
TEST_F(GraphTest, MultiThresholdOfSomeBits) {
  m.Node("Relu", {"c"}, "r");
  m.Floats("t", {3, 3}, {0.5, 1, 2.5, 0.25, 0.25, 4, 1, 3, 8});
  auto& node = m.Node("MultiThreshold", {"r", "t"}, "y");
  node.set_domain("qonnx.custom_op.general");
  SetFloat(node, "out_scale", 0.5);
  SetFloat(node, "out_bias", -0.25);
  const ImportedNetwork network = ExpectSameBefore("y");
  EXPECT_THAT(LayersOf(network), ElementsAre("c conv2d", HasSubstr("conv2d"), HasSubstr("sign"),
                                             "y conv2d", "end conv2d"));
  EXPECT_THAT(nn::Remarks(nn::ParseNetwork(network.architecture, "imported")), IsEmpty());
  m.Floats("many", {1, 16}, std::vector<float>(16, 1));
  m.proto.mutable_graph()->mutable_node(2)->set_input(1, "many");
  ExpectRefused([&] { m.Import(); }, "m.onnx node MultiThreshold 'y'",
                "found 16 steps in each of 3 channels, expected 1 to 15");
  m.Floats("flat", {3}, {1, 2, 3});
  m.proto.mutable_graph()->mutable_node(2)->set_input(1, "flat");
  ExpectRefused([&] { m.Import(); }, "m.onnx node MultiThreshold 'y'",
                "found thresholds of shape [3], expected [channels, steps]");
}

// Of steps the largest are pooled, not their sum: that is one activation with its max-pool.
TEST_F(GraphTest, StepsBeforeAMaxPool) {
  m.Floats("scale", {}, {0.5});
  m.Floats("zero", {}, {0});
  m.Floats("bits", {}, {2});
  m.Node("Quant", {"c", "scale", "zero", "bits"}, "q").set_domain("qonnx.custom_op.general");
  auto& pool = m.Node("MaxPool", {"q"}, "y");
  SetInts(pool, "kernel_shape", {2, 2});
  SetInts(pool, "strides", {2, 1});
  EXPECT_THAT(
      LayersOf(ExpectSameBefore("y")),
      ElementsAre("c conv2d", HasSubstr("conv2d"), HasSubstr("sign"), HasSubstr("batch_norm"),
                  HasSubstr("max_pool2d"), "y conv2d", "end conv2d"));
}

TEST_F(GraphTest, QuantOfActivations) {
  int model = 0;
  for (const char* mode : {"ROUND", "FLOOR", "CEIL"}) {
    for (const float bits : {1.0F, 2.0F, 4.0F}) {
      for (const bool is_signed : {false, true}) {
        if (bits == 1 && is_signed) continue;
        SCOPED_TRACE(fmt::format("{} {} {}", mode, bits, is_signed));
        Restart();
        m.Floats("scale", {1, 3, 1, 1}, {0.5, 1, 0.25});
        m.Floats("zero", {}, {is_signed ? 0.0F : 1.0F});
        m.Floats("bits", {}, {bits});
        auto& node = m.Node("Quant", {"c", "scale", "zero", "bits"}, "y");
        node.set_domain("qonnx.custom_op.general");
        SetString(node, "rounding_mode", mode);
        SetInt(node, "signed", is_signed ? 1 : 0);
        SetInt(node, "narrow", bits == 1 ? 0 : model++ % 2);
        ExpectSameBefore("y");
      }
    }
  }
  m.Floats("eight", {}, {8});
  auto& node = *m.proto.mutable_graph()->mutable_node(1);
  node.set_input(3, "eight");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Quant 'y'", "found activations of 8 bits");
  node.set_input(3, "bits");
  m.Floats("negative", {}, {-1});
  node.set_input(1, "negative");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Quant 'y'", "found a scale that is not above 0");
  node.mutable_attribute(0)->set_s("HALF_UP");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Quant 'y'", "found rounding_mode HALF_UP");
}

TEST_F(GraphTest, BoundedFunctionsAreTables) {
  for (const char* op : {"Sigmoid", "Tanh"}) {
    Restart();
    m.Node(op, {"c"}, "t");
    m.Node("GlobalAveragePool", {"t"}, "y");
    const ImportedNetwork network = ExpectSame(m, false, Scaled(), 0.01F);
    EXPECT_THAT(LayersOf(network), Contains("t table"));
    EXPECT_THAT(network.notes, Contains(HasSubstr("becomes a table of 256 steps")));
  }
}

TEST_F(GraphTest, TwoMapsPutTogether) {
  m.Node("Relu", {"c"}, "r");
  m.Weights("w2", {2, 3, 3, 3}, 5);
  Conv("r", "w2", "d");
  m.Node("Relu", {"d"}, "s");
  SetInt(m.Node("Concat", {"r", "s"}, "both"), "axis", 1);
  m.Weights("w3", {4, 5, 3, 3}, 6);
  Conv("both", "w3", "y");
  ExpectSame(m);
  m.proto.mutable_graph()->mutable_node(4)->mutable_attribute(0)->set_i(2);
  ExpectRefused([&] { m.Import(); }, "m.onnx node Concat 'both'", "in axis 2, expected maps");
}

// All but the last are carried by an activation that leaves them as they are.
TEST_F(GraphTest, SeveralMapsPutTogether) {
  struct Case {
    std::string op, carried_by;
    float tolerance;
  };
  for (const Case& c :
       {Case{"Relu", "relu", 1e-5F}, {"BipolarQuant", "sign", 1e-5F}, {"Sigmoid", "relu", 0.02F}}) {
    SCOPED_TRACE(c.op);
    Restart();
    std::vector<std::string> parts;
    std::string from = "c";
    for (int i = 0; i < 4; ++i) {
      const std::string name = fmt::format("part{}", i);
      m.Weights("w" + name, {2 + i % 2, i == 0 ? 3 : 2 + (i - 1) % 2, 3, 3}, 3 + i);
      Conv(from, "w" + name, name);
      auto& node = m.Node(c.op, {name}, from = name + "_act");
      if (c.op == "BipolarQuant") {
        m.Floats("scale" + name, {}, {1});
        node.add_input("scale" + name);
        node.set_domain("qonnx.custom_op.general");
      }
      parts.push_back(from);
    }
    SetInt(m.Node("Concat", parts, "all"), "axis", 1);
    m.Weights("w_all", {4, 10, 3, 3}, 6);
    Conv("all", "w_all", "y");
    const ImportedNetwork network = ExpectSame(m, false, Scaled(), c.tolerance);
    const std::vector<std::string> layers = LayersOf(network);
    const auto carriers =
        std::count_if(layers.begin(), layers.end(), [&](const std::string& layer) {
          return layer.starts_with("Concat") && layer.find(' ' + c.carried_by) != std::string::npos;
        });
    EXPECT_EQ(carriers, 2);
    EXPECT_THAT(network.notes, Contains(HasSubstr("which carries numbers on as they are")));
  }
}

// Without an activation behind a sum its summands add up, as in MobileNetV2 and in residual
// networks of the second kind.
TEST_F(GraphTest, SumsOfSums) {
  std::string from = "c";
  for (int i = 0; i < 4; ++i) {
    const std::string n = std::to_string(i);
    m.Node("Relu", {from}, "r" + n);
    m.Weights("w" + n, {3, 3, 3, 3}, i);
    Conv("r" + n, "w" + n, "d" + n);
    m.Node("Add", {"d" + n, from}, "s" + n);
    from = "s" + n;
  }
  ExpectSameBefore(from);
}

TEST_F(GraphTest, MaxPoolsOfWhatNoActivationIsBeside) {
  struct Case {
    Dims kernel, strides;
  };
  for (const Case& c : {Case{{2, 2}, {2, 2}},
                        {{3, 3}, {2, 2}},
                        {{2, 1}, {1, 2}},
                        {{1, 4}, {1, 1}},
                        {{1, 1}, {2, 3}},
                        {{5, 5}, {1, 1}}}) {
    SCOPED_TRACE(SizesText(c.kernel));
    Restart();
    auto& pool = m.Node("MaxPool", {"c"}, "p");
    SetInts(pool, "kernel_shape", c.kernel);
    SetInts(pool, "strides", c.strides);
    const ImportedNetwork network = ExpectSameBefore("p");
    const std::vector<std::string> layers = LayersOf(network);
    EXPECT_THAT(layers, Not(Contains(HasSubstr("max_pool2d"))));
    EXPECT_THAT(layers, Contains(testing::StartsWith("p ")));
    const auto said = Contains(HasSubstr("has no ReLU and no Sign beside it"));
    if (c.kernel == Dims{1, 1}) {
      EXPECT_THAT(network.notes, Not(said));
    } else {
      EXPECT_THAT(network.notes, said);
    }
  }
}

TEST_F(GraphTest, MaxPoolsOfOneNumber) {
  // Of the input, and of a layer behind which another one was made.
  SetInts(m.Node("MaxPool", {"x"}, "same"), "kernel_shape", {1, 1});
  m.Weights("v", {3, 2, 3, 3}, 5);
  Conv("same", "v", "d");
  SetInts(m.Node("MaxPool", {"c"}, "p"), "kernel_shape", {1, 1});
  m.Node("Add", {"p", "d"}, "s");
  const ImportedNetwork network = ExpectSameBefore("s");
  EXPECT_THAT(LayersOf(network), Not(Contains(HasSubstr("max_pool2d"))));
}

// What a batch_norm turns round has its largest number where the least was.
TEST_F(GraphTest, MaxPoolsBesideNormsThatChangeSigns) {
  const auto norm = [&](const std::string& from, const std::string& to) {
    if (to == "n") {
      m.Floats("gamma", {3}, {1, -0.5, 2});
      m.Weights("beta", {3}, 2);
      m.Weights("mean", {3}, 3);
      m.Floats("variance", {3}, {1, 2, 0});
    }
    m.Node("BatchNormalization", {from, "gamma", "beta", "mean", "variance"}, to);
  };
  const auto pool = [&](const std::string& from, const std::string& to) {
    auto& node = m.Node("MaxPool", {from}, to);
    SetInts(node, "kernel_shape", {2, 2});
    SetInts(node, "strides", {2, 2});
  };
  for (const char* op : {"Relu", "Sign"}) {
    for (const bool behind : {false, true}) {
      SCOPED_TRACE(fmt::format("{} {}", op, behind));
      Restart();
      if (behind) {
        m.Node(op, {"c"}, "a");
        norm("a", "n");
        pool("n", "y");
      } else {
        pool("c", "p");
        norm("p", "n");
        m.Node(op, {"n"}, "y");
      }
      const std::vector<std::string> layers = LayersOf(ExpectSameBefore("y"));
      const bool kept = std::any_of(layers.begin(), layers.end(), [](const std::string& layer) {
        return layer.find("max_pool2d") != std::string::npos;
      });
      EXPECT_EQ(kept, op == std::string("Sign"));
    }
  }
  // Pools of pools, of the images, and of what two layers read.
  Restart();
  m.Node("Relu", {"c"}, "r");
  pool("r", "p");
  auto& second = m.Node("MaxPool", {"p"}, "q");
  SetInts(second, "kernel_shape", {2, 2});
  SetInts(second, "pads", {1, 1, 0, 0});
  EXPECT_THAT(LayersOf(ExpectSameBefore("q")),
              ElementsAre("c conv2d", "r relu", "p max_pool2d", "MaxPool_1 conv2d",
                          "MaxPool_2 relu", "q max_pool2d", "end conv2d"));
  m = Model({-1, 3, 6, 6});
  pool("x", "p");
  ExpectSameBefore("p");
  Restart();
  pool("c", "p");
  m.Node("Relu", {"p"}, "r");
  m.Node("Add", {"r", "p"}, "y");
  ExpectSameBefore("y");
}

TEST_F(GraphTest, FunctionsThatGrowAreTablesAndReLUs) {
  const auto check = [&](const char* last) {
    m.Node("GlobalAveragePool", {last}, "end");
    const ImportedNetwork network = ExpectSame(m, false, Scaled(), 0.01F);
    EXPECT_THAT(LayersOf(network), Contains(HasSubstr(" table")));
    EXPECT_EQ(std::count_if(network.notes.begin(), network.notes.end(),
                            [](const std::string& note) {
                              return note.find("becomes a table") != std::string::npos;
                            }),
              1);
  };
  for (const char* op : {"Elu", "Celu", "Erf", "Gelu", "HardSwish", "Mish", "Selu", "Softplus"}) {
    SCOPED_TRACE(op);
    Restart();
    m.Node(op, {"c"}, "y");
    check("y");
  }
  // As exporters write them.
  SCOPED_TRACE("products");
  Restart();
  m.Floats("root", {}, {1.41421356F});
  m.Floats("one", {}, {1});
  m.Floats("half", {}, {0.5});
  m.Node("Div", {"c", "root"}, "d");
  m.Node("Erf", {"d"}, "e");
  m.Node("Add", {"e", "one"}, "f");
  m.Node("Mul", {"c", "f"}, "g");
  m.Node("Mul", {"g", "half"}, "gelu");
  check("gelu");
  for (const char* op : {"Sigmoid", "HardSigmoid"}) {
    SCOPED_TRACE(op);
    Restart();
    m.Node(op, {"c"}, "s");
    m.Node("Mul", {"s", "c"}, "y");
    check("y");
  }
  Restart();
  m.Node("Softplus", {"c"}, "s");
  m.Node("Tanh", {"s"}, "t");
  m.Node("Mul", {"c", "t"}, "y");
  check("y");
  // Of anything else the product is none of a value with its function, or one that no table holds.
  Restart();
  m.Weights("w2", {3, 3, 3, 3}, 2);
  Conv("c", "w2", "d");
  m.Node("Sigmoid", {"d"}, "s");
  m.Node("Mul", {"c", "s"}, "y");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Mul 'y'", "multiplies different values");
  Restart();
  m.Floats("one", {}, {1});
  m.Node("Add", {"c", "one"}, "b");
  m.Node("Mul", {"b", "c"}, "y");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Mul 'y'",
                "is a function that is no straight line below -8 or above 8");
}

TEST_F(GraphTest, OperatorsOfSetSix) {
  m.proto.mutable_opset_import(0)->set_version(6);
  m.Floats("each", {3}, {0.5, -1, 2});
  auto& product = m.Node("Mul", {"c", "each"}, "scaled");
  SetInt(product, "broadcast", 1);
  SetInt(product, "axis", 1);
  m.Node("PRelu", {"scaled", "each"}, "y");
  const ImportedNetwork network = m.Import();
  EXPECT_EQ(network.weights.tensors.at("scaled.weight").AsDoubles(),
            (std::vector<double>{0.5, -1, 2}));
  product.mutable_attribute(0)->set_i(0);
  ExpectRefused([&] { m.Import(); }, "m.onnx node Mul 'scaled'", "found broadcast 0");
}

// --- Constants

TEST_F(GraphTest, ConstantsOfEveryKind) {
  auto& floats = *m.Node("Constant", {}, "floats").add_attribute();
  floats.set_name("value_floats");
  floats.set_type(onnx::AttributeProto::FLOATS);
  for (const float value : {1.0F, 2.0F, -0.5F}) floats.add_floats(value);
  auto& ints = *m.Node("Constant", {}, "ints").add_attribute();
  ints.set_name("value_ints");
  ints.set_type(onnx::AttributeProto::INTS);
  for (const int value : {3, 1, 1}) ints.add_ints(value);
  SetFloat(m.Node("Constant", {}, "number"), "value_float", 0.5);
  m.Node("Reshape", {"floats", "ints"}, "each");
  m.Node("Mul", {"c", "each"}, "scaled");
  m.Node("Add", {"scaled", "number"}, "moved");
  m.Node("Relu", {"moved"}, "y");
  ExpectSameBefore("y");
  SetInt(m.Node("Constant", {}, "bad"), "value_string", 1);
  m.Node("Add", {"y", "bad"}, "z");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Constant 'bad'", "has no attribute value");
}

TEST_F(GraphTest, SmallerFloats) {
  // 1, -2, 0.5, 0.25, 65504 and the smallest half; the same of bfloat16 but for the last two.
  Model other({1, 6});
  const std::vector<std::uint16_t> halves = {0x3c00, 0xc000, 0x3800, 0x3400, 0x7bff, 0x0001};
  const std::vector<std::uint16_t> brains = {0x3f80, 0xc000, 0x3f00, 0x3e80, 0x4780, 0x3380};
  const std::vector<float> expected = {1, -2, 0.5, 0.25, 65504, 5.9604645e-8F};
  for (const bool raw : {false, true}) {
    for (const bool half : {false, true}) {
      Model one = other;
      auto& tensor = one.Tensor("w", {6, 1});
      tensor.set_data_type(half ? onnx::TensorProto::FLOAT16 : onnx::TensorProto::BFLOAT16);
      const auto& bits = half ? halves : brains;
      if (raw) {
        tensor.set_raw_data(bits.data(), 12);
      } else {
        for (const std::uint16_t value : bits) tensor.add_int32_data(value);
      }
      one.Node("MatMul", {"x", "w"}, "y");
      auto weights = one.Import().weights.tensors.at("y.weight").AsDoubles();
      EXPECT_EQ(weights[4], half ? 65504 : 65536);
      weights[4] = 65504;
      EXPECT_THAT(weights,
                  testing::Pointwise(testing::DoubleEq(),
                                     std::vector<double>(expected.begin(), expected.end())));
    }
  }
}

class ExternalDataTest : public testing::Test {
 protected:
  ExternalDataTest() : m({1, 2}) {
    auto& tensor = m.Tensor("w", {2, 1});
    tensor.set_data_type(onnx::TensorProto::FLOAT);
    tensor.set_data_location(onnx::TensorProto::EXTERNAL);
    m.Node("MatMul", {"x", "w"}, "y");
    std::vector<char> bytes(12);
    const std::vector<float> numbers = {0.5, -3};
    std::memcpy(bytes.data() + 4, numbers.data(), 8);
    directory_.Write("data.bin", bytes);
  }
  ImportedNetwork Import(const std::map<std::string, std::string>& entries) {
    auto& tensor = *m.proto.mutable_graph()->mutable_initializer(0);
    tensor.clear_external_data();
    for (const auto& [key, value] : entries) {
      auto* entry = tensor.add_external_data();
      entry->set_key(key);
      entry->set_value(value);
    }
    return ParseOnnx(m.Bytes(), directory_.Path() / "m.onnx", {});
  }
  void Refused(const std::map<std::string, std::string>& entries, const std::string& text) {
    ExpectRefused([&] { Import(entries); }, (directory_.Path() / "m.onnx").string() + " tensor w",
                  text);
  }

  Model m;
  ScratchDirectory directory_;
};

TEST_F(ExternalDataTest, IsReadFromTheModelsFolder) {
  const auto network = Import({{"location", "data.bin"}, {"offset", "4"}, {"length", "8"}});
  EXPECT_THAT(network.weights.tensors.at("y.weight").AsDoubles(), ElementsAre(0.5, -3));
  EXPECT_THAT(Import({{"location", "./data.bin"}, {"offset", "4"}}).weights, network.weights);
}

TEST_F(ExternalDataTest, RefusesOtherPlacesAndLengths) {
  Refused({}, "has its data in '', expected a file in the model's folder");
  Refused({{"location", "../data.bin"}}, "expected a file in the model's folder");
  Refused({{"location", "/etc/hostname"}}, "expected a file in the model's folder");
  Refused({{"location", "data.bin"}, {"offset", "5"}}, "found 8 bytes from 5 on of the 12");
  Refused({{"location", "data.bin"}, {"offset", "-4"}}, "found offset '-4'");
  Refused({{"location", "data.bin"}, {"length", "4"}}, "found 4 bytes from 0 on");
  Refused({{"location", "data.bin"}, {"offset", "18446744073709551615"}}, "of the 12");
  std::filesystem::create_symlink("/etc/hostname", directory_.Path() / "link");
  Refused({{"location", "link"}}, "a link to '/etc/hostname'");
}

// --- Sums

TEST_F(GraphTest, DifferencesAreSums) {
  m.Weights("w2", {3, 2, 1, 1}, 4);
  m.Node("Conv", {"x", "w2"}, "d");
  m.Node("Sub", {"c", "d"}, "s");
  m.Node("Relu", {"s"}, "y");
  ExpectSameBefore("y");
}

TEST_F(GraphTest, RefusesWithAdvice) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"Softsign", "docs/networks.md"},
      {"ThresholdedRelu", "train with Relu"},
      {"Softmax", "nothing like it"},
      {"Einsum", "write it as a linear layer or a convolution"},
      {"QuantizeLinear", "before it is quantised"},
      {"LSTM", "chains of layers"},
      {"ConvTranspose", "no layer makes a map larger"},
      {"LRN", "BatchNormalization instead"}};
  for (const auto& [op, advice] : cases) {
    Model other = m;
    other.Node(op, {"c"}, "y");
    other.Node("Relu", {"y"}, "z");
    ExpectRefused([&] { other.Import(); }, fmt::format("m.onnx node {} 'y'", op), advice);
  }
}

}  // namespace
}  // namespace tercet::importer
