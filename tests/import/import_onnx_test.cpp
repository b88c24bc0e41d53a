// SPDX-License-Identifier: Apache-2.0
#include "import/import_onnx.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <onnx/onnx_pb.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>

#include "base/scratch.h"
#include "import/import_command.h"
#include "import/model.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compile.h"

namespace tercet::importer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// --- What ONNX says the operators compute, for one image

struct Map {
  std::size_t channels = 0, height = 1, width = 1;
  std::vector<double> values;
  double At(std::size_t c, std::ptrdiff_t y, std::ptrdiff_t x) const {
    if (y < 0 || x < 0 || y >= static_cast<std::ptrdiff_t>(height) ||
        x >= static_cast<std::ptrdiff_t>(width))
      return 0;
    return values[(c * height + static_cast<std::size_t>(y)) * width + static_cast<std::size_t>(x)];
  }
};

/// `at` gives the output of a channel for the window whose corner is at (y, x) of the input.
template <class F>
Map Slide(const Map& in, std::size_t channels, std::size_t kernel, std::size_t stride,
          std::size_t padding, F at) {
  Map out{channels,
          (in.height + 2 * padding - kernel) / stride + 1,
          (in.width + 2 * padding - kernel) / stride + 1,
          {}};
  for (std::size_t c = 0; c < channels; ++c)
    for (std::size_t y = 0; y < out.height; ++y)
      for (std::size_t x = 0; x < out.width; ++x)
        out.values.push_back(at(c, static_cast<std::ptrdiff_t>(y * stride - padding),
                                static_cast<std::ptrdiff_t>(x * stride - padding)));
  return out;
}

Map Convolve(const Map& in, const std::vector<float>& weights, const std::vector<float>& bias,
             std::size_t channels, std::size_t kernel, std::size_t stride, std::size_t padding,
             std::size_t groups = 1) {
  const std::size_t depth = in.channels / groups;
  return Slide(in, channels, kernel, stride, padding, [&](auto c, auto top, auto left) {
    double sum = bias.empty() ? 0 : bias[c];
    for (std::size_t i = 0; i < depth; ++i)
      for (std::size_t ky = 0; ky < kernel; ++ky)
        for (std::size_t kx = 0; kx < kernel; ++kx)
          sum += weights[((c * depth + i) * kernel + ky) * kernel + kx] *
                 in.At(c / (channels / groups) * depth + i, top + static_cast<std::ptrdiff_t>(ky),
                       left + static_cast<std::ptrdiff_t>(kx));
    return sum;
  });
}

Map MaxPool(const Map& in, std::size_t kernel, std::size_t stride) {
  return Slide(in, in.channels, kernel, stride, 0, [&](auto c, auto top, auto left) {
    double largest = in.At(c, top, left);
    for (std::size_t i = 0; i < kernel * kernel; ++i)
      largest = std::max(largest, in.At(c, top + static_cast<std::ptrdiff_t>(i / kernel),
                                        left + static_cast<std::ptrdiff_t>(i % kernel)));
    return largest;
  });
}

Map AveragePool(const Map& in, std::size_t kernel, std::size_t stride, std::size_t padding) {
  return Slide(in, in.channels, kernel, stride, padding, [&](auto c, auto top, auto left) {
    double sum = 0;
    for (std::size_t i = 0; i < kernel * kernel; ++i)
      sum += in.At(c, top + static_cast<std::ptrdiff_t>(i / kernel),
                   left + static_cast<std::ptrdiff_t>(i % kernel));
    return sum / static_cast<double>(kernel * kernel);
  });
}

Map Each(Map map, const std::function<double(double)>& f) {
  std::transform(map.values.begin(), map.values.end(), map.values.begin(), f);
  return map;
}
Map Relu(const Map& map) {
  return Each(map, [](double v) { return std::max(v, 0.0); });
}

Map Normalise(Map map, const std::vector<float>& gamma, const std::vector<float>& beta,
              const std::vector<float>& mean, const std::vector<float>& variance, double eps) {
  const std::size_t size = map.height * map.width;
  for (std::size_t i = 0; i < map.values.size(); ++i) {
    const std::size_t c = i / size;
    map.values[i] = (map.values[i] - mean[c]) / std::sqrt(variance[c] + eps) * gamma[c] + beta[c];
  }
  return map;
}

Map Sum(Map a, const Map& b) {
  for (std::size_t i = 0; i < a.values.size(); ++i) a.values[i] += b.values[i];
  return a;
}

/// The weights' element of output o and input i.
Map Linear(const Map& in, std::size_t outputs, const std::vector<float>& bias,
           const std::function<float(std::size_t o, std::size_t i)>& weight) {
  Map out{outputs, 1, 1, {}};
  for (std::size_t o = 0; o < outputs; ++o) {
    double sum = bias.empty() ? 0 : bias[o];
    for (std::size_t i = 0; i < in.values.size(); ++i) sum += weight(o, i) * in.values[i];
    out.values.push_back(sum);
  }
  return out;
}

// --- Comparing

/// Runs the imported network and `reference` on three images.
void ExpectComputes(const ImportedNetwork& network,
                    const std::function<Map(const Map&)>& reference) {
  const auto spec = nn::ParseNetwork(network.architecture, "imported");
  const nn::FloatNetwork floats(spec, network.weights, "weights");
  files::Images images{spec.input.shape, 3, {}};
  for (std::size_t i = 0; i < 3 * images.shape.Size(); ++i)
    images.pixels.push_back(static_cast<std::uint8_t>(i * 29 + i / 7));
  const std::vector<float> logits = floats.Run(images, 0, images.count);
  std::vector<float> expected;
  for (std::size_t n = 0; n < images.count; ++n) {
    Map map{images.shape.channels, images.shape.height, images.shape.width, {}};
    for (std::size_t i = 0; i < images.shape.Size(); ++i) {
      const double pixel = images.pixels[n * images.shape.Size() + i];
      map.values.push_back((pixel / spec.input.scale - spec.input.mean) / spec.input.std);
    }
    for (const double value : reference(map).values) expected.push_back(static_cast<float>(value));
  }
  EXPECT_THAT(logits, testing::Pointwise(testing::FloatNear(1e-4F), expected));
}

// --- Whole networks

TEST(ImportOnnxTest, ConvolutionNormalisationPoolAndGemm) {
  Model m({1, 2, 8, 8});
  const auto conv = m.Weights("w1", {4, 2, 3, 3}, 1), bias = m.Weights("b1", {4}, 2);
  const auto gamma = m.Floats("gamma", {4}, {1, -0.5, 2, 0.25}), beta = m.Weights("beta", {4}, 3);
  const auto mean = m.Weights("mean", {4}, 4), variance = m.Floats("var", {4}, {1, 0.5, 2, 0});
  const auto fc = m.Weights("w2", {3, 36}, 5), fc_bias = m.Weights("b2", {3}, 6);
  auto& convolution = m.Node("Conv", {"x", "w1", "b1"}, "/conv1/Conv");
  SetInts(convolution, "kernel_shape", {3, 3});
  SetInts(convolution, "strides", {1, 1});
  SetInts(convolution, "pads", {0, 0, 0, 0});
  SetInts(convolution, "dilations", {1, 1});
  SetInt(convolution, "group", 1);
  SetFloat(m.Node("BatchNormalization", {"/conv1/Conv", "gamma", "beta", "mean", "var"}, "bn"),
           "epsilon", 1e-3F);
  m.Node("Relu", {"bn"}, "/act/Relu");
  auto& pool = m.Node("MaxPool", {"/act/Relu"}, "pool");
  SetInts(pool, "kernel_shape", {2, 2});
  SetInts(pool, "strides", {2, 2});
  m.Node("Flatten", {"pool"}, "flat");
  auto& gemm = m.Node("Gemm", {"flat", "w2", "b2"}, "fc");
  SetInt(gemm, "transB", 1);
  SetFloat(gemm, "alpha", 1);

  const ImportedNetwork network = m.Import(Scaled());
  EXPECT_THAT(LayersOf(network), ElementsAre("conv1 conv2d", "bn batch_norm", "act relu",
                                             "pool max_pool2d", "flat flatten", "fc linear"));
  EXPECT_THAT(network.notes, IsEmpty());
  EXPECT_THAT(network.architecture, HasSubstr(R"("name": "m")"));
  EXPECT_THAT(network.architecture, HasSubstr(R"("eps": 0.001)"));
  EXPECT_TRUE(network.weights.tensors.contains("conv1.bias"));
  EXPECT_TRUE(network.weights.tensors.contains("bn.running_var"));
  ExpectComputes(network, [&](const Map& x) {
    const Map normal =
        Normalise(Convolve(x, conv, bias, 4, 3, 1, 0), gamma, beta, mean, variance, 1e-3);
    return Linear(MaxPool(Relu(normal), 2, 2), 3, fc_bias,
                  [&](std::size_t o, std::size_t i) { return fc[o * 36 + i]; });
  });
}

TEST(ImportOnnxTest, ResidualBlocks) {
  // The first with the identity as shortcut, the second with a convolution, which stands in the
  // file before the path that it is a shortcut of.
  Model m({-1, 2, 6, 6});
  std::map<std::string, std::vector<float>> w;
  const auto conv = [&](const std::string& name, const std::string& input, const Dims& dims,
                        std::int64_t stride) {
    w[name] = m.Weights(name + ".weight", dims, static_cast<int>(w.size()));
    auto& node = m.Node("Conv", {input, name + ".weight"}, name);
    SetInts(node, "strides", {stride, stride});
    const std::int64_t padding = dims[2] / 2;
    SetInts(node, "pads", {padding, padding, padding, padding});
  };
  conv("c0", "x", {2, 2, 3, 3}, 1);
  m.Node("Relu", {"c0"}, "r0");
  conv("c1", "r0", {2, 2, 3, 3}, 1);
  m.Node("Add", {"r0", "c1"}, "a1");
  m.Node("Relu", {"a1"}, "r1");
  conv("shortcut", "r1", {4, 2, 1, 1}, 2);
  conv("c2", "r1", {4, 2, 3, 3}, 2);
  m.Node("Relu", {"c2"}, "r2");
  conv("c3", "r2", {4, 4, 3, 3}, 1);
  m.Node("Add", {"c3", "shortcut"}, "a2");
  m.Node("Relu", {"a2"}, "r3");
  m.Node("GlobalAveragePool", {"r3"}, "pool");
  m.Node("Flatten", {"pool"}, "flat");

  const ImportedNetwork network = m.Import(Scaled());
  EXPECT_THAT(LayersOf(network),
              ElementsAre("c0 conv2d", "r0 relu", "c1 conv2d", "a1 add from r0", "r1 relu",
                          "shortcut conv2d", "c2 conv2d from r1", "r2 relu", "c3 conv2d",
                          "a2 add from shortcut", "r3 relu", "pool avg_pool2d", "flat flatten"));
  ExpectComputes(network, [&](const Map& x) {
    const Map r0 = Relu(Convolve(x, w["c0"], {}, 2, 3, 1, 1));
    const Map r1 = Relu(Sum(r0, Convolve(r0, w["c1"], {}, 2, 3, 1, 1)));
    const Map r2 = Relu(Convolve(r1, w["c2"], {}, 4, 3, 2, 1));
    const Map r3 = Relu(
        Sum(Convolve(r2, w["c3"], {}, 4, 3, 1, 1), Convolve(r1, w["shortcut"], {}, 4, 1, 2, 0)));
    return AveragePool(r3, 3, 3, 0);
  });
}

TEST(ImportOnnxTest, MatMulAndAddInDoubles) {
  Model m({-1, 12});
  const std::vector<float> w1 = Numbers(12 * 5, 1), w2 = m.Weights("w2", {5, 3}, 2);
  auto& tensor = m.Tensor("w1", {12, 5});
  tensor.set_data_type(onnx::TensorProto::DOUBLE);
  const std::vector<double> doubles(w1.begin(), w1.end());
  tensor.set_raw_data(doubles.data(), doubles.size() * sizeof(double));
  const auto b1 = m.Weights("b1", {1, 5}, 3);
  m.Floats("b2", {}, {0.75});
  m.Node("MatMul", {"x", "w1"}, "fc1");
  m.Node("Add", {"b1", "fc1"}, "sum1");
  m.Node("Relu", {"sum1"}, "act1");
  m.Node("MatMul", {"act1", "w2"}, "fc2");
  m.Node("Add", {"fc2", "b2"}, "sum2");

  const auto reference = [&](const Map& x) {
    const Map hidden =
        Relu(Linear(x, 5, b1, [&](std::size_t o, std::size_t i) { return w1[i * 5 + o]; }));
    return Linear(hidden, 3, {0.75, 0.75, 0.75},
                  [&](std::size_t o, std::size_t i) { return w2[i * 3 + o]; });
  };
  ImportOptions options = Scaled();
  const ImportedNetwork vector = m.Import(options);
  EXPECT_THAT(LayersOf(vector), ElementsAre("fc1 linear", "act1 relu", "fc2 linear"));
  ExpectComputes(vector, reference);
  options.input.shape = {1, 3, 4};
  const ImportedNetwork image = m.Import(options);
  EXPECT_THAT(LayersOf(image),
              ElementsAre("Flatten_1 flatten", "fc1 linear", "act1 relu", "fc2 linear"));
  ExpectComputes(image, reference);
}

// --- Single operators, behind a convolution

/// x -> conv (2 of 1 x 1 over 2 channels) -> "c", of 2 x 4 x 4.
class OperatorTest : public testing::Test {
 protected:
  OperatorTest() : model_({1, 2, 4, 4}), weights_(model_.Weights("w", {2, 2, 1, 1}, 1)) {
    model_.Node("Conv", {"x", "w"}, "c");
  }
  Map C(const Map& x) const { return Convolve(x, weights_, {}, 2, 1, 1, 0); }
  /// What follows the convolution is `layer` and computes f of its output.
  void ExpectLayer(const std::string& layer, const std::function<Map(const Map&)>& f) const {
    const ImportedNetwork network = model_.Import(Scaled());
    EXPECT_THAT(LayersOf(network), ElementsAre("c conv2d", layer));
    ExpectComputes(network, [&](const Map& x) { return f(C(x)); });
  }
  void ExpectRefused(const std::string& place, const std::string& text) const {
    importer::ExpectRefused([&] { model_.Import(); }, "m.onnx " + place, text);
  }

  Model model_;
  std::vector<float> weights_;
};

TEST_F(OperatorTest, GroupedConvolution) {
  const auto w = model_.Weights("w2", {4, 1, 3, 3}, 2), b = model_.Weights("b2", {4}, 3);
  auto& node = model_.Node("Conv", {"c", "w2", "b2"}, "y");
  SetInt(node, "group", 2);
  SetString(node, "auto_pad", "VALID");
  ExpectLayer("y conv2d", [&](const Map& c) { return Convolve(c, w, b, 4, 3, 1, 0, 2); });
}

TEST_F(OperatorTest, Sign) {
  model_.Node("Sign", {"c"}, "y");
  ExpectLayer("y sign",
              [](const Map& c) { return Each(c, [](double v) { return v >= 0 ? 1.0 : -1.0; }); });
  EXPECT_THAT(model_.Import().notes, ElementsAre(HasSubstr("Sign(0)")));
}

TEST_F(OperatorTest, MulIsASquare) {
  model_.Node("Mul", {"c", "c"}, "y");
  ExpectLayer("y square", [](const Map& c) { return Each(c, [](double v) { return v * v; }); });
}

TEST_F(OperatorTest, PowIsASquare) {
  model_.Floats("two", {}, {2});
  model_.Node("Pow", {"c", "two"}, "y");
  ExpectLayer("y square", [](const Map& c) { return Each(c, [](double v) { return v * v; }); });
}

TEST_F(OperatorTest, MaxPoolWithOverlap) {
  SetInts(model_.Node("MaxPool", {"c"}, "y"), "kernel_shape", {3, 3});  // strides are 1 by default
  model_.Node("Relu", {"y"}, "r");
  const ImportedNetwork network = model_.Import(Scaled());
  EXPECT_THAT(LayersOf(network), ElementsAre("c conv2d", "y max_pool2d", "r relu"));
  ExpectComputes(network, [&](const Map& x) { return Relu(MaxPool(C(x), 3, 1)); });
}

TEST_F(OperatorTest, AveragePoolThatCountsItsPadding) {
  auto& node = model_.Node("AveragePool", {"c"}, "y");
  SetInts(node, "kernel_shape", {2, 2});
  SetInts(node, "strides", {2, 2});
  SetInts(node, "pads", {1, 1, 1, 1});
  SetInt(node, "count_include_pad", 1);
  ExpectLayer("y avg_pool2d", [](const Map& c) { return AveragePool(c, 2, 2, 1); });
}

TEST_F(OperatorTest, PadsBecomeThoseOfWhatFollows) {
  model_.Ints("pads", {0, 0, 1, 1, 0, 0, 1, 1});
  model_.Floats("zero", {}, {0});
  model_.Node("Pad", {"c", "pads", "zero"}, "p");
  auto& pool = model_.Node("AveragePool", {"p"}, "y");
  SetInts(pool, "kernel_shape", {2, 2});
  SetInts(pool, "strides", {2, 2});
  ExpectLayer("y avg_pool2d", [](const Map& c) { return AveragePool(c, 2, 2, 1); });

  const auto w = model_.Weights("w2", {1, 2, 5, 5}, 2);
  auto& conv = model_.Node("Conv", {"p", "w2"}, "z");
  SetInts(conv, "pads", {1, 1, 1, 1});
  ExpectLayer("z conv2d", [&](const Map& c) { return Convolve(c, w, {}, 1, 5, 1, 2); });
}

TEST_F(OperatorTest, PadsOfZeroAreLeftOut) {
  // Until operator set 10 they were attributes.
  auto& pad = model_.Node("Pad", {"c"}, "p");
  SetInts(pad, "pads", Dims(8, 0));
  SetFloat(pad, "value", 0);
  model_.Node("Relu", {"p"}, "y");
  ExpectLayer("y relu", Relu);
}

TEST_F(OperatorTest, RefusesOtherPads) {
  auto& pad = model_.Node("Pad", {"c"}, "p");
  SetInts(pad, "pads", {0, 0, 1, 1, 0, 0, 1, 1});
  importer::ExpectRefused([&] { model_.Import(); }, "m.onnx", "found zeros around the output p");
  model_.Node("Relu", {"p"}, "y");
  ExpectRefused("node Relu 'y'", "found 'p' with zeros around it");
  auto& pads = *pad.mutable_attribute(0);
  for (const int i : {0, 4}) {
    pads.set_ints(i, 1);
    ExpectRefused("node Pad 'p'", "and 0 for the images");
    pads.set_ints(i, 0);
  }
  pads.set_ints(2, -1);
  ExpectRefused("node Pad 'p'", "found pads [0, 0, -1, 1, 0, 0, 1, 1], expected numbers from 0");
  pads.set_ints(2, 1);
  pads.set_ints(1, 1);
  model_.Node("GlobalMaxPool", {"p"}, "z");
  ExpectRefused("node GlobalMaxPool 'z'", "found 'p' with zeros around it");
  SetInts(model_.Node("MaxPool", {"p"}, "m"), "kernel_shape", {2, 2});
  SetFloat(pad, "value", 1);
  ExpectRefused("node MaxPool 'm'", "found zeros around the channels");
  pad.mutable_attribute()->RemoveLast();
  pads.set_ints(1, 0);
  ExpectRefused("node MaxPool 'm'", "may be larger than it");
  SetFloat(pad, "value", 1);
  SetInts(model_.Node("AveragePool", {"p"}, "a"), "kernel_shape", {2, 2});
  ExpectRefused("node AveragePool 'a'", "found 1 around its input, expected zeros");
  model_.Weights("again", {}, 1);
  SetInts(model_.Node("Pad", {"p"}, "q"), "pads", {0, 0, 1, 1, 0, 0, 1, 1});
  ExpectRefused("node Pad 'q'", "with another number");
  pads.add_ints(0);
  ExpectRefused("node Pad 'p'", "expected numbers from 0 to 4096 for each axis");
  SetString(pad, "mode", "reflect");
  ExpectRefused("node Pad 'p'", "found mode reflect");
}

TEST_F(OperatorTest, GlobalAveragePool) {
  model_.Node("GlobalAveragePool", {"c"}, "y");
  ExpectLayer("y avg_pool2d", [](const Map& c) { return AveragePool(c, 4, 4, 0); });
}

TEST_F(OperatorTest, ReshapesThatFlatten) {
  model_.Ints("shape", {});
  model_.Node("Reshape", {"c", "shape"}, "y");
  auto& shape = *model_.proto.mutable_graph()->mutable_initializer(1);
  shape.set_dims(0, 2);
  for (const Dims& dims : {Dims{1, -1}, Dims{0, -1}, Dims{-1, 32}, Dims{1, 32}}) {
    shape.mutable_int64_data()->Assign(dims.begin(), dims.end());
    ExpectLayer("y flatten", [](const Map& c) { return c; });
  }
  for (const Dims& dims : {Dims{-1, -1}, Dims{2, 16}, Dims{-1, 16}, Dims{2, -1}}) {
    shape.mutable_int64_data()->Assign(dims.begin(), dims.end());
    ExpectRefused("node Reshape 'y'", "expected [N, 32]");
  }
  // [1, -1] makes one row of all images.
  shape.set_int64_data(0, 1);
  shape.set_int64_data(1, -1);
  model_.proto.mutable_graph()
      ->mutable_input(0)
      ->mutable_type()
      ->mutable_tensor_type()
      ->mutable_shape()
      ->mutable_dim(0)
      ->set_dim_param("N");
  ExpectRefused("node Reshape 'y'", "found shape [1, -1]");
}

TEST_F(OperatorTest, AFlattenedResultAddsToItself) {
  model_.Node("Flatten", {"c"}, "f");
  model_.Node("Add", {"f", "f"}, "y");
  const ImportedNetwork network = model_.Import(Scaled());
  EXPECT_THAT(LayersOf(network), ElementsAre("c conv2d", "f flatten", "y add from f"));
  ExpectComputes(network, [&](const Map& x) { return Sum(C(x), C(x)); });
}

TEST_F(OperatorTest, IdentityAndDropoutAreLeftOut) {
  model_.proto.mutable_graph()->mutable_node(0)->set_input(1, "same_w");
  auto& shared = model_.Node("Identity", {"w"}, "same_w");
  model_.proto.mutable_graph()->mutable_node()->SwapElements(0, 1);
  EXPECT_EQ(shared.op_type(), "Identity");
  model_.Node("Identity", {"c"}, "i");
  auto& training = model_.Tensor("training", {});
  training.set_data_type(onnx::TensorProto::BOOL);
  training.set_raw_data(std::string(1, '\0'));
  model_.Node("Dropout", {"i", "", "training"}, "d");
  model_.Node("Relu", {"d"}, "y");
  model_.Node("Dropout", {"y"}, "z");
  ExpectLayer("y relu", Relu);
  training.set_raw_data(std::string(1, '\1'));
  ExpectRefused("node Dropout 'd'", "training_mode");
}

TEST_F(OperatorTest, ConstantNodes) {
  auto& node = model_.Node("Constant", {}, "k");
  auto* value = node.add_attribute();
  value->set_name("value");
  value->set_type(onnx::AttributeProto::TENSOR);
  value->mutable_t()->set_data_type(onnx::TensorProto::INT64);
  value->mutable_t()->add_int64_data(2);
  model_.Node("Pow", {"c", "k"}, "y");
  ExpectLayer("y square", [](const Map& c) { return Each(c, [](double v) { return v * v; }); });
  value->mutable_t()->add_dims(2);
  ExpectRefused("tensor k", "found 1 values, expected 2");
}

TEST_F(OperatorTest, SoftmaxAndArgMaxAtTheEnd) {
  model_.Node("Flatten", {"c"}, "f");
  SetInt(model_.Node("Softmax", {"f"}, "s"), "axis", -1);
  EXPECT_THAT(model_.Import().notes, ElementsAre(HasSubstr("Softmax 's' is left out")));
  EXPECT_THAT(model_.Import().architecture, HasSubstr(R"("output": "logits")"));
  SetInt(model_.Node("ArgMax", {"s"}, "a"), "axis", 1);
  EXPECT_THAT(model_.Import().architecture, HasSubstr(R"("output": "class")"));
  EXPECT_THAT(LayersOf(model_.Import()), ElementsAre("c conv2d", "f flatten"));
  model_.proto.mutable_graph()->mutable_node(3)->mutable_attribute(0)->set_i(0);
  ExpectRefused("node ArgMax 'a'", "found axis 0, expected 1");
}

TEST_F(OperatorTest, NamesThatTheNetworkCannotHave) {
  const std::vector<std::string> names = {"", "twice", "twice", "input", "/a/a.0/b c/Mul", "0\xc3"};
  std::string before = "c";
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string output = fmt::format("y{}", i);
    model_.Node("Mul", {before, before}, output).set_name(names[i]);
    before = output;
  }
  EXPECT_THAT(LayersOf(model_.Import()),
              ElementsAre("c conv2d", "Mul_1 square", "Mul_2 conv2d", "Mul_3 square",
                          "Mul_4 conv2d", "Mul_5 square", "Mul_6 conv2d", "Mul_7 square",
                          "Mul_8 conv2d", "a.0.b_c square", "Mul_9 conv2d", "_0_ square"));
}

TEST_F(OperatorTest, NodesThatTheOutputDoesNotNeedAreNotRead) {
  model_.Node("NonMaxSuppression", {"c"}, "unused");
  model_.Node("Relu", {"c"}, "y");
  ExpectLayer("y relu", Relu);
}

// --- Refusals

TEST_F(OperatorTest, RefusesOperators) {
  model_.Node("Softsign", {"c"}, "y").set_name("");
  ExpectRefused("node Softsign '#1'", "cannot be imported");
  auto& node = model_.Node("Relu", {"c"}, "z");
  node.set_domain("com.example");
  ExpectRefused("node Relu 'z'", "com.example");
  model_.Node("Flatten", {"c"}, "f");
  model_.Node("Softmax", {"f"}, "s");
  model_.Node("Relu", {"s"}, "r");
  ExpectRefused("node Softmax 's'", "cannot be imported");
}

TEST_F(OperatorTest, RefusesAttributes) {
  const auto refuse = [&](const std::string& op, const std::function<void(onnx::NodeProto&)>& set,
                          const std::string& text) {
    OperatorTest::model_ = Model({1, 2, 4, 4});
    model_.Weights("w", {2, 2, 1, 1}, 1);
    model_.Weights("w2", {2, 2, 3, 3}, 1);
    model_.Weights("flat", {32, 2}, 1);
    model_.Weights("two", {2}, 1);
    model_.Node("Conv", {"x", "w"}, "c");
    std::vector<std::string> inputs = {"c"};
    if (op == "Conv") inputs.emplace_back("w2");
    if (op == "BatchNormalization") inputs = {"c", "two", "two", "two", "two"};
    if (op == "Gemm") {
      model_.Node("Flatten", {"c"}, "f");
      inputs = {"f", "flat"};
    }
    auto& node = model_.Node(op, inputs, "y");
    set(node);
    ExpectRefused("node " + op + " 'y'", text);
  };
  const auto ints = [](const char* name, const Dims& values) {
    return [=](onnx::NodeProto& node) {
      if (node.op_type().ends_with("Pool") && std::string(name) != "kernel_shape")
        SetInts(node, "kernel_shape", {2, 2});
      SetInts(node, name, values);
    };
  };
  const auto integer = [](const char* name, std::int64_t value) {
    return [=](onnx::NodeProto& node) {
      if (node.op_type().ends_with("Pool")) SetInts(node, "kernel_shape", {2, 2});
      SetInt(node, name, value);
    };
  };
  refuse("Conv", ints("dilations", {2, 2}), "found a kernel of 5 x 5");
  refuse("Conv", ints("dilations", {0, 1}), "found dilations [0, 1]");
  refuse("Conv", ints("pads", {-1, -1, -1, -1}), "found pads [-1, -1, -1, -1]");
  refuse("Conv", ints("strides", {0, 0}), "found strides [0, 0]");
  refuse("Conv", ints("kernel_shape", {3}), "found kernel_shape [3]");
  refuse("Conv", ints("kernel_shape", {2, 2}), "found weights of shape [2, 2, 3, 3]");
  refuse("Conv", ints("group", {1}), "of type INTS, expected INT");
  refuse("Conv", integer("group", 3), "found group 3");
  refuse("Conv", integer("group", 0), "found group 0");
  refuse("Conv", integer("new", 0), "found attribute new");
  refuse(
      "Conv", [](auto& node) { SetString(node, "auto_pad", "?"); }, "found auto_pad ?");
  refuse("MaxPool", ints("pads", {1, 0, 0, 0}), "pads what is neither a ReLU's nor a Sign's");
  refuse("MaxPool", ints("kernel_shape", {5, 5}), "found a kernel of 5");
  refuse("MaxPool", ints("kernel_shape", {1}), "found kernel_shape [1]");
  refuse("MaxPool", ints("dilations", {2, 2}), "found dilations [2, 2], expected 1");
  refuse(
      "AveragePool",
      [&](auto& node) {
        ints("strides", {2, 2})(node);
        ints("pads", {1, 1, 0, 0})(node);
        SetInt(node, "count_include_pad", 1);
        SetInt(node, "ceil_mode", 1);
      },
      "of which some count in its divisor and others do not");
  refuse("BatchNormalization", integer("training_mode", 1), "found training_mode 1");
  refuse("BatchNormalization", integer("spatial", 0), "found spatial 0");
  refuse(
      "BatchNormalization", [](auto& node) { node.add_output("mean"); }, "statistics");
  refuse(
      "BatchNormalization", [](auto& node) { SetFloat(node, "epsilon", 0); }, "found epsilon 0");
  refuse("Gemm", integer("transA", 1), "found an input of [32, N] (transposed where transA is 1)");
  refuse("Gemm", integer("transA", 2), "found transA or transB 2");
  refuse("Gemm", integer("transB", 1), "found weights of shape [32, 2], expected [outputs, 32]");
  refuse("Flatten", integer("axis", 2), "found axis 2");
}

TEST_F(OperatorTest, RefusesInputs) {
  const auto refuse = [&](const std::string& op, const std::vector<std::string>& inputs,
                          const std::string& text) {
    model_ = Model({1, 2, 4, 4});
    model_.Weights("w", {2, 2, 1, 1}, 1);
    model_.Weights("vector", {2}, 1);
    model_.Floats("three", {}, {3});
    model_.Weights("four", {4}, 1);
    model_.Node("Conv", {"x", "w"}, "c");
    SetInts(model_.Node("Conv", {"x", "w"}, "half"), "strides", {2, 2});
    model_.Node("Flatten", {"c"}, "flat");
    model_.Node(op, inputs, "y");
    ExpectRefused("node " + op + " 'y'", text);
  };
  refuse("Conv", {"flat", "w"}, "found an input of [N, 32]");
  refuse("Conv", {"c", "half"}, "found 'half' as input 1, expected a constant");
  refuse("Conv", {"c"}, "has no input 1");
  refuse("Conv", {"c", "vector"}, "found kernel_shape [0, 0]");
  refuse("Conv", {"c", "w", "three"}, "found three of shape [] as input 2, expected [2]");
  refuse("Relu", {"w"}, "found the constant 'w'");
  refuse("Relu", {"nothing"}, "expected what an earlier node computes");
  refuse("Relu", {"y"}, "expected what an earlier node computes");
  refuse("Gemm", {"c", "w"}, "found an input of [N, 2, 4, 4], expected [N, features]");
  refuse("MatMul", {"flat", "w"}, "found weights of shape [2, 2, 1, 1]");
  refuse("Mul", {"c", "half"},
         "expected one with itself (a square), a function of itself or a constant");
  refuse("Div", {"c", "half"}, "divides different values, expected one by a constant");
  refuse("Div", {"three", "c"}, "divides a constant by a value");
  refuse("Mul", {"c", "four"}, "differs within a channel");
  refuse("Add", {"c", "w"}, "expected one that fits [1, 2, 4, 4]");
  refuse("Max", {"c", "half"}, "compares several values");
  refuse("Max", {"c", "four"}, "compares with different numbers");
  refuse("Greater", {"c", "half"}, "compares two values");
  refuse("Where", {"c", "three", "three"}, "expected what a comparison gives");
  refuse("Not", {"c"}, "expected what a comparison gives");
  refuse("Pow", {"c", "three"}, "expected 2");
  refuse("Add", {"c", "half"}, "found inputs of [N, 2, 4, 4] and [N, 2, 2, 2]");
  refuse("Softmax", {"c"}, "expected [N, features]");
  refuse("Reshape", {"c", "c"}, "found 'c' as input 1, expected a constant");
  model_.proto.mutable_graph()->mutable_node(3)->set_input(1, "three");
  ExpectRefused("tensor three", "found type FLOAT, expected INT64");
}

TEST_F(OperatorTest, ABiasOfWhatAnotherLayerReadsTooIsALayerOfItsOwn) {
  model_.Node("Flatten", {"c"}, "f");
  const auto w = model_.Weights("square", {32, 32}, 1), b = model_.Weights("b", {32}, 1);
  model_.Node("MatMul", {"f", "square"}, "fc");
  model_.Node("Identity", {"fc"}, "same");
  model_.Node("Add", {"same", "b"}, "biased");
  model_.Node("Add", {"biased", "fc"}, "y");
  const ImportedNetwork network = model_.Import(Scaled());
  EXPECT_THAT(LayersOf(network), ElementsAre("c conv2d", "f flatten", "fc linear",
                                             "biased batch_norm", "y add from fc"));
  ExpectComputes(network, [&](const Map& x) {
    const auto weight = [&](std::size_t o, std::size_t i) { return w[i * 32 + o]; };
    return Sum(Linear(C(x), 32, b, weight), Linear(C(x), 32, {}, weight));
  });
}

TEST_F(OperatorTest, WhatTheNetworksParserRefusesIsSaidOfTheNode) {
  auto& node = model_.Node("AveragePool", {"c"}, "y");
  SetInts(node, "kernel_shape", {2, 2});
  SetInts(node, "pads", {2, 2, 2, 2});
  SetInt(node, "count_include_pad", 1);
  ExpectRefused("node AveragePool 'y'", "padding: found 2, expected at most half the kernel");
}

TEST_F(OperatorTest, RefusesModels) {
  const auto refuse = [&](const std::string& place, const std::string& text,
                          const std::function<void(onnx::GraphProto&)>& change) {
    Model m = model_;
    change(*m.proto.mutable_graph());
    importer::ExpectRefused([&] { m.Import(); }, place, text);
  };
  refuse("m.onnx", "holds no graph", [](auto& g) { g.Clear(); });
  refuse("m.onnx", "found 2 outputs", [](auto& g) { g.add_output()->set_name("x"); });
  refuse("m.onnx", "found inputs x and z", [](auto& g) { g.add_input()->set_name("z"); });
  refuse("m.onnx", "found no input", [](auto& g) { g.clear_input(); });
  refuse("m.onnx", "found c twice", [](auto& g) { *g.add_node() = g.node(0); });
  refuse("m.onnx", "found w twice", [](auto& g) { *g.add_initializer() = g.initializer(0); });
  refuse("m.onnx", "found no layers", [](auto& g) { g.mutable_output(0)->set_name("x"); });
  refuse("m.onnx", "found no layers", [](auto& g) { g.mutable_output(0)->set_name("nothing"); });
  refuse("m.onnx", "found the output k, expected what a node computes", [](auto& g) {
    auto* node = g.add_node();
    node->set_op_type("Constant");
    node->add_output("k");
    auto* value = node->add_attribute();
    value->set_name("value");
    value->set_type(onnx::AttributeProto::TENSOR);
    g.mutable_output(0)->set_name("k");
  });
  const auto type = [](auto& g) {
    return g.mutable_input(0)->mutable_type()->mutable_tensor_type();
  };
  refuse("m.onnx input x", "expected [N, channels",
         [&](auto& g) { type(g)->mutable_shape()->add_dim()->set_dim_value(1); });
  refuse("m.onnx input x", "--shape",
         [&](auto& g) { type(g)->mutable_shape()->mutable_dim(3)->set_dim_param("width"); });
  refuse("m.onnx input x", "sides of 4096",
         [&](auto& g) { type(g)->mutable_shape()->mutable_dim(3)->set_dim_value(1 << 20); });
  refuse("m.onnx input x", "real numbers",
         [&](auto& g) { type(g)->set_elem_type(onnx::TensorProto::UINT8); });

  Model old = model_;
  old.proto.mutable_opset_import(0)->set_version(5);
  importer::ExpectRefused([&] { old.Import(); }, "m.onnx", "found operator set 5, expected 6");
  ImportOptions other;
  other.input.shape = {2, 4, 5};
  importer::ExpectRefused([&] { model_.Import(other); }, "m.onnx input x",
                          "fit the shape 2 x 4 x 5");
}

TEST_F(OperatorTest, RefusesTensors) {
  const auto refuse = [&](const std::string& text,
                          const std::function<void(onnx::TensorProto&)>& change) {
    Model m = model_;
    change(*m.proto.mutable_graph()->mutable_initializer(0));
    importer::ExpectRefused([&] { m.Import(); }, "m.onnx tensor w", text);
  };
  refuse("found 3 values, expected 4 for shape [2, 2, 1, 1]",
         [](auto& w) { w.mutable_float_data()->RemoveLast(); });
  refuse("found 15 bytes, expected 16 for shape [2, 2, 1, 1] of FLOAT",
         [](auto& w) { w.set_raw_data(std::string(15, '\0')); });
  refuse("found 0 values, expected 4", [](auto& w) { w.clear_float_data(); });
  refuse("found type INT64", [](auto& w) { w.set_data_type(onnx::TensorProto::INT64); });
  refuse("found type 99", [](auto& w) { w.set_data_type(99); });
  refuse("found 0 values", [](auto& w) { w.set_data_type(onnx::TensorProto::FLOAT16); });
  refuse("segment", [](auto& w) { w.mutable_segment()->set_begin(0); });
}

TEST_F(OperatorTest, RefusesSizesThatDoNotFit) {
  auto& w = *model_.proto.mutable_graph()->mutable_initializer(0);
  w.set_dims(0, 65536);
  ExpectRefused("tensor w", "found 4 values, expected 131072");
  w.set_dims(0, std::int64_t{1} << 62);
  ExpectRefused("node Conv 'c'", "found weights of shape");
  model_.Tensor("k", {std::int64_t{1} << 33, std::int64_t{1} << 33})
      .set_data_type(onnx::TensorProto::FLOAT);
  w.set_dims(0, 2);
  model_.Node("Pow", {"c", "k"}, "y");
  ExpectRefused("tensor k", "expected fewer than");
}

TEST_F(OperatorTest, RefusesNumbersThatAreNotFinite) {
  model_.proto.mutable_graph()->mutable_initializer(0)->set_float_data(1, std::nanf(""));
  ExpectRefused("tensor c.weight", "found NaN as element 1");
}

TEST_F(OperatorTest, RefusesATruncatedFile) {
  std::vector<std::uint8_t> bytes = model_.Bytes();
  bytes.resize(bytes.size() / 2);
  importer::ExpectRefused([&] { ParseOnnx(bytes, "m.onnx", {}); }, "m.onnx", "truncated");
  importer::ExpectRefused([&] { ParseOnnx({}, "m.onnx", {}); }, "m.onnx", "holds no graph");
  importer::ExpectRefused([&] { ImportOnnx("no/such.onnx", {}); }, "no/such.onnx",
                          "cannot be read");
}

// --- The command

class ImportCommandTest : public OperatorTest {
 protected:
  void Run(std::vector<std::string> arguments) const {
    CLI::App cli;
    programs::Chosen chosen;
    AddImportCommand(cli, chosen);
    std::reverse(arguments.begin(), arguments.end());
    cli.parse(arguments);
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen(), 0);
  }
  std::string In(const std::string& name) const { return (directory_.Path() / name).string(); }
  void WriteModel() const {
    const auto bytes = model_.Bytes();
    WriteFile(In("My model.onnx"), std::string(bytes.begin(), bytes.end()));
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.Path()))
      files.push_back(entry.path().filename().string());
    std::sort(files.begin(), files.end());
    return files;
  }

  ScratchDirectory directory_;
};

TEST_F(ImportCommandTest, WritesNetworkAndWeights) {
  WriteModel();
  Run({"import", In("My model.onnx"), "--out", In("net.json"), "--scale", "128", "--mean", "0.5",
       "--std", "0.25", "--bits", "4"});
  EXPECT_THAT(Files(), ElementsAre("My model.onnx", "net.json", "net.safetensors"));
  using std::filesystem::perms;
  EXPECT_EQ(std::filesystem::status(In("net.safetensors")).permissions(),
            perms::owner_read | perms::owner_write);
  const auto spec = nn::LoadNetwork(In("net.json"));
  EXPECT_EQ(spec.name, "My model");
  EXPECT_EQ(spec.input, (nn::InputSpec{{2, 4, 4}, 128, 0.5, 0.25, 4}));
  const nn::FloatNetwork network(spec, files::LoadTensors(In("net.safetensors")), "weights");
  EXPECT_THAT(network.Spec().layers, SizeIs(1));

  Run({"import", In("My model.onnx"), "--out", In("b.json"), "--weights", In("w.safetensors"),
       "--name", "B", "--shape", "2,4,4"});
  EXPECT_EQ(nn::LoadNetwork(In("b.json")).name, "B");
  EXPECT_EQ(files::LoadTensors(In("w.safetensors")), files::LoadTensors(In("net.safetensors")));
}

TEST_F(ImportCommandTest, TakesTheSignsOfLatentWeights) {
  WriteModel();
  Run({"import", In("My model.onnx"), "--out", In("net.json"), "--binarise", "c"});
  std::vector<double> signs;
  for (const float w : weights_) signs.push_back(w >= 0 ? 1 : -1);
  EXPECT_EQ(files::LoadTensors(In("net.safetensors")).tensors.at("c.weight").AsDoubles(), signs);
  importer::ExpectRefused(
      [&] {
        Run({"import", In("My model.onnx"), "--out", In("net.json"), "--binarise", "c,d"});
      },
      "--binarise", "found 'd', expected a layer with weights: c");
}

TEST_F(ImportCommandTest, WritesNothingWhenSomethingIsWrong) {
  model_.Node("Softsign", {"c"}, "y");
  WriteModel();
  EXPECT_THROW(Run({"import", In("My model.onnx"), "--out", In("net.json")}), ConfigError);
  EXPECT_THAT(Files(), ElementsAre("My model.onnx"));
}

TEST_F(ImportCommandTest, RefusesOutputsBeforeItReads) {
  const std::string missing = In("missing.onnx");
  importer::ExpectRefused(
      [&] {
        Run({"import", missing, "--out", In("no/net.json")});
      },
      "--out", "cannot be written");
  importer::ExpectRefused(
      [&] {
        Run({"import", missing, "--out", In("a.json"), "--weights", In("no/w")});
      },
      "--weights", "cannot be written");
  importer::ExpectRefused(
      [&] {
        Run({"import", missing, "--out", In("a.safetensors")});
      },
      "--out", "the weights too");
  EXPECT_THROW(Run({"import", missing, "--out", In("a.json"), "--shape", "1,2"}), CLI::ParseError);
  EXPECT_THAT(Files(), IsEmpty());
}

}  // namespace
}  // namespace tercet::importer
