// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/planes.h"

#include <gtest/gtest.h>

#include "mpc/random_planes.h"

namespace tercet::mpc {
namespace {

TEST(PlanesTest, PackIsExactAndInvertible) {
  std::mt19937_64 rng(1);
  for (std::size_t count : {1u, 3u, 8u, 63u, 64u, 65u, 72u, 127u, 128u, 200u})
    for (std::size_t rows : {1u, 2u, 7u, 13u}) {
      SCOPED_TRACE(fmt::format("{} rows of {}", rows, count));
      const Planes planes = Random(rng, rows, count);
      const Bytes packed = Pack(planes);
      ASSERT_EQ(packed.size(), (rows * count + 7) / 8);
      for (std::size_t i = 0; i < 8 * packed.size(); ++i)
        ASSERT_EQ((packed[i / 8] >> (i % 8) & 1) != 0,
                  i < rows * count && Bit(planes, i / count, i % count))
            << i;
      const Planes back = Unpack(packed, rows, count);
      for (std::size_t i = 0; i < rows * count; ++i)
        ASSERT_EQ(Bit(back, i / count, i % count), Bit(planes, i / count, i % count)) << i;
    }
  EXPECT_THROW(Unpack(Bytes(3), 2, 8), InternalError);
}

template <Word W>
void CheckSlice(unsigned rows) {
  std::mt19937_64 rng(rows);
  for (std::size_t count : {1u, 65u, 4096u, 4171u}) {
    Buffer<W> values(count);
    for (auto& v : values) v = static_cast<W>(rng());
    const Planes planes = Slice(std::span<const W>(values), rows);
    ASSERT_EQ(planes.Rows(), rows);
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t e = 0; e < count; ++e)
        ASSERT_EQ(Bit(planes, row, e), (values[e] >> row & 1) != 0) << row << " of " << e;
  }
}

TEST(PlanesTest, SliceTakesTheLowBits) {
  CheckSlice<std::uint8_t>(5);
  CheckSlice<std::uint16_t>(16);
  CheckSlice<std::uint32_t>(23);
  CheckSlice<std::uint64_t>(64);
}

TEST(PlanesTest, RowsOfBytes) {
  const Bytes bits{1, 0, 0, 1, 1, 1};
  const Planes planes = FromBytes(bits, 2);
  ASSERT_EQ(planes.Rows(), 2u);
  ASSERT_EQ(planes.Count(), 3u);
  const Buffer<std::uint8_t> second = ToBytes(Row(planes, 1));
  EXPECT_EQ(std::vector(second.begin(), second.end()), (std::vector<std::uint8_t>{1, 1, 1}));
  EXPECT_EQ(Row(planes, 0)[0][0] & 7, 1u);
}

}  // namespace
}  // namespace tercet::mpc
