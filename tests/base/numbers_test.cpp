// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "base/bfloat16.h"
#include "base/endian.h"

namespace tercet {
namespace {

TEST(Endian, ReadsAsManyBytesAsThereAre) {
  const std::vector<std::uint8_t> bytes{0x01, 0x02, 0xff};
  EXPECT_EQ(FromLittleEndian(bytes), 0xff0201U);
  EXPECT_EQ(FromBigEndian(bytes), 0x0102ffU);
  EXPECT_EQ(FromLittleEndian({}), 0U);
  EXPECT_EQ(FromBigEndian({}), 0U);
}

TEST(Endian, WritesWhatItReads) {
  constexpr std::uint64_t kValue = 0xfedcba9876543210;
  std::array<std::uint8_t, 8> bytes{};
  ToLittleEndian(kValue, bytes);
  EXPECT_EQ(bytes.front(), 0x10);
  EXPECT_EQ(FromLittleEndian(bytes), kValue);
  ToBigEndian(kValue, bytes);
  EXPECT_EQ(bytes.front(), 0xfe);
  EXPECT_EQ(FromBigEndian(bytes), kValue);
}

TEST(Bfloat16, RoundsToTheNearest) {
  for (const float exact : {0.0F, 1.0F, -2.5F, 0x1p-130F, std::numeric_limits<float>::infinity()})
    EXPECT_EQ(FromBfloat16(ToBfloat16(exact)), exact);
  EXPECT_EQ(ToBfloat16(1.0F), 0x3f80);
  EXPECT_EQ(FromBfloat16(ToBfloat16(1 + 0x1.1p-8F)), 1 + 0x1p-7F);
  // Half way between two: the even one.
  EXPECT_EQ(FromBfloat16(ToBfloat16(1 + 0x1p-8F)), 1.0F);
  EXPECT_EQ(FromBfloat16(ToBfloat16(1 + 0x3p-8F)), 1 + 0x1p-6F);
}

}  // namespace
}  // namespace tercet
