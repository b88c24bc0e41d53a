// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/compile.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "base/scratch.h"
#include "compile/agreement.h"
#include "compile/bounds.h"
#include "compile/float_weights.h"
#include "tercet/compile/announcement.h"

namespace tercet::compile {
namespace {

using mpc::ActivationKind;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Compiled : nn::IntegerNetwork {
  double logit_scale = 1;
};

Compiled CompileBy(const nn::FloatNetwork& network, const CompileOptions& options,
                   CompileReport* report = nullptr) {
  CompileReport own;
  if (report == nullptr) report = &own;
  Compiled compiled{Compile(network, Oracle(), options, report)};
  compiled.logit_scale = report->logit_scale;
  return compiled;
}

Compiled CompileWith(const nn::FloatNetwork& network, unsigned bits) {
  return CompileBy(network, {.accept_loss = true, .default_bits = bits});
}

/// Expects the integer logits to be those of the float network, up to the rounding of the last
/// layer.
void ExpectSameLogits(const nn::FloatNetwork& network, const Compiled& compiled,
                      const files::Images& images) {
  const std::vector<float> expected = network.Run(images, 0, images.count);
  const std::vector<std::int64_t> found = nn::RunPlain(compiled, Oracle(), images, 0, images.count);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(static_cast<double>(found[i]) * compiled.logit_scale, expected[i], 0.05) << i;
}

/// Pixels 0, 85, 170, 255 become the real numbers 0, 1, 2, 3.
constexpr char kFourFeatures[] = R"("shape": [4, 1, 1], "scale": 85, "bits": 2)";
constexpr char kOneSignLayer[] = R"(
  {"name": "fc1", "type": "linear", "out_features": 9},
  {"name": "bn1", "type": "batch_norm", "eps": 1e-12},
  {"name": "act1", "type": "sign"},
  {"name": "fc2", "type": "linear", "out_features": 9, "bias": false})";

constexpr char kTwoSignLayers[] = R"(
  {"name": "conv1", "type": "conv2d", "out_channels": 8, "kernel": 3, "padding": 1},
  {"name": "bn1", "type": "batch_norm"},
  {"name": "act1", "type": "sign", "suite": "lut"},
  {"name": "pool1", "type": "max_pool2d", "kernel": 2},
  {"name": "flatten", "type": "flatten"},
  {"name": "fc1", "type": "linear", "out_features": 24},
  {"name": "bn2", "type": "batch_norm"},
  {"name": "act2", "type": "sign"},
  {"name": "fc2", "type": "linear", "out_features": 5},
  {"name": "bn3", "type": "batch_norm"})";
constexpr char kSmallInput[] = R"("shape": [1, 6, 6], "bits": 4)";

files::Images AllFourFeatures() {
  files::Images images{{4, 1, 1}, 256, {}};
  for (int i = 0; i < 256; ++i)
    for (int shift = 0; shift < 8; shift += 2)
      images.pixels.push_back(static_cast<std::uint8_t>((i >> shift & 3) * 85));
  return images;
}

Floats Identity(std::size_t n) {
  Floats values(n * n);
  for (std::size_t i = 0; i < n; ++i) values[i * n + i] = 1;
  return values;
}

// Every input, ties included: weights and thresholds are such that many values are exactly zero.
TEST(CompileTest, GammaOfEverySign) {
  const nn::NetworkSpec spec = Spec(kFourFeatures, kOneSignLayer);
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Weights weights(seed);
    weights.Fill(spec)
        .Put("fc2.weight", {9, 9}, Identity(9))
        .Put("bn1.weight", {9}, {2, -2, 0, -0.0F, 0, 2, -2, 4, -1})
        .Put("bn1.bias", {9}, {1, 1, 0, -1, 0.5, 0, 0, -2, 0.5});
    const nn::FloatNetwork network = weights.Network(spec);
    ExpectSameLogits(network, CompileWith(network, 12), AllFourFeatures());
  }
}

// As with factors and shifts that were rounded by hand; those that are not are another network.
TEST(CompileTest, RoundsNormalisationToAScale) {
  const nn::NetworkSpec spec = Spec(kFourFeatures, kOneSignLayer);
  const auto network = [&](float factor, float shift) {
    Weights weights(3);
    weights.Fill(spec)
        .Put("fc1.weight", {9, 4}, Floats(36, 1))
        .Put("fc1.bias", {9}, Floats(9, 0))
        .Put("fc2.weight", {9, 9}, Identity(9))
        .Put("bn1.weight", {9}, Floats(9, factor))
        .Put("bn1.bias", {9}, Floats(9, shift))
        .Put("bn1.running_mean", {9}, Floats(9, 0))
        .Put("bn1.running_var", {9}, Floats(9, 1));
    return weights.Network(spec);
  };
  const auto logits = [&](const nn::FloatNetwork& from, double scale) {
    CompileOptions options{.accept_loss = true, .default_bits = 12};
    options.norm_scale = scale;
    const files::Images images = AllFourFeatures();
    return nn::RunPlain(CompileBy(from, options), Oracle(), images, 0, images.count);
  };
  // The sum, an integer, has to reach 6.2 / 1.04 = 5.96, rounded to tenths 6.2 / 1.0.
  const nn::FloatNetwork exact = network(1.04F, -6.2F), rounded = network(1.0F, -6.2F);
  EXPECT_EQ(logits(exact, 10), logits(rounded, 0));
  EXPECT_NE(logits(exact, 0), logits(rounded, 0));
  EXPECT_EQ(logits(exact, 1e6), logits(exact, 0));
  EXPECT_THROW(logits(exact, -1), ConfigError);
}

TEST(CompileTest, ThresholdsOutsideTheRange) {
  const nn::NetworkSpec spec = Spec(kFourFeatures, kOneSignLayer);
  constexpr float kHuge = 1e30F, kTiny = 1e-30F;
  Weights weights(1);
  weights.Fill(spec)
      .Put("fc2.weight", {9, 9}, Identity(9))
      .Put("bn1.weight", {9}, {2, 2, -2, -2, kTiny, kTiny, -kTiny, 2, 2})
      .Put("bn1.bias", {9}, {1e4, -1e4, 1e4, -1e4, kHuge, -kHuge, kHuge, 0, 0})
      .Put("bn1.running_mean", {9}, {0, 0, 0, 0, 0, 0, 0, kHuge, -kHuge});
  const nn::FloatNetwork network = weights.Network(spec);
  const Compiled compiled = CompileWith(network, 12);
  ExpectSameLogits(network, compiled, AllFourFeatures());
}

TEST(CompileTest, WeightsOfZero) {
  const nn::NetworkSpec spec = Spec(kFourFeatures, kOneSignLayer);
  Weights weights(2);
  weights.Fill(spec)
      .Put("fc1.weight", {9, 4}, Floats(36, 0))
      .Put("fc2.weight", {9, 9}, Identity(9));
  const nn::FloatNetwork network = weights.Network(spec);
  const Compiled compiled = CompileWith(network, 8);
  ExpectSameLogits(network, compiled, AllFourFeatures());
  for (const std::int64_t b : compiled.weights[0].bias) EXPECT_THAT(b, testing::AnyOf(0, -1));
}

// Weights that training has rounded to a step of its own keep exactly those values, however odd the
// step, as soon as the width has room for them.
TEST(CompileTest, RoundedWeightsAreRecognised) {
  const nn::NetworkSpec spec = Spec(R"("shape": [20, 1, 1], "scale": 85, "bits": 2)",
                                    R"({"name": "fc1", "type": "linear", "out_features": 6},
                                   {"name": "act1", "type": "sign"},
                                   {"name": "fc2", "type": "linear", "out_features": 6})");
  constexpr float kStep = 0.01371F;
  std::mt19937_64 rng(4);
  Floats rounded(120);
  std::vector<std::int64_t> steps(120);
  for (std::size_t i = 0; i < 120; ++i) {
    // One weight in each channel is the largest; 113 is prime, so no coarser step serves.
    steps[i] = i % 20 == 0 ? 113 : static_cast<std::int64_t>(rng() % 200) - 100;
    rounded[i] = static_cast<float>(steps[i]) * kStep;
  }
  Weights weights(4);
  weights.Fill(spec).Put("fc1.weight", {6, 20}, rounded);
  const Compiled compiled = CompileWith(weights.Network(spec), 14);
  for (std::size_t i = 0; i < 120; ++i)
    EXPECT_EQ(compiled.weights[0].weight[i] * 113,
              compiled.weights[0].weight[i / 20 * 20] * steps[i]);
}

// Two padded layers deep in the network, and padding around an input whose zero is no integer.
TEST(CompileTest, PaddedConvolutionsAreExact) {
  const nn::NetworkSpec spec =
      Spec(R"("shape": [2, 6, 6], "scale": 85, "mean": 1.5, "std": 0.5, "bits": 2)",
           R"({"name": "conv1", "type": "conv2d", "out_channels": 6, "kernel": 3, "padding": 1},
         {"name": "bn1", "type": "batch_norm"},
         {"name": "act1", "type": "sign"},
         {"name": "conv2", "type": "conv2d", "out_channels": 6, "kernel": 3, "padding": 2,
          "stride": 2, "groups": 3, "bias": false},
         {"name": "bn2", "type": "batch_norm"},
         {"name": "act2", "type": "sign"},
         {"name": "pool2", "type": "max_pool2d", "kernel": 2, "stride": 1},
         {"name": "conv3", "type": "conv2d", "out_channels": 6, "kernel": 3, "padding": 1,
          "groups": 6},
         {"name": "act3", "type": "sign"},
         {"name": "conv4", "type": "conv2d", "out_channels": 5, "kernel": 3, "padding": 1},
         {"name": "bn4", "type": "batch_norm"})");
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const nn::FloatNetwork network = Weights(seed).Fill(spec).Network(spec);
    const Compiled compiled = CompileWith(network, 16);
    for (const nn::PublicLayer& layer : compiled.net.layers)
      EXPECT_TRUE(layer.linear.bias_per_element) << layer.name;
    ExpectSameLogits(network, compiled, RandomImages({2, 6, 6}, 70, seed));
  }
}

TEST(CompileTest, PaddingWithZeroNeedsNoBiasPerElement) {
  const nn::NetworkSpec spec =
      Spec(R"("shape": [1, 5, 5], "scale": 85, "bits": 2)",
           R"({"name": "conv1", "type": "conv2d", "out_channels": 3, "kernel": 3, "padding": 1},
         {"name": "act1", "type": "sign"},
         {"name": "fc1", "type": "linear", "out_features": 4})");
  const nn::FloatNetwork network = Weights(3).Fill(spec).Network(spec);
  const Compiled compiled = CompileWith(network, 16);
  EXPECT_FALSE(compiled.net.layers[0].linear.bias_per_element);
  EXPECT_EQ(compiled.weights[0].bias.size(), 3U);
  ExpectSameLogits(network, compiled, RandomImages({1, 5, 5}, 100, 4));
}

TEST(CompileTest, LayersOfTheResult) {
  const nn::NetworkSpec spec = Spec(kSmallInput, kTwoSignLayers);
  const Compiled compiled = CompileWith(Weights(5).FillReal(spec).Network(spec), 14);
  const nn::PublicNetwork& net = compiled.net;
  EXPECT_EQ(net.name, "N");
  EXPECT_EQ(net.spec_digest, spec.Digest());
  EXPECT_EQ(net.input, spec.input);
  EXPECT_EQ(net.Classes(), 5U);
  ASSERT_EQ(net.layers.size(), 3U);
  EXPECT_EQ(net.layers[0].name, "conv1");
  EXPECT_EQ(net.layers[0].type, "conv2d+batch_norm+sign+max_pool2d");
  EXPECT_EQ(net.layers[0].activation, ActivationKind::kSign);
  EXPECT_EQ(net.layers[0].pool, (mpc::PoolShape{2, 2}));
  EXPECT_EQ(net.layers[0].suite, "lut");
  EXPECT_EQ(net.layers[1].type, "linear+batch_norm+sign");
  EXPECT_EQ(net.layers[1].linear.in, (mpc::Shape3{72, 1, 1}));
  EXPECT_EQ(net.layers[2].type, "linear+batch_norm");
  EXPECT_EQ(net.layers[2].activation, ActivationKind::kNone);
  EXPECT_EQ(NetworkOf(spec, AnnouncementOf(net), "net"), net);
}

TEST(CompileTest, EveryWidthIsProvenAndUsed) {
  const nn::NetworkSpec spec = Spec(kSmallInput, kTwoSignLayers);
  const nn::FloatNetwork network = Weights(6).FillReal(spec).Network(spec);
  for (unsigned bits = 2; bits <= 32; ++bits) {
    nn::IntegerNetwork compiled = CompileWith(network, bits);
    // Parties accept no wider logits: 24 bits and 16 of a weight, with signs and bias.
    EXPECT_EQ(MostLogitBits(compiled.net), 23U);
    for (nn::PublicLayer& layer : compiled.net.layers)
      EXPECT_EQ(layer.value_bits, layer.name == "fc2" ? std::min(bits, 23U) : bits);
    EXPECT_NO_THROW(ProveWidths(compiled, "model"));
    if (bits < 12) continue;  // narrow layers cannot use their width with whole weights
    for (nn::PublicLayer& layer : compiled.net.layers) {
      --layer.value_bits;
      EXPECT_THROW(ProveWidths(compiled, "model"), ConfigError) << layer.name << " " << bits;
      ++layer.value_bits;
    }
  }
}

TEST(CompileTest, WideLayersFollowTheFloatNetwork) {
  const nn::NetworkSpec spec = Spec(kSmallInput, kTwoSignLayers);
  const nn::FloatNetwork network = Weights(7).FillReal(spec).Network(spec);
  ExpectSameLogits(network, CompileWith(network, 28), RandomImages({1, 6, 6}, 300, 8));
}

TEST(CompileTest, ReportsWidthsWithoutCalibration) {
  const nn::NetworkSpec spec = Spec(kSmallInput, kTwoSignLayers);
  CompileReport report;
  std::vector<std::string> progress;
  CompileOptions options;
  options.progress = [&](const std::string& line) { progress.push_back(line); };
  Compile(Weights(5).FillReal(spec).Network(spec), Oracle(), options, &report);
  EXPECT_THAT(report.lines,
              ElementsAre(HasSubstr("no calibration images"), HasSubstr("conv1: "),
                          HasSubstr("fc1: "), HasSubstr("fc2: "),
                          HasSubstr("integer and float network on 512 synthetic images")));
  EXPECT_EQ(progress, report.lines);
  EXPECT_GT(report.agreement, 99);
  EXPECT_LT(report.noise, 0.02);
}

TEST(CompileTest, TellsHowMuchOfTheSearchIsDone) {
  const nn::NetworkSpec spec = Spec(kSmallInput, kTwoSignLayers);
  const files::Images images = RandomImages({1, 6, 6}, 100, 8);
  std::vector<double> parts;
  CompileReport report;
  Compile(Weights(5).FillReal(spec).Network(spec), Oracle(),
          {.calibration = &images, .on_search = [&](double part) { parts.push_back(part); }},
          &report);
  ASSERT_GT(parts.size(), 6U);
  EXPECT_GE(parts.front(), 0);
  EXPECT_LT(parts.front(), 0.5);
  EXPECT_TRUE(std::is_sorted(parts.begin(), parts.end()));
  EXPECT_NEAR(parts.back(), 1, 1e-9);
}

// 14 bits used to be all that a layer got without images: too few here.
TEST(CompileTest, WithoutImagesWidthsAreWhatSumsNeed) {
  const nn::NetworkSpec spec = Spec(R"("shape": [1, 20, 20], "bits": 8)",
                                    R"({"name": "fc1", "type": "linear", "out_features": 64},
                                   {"name": "act1", "type": "sign"},
                                   {"name": "fc2", "type": "linear", "out_features": 10})");
  const nn::FloatNetwork network = Weights(4).FillReal(spec).Network(spec);
  CompileReport report;
  const nn::IntegerNetwork compiled = Compile(network, Oracle(), {}, &report);
  EXPECT_GT(compiled.net.layers[0].value_bits, 20U);
  EXPECT_LT(compiled.net.layers[1].value_bits, 18U) << "bits need less";
  EXPECT_THAT(compiled.warnings, IsEmpty());
  const files::Images images = RandomImages({1, 20, 20}, 200, 5);
  const auto expected = nn::Predictions(network.Run(images, 0, images.count), 10);
  const auto found = nn::RunPlain(compiled, Oracle(), images, 0, images.count);
  const auto predicted = nn::Predictions(found, 10);
  std::size_t same = 0;
  for (std::size_t i = 0; i < images.count; ++i) same += predicted[i] == expected[i] ? 1 : 0;
  EXPECT_GE(same, 198U);
}

/// Black, white, checkerboards, and pixels that are black or white at random.
files::Images Saturated(const mpc::Shape3& shape) {
  files::Images images = ExtremeImages(shape);
  files::Images random = RandomImages(shape, 60, 3);
  for (auto& pixel : random.pixels) pixel = pixel < 128 ? 0 : 255;
  images.count += random.count;
  images.pixels.insert(images.pixels.end(), random.pixels.begin(), random.pixels.end());
  return images;
}

// No synthetic image is like these; widths hold what they give, as is proven, and predictions are
// those of the float network.
TEST(CompileTest, WithoutImagesWidthsAreEnoughForExtremeImages) {
  constexpr char kEnd[] = R"({"name": "flatten", "type": "flatten"},
                             {"name": "fc1", "type": "linear", "out_features": 5})";
  const std::string conv =
      R"({"name": "conv1", "type": "conv2d", "out_channels": 8, "kernel": 3},)";
  for (const std::string& layers :
       {std::string(kTwoSignLayers), conv + R"({"name": "r", "type": "relu"},)" + kEnd,
        conv + R"({"name": "s", "type": "square"},)" + kEnd,
        conv +
            R"({"name": "r", "type": "relu"}, {"name": "p", "type": "avg_pool2d", "kernel": 2},)" +
            kEnd}) {
    const nn::NetworkSpec spec = Spec(kSmallInput, layers);
    const files::Images images = Saturated(spec.input.shape);
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      SCOPED_TRACE(fmt::format("{} seed {}", layers, seed));
      const nn::FloatNetwork network = Weights(seed).FillReal(spec).Network(spec);
      const auto compiled = CompileBy(network, {});
      EXPECT_NO_THROW(ProveWidths(compiled, "model"));
      std::vector<nn::ValueRange> ranges;
      const auto found = nn::RunPlain(compiled, Oracle(), images, 0, images.count, &ranges);
      ASSERT_EQ(ranges.size(), compiled.net.layers.size());
      for (std::size_t l = 0; l < ranges.size(); ++l)
        EXPECT_LE(ranges[l].Bits(), compiled.net.layers[l].value_bits) << l;
      // A Sign may fall the other way in a few of many.
      const Reference all(network.Run(images, 0, images.count), 5);
      EXPECT_LT(all.Compare({found.begin(), found.end()}).apart, 5);
      const Reference extremes(network.Run(images, 0, 4), 5, &all);
      EXPECT_EQ(extremes.Compare({found.begin(), found.begin() + 4 * 5}).apart, 0);
      EXPECT_THAT(compiled.warnings, IsEmpty());
    }
  }
}

// A feature that only an image which is white all over has, and that gets lost beside another.
TEST(CompileTest, WhatExtremeImagesLoseIsSaid) {
  const nn::NetworkSpec spec = Spec(R"("shape": [1, 6, 6], "bits": 8)",
                                    R"({"name": "fc1", "type": "linear", "out_features": 2},
                                       {"name": "r", "type": "relu"},
                                       {"name": "fc2", "type": "linear", "out_features": 2})");
  Floats first(72, 1e-3F);
  for (std::size_t i = 0; i < 36; ++i) first[i] = i % 2 == 0 ? 1.0F : -1.0F;
  Weights weights(1);
  weights.Put("fc1.weight", {2, 36}, first)
      .Put("fc1.bias", {2}, {0, -35e-3F})
      .Put("fc2.weight", {2, 2}, {0.05F, 0, 0, 1000})
      .Put("fc2.bias", {2}, {0.5F, 0});
  const nn::FloatNetwork network = weights.Network(spec);
  const files::Images sample = SyntheticImages(spec.input.shape, 512);
  EXPECT_THAT(nn::Predictions(network.Run(sample, 0, sample.count), 2), testing::Each(0));
  const files::Images extremes = ExtremeImages(spec.input.shape);
  EXPECT_THAT(nn::Predictions(network.Run(extremes, 0, extremes.count), 2),
              ElementsAre(0, 1, 0, 0));
  EXPECT_THAT(CompileBy(network, {}).warnings,
              ElementsAre(HasSubstr("predicts 1 of 4 extreme images")));
  EXPECT_THAT(CompileBy(network, {.activation_bits = 16}).warnings, IsEmpty());
}

// Weights of -1 and +1 need no more bits than their sums have, and lose nothing.
TEST(CompileTest, WeightsOfOneAreExactInFewBits) {
  const nn::NetworkSpec spec = Spec(R"("shape": [1, 28, 28], "scale": 15, "bits": 4)",
                                    R"({"name": "fc1", "type": "linear", "out_features": 32},
                                   {"name": "act1", "type": "sign"},
                                   {"name": "fc2", "type": "linear", "out_features": 32},
                                   {"name": "act2", "type": "sign"},
                                   {"name": "fc3", "type": "linear", "out_features": 10})");
  Weights weights(3);
  weights.Fill(spec);
  for (auto& [name, tensor] : weights.File().tensors) {
    Floats values(tensor.Count());
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = (i * i + i / 7) % 3 == 0 ? -0.125F : 0.125F;
    tensor = files::TensorData::FromFloats(tensor.shape, values);
  }
  const nn::FloatNetwork network = weights.Network(spec);
  CompileReport report;
  const Compiled compiled = CompileBy(network, {}, &report);
  EXPECT_LE(compiled.net.layers[0].value_bits, 15U);  // 784 * 15 and a sign
  EXPECT_LE(compiled.net.layers[1].value_bits, 7U);
  EXPECT_EQ(report.agreement, 100);
  EXPECT_THAT(compiled.warnings, IsEmpty());
  ExpectSameLogits(network, compiled, RandomImages({1, 28, 28}, 300, 4));
}

// What the zeros of means and of -1 and +1 add to the bias follows from the rounded weights: taken
// from the others, half of these were wrong.
TEST(CompileTest, TwoClassesWithExactWeightsAreExact) {
  const nn::NetworkSpec spec = Spec(R"("shape": [3, 1, 1], "scale": 85, "mean": 1.5, "bits": 2)",
                                    R"({"name": "fc1", "type": "linear", "out_features": 3},
                                   {"name": "act1", "type": "sign"},
                                   {"name": "fc2", "type": "linear", "out_features": 2})");
  files::Images images{{3, 1, 1}, 64, {}};
  for (int i = 0; i < 64; ++i)
    for (int shift = 0; shift < 6; shift += 2)
      images.pixels.push_back(static_cast<std::uint8_t>((i >> shift & 3) * 85));
  for (const float step : {1.0F, 0.3F}) {
    for (int pattern = 0; pattern < 64; ++pattern) {
      Floats last(6);
      for (int i = 0; i < 6; ++i) last[i] = (pattern >> i & 1) != 0 ? step : -step;
      Weights weights(0);
      weights.Put("fc1.weight", {3, 3}, Identity(3))
          .Put("fc1.bias", {3}, Floats(3, 0))
          .Put("fc2.weight", {2, 3}, last)
          .Put("fc2.bias", {2}, {0, 0});
      const nn::FloatNetwork network = weights.Network(spec);
      const Compiled compiled = CompileBy(network, {.accept_loss = true});
      const auto found = nn::RunPlain(compiled, Oracle(), images, 0, 64);
      for (std::size_t i = 0; i < 64; ++i) {
        // +-step times three signs: in units of the step.
        double want = 0;
        for (std::size_t j = 0; j < 3; ++j) {
          const double sign = images.pixels[3 * i + j] >= 128 ? 1 : -1;
          want += (last[j] - last[3 + j]) / step * sign;
        }
        const double got =
            static_cast<double>(found[2 * i] - found[2 * i + 1]) * compiled.logit_scale / step;
        ASSERT_NEAR(got, want, 1e-3) << pattern << " image " << i;
      }
    }
  }
}

/// A convolution of 28 x 28 pixels whose first channel outweighs the others by far, in one scale.
struct Outweighed {
  const nn::NetworkSpec spec =
      Spec(R"("shape": [1, 8, 8], "bits": 4)",
           R"({"name": "conv1", "type": "conv2d", "out_channels": 3, "kernel": 3},
                                   {"name": "r1", "type": "relu"},
                                   {"name": "fc", "type": "linear", "out_features": 4})");
  Weights weights = Weights(3).FillReal(spec);
  Outweighed() {
    Floats values(27);
    for (std::size_t i = 0; i < 27; ++i)
      values[i] = (i % 2 == 0 ? 0.5F : -0.25F) * (i < 9 ? 1e4F : 1.0F);
    weights.Put("conv1.weight", {3, 1, 3, 3}, values).Put("conv1.bias", {3}, {0, 1, 1});
  }
  nn::FloatNetwork Network() const { return weights.Network(spec); }
};

TEST(CompileTest, LayersWithoutWeightsAreErrors) {
  const Outweighed example;
  CompileOptions options;
  options.max_bits = 14;
  const auto expect = [&](const CompileOptions& with) {
    ExpectConfigError([&] { Compile(example.Network(), Oracle(), with, nullptr); },
                      "network N layer conv1",
                      "2 of 3 output channels round to zero with 14 bits; allow it more bits "
                      "(--max-bits), or accept the loss (--accept-loss)");
  };
  expect(options);
  const files::Images images = RandomImages({1, 8, 8}, 50, 1);
  options.calibration = &images;
  expect(options);
  options.calibration = nullptr;
  options.max_bits = 32;
  options.default_fixed_bits = 14;
  expect(options);

  options.default_fixed_bits = 0;
  EXPECT_THAT(Compile(example.Network(), Oracle(), options, nullptr).warnings, IsEmpty());
  options.max_bits = 14;
  options.accept_loss = true;
  EXPECT_THAT(Compile(example.Network(), Oracle(), options, nullptr).warnings,
              Contains(AllOf(HasSubstr("layer conv1"), HasSubstr("2 of 3 output channels"))));
}

TEST(CompileTest, NetworksThatDisagreeAreErrors) {
  const nn::NetworkSpec spec = Spec(kSmallInput, kTwoSignLayers);
  const nn::FloatNetwork network = Weights(7).FillReal(spec).Network(spec);
  CompileOptions options;
  options.max_bits = 8;
  options.max_loss = 0;
  options.min_agreement = 99.9;
  try {
    Compile(network, Oracle(), options, nullptr);
    ADD_FAILURE() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("network N layer "),
                      HasSubstr("of 512 synthetic images otherwise than the float network"),
                      HasSubstr("give training images"), HasSubstr("--accept-loss")));
  }
  options.min_agreement = 0;
  EXPECT_THAT(Compile(network, Oracle(), options, nullptr).warnings, IsEmpty());
  options.min_agreement = 99.9;
  options.accept_loss = true;
  EXPECT_THAT(Compile(network, Oracle(), options, nullptr).warnings,
              Contains(HasSubstr("give training images")).Times(0));
  EXPECT_THAT(Compile(network, Oracle(), options, nullptr).warnings,
              Contains(HasSubstr("of 512 synthetic images otherwise")));
}

TEST(CompileTest, SaysWhichLinearLayersFollowEachOther) {
  const nn::NetworkSpec spec = Spec(kFourFeatures,
                                    R"({"name": "a", "type": "linear", "out_features": 6},
                                   {"name": "b", "type": "batch_norm"},
                                   {"name": "c", "type": "linear", "out_features": 4},
                                   {"name": "d", "type": "linear", "out_features": 3})");
  const nn::IntegerNetwork compiled =
      Compile(Weights(1).Fill(spec).Network(spec), Oracle(), {}, nullptr);
  EXPECT_THAT(compiled.warnings,
              ElementsAre(HasSubstr("no activation between: a and c, c and d.")));
}

void ExpectUnsupported(const std::string& layers, const std::string& layer) {
  const nn::NetworkSpec spec = Spec(R"("shape": [1, 4, 4])", layers);
  const nn::FloatNetwork network = Weights(0).Fill(spec).Network(spec);
  try {
    CompileWith(network, 14);
    ADD_FAILURE() << "no error, expected one for " << layer;
  } catch (const UnsupportedError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("layer " + layer + ":"), HasSubstr("supports")));
  }
}

TEST(CompileTest, RefusesWhatItCannotDo) {
  const std::string conv = R"({"name": "c1", "type": "conv2d", "out_channels": 2, "kernel": 1},)";
  const std::string sign = R"({"name": "s1", "type": "sign"},)";
  const std::string pool = R"({"name": "p1", "type": "max_pool2d", "kernel": 2},)";
  const std::string norm = R"({"name": "b1", "type": "batch_norm"},)";
  const std::string flatten = R"({"name": "f1", "type": "flatten"},)";
  const std::string fc = R"({"name": "fc", "type": "linear", "out_features": 3})";
  const std::string square = R"({"name": "q1", "type": "square"},)";
  const std::string average = R"({"name": "a1", "type": "avg_pool2d", "kernel": 2},)";
  const auto cut = [](const std::string& layers) { return layers.substr(0, layers.size() - 1); };
  // Pools that no activation makes bits or a sum.
  ExpectUnsupported(conv + pool + fc, "fc");
  ExpectUnsupported(conv + pool + norm + fc, "fc");
  ExpectUnsupported(conv + pool + square + fc, "q1");
  ExpectUnsupported(pool + conv + sign + fc, "p1");
  ExpectUnsupported(conv + sign + average + pool + fc, "p1");
  ExpectUnsupported(
      conv + sign + pool + R"({"name": "p2", "type": "max_pool2d", "kernel": 2},)" + fc, "p2");
  // The largest square is in no suite.
  ExpectUnsupported(conv + square + pool + fc, "p1");
  // Activations without anything between, and signs at the end.
  ExpectUnsupported(conv + sign + flatten + R"({"name": "s2", "type": "sign"},)" + fc, "s2");
  ExpectUnsupported(fc + "," + cut(sign), "s1");
  ExpectUnsupported(conv + sign + cut(pool), "p1");
  ExpectUnsupported(conv + square + cut(pool), "p1");
  ExpectUnsupported(conv + cut(pool), "p1");
  // Residuals of what is no longer there, of three summands, past the block before.
  ExpectUnsupported(conv + sign + pool + R"({"name": "c2", "type": "conv2d", "out_channels": 2,
                                             "kernel": 1, "from": "s1"},)" +
                        fc,
                    "c2");
  ExpectUnsupported(conv + R"({"name": "a1", "type": "add", "from": "c1"},
                              {"name": "a2", "type": "add", "from": "c1"},)" +
                        fc,
                    "a2");
  ExpectUnsupported(conv + sign +
                        R"({"name": "c2", "type": "conv2d", "out_channels": 2, "kernel": 1},
                                     {"name": "s2", "type": "sign"},
                                     {"name": "c3", "type": "conv2d", "out_channels": 2, "kernel": 1,
                                      "from": "s1"},
                                     {"name": "s3", "type": "sign"},)" +
                        fc,
                    "s3");
}

TEST(CompileTest, RefusesTwoSuitesInOneBlock) {
  const nn::NetworkSpec spec =
      Spec(R"("shape": [1, 4, 4])",
           R"({"name": "c1", "type": "conv2d", "out_channels": 2, "kernel": 1},
         {"name": "s1", "type": "sign", "suite": "lut"},
         {"name": "p1", "type": "max_pool2d", "kernel": 2, "suite": "aby3"},
         {"name": "fc", "type": "linear", "out_features": 3})");
  const nn::FloatNetwork network = Weights(0).Fill(spec).Network(spec);
  EXPECT_THROW(CompileWith(network, 14), UnsupportedError);
}

class FloatNetworkTest : public testing::Test {
 protected:
  void ExpectRefused(const std::string& tensor, const std::string& text) {
    ExpectConfigError([&] { weights_.Network(spec_); }, "model tensor " + tensor, text);
  }
  const nn::NetworkSpec spec_ = Spec(kSmallInput, kTwoSignLayers);
  Weights weights_ = Weights(0).Fill(spec_);
};

TEST_F(FloatNetworkTest, NamesMissingTensors) {
  for (const char* tensor : {"conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias",
                             "bn1.running_mean", "bn1.running_var", "fc1.weight"}) {
    weights_ = Weights(0).Fill(spec_);
    weights_.File().tensors.erase(tensor);
    ExpectRefused(tensor, "missing");
  }
}

TEST_F(FloatNetworkTest, NamesWrongShapes) {
  weights_.Put("conv1.weight", {8, 9}, Floats(72));
  ExpectRefused("conv1.weight", "found shape [8, 9], expected [8, 1, 3, 3]");
  weights_.Put("conv1.weight", {8, 1, 3, 3}, Floats(72)).Put("bn2.bias", {25}, Floats(25));
  ExpectRefused("bn2.bias", "expected [24]");
}

TEST_F(FloatNetworkTest, NamesNumbersThatAreNone) {
  Floats values(24, 1);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  weights_.Put("fc1.bias", {24}, values);
  ExpectRefused("fc1.bias", "NaN as element 7");
  values[7] = -std::numeric_limits<float>::infinity();
  weights_.Put("fc1.bias", {24}, values);
  ExpectRefused("fc1.bias", "infinity as element 7");
  values[7] = -1;
  weights_.Put("fc1.bias", {24}, values).Put("bn2.running_var", {24}, values);
  ExpectRefused("bn2.running_var", "element 7 is negative");
}

TEST_F(FloatNetworkTest, NamesExtraTensors) {
  weights_.File().tensors["bn1.num_batches_tracked"] =
      files::TensorData::FromIntegers({}, {12}, files::DType::kI64);
  EXPECT_NO_THROW(weights_.Network(spec_));
  weights_.Put("fc9.weight", {1}, {1});
  ExpectRefused("fc9.weight", "no such tensor");
}

TEST_F(FloatNetworkTest, ListsAllTensorsThatDoNotFit) {
  weights_.File().tensors.erase("conv1.bias");
  weights_.Put("fc9.weight", {1}, {1}).Put("bn2.bias", {25}, Floats(25));
  ExpectRefused("conv1.bias",
                "missing, expected shape [8]; bn2.bias: found shape [25], expected "
                "[24]; fc9.weight: found with shape [1], but");
}

TEST_F(FloatNetworkTest, LeavesAwayThePrefixOfAllTensors) {
  const files::Images images = RandomImages({1, 6, 6}, 3, 1);
  const std::vector<float> want = weights_.Network(spec_).Run(images, 0, 3);
  for (const std::string prefix : {"module.", "module.model."}) {
    files::TensorFile renamed;
    for (const auto& [name, tensor] : weights_.File().tensors)
      renamed.tensors[prefix + name] = tensor;
    EXPECT_EQ(nn::FloatNetwork(spec_, renamed, "model").Run(images, 0, 3), want);
    renamed.tensors["conv1.extra"] = renamed.tensors.begin()->second;
    EXPECT_THROW(nn::FloatNetwork(spec_, renamed, "model"), ConfigError) << "not all have it";
  }
}

TEST_F(FloatNetworkTest, NeverTakesTheOnlyLayerForAPrefix) {
  const nn::NetworkSpec spec =
      Spec(R"("shape": [1, 1, 2])", R"({"name": "a.b", "type": "linear", "out_features": 1})");
  Weights weights(0);
  weights.Put("a.b.weight", {1, 2}, {1, 2}).Put("a.b.bias", {1}, {3});
  EXPECT_NO_THROW(weights.Network(spec));
}

TEST_F(FloatNetworkTest, ShowsEveryLayersOutput) {
  const nn::NetworkSpec spec = Spec(R"("shape": [1, 1, 2], "scale": 1)",
                                    R"({"name": "fc", "type": "linear", "out_features": 2},
         {"name": "r", "type": "relu"})");
  Weights weights(0);
  weights.Put("fc.weight", {2, 2}, {1, 1, 1, -1}).Put("fc.bias", {2}, {0, 0});
  std::vector<std::pair<std::size_t, std::vector<float>>> seen;
  weights.Network(spec).Run({{1, 1, 2}, 2, {1, 2, 5, 4}}, 0, 2,
                            [&](std::size_t layer, const std::vector<float>& output) {
                              seen.emplace_back(layer, output);
                            });
  EXPECT_THAT(seen, ElementsAre(testing::Pair(0, ElementsAre(3, 9, -1, 1)),
                                testing::Pair(1, ElementsAre(3, 9, 0, 1))));
}

TEST_F(FloatNetworkTest, RefusesCompiledModels) {
  weights_.File().metadata["tercet.network"] = "{}";
  ExpectConfigError([&] { weights_.Network(spec_); }, "model", "compiled model");
}

TEST_F(FloatNetworkTest, EveryLayerTypeByHand) {
  const nn::NetworkSpec spec =
      Spec(R"("shape": [1, 2, 2], "scale": 1)",
           R"({"name": "c", "type": "conv2d", "out_channels": 2, "kernel": 1},
         {"name": "b", "type": "batch_norm"},
         {"name": "r", "type": "relu"},
         {"name": "s", "type": "square"},
         {"name": "a", "type": "add", "from": "c"},
         {"name": "m", "type": "avg_pool2d", "kernel": 2},
         {"name": "fc", "type": "linear", "out_features": 2},
         {"name": "x", "type": "max_pool2d", "kernel": 1},
         {"name": "f", "type": "flatten"},
         {"name": "g", "type": "sign"})");
  Weights weights(0);
  weights.Fill(spec)
      .Put("c.weight", {2, 1, 1, 1}, {1, -1})
      .Put("c.bias", {2}, {0, 3})
      .Put("b.weight", {2}, {4, 2})
      .Put("b.bias", {2}, {0, 1})
      .Put("b.running_mean", {2}, {2, 0})
      .Put("b.running_var", {2}, {4, 4})
      .Put("fc.weight", {2, 2}, {1, -1, -1, 1})
      .Put("fc.bias", {2}, {-22.5, 22});
  // c: 1 2 3 4 and 2 1 0 -1; b, r: 0 0 2 4 and 3 2 1 0; s: 0 0 4 16 and 9 4 1 0;
  // a: 1 2 7 20 and 11 5 1 -1; m: 7.5 and 4; fc: -19 and 18.5.
  EXPECT_THAT(weights.Network(spec).Run({{1, 2, 2}, 1, {1, 2, 3, 4}}, 0, 1), ElementsAre(-1, 1));
}

// Against the oracle, over shapes that take every path: groups, padding, stride, channels not in
// fours.
TEST_F(FloatNetworkTest, ConvolutionsAgreeWithTheOracle) {
  const std::vector<std::string> shapes = {
      R"("out_channels": 4, "kernel": 3)",
      R"("out_channels": 6, "kernel": 2, "stride": 2, "padding": 1, "groups": 2)",
      R"("out_channels": 12, "kernel": 4, "stride": 3, "padding": 3, "groups": 4)",
      R"("out_channels": 4, "kernel": 3, "padding": 2)",
      R"("out_channels": 9, "kernel": 7, "stride": 3, "padding": 6)",
      R"("out_channels": 20, "kernel": 1, "stride": 2)"};
  for (const std::string& text : shapes) {
    const nn::NetworkSpec spec = Spec(R"("shape": [4, 7, 5], "scale": 1)",
                                      R"({"name": "c", "type": "conv2d", )" + text + "}");
    Weights weights(1);
    weights.Fill(spec);
    const std::size_t channels = spec.layers[0].out_channels;
    weights.Put("c.bias", {channels}, Floats(channels, 7));
    const files::Images images = RandomImages({4, 7, 5}, 41, 2);
    const std::vector<float> found = weights.Network(spec).Run(images, 0, 41);

    const nn::LayerSpec& layer = spec.layers[0];
    const mpc::LinearShape shape{.in = layer.in,
                                 .out_channels = channels,
                                 .kernel_h = layer.kernel.h,
                                 .kernel_w = layer.kernel.w,
                                 .stride = layer.stride,
                                 .padding = layer.padding,
                                 .groups = layer.groups};
    const auto want = Oracle().Linear(
        shape, weights.File().tensors.at("c.weight").AsIntegers("weight"),
        std::vector<std::int64_t>(channels, 7), nn::QuantiseInput(spec.input, images, 0, 41), 41);
    const std::size_t outputs = spec.Classes();
    ASSERT_EQ(want.size(), found.size());
    for (std::size_t e = 0; e < outputs; ++e)
      for (std::size_t i = 0; i < 41; ++i)
        ASSERT_EQ(static_cast<double>(want[e * 41 + i]), found[i * outputs + e]) << text;
  }
}

TEST_F(FloatNetworkTest, RunsAnyRangeOfImages) {
  const nn::FloatNetwork network = weights_.Network(spec_);
  const files::Images images = RandomImages({1, 6, 6}, 100, 3);
  const std::vector<float> all = network.Run(images, 0, 100);
  EXPECT_EQ(network.Run(images, 31, 66), std::vector<float>(all.begin() + 31 * 5, all.end() - 15));
  EXPECT_THAT(network.Run(images, 100, 0), IsEmpty());
  EXPECT_THROW(network.Run(images, 40, 61), InternalError);
}

class CalibrationTest : public testing::Test {
 protected:
  CalibrationTest() {
    labels_ = nn::Predictions(network_.Run(images_, 0, images_.count), 5);
    options_.calibration = &images_;
    options_.labels = &labels_;
  }
  double PlainAccuracy(const nn::IntegerNetwork& compiled) const {
    const auto found =
        nn::Predictions(nn::RunPlain(compiled, Oracle(), images_, 0, images_.count), 5);
    double correct = 0;
    for (std::size_t i = 0; i < found.size(); ++i) correct += found[i] == labels_[i] ? 1 : 0;
    return 100 * correct / static_cast<double>(found.size());
  }

  const nn::NetworkSpec spec_ = Spec(kSmallInput, kTwoSignLayers);
  const nn::FloatNetwork network_ = Weights(9).FillReal(spec_).Network(spec_);
  const files::Images images_ = RandomImages({1, 6, 6}, 1500, 10);
  std::vector<std::uint8_t> labels_;
  CompileOptions options_;
};

TEST_F(CalibrationTest, ChoosesSmallWidthsWithinTheLoss) {
  unsigned widest_sum = 0;
  for (const double max_loss : {0.0, 1.0, 10.0}) {
    options_.max_loss = max_loss;
    options_.max_noise = max_loss == 0 ? 0.02 : max_loss / 10;
    options_.min_agreement = 85;
    CompileReport report;
    const nn::IntegerNetwork compiled = Compile(network_, Oracle(), options_, &report);
    EXPECT_NO_THROW(ProveWidths(compiled, "model"));
    EXPECT_EQ(report.images, images_.count);
    EXPECT_EQ(report.float_accuracy, 100);
    EXPECT_DOUBLE_EQ(PlainAccuracy(compiled), report.integer_accuracy);
    EXPECT_DOUBLE_EQ(report.agreement, report.integer_accuracy);
    EXPECT_LE(report.noise, options_.max_noise + 0.01);

    unsigned sum = 0;
    for (const nn::PublicLayer& layer : compiled.net.layers) {
      EXPECT_GE(layer.value_bits, options_.min_bits);
      sum += layer.value_bits;
    }
    if (widest_sum == 0) widest_sum = 3 * 20;
    EXPECT_LT(sum, widest_sum) << "with a loss of " << max_loss;
    widest_sum = sum;
    EXPECT_THAT(report.lines, testing::Contains(HasSubstr("conv1: ")));
    EXPECT_THAT(report.lines, testing::Contains(HasSubstr("1500 calibration images, all")));
  }
}

// Labels have no say in the widths, nor have the images need of any.
TEST_F(CalibrationTest, LabelsChangeNothing) {
  const nn::IntegerNetwork with = Compile(network_, Oracle(), options_, nullptr);
  std::fill(labels_.begin(), labels_.end(), std::uint8_t{0});
  CompileReport report;
  const nn::IntegerNetwork wrong = Compile(network_, Oracle(), options_, &report);
  EXPECT_EQ(wrong.net, with.net);
  EXPECT_THAT(wrong.warnings, ElementsAre(HasSubstr("image is of classes 1, 2, 3, 4")));
  options_.labels = nullptr;
  EXPECT_EQ(Compile(network_, Oracle(), options_, nullptr).net, with.net);
}

// Images of nearly one class, few images, and images that the network is sure of: accuracy, and
// predictions too, show no loss on them.
TEST_F(CalibrationTest, ImagesThatShowNoLossGiveNoConstantNetwork) {
  std::map<std::uint8_t, std::vector<std::size_t>> by_class;
  for (std::size_t i = 0; i < images_.count; ++i) by_class[labels_[i]].push_back(i);
  std::vector<std::size_t> most;
  for (const auto& [label, indices] : by_class)
    if (indices.size() > most.size()) most = indices;
  std::vector<std::size_t> few(images_.count);
  std::iota(few.begin(), few.end(), std::size_t{0});
  few.resize(20);
  options_.labels = nullptr;
  for (const auto& indices : {most, few}) {
    files::Images part{images_.shape, indices.size(), {}};
    for (const std::size_t i : indices)
      part.pixels.insert(part.pixels.end(), images_.pixels.begin() + 36 * i,
                         images_.pixels.begin() + 36 * (i + 1));
    options_.calibration = &part;
    const nn::IntegerNetwork compiled = Compile(network_, Oracle(), options_, nullptr);
    // Random images of a random network are near ties often.
    EXPECT_GT(PlainAccuracy(compiled), 90) << indices.size() << " images";
  }
}

TEST_F(CalibrationTest, DrawsFromManyImages) {
  files::Images many{images_.shape, 0, {}};
  for (int i = 0; i < 8; ++i)
    many.pixels.insert(many.pixels.end(), images_.pixels.begin(), images_.pixels.end());
  many.count = 8 * images_.count;
  options_.calibration = &many;
  options_.labels = nullptr;
  CompileReport report;
  const nn::IntegerNetwork compiled = Compile(network_, Oracle(), options_, &report);
  EXPECT_EQ(report.images, 10000U);
  EXPECT_THAT(report.lines, Contains(HasSubstr("10000 of 12000 calibration images used")));
  EXPECT_EQ(Compile(network_, Oracle(), options_, nullptr).net, compiled.net);
}

TEST_F(CalibrationTest, NarrowAndWideLimitsHold) {
  options_.accept_loss = true;
  options_.min_bits = options_.max_bits = 9;
  const nn::IntegerNetwork narrow = Compile(network_, Oracle(), options_, nullptr);
  for (const nn::PublicLayer& layer : narrow.net.layers) EXPECT_EQ(layer.value_bits, 9U);
  options_.min_bits = options_.max_bits = 30;  // beyond what single precision holds
  const nn::IntegerNetwork wide = Compile(network_, Oracle(), options_, nullptr);
  for (const nn::PublicLayer& layer : wide.net.layers)
    EXPECT_EQ(layer.value_bits, layer.name == "fc2" ? MostLogitBits(wide.net) : 30U);
}

TEST_F(CalibrationTest, RefusesWhatDoesNotFit) {
  const auto expect = [&](const std::string& place, const std::string& text) {
    ExpectConfigError([&] { Compile(network_, Oracle(), options_, nullptr); }, place, text);
  };
  labels_.pop_back();
  expect("calibration labels", "found 1499");
  labels_.push_back(5);
  expect("calibration labels", "found 5, expected 0 to 4");
  options_.labels = nullptr;
  const files::Images other = RandomImages({1, 6, 5}, 10, 0);
  options_.calibration = &other;
  expect("calibration images", "1 x 6 x 5");
  options_.calibration = nullptr;
  options_.max_loss = -1;
  expect("compile max_loss", "found -1");
  options_.max_loss = 0;
  options_.max_noise = 1.5;
  expect("compile max_noise", "found 1.5");
  options_.max_noise = 0;
  options_.min_agreement = 101;
  expect("compile min_agreement", "found 101");
  options_.min_agreement = 98;
  options_.min_bits = 21;
  options_.max_bits = 20;
  expect("compile widths", "min_bits 21");
  options_.min_bits = 6;
  options_.max_bits = 33;
  expect("compile widths", "max_bits 33");
  options_.max_bits = 32;
  options_.default_bits = 33;
  expect("compile default_bits", "found 33");
}

TEST(PredictionsTest, FirstOfTheLargest) {
  EXPECT_THAT(nn::Predictions<std::int64_t>({-3, -1, -1, 0, 0, 0, 1, 2, 9}, 3),
              ElementsAre(1, 0, 2));
  EXPECT_THAT(nn::Predictions<std::int64_t>({}, 3), IsEmpty());
  EXPECT_THROW(nn::Predictions<float>({1, 2}, 3), InternalError);
  EXPECT_THROW(nn::Predictions<double>({1, 2}, 0), InternalError);
}

TEST(RunPlainTest, AnyRangeOfImages) {
  const nn::NetworkSpec spec = Spec(kSmallInput, kTwoSignLayers);
  const Compiled compiled = CompileWith(Weights(5).FillReal(spec).Network(spec), 12);
  const files::Images images = RandomImages({1, 6, 6}, 70, 3);
  const auto all = nn::RunPlain(compiled, Oracle(), images, 0, 70);
  EXPECT_EQ(nn::RunPlain(compiled, Oracle(), images, 10, 40),
            std::vector<std::int64_t>(all.begin() + 50, all.begin() + 250));
}

}  // namespace
}  // namespace tercet::compile
