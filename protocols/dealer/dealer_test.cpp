#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dealer/lookup.h"
#include "dealer/steps.h"

// The messages are tested through the suites that use them; here the lookups by themselves.
namespace tercet::protocols::dealer {
namespace {

mpc::ActivationSpec Pooled(mpc::Shape3 in, mpc::PoolShape pool) {
  mpc::ActivationSpec spec;
  spec.layer = "act";
  spec.in = in;
  spec.pool = pool;
  return spec;
}

TEST(PoolStepsTest, SmallWindowsAtOnceLargerOnesRowByRow) {
  const auto small = PoolSteps(Pooled({1, 2, 4}, {2, 2}));
  ASSERT_EQ(small.size(), 1u);
  EXPECT_EQ(small[0].width, 4u);
  EXPECT_TRUE(small[0].last);
  EXPECT_THAT(small[0].rows, testing::ElementsAre(0, 1, 4, 5, 2, 3, 6, 7));
  const auto large = PoolSteps(Pooled({1, 3, 3}, {3, 1}));
  ASSERT_EQ(large.size(), 2u);
  EXPECT_FALSE(large[0].last);
  EXPECT_TRUE(large[1].last);
  EXPECT_THAT(large[0].rows, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(large[1].rows, testing::ElementsAre(0, 1, 2));
}

TEST(OrRowsTest, IsFalseOnlyWhereTheMaskedIndexIsTheMask) {
  for (unsigned width = 1; width <= kMaxWindow; ++width) {
    Bits rho;
    for (unsigned r = 0; r < 1u << width; r += width) rho.push_back(static_cast<std::uint8_t>(r));
    const Bytes rows = OrRows(width, rho);
    ASSERT_EQ(rows.size(), TableBytes(rho.size(), width));
    for (std::size_t i = 0; i < rho.size(); ++i)
      for (unsigned v = 0; v < 1u << width; ++v) {
        const std::size_t bit = (i << width) + v;
        ASSERT_EQ(rows[bit / 8] >> (bit % 8) & 1, v != rho[i] ? 1 : 0) << width << " " << v;
      }
  }
}

// Entry 0 of an OR is not sent; both evaluators still find their shares of it.
TEST(ArithTableTest, SharesOfEveryEntryAddUp) {
  const Bits rho{0, 1, 2, 3, 3};
  const ArithTable table{rho.size(), 2, 1, 11};
  const crypto::PrfKey key(std::array<std::uint8_t, 16>{7});
  crypto::PrfStream at_dealer(0, key, "test", nullptr), at_e1(0, key, "test", nullptr);
  const Bytes dealt = DealArith<std::uint16_t>(table, OrRows(2, rho), at_dealer);
  EXPECT_EQ(dealt.size(), (5 * 3 * 11 + 7) / 8u);
  const auto masks = at_e1.Draw<std::uint16_t>(table.count * table.Entries(), 1);
  for (std::uint8_t v = 0; v < 4; ++v) {
    const Bits e(rho.size(), v);
    const auto first = SelectMask<std::uint16_t>(table, {masks.data(), masks.size()}, e, 1);
    const auto second = SelectDealt<std::uint16_t>(table, dealt, e, 1);
    for (std::size_t i = 0; i < rho.size(); ++i)
      EXPECT_EQ((first(0, i) + second(0, i)) % 2048, v != rho[i] ? 1 : 0) << i << " " << int{v};
  }
}

}  // namespace
}  // namespace tercet::protocols::dealer
