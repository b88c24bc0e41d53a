// SPDX-License-Identifier: Apache-2.0
#include "import/schedule.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

namespace tercet::importer {
namespace {

using testing::ElementsAre;

GraphLayer Plain(int input) { return {false, {input}}; }
GraphLayer Conv(int input) { return {true, {input}}; }
GraphLayer Sum(int a, int b) { return {false, {a, b}}; }

// Every layer comes after its inputs, and one that cannot read from anywhere directly after one of
// them.
void ExpectValid(const std::vector<GraphLayer>& layers, const std::vector<int>& order) {
  std::set<int> placed = {kNetworkInput};
  int before = kNetworkInput;
  for (const int l : order) {
    const GraphLayer& layer = layers.at(static_cast<std::size_t>(l));
    for (const int input : layer.inputs) EXPECT_TRUE(placed.contains(input)) << "layer " << l;
    const bool follows = std::count(layer.inputs.begin(), layer.inputs.end(), before) > 0;
    EXPECT_TRUE(layer.from_anywhere || follows) << "layer " << l;
    EXPECT_TRUE(placed.insert(l).second) << "layer " << l;
    before = l;
  }
  EXPECT_EQ(placed.size(), layers.size() + 1);
}

TEST(ScheduleTest, ChainKeepsItsOrder) {
  const std::vector<GraphLayer> layers = {Conv(-1), Plain(0), Plain(1), Conv(2)};
  EXPECT_THAT(MakeSchedule(layers).order, ElementsAre(0, 1, 2, 3));
}

TEST(ScheduleTest, ResidualBlockWithAConvolutionAsShortcut) {
  // relu 1 goes into 2 (main path) and 5 (shortcut), which meet in 7. In the file the shortcut's
  // layers may stand anywhere.
  const std::vector<GraphLayer> layers = {Conv(-1), Plain(0), Conv(1),   Plain(2), Conv(3),
                                          Conv(1),  Plain(5), Sum(4, 6), Plain(7)};
  const Schedule schedule = MakeSchedule(layers);
  ExpectValid(layers, schedule.order);
  EXPECT_THAT(schedule.order, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
}

TEST(ScheduleTest, ALayerThatMustFollowMovesBeforeTheBranches) {
  // 1 and 2 read 0: the pool 2 has to follow it, so the convolution comes later.
  const std::vector<GraphLayer> layers = {Conv(-1), Conv(0), Plain(0), Sum(1, 2)};
  const Schedule schedule = MakeSchedule(layers);
  ExpectValid(layers, schedule.order);
  EXPECT_THAT(schedule.order, ElementsAre(0, 2, 1, 3));
}

TEST(ScheduleTest, ASumFollowsTheInputThatNothingElseFollows) {
  // Something has to follow 1, so the sum 3 follows 0's other branch.
  const std::vector<GraphLayer> layers = {Conv(-1),  Conv(0),  Conv(0),
                                          Sum(1, 2), Plain(1), Sum(3, 4)};
  const Schedule schedule = MakeSchedule(layers);
  ExpectValid(layers, schedule.order);
}

TEST(ScheduleTest, TheInputMayBeReadTwice) {
  const std::vector<GraphLayer> layers = {Plain(-1), Conv(-1), Sum(0, 1)};
  ExpectValid(layers, MakeSchedule(layers).order);
}

TEST(ScheduleTest, ASumOfOneLayerWithItself) {
  const std::vector<GraphLayer> layers = {Conv(-1), Sum(0, 0), Plain(1)};
  ExpectValid(layers, MakeSchedule(layers).order);
}

TEST(ScheduleTest, TwoLayersThatMustFollowTheSame) {
  const Schedule schedule = MakeSchedule({Conv(-1), Plain(0), Plain(0), Sum(1, 2)});
  EXPECT_TRUE(schedule.order.empty());
  EXPECT_EQ(schedule.misfit, 2);
  EXPECT_EQ(schedule.rival, 1);
}

TEST(ScheduleTest, ASumBothOfWhoseInputsAreFollowedHasNoPlace) {
  const Schedule schedule =
      MakeSchedule({Conv(-1), Conv(-1), Plain(0), Plain(1), Sum(0, 1), Sum(2, 3), Sum(4, 5)});
  EXPECT_TRUE(schedule.order.empty());
  EXPECT_EQ(schedule.misfit, 4);
  EXPECT_EQ(schedule.rival, kNetworkInput);
}

TEST(ScheduleTest, BranchesThatWaitForEachOther) {
  // 5 follows 4, so the sum 6 has to follow 1, so the sum 3 has to follow 2: 0, 1, 6 wait for 4 and
  // 2, 3, 4 for 1.
  const Schedule schedule = MakeSchedule(
      {Conv(-1), Plain(0), Conv(-1), Sum(1, 2), Plain(3), Plain(4), Sum(1, 4), Sum(5, 6)});
  EXPECT_TRUE(schedule.order.empty());
  EXPECT_EQ(schedule.misfit, 0);
}

}  // namespace
}  // namespace tercet::importer
