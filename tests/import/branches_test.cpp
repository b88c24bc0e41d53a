// SPDX-License-Identifier: Apache-2.0
// Graphs in which several layers go on from one, and activations that are not what they look like.
#include <fmt/format.h>

#include "import/builder.h"

namespace tercet::importer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(ImportBranchesTest, LinearLayersOfOneInput) {
  Builder b({-1, 12}, 12);
  b.Fc(12, 6);
  const std::string first = b.at;
  b.at = "x";
  b.Fc(12, 6).Then("Relu").Then("Add", {first});
  const std::string sum = b.at;
  b.Fc(6, 4).Then("Relu");
  const std::string left = b.at;
  b.at = sum;
  b.Fc(6, 4).Then("Relu").Concat({left, b.at}, 8).Fc(8, 3);
  ExpectWorks(b);
}

TEST(ImportBranchesTest, ActivationsOfOneLayer) {
  Builder b({-1, 2, 5, 5}, 2);
  b.Conv(3, 3, 1, 1);
  const std::string from = b.at;
  b.Then("Relu");
  const std::string up = b.at;
  b.at = from;
  b.Then("Neg").Then("Relu");
  const std::string down = b.at;
  b.at = from;
  b.Then("Sub", {b.Numbers({}, {0.01F})}).Then("BipolarQuant", {b.Numbers({}, {1})});
  b.node->set_domain("qonnx.custom_op.general");
  b.Concat({up, down, b.at}, 9).Conv(2, 3, 1, 0).Then("Flatten");
  ExpectWorks(b);
}

TEST(ImportBranchesTest, ActivationsOfTheInputAndOfActivations) {
  Builder b({-1, 1, 5, 5}, 1);
  b.Then("Sub", {b.Numbers({}, {0.51F})}).Then("BipolarQuant", {b.Numbers({}, {1})});
  b.node->set_domain("qonnx.custom_op.general");
  b.Then("Mul", {b.at}).Conv(3, 3, 1, 1).Then("Relu").Pool("MaxPool", 2).Then("Relu");
  b.Then("Flatten").Fc(12, 3);
  ExpectWorks(b);
  b = Builder({-1, 1, 5, 5}, 1);
  b.Then("Relu").Conv(3, 3, 1, 1).Then("Flatten");
  EXPECT_EQ(LayersOf(ExpectSame(b.m)).size(), 4);
  ExpectWorks(b);
}

/// Each takes a sum of linear layers that no activation has made one number of.
TEST(ImportBranchesTest, BranchesOfASum) {
  Builder b({-1, 2, 6, 6}, 2);
  b.Conv(4, 1, 1, 0);
  const std::string stem = b.at;
  b.Then("Relu").Conv(4, 3, 1, 1).Then("Add", {stem});
  const std::string sum = b.at;
  std::vector<std::string> parts;
  for (int i = 0; i < 3; ++i) {
    b.at = sum;
    b.channels = 4;
    b.Conv(2, 3, 1, 1).Then("Relu");
    parts.push_back(b.at);
  }
  b.Concat(parts, 6).Conv(2, 3, 1, 0).Then("Flatten");
  ExpectWorks(b);
}

/// The second block's branches and pools begin with maps that were put together.
TEST(ImportBranchesTest, TwoInceptionBlocks) {
  Builder b({-1, 1, 6, 6}, 1);
  b.Conv(4, 3, 1, 1).Then("Relu");
  for (int block = 0; block < 2; ++block) {
    const std::string from = b.at;
    const std::int64_t channels = b.channels;
    std::vector<std::string> parts;
    for (const std::string& begin : std::vector<std::string>{"", "MaxPool", "AveragePool"}) {
      b.at = from;
      b.channels = channels;
      if (!begin.empty()) {
        b.Then(begin);
        SetInts(*b.node, "kernel_shape", {3, 3});
        SetInts(*b.node, "pads", {1, 1, 1, 1});
        if (begin == "AveragePool") SetInt(*b.node, "count_include_pad", 1);
      }
      b.Conv(2, 1, 1, 0).Then("Relu");
      parts.push_back(b.at);
    }
    b.Concat(parts, 6);
  }
  b.Then("GlobalAveragePool").Then("Flatten").Fc(6, 3);
  ExpectWorks(b);
}

TEST(ImportBranchesTest, SumsThatTakeEachOthersInputs) {
  Model m({-1, 2, 4, 4});
  for (const char* name : {"a", "b", "c"}) {
    m.Weights(std::string("w") + name, {3, 2, 1, 1}, *name);
    m.Node("Conv", {"x", std::string("w") + name}, name);
  }
  m.Node("Add", {"a", "b"}, "ab");
  m.Node("Add", {"b", "c"}, "bc");
  m.Node("Add", {"a", "c"}, "ac");
  m.Node("Sum", {"ab", "bc", "ac"}, "s");
  m.Node("Flatten", {"s"}, "y");
  ExpectSame(m);
  // A sum of a and what follows b, where b needs a.
  m = Model({-1, 2, 4, 4});
  m.Weights("w", {3, 2, 3, 3}, 1);
  m.Weights("v", {3, 3, 1, 1}, 2);
  m.Node("Conv", {"x", "w"}, "c");
  m.Node("Relu", {"c"}, "a");
  m.Node("Conv", {"a", "v"}, "b");
  m.Node("Relu", {"b"}, "r");
  m.Node("Add", {"a", "b"}, "s");
  SetInt(m.Node("Concat", {"s", "r"}, "y"), "axis", 1);
  ExpectSame(m);
}

TEST(ImportBranchesTest, DeepNetworksOfLeakyReLUs) {
  Builder b({-1, 2, 6, 6}, 2);
  for (int i = 0; i < 3; ++i) {
    b.Conv(3, 3, 1, 1).Then("LeakyRelu");
    SetFloat(*b.node, "alpha", 0.125);
  }
  b.Then("GlobalAveragePool").Then("Flatten").Fc(3, 2);
  ExpectWorks(b);
}

/// What is never below 0 is often 0, where ONNX's Sign is 0.
TEST(ImportBranchesTest, SignsOfWhatIsNeverNegative) {
  const auto check = [](const std::function<void(Builder&)>& make) {
    Builder b({-1, 2, 6, 6}, 2);
    b.Conv(3, 3, 1, 1);
    make(b);
    b.Then("Sign").Conv(2, 3, 1, 0).Then("Flatten");
    EXPECT_THAT(ExpectSame(b.m).notes, IsEmpty());
    ExpectWorks(b);
  };
  check([](Builder& b) { b.Then("Relu"); });
  check([](Builder& b) { b.Then("Relu").Then("Neg"); });
  check([](Builder& b) { b.Then("Relu").Pool("MaxPool", 2); });
  check([](Builder& b) { b.Relu6(); });
  check([](Builder& b) { b.Then("Clip", {b.Numbers({}, {-1}), b.Numbers({}, {0})}); });
  check([](Builder& b) { b.Then("Relu").Then("Mul", {b.Numbers({3, 1, 1}, {2, -1, 0})}); });
  check([](Builder& b) { b.Then("Greater", {b.Numbers({}, {0.5})}).Then("Cast"); });
}

TEST(ImportBranchesTest, HardSwishWrittenOut) {
  for (const bool divides_first : {true, false}) {
    Builder b({-1, 2, 6, 6}, 2);
    b.Conv(3, 3, 1, 1);
    const std::string from = b.at, six = b.Numbers({}, {6});
    b.Then("Add", {b.Numbers({}, {3})}).Relu6();
    if (divides_first) b.Then("Div", {six});
    b.Then("Mul", {from});
    if (!divides_first) b.Then("Div", {six});
    b.Then("GlobalAveragePool").Then("Flatten");
    EXPECT_THAT(LayersOf(ExpectSame(b.m, false, Scaled(), 0.01F)),
                testing::Contains(HasSubstr(" table")));
  }
}

TEST(ImportBranchesTest, SumsOfAnyNumber) {
  for (int count = 1; count <= 4; ++count) {
    Builder b({-1, 2, 4, 4}, 2);
    std::vector<std::string> parts;
    for (int i = 0; i < count; ++i) {
      b.at = "x";
      b.channels = 2;
      b.Conv(3, 3, 1, 1).Then("Relu");
      parts.push_back(b.at);
    }
    b.m.Node("Sum", parts, b.at = "sum");
    b.Conv(2, 3, 1, 0).Then("Flatten");
    ExpectWorks(b);
  }
  Model constants({-1, 4});
  constants.Weights("a", {4, 3}, 1);
  constants.Weights("b", {4, 3}, 2);
  constants.Node("Sum", {"a", "b", "a"}, "w");
  constants.Node("MatMul", {"x", "w"}, "y");
  ExpectSame(constants);
}

TEST(ImportBranchesTest, SoftmaxOfMapsAtTheEnd) {
  const auto model = [](std::int64_t operators, std::int64_t axis) {
    Model m({-1, 2, 4, 4}, operators);
    m.Weights("w", {3, 2, 4, 4}, 1);
    m.Node("Conv", {"x", "w"}, "c");
    auto& node = m.Node("Softmax", {"c"}, "y");
    if (axis != 0) SetInt(node, "axis", axis);
    return m;
  };
  const auto refused = [&](std::int64_t operators, std::int64_t axis, const std::string& found) {
    ExpectRefused([&] { model(operators, axis).Import(); }, "m.onnx node Softmax 'y'",
                  "found axis " + found + ", expected 1");
  };
  // Over all axes from the second one on, or over that alone.
  EXPECT_THAT(LayersOf(model(12, 0).Import()), ElementsAre("c conv2d"));
  EXPECT_THAT(LayersOf(model(12, 1).Import()), ElementsAre("c conv2d"));
  EXPECT_THAT(LayersOf(model(13, 1).Import()), ElementsAre("c conv2d"));
  refused(12, 2, "2");
  refused(12, -4, "-4");
  refused(13, 0, "-1");
  refused(13, 3, "3");
}

TEST(ImportBranchesTest, ImagesWhoseRowsAndColumnsAreSwapped) {
  Model m({-1, 2, 4, 5});
  SetInts(m.Node("Transpose", {"x"}, "t"), "perm", {0, 1, 3, 2});
  m.Weights("w", {3, 2, 5, 4}, 1);
  m.Node("Conv", {"t", "w"}, "y");
  ExpectRefused([&] { m.Import(); }, "m.onnx input x", "leave the Transpose out (--transpose");
}

TEST(ImportBranchesTest, BoundsThatAreNoNumbers) {
  Model m({-1, 2, 4, 4});
  m.Weights("w", {3, 2, 4, 4}, 1);
  m.Node("Conv", {"x", "w"}, "c");
  m.Floats("low", {}, {std::numeric_limits<float>::quiet_NaN()});
  m.Node("Clip", {"c", "low"}, "y");
  ExpectRefused([&] { m.Import(); }, "m.onnx node Clip 'y'", "found bounds nan and inf");
}

}  // namespace
}  // namespace tercet::importer
