// SPDX-License-Identifier: Apache-2.0
// What the importer refuses, and what it says then, where no test of an operator asks for it.

#include <fmt/format.h>

#include "import/expect_same.h"
#include "import/model.h"

namespace tercet::importer {
namespace {

/// x [N, 2, 5, 5] -> conv "c" [N, 3, 5, 5], padded.
class RefusalsTest : public testing::Test {
 protected:
  RefusalsTest() : m({-1, 2, 5, 5}) {
    m.Weights("w", {3, 2, 3, 3}, 1);
    SetInts(m.Node("Conv", {"x", "w"}, "c"), "pads", {1, 1, 1, 1});
    m.Floats("half", {}, {0.5});
    m.Floats("two", {2}, {1, 2});
    m.Ints("zero", {0});
    m.Ints("one", {1});
    m.Ints("pair", {1, 2});
  }
  void Expect(const std::string& op, const std::string& name, const std::string& text) {
    ExpectRefused([&] { m.Import(); }, "m.onnx node " + op + " '" + name + "'", text);
  }
  /// A node of constants, of which the logits are made.
  onnx::NodeProto& Constants(const std::string& op, const std::vector<std::string>& inputs) {
    auto& node = m.Node(op, inputs, "k");
    m.Node("Add", {"c", "k"}, "y");
    return node;
  }

  Model m;
};

TEST_F(RefusalsTest, OfConstantsThatDivideByZero) {
  Constants("Div", {"pair", "zero"});
  Expect("Div", "k", "divides an integer by 0");
}

TEST_F(RefusalsTest, OfAValueDividedByZero) {
  m.Floats("nothing", {}, {0});
  m.Node("Div", {"c", "nothing"}, "y");
  Expect("Div", "y", "divides by 0");
}

TEST_F(RefusalsTest, OfSizesThatHoldTheNumberOfImages) {
  m.Node("Shape", {"c"}, "sizes");
  Constants("Gather", {"two", "sizes"});
  Expect("Gather", "k", "takes the number of images for a size, expected fixed numbers");
}

TEST_F(RefusalsTest, OfAxesThatHoldTheNumberOfImages) {
  m.Node("Shape", {"c"}, "sizes");
  m.Node("Squeeze", {"c", "sizes"}, "y");
  ExpectRefused([&] { m.Import(); }, "m.onnx tensor sizes",
                "found the number of images in it, expected fixed numbers");
}

TEST_F(RefusalsTest, OfShapesFilledWithSeveralNumbers) {
  auto& value = *Constants("ConstantOfShape", {"pair"}).add_attribute();
  value.set_name("value");
  value.set_type(onnx::AttributeProto::TENSOR);
  value.mutable_t()->set_data_type(onnx::TensorProto::FLOAT);
  value.mutable_t()->add_dims(2);
  value.mutable_t()->add_float_data(1);
  value.mutable_t()->add_float_data(2);
  Expect("ConstantOfShape", "k", "found a value of several numbers, expected one");
}

TEST_F(RefusalsTest, OfRangesWithoutEnd) {
  m.Floats("start", {}, {0});
  m.Floats("limit", {}, {1e9});
  m.Floats("step", {}, {1e-3F});
  Constants("Range", {"start", "limit", "step"});
  Expect("Range", "k", "makes too many values of constants");
}

TEST_F(RefusalsTest, OfSlicesThatDoNotFit) {
  auto& node = Constants("Slice", {"two", "zero", "pair"});
  Expect("Slice", "k", "found starts, ends, axes and steps of different lengths");
  node.set_input(2, "one");
  node.add_input("zero");
  node.add_input("zero");
  Expect("Slice", "k", "found a step of 0");
}

TEST_F(RefusalsTest, OfAxesOfConstants) {
  auto& node = Constants("Squeeze", {"two", "zero"});
  Expect("Squeeze", "k", "squeezes an axis of several elements");
  node.set_op_type("Unsqueeze");
  m.Ints("again", {1, 1});
  node.set_input(1, "again");
  Expect("Unsqueeze", "k", "found an axis twice");
}

TEST_F(RefusalsTest, OfSparseWeights) {
  m.proto.mutable_graph()->add_sparse_initializer();
  ExpectRefused([&] { m.Import(); }, "m.onnx", "holds sparse initialisers, expected dense ones");
}

TEST_F(RefusalsTest, OfMoreLayersThanNetworksHave) {
  std::string last = "c";
  for (int i = 0; i < 4097; ++i) {
    const std::string next = fmt::format("r{}", i);
    m.Node("Mul", {last, last}, next);
    last = next;
  }
  Expect("Mul", "r4095", "found more than 4096 layers, expected no more");
}

TEST_F(RefusalsTest, OfChoicesBetweenValues) {
  m.Node("Greater", {"c", "half"}, "g");
  m.Node("Where", {"g", "c", "half"}, "y");
  Expect("Where", "y", "chooses between computed values, expected two constants");
}

TEST_F(RefusalsTest, OfIntegersOfComputedNumbers) {
  SetInt(m.Node("Cast", {"c"}, "i"), "to", onnx::TensorProto::INT64);
  m.Node("Relu", {"i"}, "y");
  Expect("Cast", "i", "makes integers of computed numbers, expected that only at the end");
}

TEST_F(RefusalsTest, OfTwoNumbersAroundAMap) {
  m.Ints("pads", {0, 0, 1, 1, 0, 0, 1, 1});
  m.Node("Pad", {"c", "pads", "half"}, "p");
  m.Weights("w2", {1, 3, 3, 3}, 2);
  SetInts(m.Node("Conv", {"p", "w2"}, "y"), "pads", {1, 1, 1, 1});
  Expect("Conv", "y", "pads with zeros what is padded with 0.5 before");
}

TEST_F(RefusalsTest, OfMeansOverImages) {
  SetInts(m.Node("ReduceMean", {"c"}, "y"), "axes", {0, 2, 3});
  Expect("ReduceMean", "y", "reduces over the images");
}

TEST_F(RefusalsTest, OfInputsThatAreNoTensors) {
  m.proto.mutable_graph()->mutable_input(0)->mutable_type()->mutable_sequence_type();
  ExpectRefused([&] { m.Import(); }, "m.onnx input x", "is no tensor, expected one");
}

TEST_F(RefusalsTest, OfNodesWithoutOutput) {
  m.Node("Relu", {"c"}, "y");
  auto& first = *m.proto.mutable_graph()->mutable_node(0);
  first.set_output(0, "");
  first.add_output("c");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Conv 'c'", "has no output, expected one");
}

TEST_F(RefusalsTest, OfMapsThatAreTooManyTogether) {
  m.Weights("many", {4097, 3, 1, 1}, 3);
  m.Node("Conv", {"c", "many"}, "d");
  SetInt(m.Node("Concat", {"d", "d"}, "y"), "axis", 1);
  Expect("Concat", "y", "makes 8194 channels, expected at most 8192");
}

TEST_F(RefusalsTest, OfManySmallMapsPutTogether) {
  // Each is placed beside all before it: 3^2 * (1 + 4 + 9 + ...) weights.
  SetInt(m.Node("Concat", std::vector<std::string>(300, "c"), "y"), "axis", 1);
  Expect("Concat", "y", "are left of the 67108864 that all such layers may have");
}

TEST_F(RefusalsTest, OfLargeMaxPoolsWithoutAnActivation) {
  m = Model({1, 2, 70, 70});
  m.Weights("w", {3, 2, 3, 3}, 1);
  m.Node("Conv", {"x", "w"}, "c");
  m.Node("GlobalMaxPool", {"c"}, "y");
  Expect("GlobalMaxPool", "y", "finds the largest of 68 x 68 numbers in 3 channels");
  m = Model({1, 2, 2, 2});
  m.Weights("w", {3, 2, 1, 1}, 1);
  m.Node("Conv", {"x", "w"}, "c");
  auto& pool = m.Node("MaxPool", {"c"}, "y");
  SetInts(pool, "kernel_shape", {2, 2});
  SetInts(pool, "pads", {1, 0, 0, 0});
  Expect("MaxPool", "y", "or leave out the padding");
}

TEST_F(RefusalsTest, OfChannelsThatAreTooManyForTwoActivationsEach) {
  for (const char* op : {"LeakyRelu", "Gelu"}) {
    m = Model({1, 1}, 20);
    m.Weights("w", {1, 32769}, 1);
    m.Node("MatMul", {"x", "w"}, "c");
    m.Node(op, {"c"}, "y");
    Expect(op, "y", "32769 channels, expected at most 32768");
  }
}

TEST_F(RefusalsTest, OfPartsOfLargeVectors) {
  m = Model({1, 1});
  m.Weights("w", {1, 32768}, 1);
  m.Ints("end", {4096});
  m.Node("MatMul", {"x", "w"}, "c");
  m.Node("Relu", {"c"}, "r");
  m.Node("Slice", {"r", "zero", "end", "one"}, "y");
  m.Ints("zero", {0});
  m.Ints("one", {1});
  Expect("Slice", "y",
         "needs a layer of 4096 x 32768 x 1 weights to pick, place or compare numbers, where "
         "67108864 are left of the 67108864 that all such layers may have");
}

// Each of them may be made, but not all.
TEST_F(RefusalsTest, OfManyPartsOfLargeVectors) {
  m = Model({1, 1});
  m.Weights("w", {1, 4096}, 1);
  m.Ints("first", {-1});
  m.Ints("end", {-9999});
  m.Ints("one", {1});
  m.Ints("back", {-1});
  m.Node("MatMul", {"x", "w"}, "c");
  m.Node("Relu", {"c"}, "r");
  const std::vector<std::string> parts{"s1", "s2", "s3", "s4", "s5"};
  for (const auto& part : parts) m.Node("Slice", {"r", "first", "end", "one", "back"}, part);
  m.Node("Sum", parts, "y");
  Expect("Slice", "s5",
         "4096 x 4096 x 1 weights to pick, place or compare numbers, where 0 are left");
}

TEST_F(RefusalsTest, OfBranchesOfVeryDifferentSizes) {
  // The second branch takes nothing of the first, by one window of the whole map.
  m = Model({1, 1, 300, 300});
  m.Weights("w", {29, 1, 1, 1}, 1);
  m.Node("Conv", {"x", "w"}, "c");
  m.Node("Relu", {"c"}, "first");
  m.Weights("v", {31, 1, 1, 1}, 2);
  SetInts(m.Node("Conv", {"x", "v"}, "d"), "strides", {300, 300});
  m.Node("Relu", {"d"}, "second");
  m.Weights("u", {31, 29, 1, 1}, 2);
  SetInts(m.Node("Conv", {"first", "u"}, "e"), "strides", {300, 300});
  m.Node("Add", {"e", "second"}, "y");
  Expect("Relu", "second", "follows another branch of so many numbers that both cannot be one");
}

}  // namespace
}  // namespace tercet::importer
