// SPDX-License-Identifier: Apache-2.0
#include "serve/bounds.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tercet::serve {
namespace {

TEST(Bounds, AllAndEachHoldNoMoreThanTheirs) {
  Bounds bounds(10, 6);
  EXPECT_EQ(bounds.Take("a", 7), nullptr);
  auto first = bounds.Take("a", 4);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(bounds.Take("a", 3), nullptr);  // of "a" 6
  const auto second = bounds.Take("b", 6);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(bounds.Take("c", 1), nullptr);  // of all 10
  EXPECT_EQ(bounds.Held(), 10U);
  const auto copy = first;
  first.reset();
  EXPECT_EQ(bounds.Held(), 10U);
}

TEST(Bounds, WhatIsGivenBackIsThereAgain) {
  std::shared_ptr<const void> outlives;
  {
    Bounds bounds(2, 2);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&bounds, t] {
        for (int i = 0; i < 1000; ++i) bounds.Take(std::to_string(t), 1);
      });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(bounds.Held(), 0U);
    outlives = bounds.Take("a", 2);
    EXPECT_NE(outlives, nullptr);
  }
  outlives.reset();
}

}  // namespace
}  // namespace tercet::serve
