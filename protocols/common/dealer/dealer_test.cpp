// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <random>
#include <vector>

#include "common/dealer/formula.h"
#include "common/dealer/lookup.h"
#include "common/dealer/steps.h"

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
  const auto small = PoolSteps(Pooled({1, 2, 4}, {2, 2}), true);
  ASSERT_EQ(small.size(), 1u);
  EXPECT_EQ(small[0].width, 4u);
  EXPECT_TRUE(small[0].elements);
  EXPECT_THAT(small[0].rows, testing::ElementsAre(0, 1, 4, 5, 2, 3, 6, 7));
  const auto large = PoolSteps(Pooled({1, 3, 3}, {3, 1}), true);
  ASSERT_EQ(large.size(), 2u);
  EXPECT_FALSE(large[0].elements);
  EXPECT_TRUE(large[1].elements);
  EXPECT_THAT(large[0].rows, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(large[1].rows, testing::ElementsAre(0, 1, 2));
  for (const auto& spec : {Pooled({1, 2, 4}, {2, 2}), Pooled({1, 3, 3}, {3, 1})})
    for (const auto& step : PoolSteps(spec, false)) EXPECT_FALSE(step.elements);
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
TEST(EntryTableTest, SharesOfEveryEntryAddUp) {
  const EntryTable table{5, 2, 11};
  EXPECT_EQ(table.Dealt(), 3u);
  const std::vector<std::uint8_t> zero_at{0, 1, 2, 3, 3};
  std::mt19937_64 rng(7);
  Buffer<std::uint16_t> masks, dealt;
  for (std::size_t i = 0; i < table.count; ++i)
    for (std::uint8_t v = 1; v < 4; ++v) {
      masks.push_back(static_cast<std::uint16_t>(rng()));
      dealt.push_back(static_cast<std::uint16_t>((v != zero_at[i] ? 1 : 0) - masks.back()));
    }
  for (std::uint8_t v = 0; v < 4; ++v) {
    const Bits e(table.count, v);
    Buffer<std::uint16_t> first(table.count), second(table.count);
    SelectEntries<std::uint16_t>(table, masks, e, 0, first);
    SelectEntries<std::uint16_t>(table, dealt, e, 3, second);
    for (std::size_t i = 0; i < table.count; ++i)
      EXPECT_EQ(static_cast<std::uint16_t>(first[i] + second[i]), v != zero_at[i] ? 1 : 0)
          << i << " " << int{v};
  }
}

TEST(SelectEntryTest, FindsEveryEntry) {
  for (unsigned k = 0; k <= 5; ++k) {
    const std::size_t size = std::size_t{1} << k;
    Buffer<std::uint32_t> rows(size * size), out(size);
    Bits e(size);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::uint32_t>(i * 77);
    for (std::size_t i = 0; i < size; ++i) e[i] = static_cast<std::uint8_t>(size - 1 - i);
    SelectEntry<std::uint32_t>(k, rows, e, out);
    for (std::size_t i = 0; i < size; ++i) EXPECT_EQ(out[i], rows[i * size + e[i]]) << k;
  }
}

TEST(RotatedEntriesTest, TurnByTheOffset) {
  for (unsigned k = 2; k <= 8; ++k) {
    const std::size_t size = std::size_t{1} << k;
    std::vector<std::uint16_t> f(size), out(size - 1);
    for (std::size_t v = 0; v < size; ++v) f[v] = static_cast<std::uint16_t>(v * 77 + 1);
    for (std::size_t offset = 0; offset < 256; ++offset) {
      RotatedEntries<std::uint16_t>(f, static_cast<std::uint8_t>(offset), out.data());
      for (std::size_t v = 1; v < size; ++v)
        ASSERT_EQ(out[v - 1], f[(v + offset) % size]) << k << " " << offset;
    }
  }
}

// D's elements for the true bits, and what the evaluators make of them, without shares.
template <class V>
V Activated(const Formula& formula, unsigned out_bits, unsigned shift, bool settled, std::uint8_t a,
            std::uint8_t b) {
  const auto other = static_cast<std::uint8_t>(b ^ formula.Complement<std::uint8_t>());
  const auto greater = [&](unsigned bits) {
    const unsigned low = (1u << bits) - 1;
    return (a & low) > (other & low) ? 1u : 0u;
  };
  V s = static_cast<V>(greater(formula.ComparedBits()) ^ formula.Flip(a));
  if (settled) s = static_cast<V>(s ^ formula.SignFlip(b));
  const V carry = static_cast<V>(greater(shift));
  std::vector<std::size_t> elements(formula.Elements(settled));
  std::iota(elements.begin(), elements.end(), 0);
  if (formula.WrapBits(out_bits) > 0) elements.push_back(Formula::kWrap);
  std::vector<V> entries(elements.size());
  const std::array<std::uint8_t, 1> own{a}, theirs{b};
  for (std::size_t j = 0; j < elements.size(); ++j) {
    formula.Entries<std::uint8_t, V>(elements[j], own, &s, &carry, &entries[j]);
    // Of the wrap no more than its bits are shared.
    if (elements[j] == Formula::kWrap)
      entries[j] = ring::Reduce(entries[j], formula.WrapBits(out_bits));
  }
  std::array<V, 1> out{};
  formula.Finish<std::uint8_t, V>(true, settled, theirs, std::span<const V>(entries), out);
  return ring::Reduce(out[0], out_bits);
}

// The formulas, for every split of every value into a + b.
TEST(FormulaTest, GivesTheActivationOfEverySplit) {
  for (auto kind :
       {mpc::ActivationKind::kSign, mpc::ActivationKind::kRelu, mpc::ActivationKind::kSquare})
    for (unsigned n = 2; n <= 6; ++n)
      for (unsigned shift = 0; shift < (kind == mpc::ActivationKind::kSign ? 1 : n); ++shift) {
        mpc::ActivationSpec spec;
        spec.kind = kind;
        spec.value_bits = n;
        spec.shift = shift;
        const Formula formula(spec);
        const unsigned size = 1u << n;
        for (std::uint8_t a = 0; a < size; ++a)
          for (std::uint8_t b = 0; b < size; ++b) {
            const std::int64_t z = ring::Decode(static_cast<std::uint8_t>(a + b), n);
            const std::int64_t expected = kind == mpc::ActivationKind::kSign ? (z >= 0 ? 1 : 0)
                                          : kind == mpc::ActivationKind::kRelu
                                              ? std::max<std::int64_t>(z, 0) >> shift
                                              : (z >> shift) * (z >> shift);
            for (const bool settled : {false, true})
              for (unsigned out_bits = 1; out_bits <= 11; ++out_bits)
                ASSERT_EQ(Activated<std::uint16_t>(formula, out_bits, shift, settled, a, b),
                          ring::Reduce(static_cast<std::uint16_t>(expected), out_bits))
                    << mpc::ActivationName(kind) << " of " << z << " >> " << shift
                    << ", a = " << int{a} << ", to " << out_bits << " bits"
                    << (settled ? ", settled" : "");
          }
      }
}

// One element less where the sign is settled, and a wrap only where the sum may need it.
TEST(FormulaTest, ReluHasAWrapWhereTheOutputRingIsWider) {
  mpc::ActivationSpec spec;
  spec.kind = mpc::ActivationKind::kRelu;
  spec.value_bits = 28;
  spec.shift = 12;
  const Formula formula(spec);
  EXPECT_EQ(formula.Elements(false), 3u);
  EXPECT_EQ(formula.Elements(true), 2u);
  EXPECT_EQ(formula.WrapBits(28), 12u);
  EXPECT_EQ(formula.WrapBits(17), 1u);
  EXPECT_EQ(formula.WrapBits(16), 0u);
}

TEST(PiecesTest, AreWholeBlocksOfAboutOneSize) {
  EXPECT_EQ(PieceElements(1), std::size_t{1} << 23);
  EXPECT_EQ(PieceElements(288), 7 * kBlock);
  EXPECT_EQ(PieceElements(100'000), kBlock);
}

}  // namespace
}  // namespace tercet::protocols::dealer
