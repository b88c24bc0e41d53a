// SPDX-License-Identifier: Apache-2.0
#include "tercet/ring/word.h"

#include <gtest/gtest.h>

#include <limits>

#include "tercet/ring/matrix.h"

namespace tercet::ring {
namespace {

TEST(Word, EncodeAndDecodeAreInverseForAllValuesOfSmallWidths) {
  for (unsigned bits = 1; bits <= 13; ++bits) {
    const std::int64_t half = std::int64_t{1} << (bits - 1);
    for (std::int64_t x = -half; x < half; ++x) {
      DispatchWord(bits, [&]<class W>(W) {
        const W element = Encode<W>(x, bits);
        ASSERT_EQ(element, x < 0 ? x + 2 * half : x) << "bits " << bits;
        ASSERT_EQ(Decode(element, bits), x) << "bits " << bits;
      });
    }
  }
}

TEST(Word, ExtremesOfEveryWidthSurvive) {
  for (unsigned bits = 1; bits <= kMaxBits; ++bits) {
    const std::int64_t low = std::numeric_limits<std::int64_t>::min() >> (64 - bits);
    const std::int64_t high = -(low + 1);
    DispatchWord(bits, [&]<class W>(W) {
      for (const std::int64_t x : {low, high, std::int64_t{0}, std::int64_t{-1}}) {
        EXPECT_EQ(Decode(Encode<W>(x, bits), bits), x) << "bits " << bits;
      }
    });
  }
}

TEST(Word, DecodeIgnoresTheBitsAboveTheWidth) {
  EXPECT_EQ(Decode<std::uint16_t>(0xf005, 12), 5);
  EXPECT_EQ(Decode<std::uint16_t>(0x1fff, 12), -1);
  EXPECT_EQ(Reduce<std::uint16_t>(0xfabc, 12), 0xabc);
  EXPECT_EQ(Reduce<std::uint64_t>(~std::uint64_t{0}, 64), ~std::uint64_t{0});
}

TEST(Word, DispatchTakesTheSmallestWord) {
  for (unsigned bits = 1; bits <= kMaxBits; ++bits) {
    const std::size_t bytes = DispatchWord(bits, [](auto word) { return sizeof(word); });
    EXPECT_EQ(bytes, WordBytes(bits));
    EXPECT_GE(8 * bytes, bits);
    if (bytes > 1) {
      EXPECT_LT(4 * bytes, bits);
    }
  }
  EXPECT_THROW(DispatchWord(0, [](auto) {}), InternalError);
  EXPECT_THROW(DispatchWord(65, [](auto) {}), InternalError);
}

TEST(AnyMatrix, KeepsShapeWidthAndType) {
  EXPECT_TRUE(AnyMatrix().Empty());
  auto values = MakeMatrix<std::uint16_t>(2, 3);
  values.fill(7);
  AnyMatrix matrix(std::move(values), 12);
  EXPECT_FALSE(matrix.Empty());
  EXPECT_EQ(matrix.Bits(), 12U);
  EXPECT_EQ(matrix.Rows(), 2U);
  EXPECT_EQ(matrix.Cols(), 3U);
  matrix.As<std::uint16_t>()(1, 2) = 9;
  EXPECT_EQ(matrix.As<std::uint16_t>()(1, 2), 9);
  EXPECT_THROW(matrix.As<std::uint8_t>(), InternalError);
  EXPECT_THROW(AnyMatrix(MakeMatrix<std::uint16_t>(1, 1), 8), InternalError);
}

}  // namespace
}  // namespace tercet::ring
