// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/shard.h"

#include <gtest/gtest.h>

namespace tercet::infer {
namespace {

TEST(Shard, PartsAreContiguousAndNearlyEqual) {
  for (std::size_t images = 1; images < 40; ++images) {
    for (std::size_t count = 1; count < 45; ++count) {
      std::size_t next = 0, last = images;
      for (std::size_t i = 0; i < count; ++i) {
        const auto [first, size] = Shard{i, count}.Of(images);
        EXPECT_EQ(first, next);
        EXPECT_LE(size, last);
        EXPECT_LE(images / count, size);
        EXPECT_LE(size, images / count + 1);
        next += size;
        last = size;
      }
      EXPECT_EQ(next, images) << count << " shards";
    }
  }
  EXPECT_EQ((Shard{1, 3}.Text()), "1/3");
}

TEST(ForShard, PutsTheNumberWhereItIsAskedFor) {
  EXPECT_EQ(ForShard("a-{shard}.b{shard}", 17), "a-17.b17");
  EXPECT_EQ(ForShard("{shar}", 1), "{shar}");
}

}  // namespace
}  // namespace tercet::infer
