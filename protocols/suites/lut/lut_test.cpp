// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "mpc/plan_of.h"
#include "suites/lut/layout.h"

// Exactness, costs and masking are shown by the conformance tests and dealer_suites_test; here only
// what is particular to lut.
namespace tercet::protocols::lut {
namespace {

mpc::ActivationSpec Spec(unsigned value_bits, unsigned out_bits, bool pool) {
  mpc::ActivationSpec spec;
  spec.layer = "act";
  spec.in = {1, 8, 8};
  if (pool) spec.pool = mpc::PoolShape{2, 2};
  spec.value_bits = spec.ring_bits = value_bits;
  spec.out_bits = out_bits;
  spec.batch = 64;
  return spec;
}

TEST(Layout, DefaultTakesTheFewestHopsThenTheFewestBytes) {
  const auto plain = MakeLayout(Spec(12, 10, false), mpc::OptionsOf("lut"));
  EXPECT_TRUE(plain.arithmetic);
  EXPECT_EQ(plain.chunks, (std::vector<unsigned>{6, 5}));
  const auto pooled = MakeLayout(Spec(12, 10, true), mpc::OptionsOf("lut"));
  EXPECT_FALSE(pooled.arithmetic);
  EXPECT_EQ(pooled.chunks, (std::vector<unsigned>{3, 3, 3, 2}));
}

TEST(Layout, ChunksEndWhereTheTruncationDoes) {
  auto spec = Spec(20, 16, false);
  spec.kind = mpc::ActivationKind::kRelu;
  for (unsigned shift = 0; shift < spec.value_bits; ++shift)
    for (const char* choice : {"lut", "lut:form=bit", "lut:form=arith"}) {
      spec.shift = shift;
      const auto layout = MakeLayout(spec, mpc::OptionsOf(choice));
      unsigned upper = 0, lower = 0;
      for (std::size_t j = 0; j < layout.chunks.size(); ++j)
        (j < layout.low ? upper : lower) += layout.chunks[j];
      EXPECT_EQ(upper, 19 - shift) << choice;
      EXPECT_EQ(lower, shift) << choice;
    }
}

TEST(Layout, EveryTruncationIsPossible) {
  for (auto kind : {mpc::ActivationKind::kRelu, mpc::ActivationKind::kSquare})
    for (unsigned n = 2; n <= (kind == mpc::ActivationKind::kRelu ? 33 : 32); ++n)
      for (unsigned shift = 0; shift < n; ++shift) {
        auto spec = Spec(n, 16, false);
        spec.kind = kind;
        spec.shift = shift;
        const auto layout = MakeLayout(spec, mpc::OptionsOf("lut"));
        EXPECT_LE(layout.chunks.size(), 5u) << n << " >> " << shift;
        EXPECT_EQ(layout.HasCarry(), shift > 0) << n << " >> " << shift;
      }
}

// A layout of `chunks` chunks with the carry from chunk `low` on.
Layout OfChunks(std::size_t chunks, std::size_t low) {
  Layout layout;
  layout.chunks.assign(chunks, 3);
  layout.low = low;
  return layout;
}

struct Comparisons {
  unsigned flags = 0;    // by number
  bool greater = false;  // all chunks compared
  bool carry = false;    // those from `low` on
};

// What comparing two numbers gives: each chunk of the first is less than, equal to or greater than
// that of the second.
std::vector<Comparisons> AllComparisons(const Layout& layout) {
  const std::size_t chunks = layout.chunks.size();
  std::vector<Comparisons> all;
  std::size_t count = 1;
  for (std::size_t j = 0; j < chunks; ++j) count *= 3;
  for (std::size_t x = 0; x < count; ++x) {
    Comparisons one;
    std::size_t left = x;
    for (std::size_t j = chunks; j-- > 0; left /= 3) {
      const bool greater = left % 3 == 2, equal = left % 3 == 1;
      one.greater = greater || (equal && one.greater);
      if (j >= layout.low) one.carry = one.greater;
      if (greater) one.flags |= 1U << layout.Greater(j);
      if (equal && j + 1 < chunks) one.flags |= 1U << layout.Equal(j);
    }
    all.push_back(one);
  }
  return all;
}

bool ValueOf(const dealer::Sum& sum, unsigned flags) {
  unsigned value = 0;
  for (const dealer::Monomial product : sum) value += (flags & product) == product;
  EXPECT_LE(value, 1u) << "the products of a sum exclude each other";
  return value == 1;
}

TEST(Layout, SumsOfProductsAreTheChunkwiseComparison) {
  for (std::size_t chunks = 1; chunks <= 4; ++chunks)
    for (std::size_t low = 0; low <= chunks; ++low) {
      Layout layout = OfChunks(chunks, low);
      layout.arithmetic = true;
      const auto carries = layout.Carries();
      for (const auto& one : AllComparisons(layout)) {
        EXPECT_EQ(ValueOf(carries.s, one.flags), one.greater);
        if (low == chunks) continue;
        EXPECT_EQ(ValueOf(carries.carry, one.flags), one.carry);
        EXPECT_EQ(ValueOf(carries.both, one.flags), one.greater && one.carry);
      }
    }
}

// For every comparison and every mask of the opened flags: what D deals and knows, and what E1 and
// E2 add up, give the bits.
class PolynomialsInOpenedBits : public testing::Test {
 protected:
  static bool Parity(const dealer::Sum& sum, unsigned bits) {
    bool odd = false;
    for (const dealer::Monomial product : sum) odd ^= (bits & product) == product;
    return odd;
  }
  // Of polynomial k, without what is not opened.
  static bool Value(const BitPolynomial& polynomial, const std::vector<DealtBit>& dealt, unsigned c,
                    unsigned rho) {
    bool bit = Parity(polynomial.offset, rho);
    for (const auto& [product, source, index] : polynomial.terms) {
      if ((c & product) != product) continue;
      bit ^= source == BitPolynomial::Source::kOne    ? true
             : source == BitPolynomial::Source::kMask ? (rho >> index & 1) != 0
                                                      : Parity(dealt[index], rho);
    }
    return bit;
  }
};

TEST_F(PolynomialsInOpenedBits, AreTheComparison) {
  for (std::size_t chunks = 1; chunks <= 5; ++chunks)
    for (std::size_t low = 0; low <= chunks; ++low) {
      const Layout layout = OfChunks(chunks, low);
      const auto planes = layout.Planes();
      ASSERT_EQ(planes.size(), 1u);
      const auto& [opened_bits, polynomials, dealt] = planes[0];
      EXPECT_EQ(opened_bits, layout.OpenedBits());
      EXPECT_EQ(dealt.size(), layout.Sizes()[0].dealt);
      ASSERT_EQ(polynomials.size(), low < chunks ? 2u : 1u);
      for (const auto& one : AllComparisons(layout))
        for (unsigned rho = 0; rho < 1U << layout.OpenedBits(); rho += chunks < 5 ? 1 : 7) {
          const unsigned opened = one.flags & ((1U << layout.OpenedBits()) - 1), c = opened ^ rho;
          for (std::size_t k = 0; k < polynomials.size(); ++k) {
            const bool first = (one.flags >> layout.Greater(k == 0 ? 0 : low) & 1) != 0;
            ASSERT_EQ(first ^ Value(polynomials[k], dealt, c, rho),
                      k == 0 ? one.greater : one.carry)
                << chunks << " chunks, carry of the " << low << ".., mask " << rho;
          }
        }
    }
}

// With D's own part of s as a factor, and none of the carry for D to know.
TEST_F(PolynomialsInOpenedBits, AreTheComparisonTimesTheCarry) {
  for (std::size_t chunks = 1; chunks <= 4; ++chunks)
    for (std::size_t low = 0; low < chunks; ++low) {
      Layout layout = OfChunks(chunks, low);
      layout.product = true;
      const auto planes = layout.Planes();
      const auto& [opened_bits, polynomials, dealt] = planes[0];
      EXPECT_EQ(opened_bits, layout.OpenedBits());
      EXPECT_EQ(dealt.size(), layout.Sizes()[0].dealt);
      ASSERT_EQ(polynomials.size(), 3u);
      EXPECT_TRUE(polynomials[2].offset.empty());
      for (const auto& one : AllComparisons(layout))
        for (unsigned masks = 0; masks < 2U << layout.OpenedBits(); ++masks) {
          const bool own = (masks >> layout.OpenedBits()) != 0;
          const unsigned opened = masks & ((1U << layout.OpenedBits()) - 1);
          const unsigned rho = opened | (own ? kOwn : 0), c = one.flags ^ opened;
          const auto value = [&, &polynomials = polynomials, &dealt = dealt](std::size_t k) {
            return Value(polynomials[k], dealt, c, rho);
          };
          ASSERT_EQ(value(0), one.greater) << chunks << " chunks";
          ASSERT_EQ(value(1), (one.greater ^ own) && one.carry) << chunks << " chunks";
          ASSERT_EQ(value(2), one.carry) << chunks << " chunks";
        }
    }
}

// The flags of a group from those of its chunks, none of which D is to know anything of.
TEST_F(PolynomialsInOpenedBits, AreTheFlagsOfAGroup) {
  for (std::size_t chunks = 2; chunks <= 4; ++chunks)
    for (const bool equal : {false, true}) {
      const Plane plane = GroupPlane(chunks, equal);
      EXPECT_EQ(plane.opened, 2 * chunks - (equal ? 1 : 2));
      ASSERT_EQ(plane.polynomials.size(), equal ? 2u : 1u);
      for (const auto& polynomial : plane.polynomials) EXPECT_TRUE(polynomial.offset.empty());
      const Layout group = OfChunks(chunks, chunks);
      for (const bool last_equal : {false, true})
        for (const auto& one : AllComparisons(group))
          for (unsigned rho = 0; rho < 1U << plane.opened; ++rho) {
            // The last "equal" is a flag of a group alone.
            unsigned flags = one.flags & ~(1U << group.Greater(0)), all_equal = last_equal;
            const bool last_greater = (one.flags >> group.Greater(chunks - 1) & 1) != 0;
            if (last_equal && last_greater) continue;
            if (last_equal) flags |= 1U << group.Equal(chunks - 1);
            for (std::size_t j = 0; j + 1 < chunks; ++j) all_equal &= one.flags >> group.Equal(j);
            const unsigned c = (flags & ((1U << plane.opened) - 1)) ^ rho;
            const bool first = (one.flags >> group.Greater(0) & 1) != 0;
            ASSERT_EQ(first ^ Value(plane.polynomials[0], plane.dealt, c, rho), one.greater)
                << chunks << " chunks, mask " << rho;
            if (equal) {
              ASSERT_EQ(Value(plane.polynomials[1], plane.dealt, c, rho), (all_equal & 1) != 0)
                  << chunks << " chunks, mask " << rho;
            }
          }
    }
  EXPECT_TRUE(GroupPlane(1, true).polynomials.empty());
}

// A carry costs no bit of its own; its product with s costs some.
TEST(Layout, DealtBits) {
  for (const auto& [chunks, bits, with_product] :
       std::vector<std::tuple<std::size_t, std::size_t, std::size_t>>{
           {2, 0, 1}, {3, 3, 5}, {4, 10, 16}})
    for (std::size_t low = 1; low <= chunks; ++low) {
      Layout layout = OfChunks(chunks, low);
      EXPECT_EQ(layout.Sizes()[0].dealt, bits) << chunks << " chunks, carry " << low;
      layout.product = true;
      if (low + 1 == chunks) {
        EXPECT_EQ(layout.Sizes()[0].dealt, with_product) << chunks << " chunks";
      }
    }
}

// The product in place of the carry saves an element; where its mask has no place, the carry is it.
TEST(Layout, TheProductIsTakenWhereItFits) {
  auto spec = Spec(16, 16, false);
  spec.kind = mpc::ActivationKind::kRelu;
  spec.shift = 8;
  const auto narrow = MakeLayout(spec, mpc::OptionsOf("lut:form=bit"));
  EXPECT_TRUE(narrow.product);
  EXPECT_LE(narrow.OpenedBits(), 7u);
  EXPECT_FALSE(MakeLayout(spec, mpc::OptionsOf("lut:chunks=5,form=bit")).product);
  spec.kind = mpc::ActivationKind::kSquare;
  EXPECT_FALSE(MakeLayout(spec, mpc::OptionsOf("lut:form=bit")).product);
}

// Of two rounds of flags, every chunk is in one group, and groups end where the truncation does.
TEST(Layout, TreesCoverTheComparedBits) {
  for (auto kind :
       {mpc::ActivationKind::kSign, mpc::ActivationKind::kRelu, mpc::ActivationKind::kSquare})
    for (unsigned n = 2; n <= (kind == mpc::ActivationKind::kSquare ? 32 : 33); ++n)
      for (unsigned shift = 0; shift < (kind == mpc::ActivationKind::kSign ? 1 : n); ++shift) {
        auto spec = Spec(n, 16, false);
        spec.kind = kind;
        spec.shift = shift;
        const auto layout = MakeLayout(spec, mpc::OptionsOf("lut:form=tree"));
        EXPECT_FALSE(layout.arithmetic);
        unsigned upper = 0, lower = 0;
        for (std::size_t j = 0; j < layout.chunks.size(); ++j) {
          const std::size_t part = layout.groups.empty() ? j : layout.GroupOf(j).first;
          (part < layout.low ? upper : lower) += layout.chunks[j];
        }
        const unsigned compared = kind == mpc::ActivationKind::kSquare ? n : n - 1;
        EXPECT_EQ(upper, compared - shift) << n << " >> " << shift;
        EXPECT_EQ(lower, shift) << n << " >> " << shift;
        std::size_t chunks = 0;
        for (const std::size_t group : layout.groups) chunks += group;
        if (!layout.groups.empty()) {
          EXPECT_EQ(chunks, layout.chunks.size());
        }
        for (const auto& plane : layout.Sizes()) EXPECT_LE(plane.opened, 8u);
      }
}

// The sizes that costs follow from are those of the planes.
TEST(Layout, SizesAreThoseOfThePlanes) {
  auto spec = Spec(28, 28, false);
  spec.kind = mpc::ActivationKind::kRelu;
  spec.shift = 12;
  const auto layout = MakeLayout(spec, mpc::OptionsOf("lut:form=tree"));
  EXPECT_EQ(layout.groups, (std::vector<std::size_t>{3, 2, 4}));
  EXPECT_EQ(layout.chunks, std::vector<unsigned>(9, 3));
  EXPECT_TRUE(layout.product);
  const auto planes = layout.Planes();
  const auto sizes = layout.Sizes();
  ASSERT_EQ(planes.size(), sizes.size());
  for (std::size_t p = 0; p < planes.size(); ++p) {
    EXPECT_EQ(planes[p].opened, sizes[p].opened);
    EXPECT_EQ(planes[p].dealt.size(), sizes[p].dealt);
  }
}

}  // namespace
}  // namespace tercet::protocols::lut
