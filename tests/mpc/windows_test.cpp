// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace tercet::mpc {
namespace {

using testing::ElementsAre;

using Visit = std::array<std::size_t, 3>;  // output, member, input

std::vector<Visit> Visits(const Windows& windows) {
  std::vector<Visit> visits;
  windows.ForEach([&](std::size_t output, std::size_t member, std::size_t input) {
    visits.push_back({output, member, input});
  });
  return visits;
}

TEST(Windows, AreVisitedInOrder) {
  // 0 1 2
  // 3 4 5, and a second channel from 6 on
  const Windows windows{{2, 2, 3}, 2, 1};
  EXPECT_EQ(windows.Out(), (Shape3{2, 1, 2}));
  EXPECT_THAT(Visits(windows),
              ElementsAre(Visit{0, 0, 0}, Visit{0, 1, 1}, Visit{0, 2, 3}, Visit{0, 3, 4},
                          Visit{1, 0, 1}, Visit{1, 1, 2}, Visit{1, 2, 4}, Visit{1, 3, 5},
                          Visit{2, 0, 6}, Visit{2, 1, 7}, Visit{2, 2, 9}, Visit{2, 3, 10},
                          Visit{3, 0, 7}, Visit{3, 1, 8}, Visit{3, 2, 10}, Visit{3, 3, 11}));
}

TEST(Windows, LeaveOutWhatLiesInThePadding) {
  const Windows windows{{1, 2, 2}, 2, 2, 1};
  EXPECT_EQ(windows.Out(), (Shape3{1, 2, 2}));
  EXPECT_THAT(Visits(windows),
              ElementsAre(Visit{0, 3, 0}, Visit{1, 2, 1}, Visit{2, 1, 2}, Visit{3, 0, 3}));
}

TEST(Windows, LeaveOutARestThatTheStrideDoesNotReach) {
  EXPECT_EQ((Windows{{1, 5, 4}, 2, 3}.Out()), (Shape3{1, 2, 1}));
  EXPECT_THAT(Visits({{1, 1, 5}, 1, 2}),
              ElementsAre(Visit{0, 0, 0}, Visit{1, 0, 2}, Visit{2, 0, 4}));
}

TEST(Windows, OfAMaxPoolAreThoseOfItsLayer) {
  ActivationSpec spec;
  spec.in = {3, 7, 8};
  spec.pool = PoolShape{3, 2};
  EXPECT_EQ(PoolWindows(spec).Out(), spec.Out());
}

}  // namespace
}  // namespace tercet::mpc
