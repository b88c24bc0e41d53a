// SPDX-License-Identifier: Apache-2.0
// Parts of maps and vectors, and channels in another order.
#include <fmt/format.h>

#include <limits>

#include "import/builder.h"

namespace tercet::importer {
namespace {

/// x [N, 2, 6, 6] -> Relu of a convolution [N, 4, 6, 6].
class PartsTest : public testing::Test {
 protected:
  PartsTest() : b({-1, 2, 6, 6}, 2) { Restart(); }
  void Restart() {
    b = Builder({-1, 2, 6, 6}, 2);
    b.Conv(4, 3, 1, 1).Then("Relu");
  }
  std::string Ints(const Dims& values) {
    const std::string name = fmt::format("ints{}", ++counter_);
    b.m.Ints(name, values);
    return name;
  }
  Builder& Slice(const Dims& starts, const Dims& ends, const Dims& axes, const Dims& steps) {
    return b.Then("Slice", {Ints(starts), Ints(ends), Ints(axes), Ints(steps)});
  }
  void Works(std::int64_t channels) {
    b.channels = channels;
    b.Conv(3, 2, 1, 0).Then("Relu").Then("GlobalAveragePool").Then("Flatten").Fc(3, 2);
    ExpectWorks(b);
  }
  void Refused(const std::string& op, const std::string& text) {
    ExpectRefused([&] { b.m.Import(); }, fmt::format("m.onnx node {} '{}'", op, b.at), text);
  }

  Builder b;

 private:
  int counter_ = 0;
};

TEST_F(PartsTest, SlicesOfChannelsRowsAndColumns) {
  struct Case {
    Dims starts, ends, axes, steps;
    std::int64_t channels;
  };
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  for (const Case& c : {Case{{1}, {3}, {1}, {1}, 2},
                        {{0}, {4}, {1}, {2}, 2},
                        {{3}, {-9}, {1}, {-1}, 4},
                        {{1}, {kMost}, {1}, {kMost}, 1},
                        {{3}, {-kMost}, {1}, {-kMost}, 1},
                        {{1, 2}, {5, 99}, {2, 3}, {1, 1}, 4},
                        {{0, 1}, {99, 99}, {2, 3}, {2, 3}, 4},
                        {{1, 0, -5}, {2, 3, -1}, {1, 2, 3}, {1, 1, 2}, 1}}) {
    SCOPED_TRACE(c.channels);
    Restart();
    Slice(c.starts, c.ends, c.axes, c.steps);
    Works(c.channels);
  }
}

TEST_F(PartsTest, SlicesOfTheInputAndOfVectors) {
  b = Builder({-1, 4, 3, 3}, 4);
  Slice({1}, {3}, {1}, {1}).Conv(2, 1, 1, 0);
  b = Builder({-1, 4, 3, 3}, 4);
  Slice({1}, {3}, {1}, {1});
  b.channels = 2;
  b.Conv(2, 3, 1, 0).Then("Flatten");
  ExpectWorks(b);
  b = Builder({-1, 6}, 6);
  b.Fc(6, 8).Then("Relu");
  Slice({2}, {7}, {1}, {2}).Fc(3, 2);
  ExpectWorks(b);
  b = Builder({-1, 6}, 6);
  Slice({2}, {5}, {1}, {1}).Fc(3, 2);
  ExpectWorks(b);
}

TEST_F(PartsTest, RefusesOtherSlices) {
  Slice({5, 0}, {-9, 6}, {2, 3}, {-1, 1});
  Refused("Slice", "turns rows or columns round, expected that of channels alone");
  Restart();
  Slice({0}, {1}, {0}, {1});
  Refused("Slice", "takes images of axis 0 of [N, 4, 6, 6]");
  Restart();
  Slice({2}, {2}, {1}, {1});
  Refused("Slice", "takes nothing of axis 1 of [N, 4, 6, 6]");
  Restart();
  Slice({0, 1}, {2, 2}, {1, 1}, {1, 1});
  Refused("Slice", "found an axis twice");
  Restart();
  b.Then("Reshape", {Ints({-1, 2, 2, 6, 6})});
  Slice({0}, {1}, {1}, {1});
  Refused("Slice", "found an input of [N, 2, 2, 6, 6], expected [N, channels, height, width]");
}

/// Half of the channels go on as they are, as in ShuffleNet.
TEST_F(PartsTest, SplitConcatAndShuffle) {
  b.Then("Split");
  SetInt(*b.node, "axis", 1);
  const std::string left = b.at;
  b.node->add_output("right");
  b.at = "right";
  b.channels = 2;
  b.Conv(2, 1, 1, 0).Then("Relu").Conv(2, 3, 1, 1, 2).Conv(2, 1, 1, 0).Then("Relu");
  b.Concat({left, b.at}, 4);
  b.Then("Reshape", {Ints({-1, 2, 2, 6, 6})}).Transpose({0, 2, 1, 3, 4});
  b.Then("Reshape", {Ints({-1, 4, 6, 6})}).Conv(4, 3, 1, 1, 2).Then("Relu");
  Works(4);
}

TEST_F(PartsTest, SplitsIntoPartsOfOtherSizes) {
  b.Then("Split", {Ints({1, 3})});
  SetInt(*b.node, "axis", 1);
  b.node->add_output("right");
  b.at = "right";
  Works(3);
  Restart();
  b.Then("Split", {Ints({1, 2})});
  SetInt(*b.node, "axis", 1);
  b.node->add_output("right");
  Refused("Split", "splits axis 1 of [N, 4, 6, 6] into [1, 2], expected the channels");
  // Their sum does not fit an integer.
  b.m.Ints("huge", {std::numeric_limits<std::int64_t>::max(), 5});
  b.node->set_input(1, "huge");
  Refused("Split", "splits axis 1");
  b.node->mutable_attribute(0)->set_i(2);
  Refused("Split", "splits axis 2 of [N, 4, 6, 6]");
}

TEST_F(PartsTest, GathersChannels) {
  b.Then("Gather", {Ints({3, 0, -2})});
  SetInt(*b.node, "axis", 1);
  Works(3);
  Restart();
  b.Then("Gather", {Ints({0})});
  SetInt(*b.node, "axis", 2);
  Refused("Gather", "takes places [1] of axis 2 of [N, 4, 6, 6], expected one or a list");
}

TEST_F(PartsTest, TransposedMapsAreRefused) {
  b.Transpose({0, 1, 3, 2}).Conv(2, 1, 1, 0);
  Refused("Conv", "has put elsewhere");
}

/// The shortcut of ResNets for CIFAR-10 that has no weights.
TEST_F(PartsTest, ShortcutsThatSkipPixelsAndAddChannels) {
  const std::string from = b.at;
  b.Conv(8, 3, 2, 1);
  const std::string path = b.at;
  b.at = from;
  Slice({0, 0}, {99, 99}, {2, 3}, {2, 2}).Then("Pad", {Ints({0, 2, 0, 0, 0, 2, 0, 0})});
  b.Then("Add", {path}).Then("Relu");
  Works(8);
}

}  // namespace
}  // namespace tercet::importer
