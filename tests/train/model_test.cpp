// SPDX-License-Identifier: Apache-2.0
#include "train/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <set>

#include "tercet/base/error.h"
#include "train/batches.h"
#include "train/distillation.h"
#include "train/norm_sign.h"
#include "train/weight_average.h"

namespace tercet::train {
namespace {

using torch::Tensor;

Tensor Values(const files::TensorFile& file, const std::string& name) {
  const files::TensorData& data = file.tensors.at(name);
  return torch::tensor(data.AsDoubles(), torch::kFloat32)
      .view(std::vector<std::int64_t>(data.shape.begin(), data.shape.end()));
}

nn::NetworkSpec Spec(const std::string& shape, const std::string& layers) {
  return nn::ParseNetwork(
      R"({"name": "T", "input": {"shape": )" + shape +
          R"(, "scale": 255, "mean": 0.0, "std": 1.0, "bits": 4}, "layers": [)" + layers +
          R"(], "output": "logits"})",
      "test");
}

// Weights of batch_norm start as the identity; random ones let mistakes show.
void Randomize(Model& model) {
  files::TensorFile file = model.Save();
  for (auto& [name, tensor] : file.tensors) {
    Tensor random = torch::randn({static_cast<std::int64_t>(tensor.Count())});
    if (name.ends_with("running_var")) random = random.abs() + 0.1;
    tensor = files::TensorData::FromFloats(
        tensor.shape,
        std::vector<float>(random.data_ptr<float>(), random.data_ptr<float>() + random.numel()));
  }
  model.Load(file, "random");
}

TEST(ModelTest, ComputesEveryLayerTypeAsPyTorchDoes) {
  torch::manual_seed(1);
  const nn::NetworkSpec spec = Spec("[2, 9, 9]", R"(
      {"name": "c1", "type": "conv2d", "out_channels": 4, "kernel": 3, "stride": 1, "padding": 1},
      {"name": "r1", "type": "relu"},
      {"name": "p1", "type": "max_pool2d", "kernel": 3, "stride": 3},
      {"name": "c2", "type": "conv2d", "out_channels": 4, "kernel": 3, "stride": 1, "padding": 1,
       "groups": 4, "bias": false},
      {"name": "s2", "type": "square"},
      {"name": "a2", "type": "add", "from": "p1"},
      {"name": "b2", "type": "batch_norm"},
      {"name": "g2", "type": "sign"},
      {"name": "v2", "type": "avg_pool2d", "kernel": 2, "stride": 1},
      {"name": "f", "type": "flatten"},
      {"name": "l", "type": "linear", "out_features": 3},
      {"name": "b3", "type": "batch_norm"})");
  Model model(spec, 0);
  Randomize(model);
  const files::TensorFile w = model.Save();
  const Tensor input = torch::randn({5, 2, 9, 9});

  Tensor x = torch::relu(torch::conv2d(input, Values(w, "c1.weight"), Values(w, "c1.bias"), 1, 1));
  const Tensor kept = torch::max_pool2d(x, 3, 3);
  x = torch::conv2d(kept, Values(w, "c2.weight"), {}, 1, 1, 1, 4);
  x = x * x + kept;
  x = torch::batch_norm(x, Values(w, "b2.weight"), Values(w, "b2.bias"),
                        Values(w, "b2.running_mean"), Values(w, "b2.running_var"), false, 0.1, 1e-5,
                        false);
  x = torch::where(x >= 0, 1.0, -1.0).to(torch::kFloat32);
  x = torch::avg_pool2d(x, 2, 1).flatten(1);
  x = torch::linear(x, Values(w, "l.weight"), Values(w, "l.bias"));
  x = torch::batch_norm(x, Values(w, "b3.weight"), Values(w, "b3.bias"),
                        Values(w, "b3.running_mean"), Values(w, "b3.running_var"), false, 0.1, 1e-5,
                        false);
  EXPECT_TRUE(torch::allclose(model.Forward(input, false), x, 1e-4, 1e-4));
}

TEST(ModelTest, ComputesSeparableConvolutionsAndShortcuts) {
  torch::manual_seed(6);
  const nn::NetworkSpec spec = Spec("[4, 6, 6]", R"(
      {"name": "dw", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1, "groups": 4,
       "bias": false},
      {"name": "pw", "type": "conv2d", "out_channels": 5, "kernel": 1},
      {"name": "r", "type": "relu"},
      {"name": "c", "type": "conv2d", "out_channels": 5, "kernel": 3, "padding": 1, "stride": 2},
      {"name": "n", "type": "batch_norm"},
      {"name": "short", "type": "conv2d", "out_channels": 5, "kernel": 1, "stride": 2,
       "from": "r"},
      {"name": "a", "type": "add", "from": "n"})");
  Model model(spec, 9);
  Randomize(model);
  const files::TensorFile w = model.Save();
  const Tensor input = torch::randn({3, 4, 6, 6});
  Tensor x = torch::conv2d(input, Values(w, "dw.weight"), {}, 1, 1, 1, 4);
  x = torch::relu(torch::conv2d(x, Values(w, "pw.weight"), Values(w, "pw.bias")));
  Tensor y = torch::conv2d(x, Values(w, "c.weight"), Values(w, "c.bias"), 2, 1);
  y = torch::batch_norm(y, Values(w, "n.weight"), Values(w, "n.bias"), Values(w, "n.running_mean"),
                        Values(w, "n.running_var"), false, 0.1, 1e-5, false);
  y = y + torch::conv2d(x, Values(w, "short.weight"), Values(w, "short.bias"), 2);
  EXPECT_TRUE(torch::allclose(model.Forward(input, false), y.flatten(1), 1e-4, 1e-4));
}

TEST(ModelTest, PoolingBeforeTheSignIsTheSameFunction) {
  torch::manual_seed(2);
  Model model(Spec("[1, 6, 6]", R"(
      {"name": "c", "type": "conv2d", "out_channels": 3, "kernel": 3},
      {"name": "g", "type": "sign"},
      {"name": "p", "type": "max_pool2d", "kernel": 2, "stride": 2})"),
              0);
  Randomize(model);
  const files::TensorFile w = model.Save();
  const Tensor input = torch::randn({4, 1, 6, 6});
  const Tensor z = torch::conv2d(input, Values(w, "c.weight"), Values(w, "c.bias"));
  const Tensor expected =
      torch::max_pool2d(torch::where(z >= 0, 1.0, -1.0).to(torch::kFloat32), 2, 2);
  EXPECT_TRUE(model.Forward(input, false).equal(expected.flatten(1)));
}

TEST(ModelTest, SignPassesAGradientNearZeroOnly) {
  nn::NetworkSpec spec;
  spec.input.shape = {5, 1, 1};
  nn::LayerSpec sign;
  sign.name = "g";
  sign.type = nn::LayerType::kSign;
  sign.in = sign.out = {5, 1, 1};
  spec.layers = {sign};
  Model model(spec, 0);
  const Tensor x = torch::tensor({-1.5F, -0.25F, 0.0F, 0.5F, 3.0F}).view({1, 5, 1, 1});
  x.set_requires_grad(true);
  const Tensor y = model.Forward(x, true);
  EXPECT_TRUE(y.detach().equal(torch::tensor({{-1.0F, -1.0F, 1.0F, 1.0F, 1.0F}})));
  y.sum().backward();
  EXPECT_TRUE(x.grad().flatten().equal(torch::tensor({0.0F, 1.5F, 2.0F, 1.0F, 0.0F})));
}

// The fused operator against those it replaces, over several blocks of rows.
class NormSignTest : public testing::TestWithParam<std::tuple<torch::ScalarType, std::int64_t>> {};

TEST_P(NormSignTest, IsBatchNormPoolAndSign) {
  torch::manual_seed(8);
  constexpr std::int64_t kChannels = 5;
  const auto [type, pool] = GetParam();
  const Tensor input = (torch::randn({13, kChannels, 30, 36}) * 0.5 + 3).to(type);
  const Tensor weight = torch::randn({kChannels});
  const Tensor bias = torch::randn({kChannels}) / 4;
  const Tensor passed = torch::randn({13, kChannels, 30 / pool, 36 / pool}).to(type);
  const auto trained = [](const Tensor& t) { return t.clone().set_requires_grad(true); };

  const Tensor x = trained(input);
  const Tensor w = trained(weight);
  const Tensor b = trained(bias);
  const Tensor mean = torch::full({kChannels}, 2.0);
  const Tensor var = torch::ones({kChannels});
  const Tensor y = NormSign(x, w, b, mean, var, 0.1, 1e-5, pool);
  y.backward(passed);

  const Tensor x2 = trained(input.to(torch::kFloat32));
  const Tensor w2 = trained(weight);
  const Tensor b2 = trained(bias);
  const Tensor mean2 = torch::full({kChannels}, 2.0);
  const Tensor var2 = torch::ones({kChannels});
  const Tensor z = torch::max_pool2d(
      torch::batch_norm(x2, w2, b2, mean2, var2, true, 0.1, 1e-5, false), pool, pool);
  // Almost at zero the two may round to other sides.
  const Tensor clear = z.abs() > 1e-5;
  const Tensor signs = torch::where(z >= 0, 1.0, -1.0).to(torch::kFloat32);
  EXPECT_EQ(y.scalar_type(), type);
  EXPECT_TRUE(y.to(torch::kFloat32).masked_select(clear).equal(signs.masked_select(clear)));
  EXPECT_GT(clear.sum().item<std::int64_t>(), clear.numel() * 99 / 100);
  z.backward(passed.to(torch::kFloat32) * SignSlope(z.detach()));

  EXPECT_TRUE(torch::allclose(mean, mean2, 1e-5, 1e-5));
  EXPECT_TRUE(torch::allclose(var, var2, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(w.grad(), w2.grad(), 1e-3, 1e-2));
  EXPECT_TRUE(torch::allclose(b.grad(), b2.grad(), 1e-3, 1e-2));
  const double rounding = type == torch::kFloat32 ? 1e-4 : 1e-2;
  EXPECT_TRUE(torch::allclose(x.grad().to(torch::kFloat32), x2.grad(), rounding, rounding));
}

INSTANTIATE_TEST_SUITE_P(Types, NormSignTest,
                         testing::Combine(testing::Values(torch::kFloat32, torch::kBFloat16),
                                          testing::Values(1, 2, 3)));

// In bfloat16 the two parts of a separable convolution are multiplied out; in float32 they are not.
TEST(ModelTest, SeparableConvolutionsAreTheSameInBfloat16) {
  torch::manual_seed(9);
  Model model(Spec("[6, 8, 8]", R"(
      {"name": "dw", "type": "conv2d", "out_channels": 6, "kernel": 3, "padding": 1, "stride": 2,
       "groups": 6, "bias": false},
      {"name": "pw", "type": "conv2d", "out_channels": 9, "kernel": 1},
      {"name": "b", "type": "batch_norm"})"),
              0);
  Randomize(model);
  const Tensor input = torch::randn({4, 6, 8, 8});
  const Tensor passed = torch::randn({4, 9 * 4 * 4});
  const auto gradients = [&](torch::ScalarType type) {
    const Tensor y = model.Forward(input, true, type);
    (y * passed).sum().backward();
    std::vector<Tensor> found;
    for (const Tensor& weight : model.Weights()) {
      found.push_back(weight.grad().clone());
      weight.grad().zero_();
    }
    found.push_back(y.detach());
    return found;
  };
  const std::vector<Tensor> exact = gradients(torch::kFloat32);
  const std::vector<Tensor> rounded = gradients(torch::kBFloat16);
  ASSERT_EQ(rounded.size(), 3u);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double error = (exact[i] - rounded[i]).norm().item<double>();
    EXPECT_LT(error, 0.03 * exact[i].norm().item<double>()) << i;
    EXPECT_GT(error, 0) << i;
  }
}

TEST(ModelTest, BatchNormKeepsRunningStatistics) {
  Model model(Spec("[2, 1, 1]", R"(
      {"name": "l", "type": "linear", "out_features": 2},
      {"name": "b", "type": "batch_norm"})"),
              0);
  const Tensor input = torch::tensor({{1.0F, 2.0F}, {3.0F, 7.0F}}).view({2, 2, 1, 1});
  model.Forward(input, false);
  EXPECT_TRUE(Values(model.Save(), "b.running_mean").equal(torch::zeros({2})));
  model.Forward(input, true);
  const files::TensorFile w = model.Save();
  const Tensor z = torch::linear(input.flatten(1), Values(w, "l.weight"));
  EXPECT_TRUE(torch::allclose(Values(w, "b.running_mean"), z.mean(0) * 0.1));
}

TEST(ModelTest, FreezesABiasThatBatchNormCancels) {
  const nn::NetworkSpec spec = Spec("[2, 1, 1]", R"(
      {"name": "l1", "type": "linear", "out_features": 2},
      {"name": "b", "type": "batch_norm"},
      {"name": "l2", "type": "linear", "out_features": 2})");
  const Model model(spec, 0);
  EXPECT_EQ(model.Weights().size(), 2u);
  EXPECT_EQ(model.OtherParameters().size(), 3u);  // b.weight, b.bias, l2.bias
}

// A width that leaves 15 (sum of |w|) about 255, and inputs 0..15 in steps of 1 / 15.
constexpr unsigned kWidth = 9;
constexpr const char* kSignLayers = R"(
    {"name": "l", "type": "linear", "out_features": 12, "bias": false},
    {"name": "b", "type": "batch_norm"}, {"name": "g", "type": "sign"})";

TEST(ModelTest, RoundsWeightsSoThatSumsFitTheWidth) {
  torch::manual_seed(3);
  const nn::NetworkSpec spec = Spec("[40, 1, 1]", kSignLayers);
  Model model(spec, kWidth);
  const Tensor latent = model.Weights()[0].detach().clone();
  for (int i = 0; i < 50; ++i) model.Forward(torch::rand({64, 40, 1, 1}), true);
  EXPECT_TRUE(model.Weights()[0].detach().equal(latent));

  const files::TensorFile file = model.Save();
  const Tensor weights = Values(file, "l.weight");
  const Tensor biases = (Values(file, "b.bias") / Values(file, "b.weight") *
                             (Values(file, "b.running_var") + 1e-5).sqrt() -
                         Values(file, "b.running_mean")) *
                        15;
  double widest = 0;
  for (std::int64_t c = 0; c < 12; ++c) {
    const double step = weights[c].masked_select(weights[c].ne(0)).abs().min().item<double>();
    const Tensor integers = weights[c] / step;
    EXPECT_TRUE(torch::allclose(integers, integers.round(), 0, 1e-3)) << integers;
    const double bias = biases[c].item<double>() / step;
    widest = std::max({widest, bias + 15 * integers.clamp_min(0).sum().item<double>(),
                       -bias - 15 * integers.clamp_max(0).sum().item<double>()});
  }
  EXPECT_LT(widest, 255.5);
  EXPECT_GT(widest, 200);  // the room is used

  Model saved(spec, 0);
  saved.Load(file, "saved");
  const Tensor input = torch::randint(0, 16, {200, 40, 1, 1}) / 15;
  EXPECT_TRUE(saved.Forward(input, false).equal(model.Forward(input, false)));
}

TEST(ModelTest, LeavesWeightsAloneThatLeadToNoSign) {
  Model model(Spec("[6, 1, 1]", R"(
      {"name": "l", "type": "linear", "out_features": 4, "bias": false},
      {"name": "b", "type": "batch_norm"})"),
              kWidth);
  EXPECT_TRUE(Values(model.Save(), "l.weight").equal(model.Weights()[0].detach().flatten(1)));
}

TEST(ModelTest, RoundsWhatTheSeparablePartsMakeTogether) {
  torch::manual_seed(4);
  const std::string end = R"(
      {"name": "b", "type": "batch_norm"}, {"name": "g", "type": "sign"}, {"name": "f", "type": "flatten"},
      {"name": "l", "type": "linear", "out_features": 7})";
  Model separable(Spec("[4, 6, 6]", R"(
      {"name": "dw", "type": "conv2d", "out_channels": 4, "kernel": 3, "groups": 4, "bias": false},
      {"name": "c", "type": "conv2d", "out_channels": 5, "kernel": 1},)" +
                                        end),
                  kWidth);
  Randomize(separable);
  files::TensorFile file = separable.Save();
  const Tensor depthwise = Values(file, "dw.weight");
  const Tensor pointwise = Values(file, "c.weight");
  EXPECT_TRUE(depthwise.equal(separable.Weights()[0].detach()));
  EXPECT_TRUE(pointwise.equal(separable.Weights()[1].detach()));

  const Tensor product = (pointwise * depthwise.transpose(0, 1)).contiguous();
  file.tensors["c.weight"] = files::TensorData::FromFloats(
      {5, 4, 3, 3},
      std::vector<float>(product.data_ptr<float>(), product.data_ptr<float>() + product.numel()));
  const nn::NetworkSpec spec = Spec(
      "[4, 6, 6]", R"({"name": "c", "type": "conv2d", "out_channels": 5, "kernel": 3},)" + end);
  Model whole(spec, kWidth);
  whole.Load(file, "whole");
  Model unrounded(spec, 0);
  unrounded.Load(file, "unrounded");
  const Tensor input = torch::randint(0, 16, {50, 4, 6, 6}) / 15.0;
  const Tensor logits = separable.Forward(input, false);
  EXPECT_TRUE(logits.equal(whole.Forward(input, false)));
  EXPECT_FALSE(torch::allclose(logits, unrounded.Forward(input, false)));
}

TEST(ModelTest, BinaryWeightsAreTheirSignsAndGetGradientsWithinOne) {
  torch::manual_seed(6);
  Model model(Spec("[6, 1, 1]", R"({"name": "l", "type": "linear", "out_features": 3},
                                   {"name": "b", "type": "batch_norm"},
                                   {"name": "s", "type": "sign"})"),
              kWidth, {"l"});
  const Tensor weight = model.Weights()[0];
  {
    torch::NoGradGuard guard;
    weight[0][0] = 1.5;
    weight[0][1] = -1.5;
    weight[1][0] = 0;
  }
  const Tensor signs = weight.detach().ge(0).to(torch::kFloat32) * 2 - 1;
  EXPECT_TRUE(Values(model.Save(), "l.weight").equal(signs.flatten(1)));
  model.Forward(torch::rand({64, 6, 1, 1}), true).sum().backward();
  const Tensor gradient = weight.grad();
  EXPECT_EQ(gradient[0][0].item<float>(), 0);
  EXPECT_EQ(gradient[0][1].item<float>(), 0);
  EXPECT_NE(gradient[1][0].item<float>(), 0);
}

TEST(ModelTest, RoundedWeightsStillGetGradients) {
  torch::manual_seed(5);
  Model model(Spec("[20, 1, 1]", kSignLayers), kWidth);
  model.Forward(torch::rand({16, 20, 1, 1}), true).select(1, 0).sum().backward();
  const Tensor gradient = model.Weights()[0].grad();
  EXPECT_GT(gradient[0].abs().min().item<float>(), 0);
  EXPECT_EQ(gradient[1].abs().max().item<float>(), 0);
}

TEST(ModelTest, LoadNamesAMissingTensor) {
  Model model(Spec("[2, 1, 1]", R"({"name": "l", "type": "linear", "out_features": 1})"), 0);
  files::TensorFile file = model.Save();
  file.tensors.erase("l.bias");
  try {
    model.Load(file, "a.safetensors");
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.Place(), "a.safetensors tensor l.bias");
  }
}

TEST(ModelTest, NoticesNumbersThatAreNotFinite) {
  Model model(Spec("[2, 1, 1]", R"({"name": "l", "type": "linear", "out_features": 1})"), 0);
  EXPECT_TRUE(model.IsFinite());
  files::TensorFile file = model.Save();
  file.tensors["l.bias"] = files::TensorData::FromFloats({1}, {std::nanf("")});
  model.Load(file, "a.safetensors");
  EXPECT_FALSE(model.IsFinite());
}

TEST(BatchesTest, QuantizesEveryPixelAsTheInputSpecSays) {
  for (const unsigned bits : {1U, 4U, 8U}) {
    nn::InputSpec input;
    input.scale = 200;
    input.mean = 0.25;
    input.std = 2;
    input.bits = bits;
    const Tensor real = QuantizeInput(torch::arange(256, torch::kFloat32), input);
    const double top = std::exp2(bits) - 1;
    for (int p = 0; p < 256; ++p) {
      const double q = std::round(p * top / 255);
      EXPECT_NEAR(real[p].item<double>(), (q * 255 / top / 200 - 0.25) / 2, 1e-6)
          << bits << ' ' << p;
    }
  }
}

TEST(BatchesTest, DistortMovesImagesWithinTheirRange) {
  const Tensor images = torch::zeros({64, 1, 28, 28});
  images.slice(2, 8, 20).slice(3, 10, 18).fill_(255);
  EXPECT_TRUE(Distort(images, 0).equal(images));
  torch::manual_seed(4);
  const Tensor moved = Distort(images, 1);
  torch::manual_seed(4);
  EXPECT_TRUE(Distort(images, 1).equal(moved));
  EXPECT_EQ(moved.sizes(), images.sizes());
  EXPECT_GE(moved.min().item<float>(), 0);
  EXPECT_LE(moved.max().item<float>(), 255.01F);
  EXPECT_FALSE(moved[0].equal(moved[1]));
  // The ink stays: its amount changes by the scale at most, and its centre by the shift.
  const Tensor ink = moved.sum({1, 2, 3}) / images.sum({1, 2, 3});
  EXPECT_GT(ink.min().item<float>(), 0.5F);
  EXPECT_LT(ink.max().item<float>(), 1.7F);
}

TEST(BatchesTest, FlipAndCropMirrorsAndShifts) {
  const Tensor image = torch::arange(1, 2 * 6 * 5 + 1, torch::kFloat32).view({1, 2, 6, 5});
  const Tensor images = image.repeat({400, 1, 1, 1});
  torch::manual_seed(4);
  const Tensor moved = FlipAndCrop(images, 0.5);  // up to 2 pixels
  ASSERT_EQ(moved.sizes(), images.sizes());
  std::set<int> seen;
  for (std::int64_t i = 0; i < moved.size(0); ++i) {
    int found = 0;
    for (int flip = 0; flip < 2; ++flip) {
      const Tensor padded = torch::constant_pad_nd(flip == 1 ? image.flip(3) : image, {2, 2, 2, 2});
      for (int y = 0; y < 5; ++y) {
        for (int x = 0; x < 5; ++x) {
          if (!padded[0].narrow(1, y, 6).narrow(2, x, 5).equal(moved[i])) continue;
          ++found;
          seen.insert((flip * 5 + y) * 5 + x);
        }
      }
    }
    EXPECT_EQ(found, 1);
  }
  EXPECT_EQ(seen.size(), 50u);
  EXPECT_EQ(FlipAndCrop(images, 0).sizes(), images.sizes());
}

TEST(DistillationTest, LossIsThatOfThePaper) {
  const Tensor student = torch::tensor({{1.0, 2.0, -1.0}, {0.5, 0.0, 3.0}}, torch::kFloat64);
  const Tensor teacher = torch::tensor({{2.0, 2.5, 0.0}, {-1.0, 1.0, 2.0}}, torch::kFloat64);
  const double temperature = 3;
  double divergence = 0;
  for (int i = 0; i < 2; ++i) {
    double sum_p = 0;
    double sum_q = 0;
    for (int k = 0; k < 3; ++k) {
      sum_p += std::exp(teacher[i][k].item<double>() / temperature);
      sum_q += std::exp(student[i][k].item<double>() / temperature);
    }
    for (int k = 0; k < 3; ++k) {
      const double p = std::exp(teacher[i][k].item<double>() / temperature) / sum_p;
      const double q = std::exp(student[i][k].item<double>() / temperature) / sum_q;
      divergence += p * std::log(p / q) / 2;
    }
  }
  const Tensor hard = torch::tensor(5.0, torch::kFloat64);
  EXPECT_NEAR(DistillationLoss(student, teacher, hard, temperature, 0.25).item<double>(),
              0.25 * 9 * divergence + 0.75 * 5, 1e-12);
  EXPECT_NEAR(DistillationLoss(teacher, teacher, hard, temperature, 1).item<double>(), 0, 1e-12);
}

TEST(DistillationTest, OnlyTheStudentGetsAGradient) {
  const Tensor student = torch::randn({4, 3}).requires_grad_();
  const Tensor teacher = torch::randn({4, 3}).requires_grad_();
  DistillationLoss(student, teacher, torch::zeros({}), 2, 1).backward();
  EXPECT_TRUE(student.grad().defined());
  EXPECT_FALSE(teacher.grad().defined());
}

// The mean of the weights, and the statistics that they have, not means of others' statistics.
TEST(WeightAverageTest, AveragesWeightsAndMeasuresTheirStatistics) {
  torch::manual_seed(4);
  const nn::NetworkSpec spec = Spec("[2, 4, 4]", R"(
      {"name": "f", "type": "flatten"},
      {"name": "c1", "type": "linear", "out_features": 3},
      {"name": "b1", "type": "batch_norm"}, {"name": "s1", "type": "sign"},
      {"name": "c2", "type": "linear", "out_features": 2})");
  WeightAverage average(Model(spec, 0));
  std::map<std::string, Tensor> sums;
  for (int i = 1; i <= 3; ++i) {
    Model model(spec, 0);
    Randomize(model);
    average.Add(model);
    EXPECT_EQ(average.Steps(), i);
    for (const auto& [name, tensor] : model.State())
      sums[name] = sums.contains(name) ? sums[name] + tensor : tensor.clone();
  }
  const std::vector<Tensor> batches = {torch::rand({8, 2, 4, 4}), torch::rand({8, 2, 4, 4})};
  std::size_t next = 0;
  Model& mean = average.Estimate(
      2, [&](Model& model) { model.Forward(batches.at(next++), /*training=*/true); });
  EXPECT_EQ(next, 2u);
  const std::map<std::string, Tensor> state = mean.State();
  for (const char* name : {"c1.weight", "c1.bias", "b1.weight", "b1.bias", "c2.weight", "c2.bias"})
    EXPECT_TRUE(torch::allclose(state.at(name), sums.at(name) / 3, 1e-5, 1e-6)) << name;

  Tensor means = torch::zeros({3});
  Tensor variances = torch::zeros({3});
  for (const Tensor& batch : batches) {
    const Tensor entering =
        torch::linear(batch.flatten(1), state.at("c1.weight"), state.at("c1.bias"));
    means += entering.mean(0) / 2;
    variances += entering.var(0, /*unbiased=*/true) / 2;
  }
  EXPECT_TRUE(torch::allclose(state.at("b1.running_mean"), means, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(state.at("b1.running_var"), variances, 1e-4, 1e-5));
}

}  // namespace
}  // namespace tercet::train
