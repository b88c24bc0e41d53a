// SPDX-License-Identifier: Apache-2.0
#include "tercet/ring/pack.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tercet/base/error.h"

namespace tercet::ring {
namespace {

TEST(Pack, HasTheDocumentedLayout) {
  const std::vector<std::uint16_t> values = {0xfabc, 0x0123, 0x0fff};
  std::vector<std::uint8_t> out(PackedBytes(3, 12));
  Pack<std::uint16_t>(values, 12, out);
  EXPECT_EQ(out, (std::vector<std::uint8_t>{0xbc, 0x3a, 0x12, 0xff, 0x0f}));
}

TEST(Pack, PackedBytesRoundsUp) {
  EXPECT_EQ(PackedBytes(0, 12), 0U);
  EXPECT_EQ(PackedBytes(1, 1), 1U);
  EXPECT_EQ(PackedBytes(9, 1), 2U);
  EXPECT_EQ(PackedBytes(7, 12), 11U);
  EXPECT_EQ(PackedBytes(8, 64), 64U);
  EXPECT_EQ(PackedBytes(std::size_t{1} << 58, 64), std::size_t{1} << 61);
}

TEST(Pack, RoundTrip) {
  std::mt19937_64 random(1);
  for (unsigned bits = 1; bits <= kMaxBits; ++bits) {
    DispatchWord(bits, [&]<class W>(W) {
      std::vector<W> values(101);
      for (W& value : values) value = static_cast<W>(random());
      std::vector<std::uint8_t> packed(PackedBytes(values.size(), bits));
      Pack<W>(values, bits, packed);
      std::vector<W> back(values.size());
      Unpack<W>(packed, bits, back);
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(back[i], Reduce(values[i], bits)) << "bits " << bits << " element " << i;
      }
    });
  }
}

TEST(Pack, RefusesWrongSizes) {
  const std::vector<std::uint8_t> values(8);
  std::vector<std::uint8_t> out(8);
  EXPECT_THROW(Pack<std::uint8_t>(values, 7, out), InternalError);
  EXPECT_THROW(Pack<std::uint8_t>(values, 9, out), InternalError);
  EXPECT_THROW(Pack<std::uint8_t>(values, 0, out), InternalError);
  EXPECT_THROW(Unpack<std::uint8_t>(values, 7, out), InternalError);
}

}  // namespace
}  // namespace tercet::ring
