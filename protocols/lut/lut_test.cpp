#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lut/layout.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/local.h"

// Exactness, costs on the wire and masking are shown by the conformance tests; here only what is
// particular to lut.
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

double BytesPerElement(std::uint64_t bytes, const mpc::ActivationSpec& spec) {
  return static_cast<double>(bytes) / static_cast<double>(spec.Elements());
}

struct CostRow {
  unsigned value_bits;
  const char* choice;
  bool pool;
  std::uint32_t hops;
  double offline, online;
};

class Table : public testing::TestWithParam<CostRow> {};

// Bytes per element, all parties together, out ring 16 bits. Where an OR lookup ends the layer, its
// last entry follows from the public sum of the others and is not sent.
TEST_P(Table, CostsPerElement) {
  const auto& row = GetParam();
  const auto spec = Spec(row.value_bits, 16, row.pool);
  const auto cost =
      LayoutCost(MakeLayout(spec, mpc::ParseSuiteChoice(row.choice, "test")), spec, mpc::Roles{});
  EXPECT_EQ(cost.OnlineHops(), row.hops);
  EXPECT_DOUBLE_EQ(BytesPerElement(cost.OfflineTotal(), spec), row.offline);
  EXPECT_DOUBLE_EQ(BytesPerElement(cost.OnlineTotal(), spec), row.online);
  EXPECT_EQ(cost.OnlineBytes()[0], 0u);
}
INSTANTIATE_TEST_SUITE_P(Published, Table,
                         testing::Values(CostRow{10, "lut:chunks=2", false, 3, 26, 7.25},
                                         CostRow{12, "lut:chunks=2", false, 3, 36, 7.75},
                                         CostRow{15, "lut:chunks=2", false, 3, 64, 8.5},
                                         CostRow{10, "lut:chunks=3,form=bit", false, 4, 11, 8},
                                         CostRow{12, "lut:chunks=3,form=bit", false, 4, 15, 8.5},
                                         CostRow{15, "lut:chunks=3,form=bit", false, 4, 24, 9.25},
                                         CostRow{12, "lut:chunks=2", true, 4, 21 + 7.5, 5.0}));

TEST(Layout, DefaultTakesTheFewestHopsThenTheFewestBytes) {
  const auto plain = MakeLayout(Spec(12, 10, false), mpc::ParseSuiteChoice("lut", "test"));
  EXPECT_TRUE(plain.arithmetic);
  EXPECT_EQ(plain.chunks, (std::vector<unsigned>{6, 5}));
  const auto pooled = MakeLayout(Spec(12, 10, true), mpc::ParseSuiteChoice("lut", "test"));
  EXPECT_FALSE(pooled.arithmetic);
  EXPECT_EQ(pooled.chunks, (std::vector<unsigned>{4, 4, 3}));
}

TEST(Layout, ChunksEndWhereTheTruncationDoes) {
  auto spec = Spec(20, 16, false);
  spec.kind = mpc::ActivationKind::kRelu;
  for (unsigned shift = 0; shift < spec.value_bits; ++shift)
    for (const char* choice : {"lut", "lut:form=bit", "lut:form=arith"}) {
      spec.shift = shift;
      const auto layout = MakeLayout(spec, mpc::ParseSuiteChoice(choice, "test"));
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
        const auto layout = MakeLayout(spec, mpc::ParseSuiteChoice("lut", "test"));
        EXPECT_LE(layout.chunks.size(), 4u) << n << " >> " << shift;
        EXPECT_TRUE(!layout.apart || n > 25) << n << " >> " << shift;
      }
}

// Formulas: README.md.
TEST(Layout, ReluAndSquareCostWhatTheReadmeSays) {
  struct Row {
    mpc::ActivationKind kind;
    unsigned value_bits, shift;
    const char* choice;
    std::uint32_t hops;
    double offline, online;  // bytes per element, out ring 16 bits
  };
  constexpr auto kRelu = mpc::ActivationKind::kRelu, kSquare = mpc::ActivationKind::kSquare;
  for (const auto& row : std::vector<Row>{
           {kRelu, 12, 0, "lut", 3, 160 / 8. + 48, 7.75},
           {kRelu, 12, 4, "lut", 3, 272 / 8. + 48, 7.75},
           {kRelu, 16, 8, "lut", 3, 512 / 8. + 48, 8.75},
           {kRelu, 16, 8, "lut:form=bit", 4, (96 + 128 + 8) / 8. + 24, 10.25},
           {kRelu, 20, 8, "lut", 3, 448 / 8. + 192, 10.25},
           {kRelu, 29, 10, "lut", 4, 2 * (7 * 128 + 128) / 8. + 24, (58 + 28 + 4 + 32) / 8.},
           {kSquare, 16, 8, "lut", 3, 768 / 8. + 32, 8.75}}) {
    auto spec = Spec(row.value_bits, 16, false);
    spec.kind = row.kind;
    spec.shift = row.shift;
    const auto layout = MakeLayout(spec, mpc::ParseSuiteChoice(row.choice, "test"));
    const auto cost = LayoutCost(layout, spec, mpc::Roles{});
    SCOPED_TRACE(fmt::format("{} {} >> {}: {} chunks {}", mpc::ActivationName(row.kind),
                             row.value_bits, row.shift, row.choice, fmt::join(layout.chunks, "+")));
    EXPECT_EQ(cost.OnlineHops(), row.hops);
    EXPECT_DOUBLE_EQ(BytesPerElement(cost.OfflineTotal(), spec), row.offline);
    EXPECT_DOUBLE_EQ(BytesPerElement(cost.OnlineTotal(), spec), row.online);
  }
}

TEST(Layout, CarryFunctionIsTheChunkwiseComparison) {
  for (std::size_t chunks = 1; chunks <= 4; ++chunks) {
    const auto table = CarryFunction(chunks);
    const unsigned base = 3;  // every pair of chunk digits 0..2
    std::size_t numbers = 1;
    for (std::size_t j = 0; j < chunks; ++j) numbers *= base;
    for (std::size_t x = 0; x < numbers; ++x)
      for (std::size_t y = 0; y < numbers; ++y) {
        std::size_t flags = 0, divisor = numbers;
        for (std::size_t j = 0; j < chunks; ++j) {
          divisor /= base;
          const std::size_t p = x / divisor % base, q = y / divisor % base;
          flags |= static_cast<std::size_t>(p > q) << (2 * j);
          if (j + 1 < chunks) flags |= static_cast<std::size_t>(p == q) << (2 * j + 1);
        }
        ASSERT_EQ(table[flags / 8] >> (flags % 8) & 1, x > y ? 1 : 0)
            << x << " > " << y << " in " << chunks;
      }
  }
}

TEST(Layout, RefusesWhatItCannotDo) {
  const auto error = [](mpc::ActivationSpec spec, const char* choice) -> std::string {
    try {
      MakeLayout(spec, mpc::ParseSuiteChoice(choice, "test"));
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  };
  auto spec = Spec(12, 12, true);
  spec.kind = mpc::ActivationKind::kRelu;
  EXPECT_THAT(error(spec, "lut"),
              testing::HasSubstr("layer act: suite lut has no relu with max_pool2d"));
  spec = Spec(33, 12, false);
  spec.kind = mpc::ActivationKind::kSquare;
  EXPECT_THAT(error(spec, "lut"), testing::HasSubstr("2..32 bits in square, not 33"));
  spec.kind = mpc::ActivationKind::kRelu;
  spec.shift = 33;
  EXPECT_THAT(error(spec, "lut"), testing::HasSubstr("by 2^0..2^32, not 2^33"));
  EXPECT_THAT(error(Spec(34, 12, false), "lut"), testing::HasSubstr("2..33 bits in sign, not 34"));
  EXPECT_THAT(error(Spec(12, 12, false), "lut:chunks=5"),
              testing::HasSubstr("chunks=5 found, 1..4 expected"));
  EXPECT_THAT(error(Spec(12, 12, false), "lut:chunks=1"),
              testing::HasSubstr("11 compared bits of values of 12 bits cannot be cut into 1 "
                                 "chunks of 1..8 bits"));
  EXPECT_THAT(error(Spec(12, 12, false), "lut:size=1"), testing::HasSubstr("size=1 found"));
}

}  // namespace
}  // namespace tercet::protocols::lut
