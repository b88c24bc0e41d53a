// SPDX-License-Identifier: Apache-2.0
// Small models of the usual kinds, from their ONNX graph to logits that are computed securely.

#include "import/builder.h"

namespace tercet::importer {
namespace {

TEST(UsualModels, Mlp) {
  Builder b({-1, 36}, 1);
  b.Fc(36, 12).Then("Relu").Fc(12, 8).Then("Relu").Fc(8, 5);
  ExpectWorks(b);
}

TEST(UsualModels, LeNet) {
  Builder b({1, 1, 12, 12}, 1);
  b.Conv(3, 5, 1, 2).Then("Relu").Pool("MaxPool", 2).Conv(4, 3, 1, 0).Then("Relu");
  b.Pool("MaxPool", 2).Then("Flatten").Fc(16, 8).Then("Relu").Fc(8, 5);
  ExpectWorks(b);
}

TEST(UsualModels, SmallVgg) {
  Builder b({-1, 3, 8, 8}, 3);
  b.Conv(4, 3, 1, 1).Norm().Then("Relu").Conv(4, 3, 1, 1).Norm().Then("Relu");
  b.Pool("MaxPool", 2).Conv(6, 3, 1, 1).Norm().Then("Relu").Then("GlobalAveragePool");
  b.Then("Flatten").Then("Dropout").Fc(6, 4);
  ExpectWorks(b);
}

TEST(UsualModels, ResNet) {
  Builder b({-1, 3, 8, 8}, 3);
  b.Conv(4, 3, 1, 1).Norm().Then("Relu");
  const std::string first = b.at;
  b.Conv(4, 3, 1, 1).Norm().Then("Relu").Conv(4, 3, 1, 1).Norm().Then("Add", {first});
  b.Then("Relu");
  const std::string second = b.at;
  b.Conv(6, 3, 2, 1).Norm().Then("Relu").Conv(6, 3, 1, 1).Norm();
  const std::string path = b.at;
  b.m.Weights("down", {6, 4, 1, 1}, 9);
  SetInts(b.m.Node("Conv", {second, "down"}, "shortcut"), "strides", {2, 2});
  b.Then("Add", {"shortcut"}).Then("Relu").Then("GlobalAveragePool").Then("Flatten").Fc(6, 4);
  ExpectWorks(b);
}

TEST(UsualModels, MobileNet) {
  Builder b({-1, 3, 8, 8}, 3);
  b.Conv(4, 3, 2, 1).Norm().Relu6();
  b.Conv(4, 3, 1, 1, 4).Norm().Relu6().Conv(6, 1, 1, 0).Norm().Relu6();
  b.Conv(6, 3, 2, 1, 6).Norm().Relu6().Conv(8, 1, 1, 0).Norm().Relu6();
  b.Then("ReduceMean");
  SetInts(*b.node, "axes", {2, 3});
  SetInt(*b.node, "keepdims", 0);
  b.Fc(8, 4);
  ExpectWorks(b);
}

/// As Larq's models come out of tf2onnx: channels last, padded with 1, Sign(Sign(x) + 0.1).
TEST(UsualModels, BinaryNetworkOfLarq) {
  Builder b({-1, 8, 8, 3}, 3);
  const auto sign = [&] {
    const std::string little = b.Numbers({}, {0.1F});
    b.Then("Sign").Then("Add", {little}).Then("Sign");
  };
  b.Transpose({0, 3, 1, 2}).Conv(4, 3, 1, 1, 1, "Sign").Norm();
  sign();
  b.m.Ints("pads", {0, 0, 1, 1, 0, 0, 1, 1});
  b.Then("Pad", {"pads", b.Numbers({}, {1})}).Conv(6, 3, 1, 0, 1, "Sign").Norm();
  sign();
  b.Pool("MaxPool", 2);
  b.m.Ints("flat", {-1, 96});
  b.Transpose({0, 2, 3, 1}).Then("Reshape", {"flat"});
  b.m.Weights("latent", {96, 5}, 3);
  b.m.Node("Sign", {"latent"}, "signs");
  b.Then("MatMul", {"signs"});
  ExpectWorks(b, true);
}

/// In the order of Larq's examples, with pad_values=1.
TEST(UsualModels, BinaryNetworkWithNormsBehindPools) {
  Builder b({1, 2, 10, 10}, 2);
  b.Conv(4, 3, 1, 1, 1, "Sign").Pool("MaxPool", 2).Norm().Then("Sign");
  b.m.Ints("pads", {0, 0, 1, 1, 0, 0, 1, 1});
  b.Then("Pad", {"pads", b.Numbers({}, {1})}).Conv(6, 3, 1, 0, 1, "Sign").Pool("MaxPool", 2);
  b.Norm().Then("Sign").Then("Flatten").Fc(24, 5);
  ExpectWorks(b);
}

/// As Brevitas exports through QONNX, with activations of so many bits.
void ExpectBrevitasWorks(int bits) {
  Builder b({1, 1, 8, 8}, 1);
  const auto quantise = [&] {
    if (bits == 1) {
      b.Then("BipolarQuant", {b.Numbers({}, {1})});
    } else {
      const std::string levels = b.Numbers({}, {static_cast<float>(bits)});
      b.Then("Relu").Then("Quant", {b.Numbers({}, {0.5}), b.Numbers({}, {0}), levels});
      SetInt(*b.node, "signed", 0);
    }
    b.node->set_domain("qonnx.custom_op.general");
  };
  b.Conv(4, 3, 1, 0, 1, "BipolarQuant").Norm();
  quantise();
  b.Pool("MaxPool", 2).Conv(6, 3, 1, 0, 1, "BipolarQuant").Norm();
  quantise();
  b.Then("Flatten").Fc(6, 4);
  ExpectWorks(b);
}

TEST(UsualModels, BinaryNetworkOfBrevitas) { ExpectBrevitasWorks(1); }
TEST(UsualModels, TwoBitsOfBrevitas) { ExpectBrevitasWorks(2); }

/// Caffe's, whose convolutions have no activations.
TEST(UsualModels, LeNetOfCaffe) {
  Builder b({-1, 1, 12, 12}, 1);
  b.Conv(3, 3, 1, 1).Pool("MaxPool", 2).Conv(4, 3, 1, 0).Pool("MaxPool", 2);
  b.Then("Flatten").Fc(16, 8).Then("Relu").Fc(8, 5);
  ExpectWorks(b);
}

TEST(UsualModels, MobileNetOfTheSecondKind) {
  Builder b({-1, 3, 8, 8}, 3);
  b.Conv(4, 3, 2, 1).Norm().Relu6();
  b.Conv(3, 1, 1, 0).Norm();
  for (int i = 0; i < 3; ++i) {
    const std::string before = b.at;
    b.Conv(6, 1, 1, 0).Norm().Relu6().Conv(6, 3, 1, 1, 6).Norm().Relu6().Conv(3, 1, 1, 0).Norm();
    b.Then("Add", {before});
  }
  b.Then("GlobalAveragePool").Then("Flatten").Fc(3, 4);
  ExpectWorks(b);
}

TEST(UsualModels, DenseNet) {
  Builder b({-1, 2, 6, 6}, 2);
  b.Conv(3, 3, 1, 1);
  std::vector<std::string> all = {b.at};
  for (int i = 0; i < 3; ++i) {
    b.Norm().Then("Relu").Conv(2, 3, 1, 1);
    all.push_back(b.at);
    b.Concat(all, 5 + 2 * i);
  }
  b.Norm().Then("Relu").Then("GlobalAveragePool").Then("Flatten").Fc(9, 4);
  ExpectWorks(b);
}

/// Convolutions side by side, each with its ReLU, put together.
TEST(UsualModels, SqueezeNet) {
  Builder b({-1, 3, 8, 8}, 3);
  b.Conv(4, 3, 2, 1).Then("Relu");
  const std::string from = b.at;
  std::vector<std::string> parts;
  for (const std::int64_t kernel : {1, 3, 5}) {
    b.at = from;
    b.channels = 4;
    b.Conv(2, kernel, 1, kernel / 2).Then("Relu");
    parts.push_back(b.at);
  }
  b.Concat(parts, 6)
      .Pool("MaxPool", 2)
      .Conv(4, 1, 1, 0)
      .Then("Relu")
      .Then("GlobalAveragePool")
      .Then("Flatten");
  b.Fc(4, 3);
  ExpectWorks(b);
}

/// Branches of different lengths, of which two begin with a pool of what the others take whole.
TEST(UsualModels, Inception) {
  Builder b({-1, 1, 8, 8}, 1);
  b.Conv(4, 3, 1, 0).Then("Relu");
  const std::string from = b.at;
  std::vector<std::string> parts;
  for (const std::string& begin : std::vector<std::string>{"", "Conv", "MaxPool", "AveragePool"}) {
    b.at = from;
    b.channels = 4;
    if (begin == "Conv") b.Conv(2, 1, 1, 0).Then("Relu");
    if (begin.ends_with("Pool")) {
      b.Then(begin);
      SetInts(*b.node, "kernel_shape", {3, 3});
      SetInts(*b.node, "pads", {1, 1, 1, 1});
      if (begin == "AveragePool") SetInt(*b.node, "count_include_pad", 1);
    }
    const bool is_long = begin == "Conv";
    b.Conv(2, is_long ? 3 : 1, 1, is_long ? 1 : 0).Then("Relu");
    parts.push_back(b.at);
  }
  b.Concat(parts, 8).Pool("MaxPool", 2).Conv(4, 3, 1, 0).Then("Relu").Then("Flatten").Fc(4, 3);
  ExpectWorks(b);
}

TEST(UsualModels, GeluAndSwish) {
  Builder b({-1, 1, 6, 6}, 1);
  b.Conv(3, 3, 1, 1).Then("Gelu").Pool("AveragePool", 2).Conv(3, 3, 1, 1);
  const std::string before = b.at;
  b.Then("Sigmoid").Then("Mul", {before}).Then("Flatten").Fc(27, 4);
  ExpectWorks(b, false, 0.02F, {"lut", "fss"});
}

}  // namespace
}  // namespace tercet::importer
