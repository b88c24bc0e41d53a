// SPDX-License-Identifier: Apache-2.0
// Every kind of layer that the compile step takes, against the float network.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>

#include "base/scratch.h"
#include "compile/bounds.h"
#include "compile/float_weights.h"
#include "tercet/compile/announcement.h"
#include "tercet/compile/architecture.h"
#include "tercet/compile/compile.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/run_plain.h"

namespace tercet::compile {
namespace {

using mpc::ActivationKind;
using testing::Contains;
using testing::HasSubstr;

constexpr char kInput[] = R"("shape": [2, 8, 8], "scale": 255, "mean": 0.4, "std": 0.5, "bits": 6)";

struct Compiled {
  nn::FloatNetwork network;
  nn::IntegerNetwork integers;
  CompileReport report;
};

Compiled Make(const std::string& layers, CompileOptions options = {}, std::uint64_t seed = 1,
              const std::string& input = kInput) {
  const nn::NetworkSpec spec = Spec(input, layers);
  nn::FloatNetwork network = Weights(seed).FillReal(spec).Network(spec);
  CompileReport report;
  nn::IntegerNetwork integers = Compile(network, Oracle(), options, &report);
  EXPECT_NO_THROW(ProveWidths(integers, "compiled"));
  // Who has only the architecture and what is announced knows the same network.
  const std::string text = AnnouncementToJson(AnnouncementOf(integers.net));
  EXPECT_EQ(NetworkOf(spec, AnnouncementFromJson(text, "compiled"), "compiled"), integers.net);
  return {std::move(network), std::move(integers), std::move(report)};
}

/// The largest difference between integer and float logits, as a part of the largest logit.
double Error(const Compiled& compiled, std::size_t images = 64) {
  const files::Images data = RandomImages(compiled.network.Spec().input.shape, images, 5);
  const std::vector<float> expected = compiled.network.Run(data, 0, images);
  const auto found = nn::RunPlain(compiled.integers, Oracle(), data, 0, images);
  EXPECT_EQ(expected.size(), found.size());
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double logit = static_cast<double>(found[i]) * compiled.report.logit_scale;
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    error = std::max(error, std::abs(logit - static_cast<double>(expected[i])));
  }
  return error / largest;
}

const std::string kConv =
    R"({"name": "c1", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},)";
const std::string kNorm = R"({"name": "b1", "type": "batch_norm"},)";
const std::string kRelu = R"({"name": "r1", "type": "relu"},)";
const std::string kSquare = R"({"name": "q1", "type": "square"},)";
const std::string kSign = R"({"name": "s1", "type": "sign"},)";
const std::string kPool = R"({"name": "p1", "type": "max_pool2d", "kernel": 2},)";
const std::string kAverage = R"({"name": "a1", "type": "avg_pool2d", "kernel": 2},)";
const std::string kFlatten = R"({"name": "f1", "type": "flatten"},)";
const std::string kLast = R"({"name": "fc", "type": "linear", "out_features": 5})";

TEST(CompileLayersTest, FixedPointFollowsTheFloatNetwork) {
  CompileOptions options;
  options.default_fixed_bits = 32;
  options.activation_bits = 12;
  for (const std::string& middle : {kRelu, kNorm + kRelu, kRelu + kPool, kPool + kRelu,
                                    kRelu + kAverage, kRelu + kPool + kAverage}) {
    SCOPED_TRACE(middle);
    const Compiled compiled = Make(kConv + middle + kFlatten + kLast, options);
    ASSERT_EQ(compiled.integers.net.layers.size(), 2U);
    EXPECT_GT(compiled.integers.net.layers[0].shift, 0U);
    EXPECT_LT(Error(compiled), 0.01);
  }
}

// Squares double the bits, so that a bound leaves little of the next layer's weights; measured
// widths show what the arithmetic itself loses.
TEST(CompileLayersTest, SquaresFollowTheFloatNetwork) {
  const files::Images images = RandomImages({2, 8, 8}, 64, 5);
  const std::vector<std::uint8_t> labels(64, 0);
  CompileOptions options;
  options.calibration = &images;
  options.labels = &labels;
  options.measured = true;
  options.min_bits = options.max_bits = 32;
  options.activation_bits = 11;
  for (const std::string& middle : {kSquare, kNorm + kSquare, kSquare + kAverage}) {
    SCOPED_TRACE(middle);
    const Compiled compiled = Make(kConv + middle + kFlatten + kLast, options);
    EXPECT_GT(compiled.integers.net.layers[0].shift, 0U);
    EXPECT_LT(Error(compiled), 0.006);
  }
}

TEST(CompileLayersTest, PoolBeforeAnActivationIsPoolAfterIt) {
  for (const std::size_t kernel : {2U, 8U}) {
    const std::string pool =
        fmt::format(R"({{"name": "p1", "type": "max_pool2d", "kernel": {}}},)", kernel);
    for (const std::string& activation : {kSign, kRelu}) {
      const Compiled before = Make(kConv + pool + activation + kLast);
      const Compiled after = Make(kConv + activation + pool + kLast);
      EXPECT_EQ(before.integers.net.layers[0].pool, (mpc::PoolShape{kernel, kernel}));
      const files::Images images = RandomImages({2, 8, 8}, 40, 1);
      // The range seen, and with it a shift, is that of what leaves the pool.
      if (activation == kSign) {
        EXPECT_EQ(nn::RunPlain(before.integers, Oracle(), images, 0, 40),
                  nn::RunPlain(after.integers, Oracle(), images, 0, 40));
      }
      EXPECT_LT(Error(before), 0.05);
      EXPECT_LT(Error(after), 0.05);
    }
  }
}

TEST(CompileLayersTest, ActivationsKeepTheBitsAskedFor) {
  for (const unsigned bits : {4U, 8U, 11U}) {
    CompileOptions options;
    options.activation_bits = bits;
    options.default_fixed_bits = 28;  // no image asks for more
    for (const std::string& activation : {kRelu, kSquare}) {
      const Compiled compiled = Make(kConv + activation + kLast, options);
      // The next layer's widest value says what the bound of the activations is: measured here on
      // the activation itself.
      const nn::PublicLayer& layer = compiled.integers.net.layers[0];
      const unsigned kept = layer.value_bits - 1 - layer.shift;
      EXPECT_LE(kept, activation == kRelu ? bits + 1 : bits * 3 / 4 + 1);
      EXPECT_GE(kept, activation == kRelu ? bits : bits * 3 / 4);
    }
  }
}

TEST(CompileLayersTest, SignAndFixedPointMix) {
  CompileOptions options;
  options.default_bits = 28;
  options.default_fixed_bits = 32;
  options.activation_bits = 14;
  const Compiled compiled =
      Make(kConv + kSign + R"({"name": "c2", "type": "conv2d", "out_channels": 6, "kernel": 3,
                               "padding": 1},)" +
               kRelu + R"({"name": "l3", "type": "linear", "out_features": 12},)" + kSquare + kLast,
           options);
  ASSERT_EQ(compiled.integers.net.layers.size(), 4U);
  EXPECT_EQ(compiled.integers.net.layers[0].value_bits, 28U);
  EXPECT_TRUE(compiled.integers.net.layers[1].linear.bias_per_element);  // padded bits
  EXPECT_FALSE(compiled.integers.net.layers[2].linear.bias_per_element);
  const files::Images images = RandomImages({2, 8, 8}, 64, 5);
  // A Sign may flip by rounding, so most logits are close, not all.
  const auto expected = compiled.network.Run(images, 0, 64);
  const auto found = nn::RunPlain(compiled.integers, Oracle(), images, 0, 64);
  double largest = 0;
  for (const float v : expected) largest = std::max(largest, std::abs(static_cast<double>(v)));
  std::size_t close = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double logit = static_cast<double>(found[i]) * compiled.report.logit_scale;
    if (std::abs(logit - static_cast<double>(expected[i])) < 0.02 * largest) ++close;
  }
  EXPECT_GT(close, found.size() * 9 / 10);
}

// Sums of bits, zeros around them standing for the real number 0.
TEST(CompileLayersTest, AveragesOfSignsAreExact) {
  for (const char* pool :
       {R"("kernel": 2)", R"("kernel": 3, "stride": 2, "padding": 1)", R"("kernel": 8)"}) {
    const nn::NetworkSpec spec =
        Spec(R"("shape": [1, 8, 8], "scale": 85, "bits": 2)",
             kConv + kSign + R"({"name": "a1", "type": "avg_pool2d", )" + pool + "}," + kNorm +
                 R"({"name": "c2", "type": "conv2d", "out_channels": 3, "kernel": 1, "padding": 1},
                    {"name": "s2", "type": "sign"},)" +
                 kLast);
    const nn::FloatNetwork network = Weights(3).Fill(spec).Network(spec);
    CompileOptions options;
    options.default_bits = 20;
    Compiled compiled{network, {}, {}};
    compiled.integers = Compile(network, Oracle(), options, &compiled.report);
    ASSERT_TRUE(compiled.integers.net.layers[0].sum_pool.has_value());
    EXPECT_EQ(compiled.integers.net.layers.size(), 3U);
    EXPECT_LT(Error(compiled), 1e-3) << pool;
  }
}

const std::string kNorm2 = R"({"name": "b2", "type": "batch_norm"},)";
const std::string kSign2 = R"({"name": "s2", "type": "sign"},)";
const std::string kRelu2 = R"({"name": "r2", "type": "relu"},)";

/// On small integers, which floats and integers of 20 bits compute without rounding.
Compiled MakeExact(const std::string& layers, std::uint64_t seed) {
  nn::NetworkSpec spec = Spec(R"("shape": [1, 8, 8], "scale": 85, "bits": 2)", layers);
  for (nn::LayerSpec& layer : spec.layers) layer.eps = 0;  // factors of exactly -1, 0 and 1
  const nn::FloatNetwork network = Weights(seed).Fill(spec).Network(spec);
  CompileOptions options;
  options.default_bits = 20;
  options.default_fixed_bits = 30;
  Compiled compiled{network, {}, {}};
  compiled.integers = Compile(network, Oracle(), options, &compiled.report);
  EXPECT_NO_THROW(ProveWidths(compiled.integers, "compiled"));
  return compiled;
}

// Where a batch_norm multiplies by less than 0, the least value of a window counts. Ties are many,
// as all are small integers and halves.
TEST(CompileLayersTest, NormsBesideAPoolAreExact) {
  const std::string next = R"({"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 3,
                               "padding": 1, "groups": 2},)";
  const std::string padded =
      R"({"name": "p1", "type": "max_pool2d", "kernel": 3, "stride": 2, "padding": [0, 1, 1, 0]},)";
  const std::string residual = kConv + kPool + kNorm + kSign +
                               R"({"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 1},
                                  {"name": "add2", "type": "add", "from": "s1"},)";
  for (const std::string& layers :
       {kConv + kPool + kNorm + kSign + kLast,
        kConv + kPool + kNorm + kSign + next + kSign2 + kLast,
        kConv + padded + kNorm + kNorm2 + kSign + next + kSign2 + kLast,
        kConv + kNorm + kPool + kNorm2 + kSign + kAverage + kLast,
        kConv + kSign + kNorm + kPool + next + kSign2 + kLast,
        kConv + kSign + kNorm + kNorm2 + padded + kLast, residual + kSign2 + kLast,
        residual + kRelu2 + kLast, kConv + kPool + kNorm + kSign + kFlatten + kNorm2 + kLast}) {
    SCOPED_TRACE(layers);
    for (std::uint64_t seed = 1; seed < 5; ++seed) {
      const Compiled compiled = MakeExact(layers, seed);
      EXPECT_TRUE(compiled.integers.net.layers[0].pool.has_value());
      EXPECT_LT(Error(compiled), 1e-3) << seed;
    }
  }
}

TEST(CompileLayersTest, NormsBesideAPoolAndReluMultiplyByMoreThanZero) {
  CompileOptions options;
  options.default_fixed_bits = 32;
  options.activation_bits = 12;
  for (const std::string& middle : {kPool + kNorm + kRelu, kRelu + kNorm + kPool}) {
    SCOPED_TRACE(middle);
    const nn::NetworkSpec spec = Spec(kInput, kConv + middle + kFlatten + kLast);
    Weights weights(1);
    weights.FillReal(spec).Put("b1.weight", {4}, {0.5, 1, 0, 2});
    Compiled compiled{weights.Network(spec), {}, {}};
    compiled.integers = Compile(compiled.network, Oracle(), options, &compiled.report);
    EXPECT_EQ(compiled.integers.net.layers.size(), 2U);
    EXPECT_LT(Error(compiled), 0.01);

    weights.Put("b1.weight", {4}, {0.5, 1, -0.25, 2});
    try {
      Compile(weights.Network(spec), Oracle(), options, nullptr);
      ADD_FAILURE();
    } catch (const UnsupportedError& error) {
      EXPECT_THAT(error.what(), HasSubstr("layer b1: it multiplies channel 2 by less than 0"));
    }
  }
}

// Numbers around the map are in the bias where they meet it.
TEST(CompileLayersTest, PaddingWithANumberIsExact) {
  const auto conv = [](const char* name, const char* more) {
    return fmt::format(R"({{"name": "{}", "type": "conv2d", "out_channels": 4, "kernel": 3, {}}},)",
                       name, more);
  };
  const std::string first = conv("c1", R"("padding": 1, "pad_value": -1)");
  for (const std::string& layers :
       {first + kSign + conv("c2", R"("padding": [2, 0, 1, 1], "pad_value": 1)") + kSign2 + kLast,
        first + kSign + kPool + conv("c2", R"("padding": 1, "pad_value": 1.5, "groups": 2)") +
            kNorm + kSign2 + kLast,
        first + kNorm + conv("c2", R"("padding": 1, "pad_value": 2, "dilation": 2)") + kSign +
            kLast,
        first + kSign + conv("c2", R"("padding": 1, "pad_value": 1, "bias": false)") +
            conv("c3", R"("padding": 1, "pad_value": -3, "from": "s1")") +
            R"({"name": "add", "type": "add", "from": "c2"},)" + kSign2 + kLast}) {
    SCOPED_TRACE(layers);
    const Compiled compiled = MakeExact(layers, 1);
    EXPECT_LT(Error(compiled), 1e-3);
  }
}

TEST(CompileLayersTest, AveragesThatDoNotCountTheirPaddingAreExact) {
  for (const char* pool :
       {R"("kernel": 3, "stride": 2, "padding": 1)", R"("kernel": 2, "padding": [0, 1, 0, 1])",
        R"("kernel": [2, 3], "stride": [3, 1], "padding": [1, 2, 0, 1])"}) {
    for (const std::string& activation : {kSign, kRelu}) {
      SCOPED_TRACE(pool);
      const Compiled compiled =
          MakeExact(kConv + activation + R"({"name": "a1", "type": "avg_pool2d", )" + pool +
                        R"(, "count_include_pad": false},)" + kNorm + kLast,
                    2);
      ASSERT_TRUE(compiled.integers.net.layers[0].sum_pool.has_value());
      EXPECT_FALSE(compiled.integers.net.layers[0].sum_pool->counts_padding);
      EXPECT_LT(Error(compiled), 1e-3);
    }
  }
}

TEST(CompileLayersTest, ClipsWithoutAScaleAreTwoRelus) {
  const std::string clip = R"({"name": "h1", "type": "clip", "low": -1.5, "high": 2},)";
  const std::string relu6 = R"({"name": "h2", "type": "clip", "low": 0, "high": 6},)";
  const std::string next = R"({"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 3,
                               "padding": 1},)";
  CompileOptions options;
  options.default_fixed_bits = 32;
  options.activation_bits = 12;
  for (const std::string& layers :
       {kConv + clip + kLast, kConv + kNorm + clip + next + relu6 + kAverage + kLast,
        kConv + clip + kPool + next + relu6 + kFlatten + kLast, kConv + kPool + clip + kLast,
        kConv + kRelu + next + R"({"name": "add", "type": "add", "from": "r1"},)" + relu6 + kLast,
        kConv + clip + next + R"({"name": "add", "type": "add", "from": "h1"},)" + kRelu + kLast,
        kConv + kNorm + relu6 + kPool + kFlatten + kLast}) {
    SCOPED_TRACE(layers);
    const Compiled compiled = Make(layers, options);
    EXPECT_EQ(compiled.integers.net.layers[1].activation, ActivationKind::kRelu);
    EXPECT_LT(Error(compiled), 0.01);
  }
  const files::Images images = RandomImages({2, 8, 8}, 64, 5);
  options.calibration = &images;
  options.measured = true;
  EXPECT_LT(Error(Make(kConv + clip + next + relu6 + kLast, options)), 0.05);
}

struct Chain {
  const char* what;
  std::string layers;
  mpc::LinearShape shape;  // of the product; without groups and bias
};

TEST(CompileLayersTest, LinearLayersAreMultipliedOut) {
  const std::string depthwise =
      R"({"name": "d1", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1,
          "groups": 2},)";
  const std::string pointwise =
      R"({"name": "w1", "type": "conv2d", "out_channels": 6, "kernel": 1},)";
  const auto conv = [](std::size_t kernel, std::size_t stride, std::size_t padding,
                       std::size_t out) {
    return mpc::LinearShape{.in = {2, 8, 8},
                            .out_channels = out,
                            .kernel_h = kernel,
                            .kernel_w = kernel,
                            .stride = stride,
                            .padding = padding};
  };
  const auto dense = [](std::size_t out) {
    return mpc::LinearShape{.in = {128, 1, 1}, .out_channels = out};
  };
  const std::vector<Chain> chains = {
      {"depthwise, pointwise", depthwise + pointwise, conv(3, 1, 1, 6)},
      {"depthwise, batch_norm, pointwise", depthwise + kNorm + pointwise, conv(3, 1, 1, 6)},
      {"pointwise, padded convolution", pointwise + R"({"name": "c2", "type": "conv2d",
        "out_channels": 3, "kernel": 3, "padding": 1, "stride": 2},)",
       conv(3, 2, 1, 3)},
      {"convolution, average", kConv + kAverage, conv(4, 2, 1, 4)},
      {"average, padded convolution", kAverage + kConv, conv(6, 2, 2, 4)},
      {"average, strided pointwise",
       kAverage + R"({"name": "c2", "type": "conv2d", "out_channels": 3, "kernel": 1,
                      "stride": 2},)",
       conv(2, 4, 0, 3)},
      {"two unpadded", R"({"name": "c1", "type": "conv2d", "out_channels": 3, "kernel": 3,
                           "stride": 2},
                          {"name": "c2", "type": "conv2d", "out_channels": 2, "kernel": 2},)",
       conv(5, 2, 0, 2)},
      {"padded after padded: dense", kConv + R"({"name": "c2", "type": "conv2d", "out_channels": 3,
        "kernel": 3, "padding": 1},)",
       dense(192)},
      {"padded average between", kConv + R"({"name": "a2", "type": "avg_pool2d", "kernel": 3,
        "stride": 1, "padding": 1}, {"name": "c2", "type": "conv2d", "out_channels": 3,
        "kernel": 2},)",
       dense(147)},
      {"linear after flatten", kConv + kFlatten + R"({"name": "l1", "type": "linear",
        "out_features": 7},)",
       dense(7)},
      {"linear, linear", R"({"name": "l1", "type": "linear", "out_features": 9},
                            {"name": "l2", "type": "linear", "out_features": 7},)",
       dense(7)},
      {"batch_norm of features", kConv + kFlatten + R"({"name": "b1", "type": "batch_norm"},)",
       dense(256)},
      {"batch_norm first", kNorm + kConv, conv(3, 1, 1, 4)},
  };
  CompileOptions options;
  options.default_fixed_bits = 32;
  options.activation_bits = 12;
  for (const Chain& chain : chains) {
    SCOPED_TRACE(chain.what);
    const Compiled compiled = Make(chain.layers + kRelu + kLast, options);
    ASSERT_EQ(compiled.integers.net.layers.size(), 2U);
    mpc::LinearShape shape = compiled.integers.net.layers[0].linear;
    shape.groups = 1;
    shape.bias_per_element = false;
    EXPECT_EQ(shape, chain.shape);
    EXPECT_THAT(compiled.report.lines, Contains(HasSubstr("multiplied out")));
    EXPECT_LT(Error(compiled), 0.003);
  }
}

TEST(CompileLayersTest, ProductsKeepTheirGroups) {
  const Compiled compiled = Make(
      R"({"name": "d1", "type": "conv2d", "out_channels": 4, "kernel": 3, "groups": 2},
         {"name": "d2", "type": "conv2d", "out_channels": 8, "kernel": 2, "groups": 4},)" +
      kRelu + kLast);
  EXPECT_EQ(compiled.integers.net.layers[0].linear.groups, 2U);
  EXPECT_LT(Error(compiled), 0.02);
}

TEST(CompileLayersTest, RefusesProductsThatAreTooLarge) {
  const nn::NetworkSpec spec =
      Spec(R"("shape": [3, 64, 64])",
           R"({"name": "c1", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},
              {"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},
              {"name": "r1", "type": "relu"}, {"name": "fc", "type": "linear", "out_features": 2})");
  const nn::FloatNetwork network = Weights(1).Fill(spec).Network(spec);
  try {
    Compile(network, Oracle(), {}, nullptr);
    ADD_FAILURE();
  } catch (const UnsupportedError& error) {
    EXPECT_THAT(error.what(), HasSubstr("layer c2: multiplied out with c1"));
  }
}

// Basic blocks as those of ResNet18, with an identity and with a convolution on the shortcut.
const std::string kResidual = kConv + kRelu +
                              R"({"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 3,
                                  "padding": 1},
                                 {"name": "b2", "type": "batch_norm"},
                                 {"name": "add2", "type": "add", "from": "r1"},
                                 {"name": "r2", "type": "relu"},
                                 {"name": "c3", "type": "conv2d", "out_channels": 6, "kernel": 3,
                                  "stride": 2, "padding": 1},
                                 {"name": "b3", "type": "batch_norm"},
                                 {"name": "c4", "type": "conv2d", "out_channels": 6, "kernel": 1,
                                  "stride": 2, "from": "r2"},
                                 {"name": "b4", "type": "batch_norm"},
                                 {"name": "add4", "type": "add", "from": "b3"},
                                 {"name": "r4", "type": "relu"},
                                 {"name": "a4", "type": "avg_pool2d", "kernel": 4},)" +
                              kFlatten + kLast;

TEST(CompileLayersTest, ResidualsAreShortcuts) {
  CompileOptions options;
  options.default_fixed_bits = 32;
  options.activation_bits = 12;
  const Compiled compiled = Make(kResidual, options);
  const auto& layers = compiled.integers.net.layers;
  ASSERT_EQ(layers.size(), 4U);
  ASSERT_TRUE(layers[1].shortcut.has_value());
  EXPECT_EQ(layers[1].shortcut->from, 1U);
  EXPECT_FALSE(layers[1].shortcut->linear.has_value());
  EXPECT_GE(compiled.integers.weights[1].shortcut.at(0), 16);
  ASSERT_TRUE(layers[2].shortcut.has_value());
  EXPECT_EQ(layers[2].shortcut->from, 2U);
  EXPECT_TRUE(layers[2].shortcut->linear.has_value());
  EXPECT_EQ(layers[3].name, "fc");
  EXPECT_LT(Error(compiled), 0.03);
}

// A sum of bits, whose zero is -1; batch_norm after the add, which scales the shortcut too.
TEST(CompileLayersTest, ResidualsOfSignAndBeforeBatchNorm) {
  CompileOptions options;
  options.activation_bits = 12;
  const std::string block = R"({"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 3,
                                "padding": 1},
                               {"name": "add2", "type": "add", "from": "s1"},)";
  const Compiled identity = Make(kConv + kSign + block + kRelu + kLast, options);
  ASSERT_TRUE(identity.integers.net.layers[1].shortcut.has_value());
  const Compiled scaled = Make(kConv + kSign + block + kNorm + kRelu + kLast, options);
  EXPECT_TRUE(scaled.integers.net.layers[1].shortcut->linear.has_value());
  const nn::NetworkSpec spec = Spec(R"("shape": [1, 8, 8], "scale": 85, "bits": 2)",
                                    kConv + kSign + block + kNorm + kRelu + kLast);
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const nn::FloatNetwork network = Weights(seed).Fill(spec).Network(spec);
    Compiled exact{network, {}, {}};
    exact.integers = Compile(network, Oracle(), options, &exact.report);
    EXPECT_LT(Error(exact), 0.01) << seed;
  }
}

TEST(CompileLayersTest, ResidualsMayComeFromTheInput) {
  CompileOptions options;
  options.activation_bits = 12;
  const Compiled compiled =
      Make(kConv + kRelu + R"({"name": "c2", "type": "conv2d", "out_channels": 3, "kernel": 3},
                              {"name": "c3", "type": "conv2d", "out_channels": 3, "kernel": 3,
                               "from": "input"},
                              {"name": "add", "type": "add", "from": "c2"},
                              {"name": "r2", "type": "relu"},)" +
               kLast,
           options);
  EXPECT_EQ(compiled.integers.net.layers[1].shortcut->from, 0U);
  EXPECT_LT(Error(compiled), 0.01);
}

TEST(CompileLayersTest, OnlyTheClassIsTheArgMax) {
  for (const std::size_t classes : {2U, 3U, 5U, 6U, 10U}) {
    const std::string layers =
        kConv + kRelu +
        fmt::format(R"({{"name": "fc", "type": "linear", "out_features": {}}})", classes);
    CompileOptions options;
    options.activation_bits = 3;
    options.default_fixed_bits = 13;  // so narrow that logits are often equal
    const Compiled logits = Make(layers, options);
    options.only_class = true;
    const Compiled compared = Make(layers, options);
    const nn::PublicLayer& last = compared.integers.net.layers.back();
    EXPECT_TRUE(compared.integers.net.OnlyClass());
    EXPECT_EQ(last.compared_classes, classes);
    EXPECT_EQ(last.pool.has_value(), classes > 2);
    const files::Images images = RandomImages({2, 8, 8}, 200, 9);
    const auto expected =
        nn::Predictions(nn::RunPlain(logits.integers, Oracle(), images, 0, 200), classes);
    const auto found = nn::RunPlain(compared.integers, Oracle(), images, 0, 200);
    EXPECT_EQ(nn::Predictions(found, classes), expected);
    for (std::size_t i = 0; i < 200; ++i)
      EXPECT_EQ(std::count(found.begin() + static_cast<std::ptrdiff_t>(i * classes),
                           found.begin() + static_cast<std::ptrdiff_t>((i + 1) * classes), 1),
                1);
  }
}

TEST(CompileLayersTest, EqualLogitsGiveTheLowerClass) {
  nn::NetworkSpec spec = Spec(R"("shape": [1, 1, 1], "bits": 1)",
                              R"({"name": "fc", "type": "linear", "out_features": 4})");
  spec.output = "class";
  const nn::FloatNetwork network = Weights(0)
                                       .Put("fc.weight", {4, 1}, {0, 0, 0, 0})
                                       .Put("fc.bias", {4}, {1, 3, 3, 2})
                                       .Network(spec);
  const nn::IntegerNetwork integers = Compile(network, Oracle(), {}, nullptr);
  const files::Images image{{1, 1, 1}, 1, {0}};
  EXPECT_THAT(nn::RunPlain(integers, Oracle(), image, 0, 1), testing::ElementsAre(0, 1, 0, 0));
}

TEST(CompileLayersTest, ComparesSumsToo) {
  CompileOptions options;
  const std::string layers = kConv + kRelu + R"(
      {"name": "l1", "type": "linear", "out_features": 5}, {"name": "r2", "type": "relu"},
      {"name": "l2", "type": "linear", "out_features": 5},
      {"name": "add", "type": "add", "from": "r2"})";
  const Compiled logits = Make(layers, options);
  options.only_class = true;
  const Compiled compared = Make(layers, options);
  const files::Images images = RandomImages({2, 8, 8}, 100, 9);
  EXPECT_EQ(nn::Predictions(nn::RunPlain(compared.integers, Oracle(), images, 0, 100), 5),
            nn::Predictions(nn::RunPlain(logits.integers, Oracle(), images, 0, 100), 5));
}

std::string Table(double input_scale, const std::vector<int>& values) {
  return fmt::format(
      R"({{"name": "t1", "type": "table", "input_scale": {}, "output_scale": 0.25, "values": [{}]}},)",
      input_scale, fmt::join(values, ", "));
}

// Of whole inputs every index, and so every entry, is that of the float network.
TEST(CompileLayersTest, TablesAreThoseOfTheFloatNetwork) {
  std::vector<int> values;
  for (int i = 0; i < 256; ++i) values.push_back(i * i % 61 - 30);
  for (const std::string& after : {std::string(), kAverage}) {
    const nn::NetworkSpec spec =
        Spec(R"("shape": [1, 4, 4], "scale": 85, "bits": 2)",
             R"({"name": "c1", "type": "conv2d", "out_channels": 3, "kernel": 3, "padding": 1},)" +
                 Table(1, values) + after + kLast);
    CompileReport report;
    nn::FloatNetwork network = Weights(3).Fill(spec).Network(spec);
    nn::IntegerNetwork integers = Compile(network, Oracle(), {}, &report);
    const nn::PublicLayer& layer = integers.net.layers[0];
    EXPECT_EQ(layer.value_bits - layer.shift, 8U);
    EXPECT_TRUE(layer.proven);
    EXPECT_EQ(*std::min_element(layer.table.begin(), layer.table.end()), 0);
    EXPECT_LT(Error({std::move(network), std::move(integers), std::move(report)}), 1e-6);
  }
}

TEST(CompileLayersTest, WhatEntersATableIsProvenToBeInIt) {
  std::vector<int> values(64);
  std::iota(values.begin(), values.end(), -9);
  Make(kConv + Table(1, values) + kLast);
  const auto error = [&](const std::string& layers, CompileOptions options = {}) -> std::string {
    try {
      Make(layers, options);
    } catch (const tercet::Error& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_THAT(
      error(kConv + Table(0.1, values) + kLast),
      testing::AllOf(HasSubstr("layer c1: found values from -"),
                     HasSubstr("over all images, which its table of -3.25 to 3.15 does not hold")));
  EXPECT_THAT(error(kConv + kPool + Table(1, values) + kLast), HasSubstr("the largest table"));
  EXPECT_THAT(error(kConv + Table(1, values) + kPool + kLast), HasSubstr("after table"));
  EXPECT_THAT(error(kConv + kRelu +
                    R"({"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 1},
                       {"name": "add", "type": "add", "from": "r1"},)" +
                    Table(50, values) + kLast),
              HasSubstr("layer t1: the compile step does not support table on a sum"));
}

class CalibratedLayersTest : public testing::Test {
 protected:
  Compiled MakeCalibrated(const std::string& layers, CompileOptions options) {
    const nn::NetworkSpec spec = Spec(kInput, layers);
    const nn::FloatNetwork network = Weights(1).FillReal(spec).Network(spec);
    labels_ = nn::Predictions(network.Run(images_, 0, images_.count), 5);
    options.calibration = &images_;
    options.labels = &labels_;
    return Make(layers, options);
  }
  double Accuracy(const Compiled& compiled) {
    const auto found =
        nn::Predictions(nn::RunPlain(compiled.integers, Oracle(), images_, 0, images_.count), 5);
    double correct = 0;
    for (std::size_t i = 0; i < found.size(); ++i) correct += found[i] == labels_[i] ? 1 : 0;
    return 100 * correct / static_cast<double>(found.size());
  }

  const files::Images images_ = RandomImages({2, 8, 8}, 1000, 6);
  std::vector<std::uint8_t> labels_;
};

TEST_F(CalibratedLayersTest, SearchesWidthsOfFixedPoint) {
  for (const std::string& layers : {kConv + kRelu + kPool + kLast, kConv + kSquare + kLast,
                                    kConv + kSign + kAverage + kLast, kResidual}) {
    SCOPED_TRACE(layers);
    CompileOptions options;
    options.max_loss = 1;
    const Compiled compiled = MakeCalibrated(layers, options);
    EXPECT_DOUBLE_EQ(Accuracy(compiled), compiled.report.integer_accuracy);
    EXPECT_GT(compiled.report.integer_accuracy, 95);
    for (const nn::PublicLayer& layer : compiled.integers.net.layers) {
      EXPECT_TRUE(layer.proven);
      EXPECT_LT(layer.value_bits, 31U);
    }
    EXPECT_THAT(compiled.report.lines, Contains(HasSubstr("head-room")));
  }
}

TEST_F(CalibratedLayersTest, MeasuredWidthsHoldWhatWasSeenAndHeadRoom) {
  for (const unsigned head_room : {0U, 3U}) {
    CompileOptions options;
    options.measured = true;
    options.head_room = head_room;
    options.max_loss = 1;
    const Compiled compiled = MakeCalibrated(kResidual, options);
    std::vector<nn::ValueRange> ranges;
    nn::RunPlain(compiled.integers, Oracle(), images_, 0, images_.count, &ranges);
    for (std::size_t l = 0; l < ranges.size(); ++l) {
      const nn::PublicLayer& layer = compiled.integers.net.layers[l];
      EXPECT_FALSE(layer.proven);
      EXPECT_EQ(layer.value_bits, std::max(ranges[l].Bits() + head_room, layer.shift + 1));
    }
    EXPECT_GT(Accuracy(compiled), 95);
    const auto warnings = std::count_if(
        compiled.report.lines.begin(), compiled.report.lines.end(), [](const std::string& line) {
          return line.starts_with(kWarningLine) && line.ends_with("more head-room");
        });
    EXPECT_EQ(warnings, head_room == 0 ? 4 : 0);
  }
}

TEST_F(CalibratedLayersTest, MeasuringLeavesLayersOfBitsProven) {
  CompileOptions options;
  options.measured = true;
  options.max_loss = 5;
  const Compiled compiled = MakeCalibrated(
      kConv + kSign + R"({"name": "l1", "type": "linear", "out_features": 16},)" + kRelu + kLast,
      options);
  EXPECT_TRUE(compiled.integers.net.layers[0].proven);
  EXPECT_FALSE(compiled.integers.net.layers[1].proven);
  EXPECT_FALSE(compiled.integers.net.layers[2].proven);
}

TEST(CompileLayersTest, RefusesOptionsThatDoNotFit) {
  const auto expect = [](CompileOptions options, const std::string& place,
                         const std::string& text) {
    const nn::NetworkSpec spec = Spec(kInput, kConv + kRelu + kLast);
    const nn::FloatNetwork network = Weights(1).FillReal(spec).Network(spec);
    ExpectConfigError([&] { Compile(network, Oracle(), options, nullptr); }, place, text);
  };
  expect({.max_bits = 33}, "compile widths", "max_bits 33");
  expect({.default_fixed_bits = 1}, "compile default_bits", "found 1");
  expect({.activation_bits = 1}, "compile activation_bits", "found 1");
  expect({.measured = true}, "compile widths", "without calibration");
  expect({.head_room = 17}, "compile head_room", "found 17");
}

// Bounds of a deep network of large layers leave nothing of the weights, even in 32 bits.
TEST(CompileLayersTest, BoundsThatDoNotFitNameTheLayer) {
  std::string layers;
  for (int l = 0; l < 9; ++l)
    layers += fmt::format(R"({{"name": "l{0}", "type": "linear", "out_features": 64}},
                             {{"name": "r{0}", "type": "relu"}},)",
                          l);
  CompileOptions options;
  options.default_fixed_bits = 32;
  const nn::NetworkSpec spec = Spec(kInput, layers + kLast);
  const files::Images images = RandomImages({2, 8, 8}, 20, 6);
  const std::vector<std::uint8_t> labels(20, 0);
  options.calibration = &images;
  options.labels = &labels;
  const nn::FloatNetwork network = Weights(1).FillReal(spec).Network(spec);
  try {
    Compile(network, Oracle(), options, nullptr);
    ADD_FAILURE() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("network N layer l"));
    EXPECT_THAT(error.what(), HasSubstr("measure the widths"));
  }
}

// Comparisons with what is no number are false, so that nothing else would notice it.
TEST(CompileLayersTest, RefusesFloatNetworksThatOverflow) {
  const nn::NetworkSpec spec = Spec(kInput, kConv + kRelu + kLast);
  Weights weights(1);
  weights.FillReal(spec);
  for (auto& [name, tensor] : weights.File().tensors)
    tensor = files::TensorData::FromFloats(tensor.shape, Floats(tensor.Count(), 1e30F));
  const files::Images images = RandomImages({2, 8, 8}, 20, 6);
  CompileOptions options;
  options.calibration = &images;
  options.accept_loss = true;
  ExpectConfigError([&] { Compile(weights.Network(spec), Oracle(), options, nullptr); },
                    "network N layer fc", "overflows");
}

// One image again and again, or black ones, say nothing of the width that other images need.
TEST(CompileLayersTest, RefusesImagesThatAreAllAlike) {
  const nn::NetworkSpec spec = Spec(kInput, kConv + kRelu + kLast);
  const nn::FloatNetwork network = Weights(1).FillReal(spec).Network(spec);
  files::Images images{{2, 8, 8}, 20, {}};
  images.pixels.assign(20 * 128, 0);
  CompileOptions options;
  options.calibration = &images;
  ExpectConfigError([&] { Compile(network, Oracle(), options, nullptr); }, "network N layer c1",
                    "the same for all 20 calibration images");
  options.accept_loss = true;
  EXPECT_THAT(Compile(network, Oracle(), options, nullptr).warnings,
              Contains(HasSubstr("the same for all 20 calibration images")));
}

// Most images are told by a bright pixel, so the margins of the others count as near ties: no
// agreement shows that they are lost. In 100 images `zeros` have the pixel of class 0 and `ones`
// that of class 1.
void ExpectLossAmongNearTies(std::size_t zeros, std::size_t ones, const std::string& message) {
  constexpr std::size_t kImages = 1000;
  const nn::NetworkSpec spec =
      Spec(R"("shape": [1, 4, 4], "scale": 255, "bits": 8)",
           R"({"name": "fc", "type": "linear", "out_features": 2, "bias": false})");
  std::mt19937_64 rng(3);
  std::normal_distribution<float> normal;
  Floats rows(32);
  for (float& w : rows) w = normal(rng);
  for (std::size_t k = 0; k < 2; ++k) {  // the other pixels are balanced
    float sum = 0;
    for (std::size_t i = 2; i < 16; ++i) sum += rows[k * 16 + i];
    for (std::size_t i = 2; i < 16; ++i) rows[k * 16 + i] -= sum / 14;
    rows[k * 16 + k] = 200;
    rows[k * 16 + 1 - k] = -200;
  }
  Weights weights(1);
  weights.Put("fc.weight", {2, 16}, rows);
  files::Images images = RandomImages({1, 4, 4}, kImages, 5);
  for (std::size_t i = 0; i < kImages; ++i) {
    images.pixels[i * 16] = i % 100 < zeros ? 255 : 0;
    images.pixels[i * 16 + 1] = i % 100 >= zeros && i % 100 < zeros + ones ? 255 : 0;
  }
  const nn::FloatNetwork network = weights.Network(spec);
  const std::vector<float> logits = network.Run(images, 0, kImages);
  std::vector<std::uint8_t> labels(kImages);
  for (std::size_t i = 0; i < kImages; ++i) labels[i] = logits[2 * i] >= logits[2 * i + 1] ? 0 : 1;
  CompileOptions options;
  options.calibration = &images;
  options.labels = &labels;
  ExpectConfigError([&] { Compile(network, Oracle(), options, nullptr); }, "network N", message);
  options.accept_loss = true;
  EXPECT_THAT(Compile(network, Oracle(), options, nullptr).warnings, Contains(HasSubstr(message)));
}

TEST(CompileLayersTest, RefusesOneClassForAll) {
  ExpectLossAmongNearTies(60, 0, "predicts class 0 for all 1000 images");
}

TEST(CompileLayersTest, RefusesAccuracyLostAmongNearTies) {
  ExpectLossAmongNearTies(40, 20, "points less accurate than the float network on 1000 images");
}

TEST(CompileLayersTest, ComparesOnlyAsManyClassesAsTheDefaultSuiteCan) {
  const auto spec = [](int classes) {
    return Spec(kInput,
                fmt::format(R"({{"name": "fc", "type": "linear", "out_features": {}}})", classes));
  };
  EXPECT_EQ(Architecture(spec(65), true).layers.back().compared_classes, 65u);
  try {
    Architecture(spec(66), true);
    ADD_FAILURE() << "no error";
  } catch (const UnsupportedError& error) {
    EXPECT_THAT(error.what(), HasSubstr("layer fc: found 66 classes"));
  }
}

}  // namespace
}  // namespace tercet::compile
