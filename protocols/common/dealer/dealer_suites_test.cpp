// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mpc/plan_of.h"

// Costs and refusals of the suites with a dealer. Exactness, costs on the wire and masking are
// shown by the conformance tests.
namespace tercet::protocols::dealer {
namespace {

using mpc::ActivationKind;

mpc::ActivationSpec Spec(ActivationKind kind, unsigned value_bits, unsigned shift, bool pool) {
  mpc::ActivationSpec spec;
  spec.layer = "act";
  spec.kind = kind;
  spec.shift = shift;
  spec.in = {1, 8, 8};
  if (pool) spec.pool = mpc::PoolShape{2, 2};
  spec.value_bits = spec.ring_bits = value_bits;
  spec.out_bits = 16;
  spec.batch = 64;
  if (kind == ActivationKind::kTable) spec.table.resize(std::size_t{1} << (value_bits - shift));
  return spec;
}

struct CostRow {
  const char* choice;
  ActivationKind kind;
  unsigned value_bits, shift;
  bool pool;
  std::uint32_t hops;
  double offline_bits, online_bits;  // per element, all parties together, out ring 16 bits
};

std::ostream& operator<<(std::ostream& out, const CostRow& row) {
  return out << mpc::ActivationName(row.kind) << " of " << row.value_bits << " bits >> "
             << row.shift << (row.pool ? ", pooled: " : ": ") << row.choice;
}

class DealerSuiteCost : public testing::TestWithParam<CostRow> {};

// Formulas: the suites' READMEs. Of fss 32 bytes of hash keys go to each evaluator besides.
TEST_P(DealerSuiteCost, IsWhatTheReadmeSays) {
  const auto& row = GetParam();
  const auto spec = Spec(row.kind, row.value_bits, row.shift, row.pool);
  const auto cost = mpc::PlanOf(spec, row.choice).cost;
  const auto keys = std::string(row.choice).starts_with("fss") ? 64 : 0;
  const auto count = static_cast<double>(spec.Elements());
  EXPECT_EQ(cost.OnlineHops(), row.hops);
  EXPECT_DOUBLE_EQ(static_cast<double>(cost.OfflineTotal() - keys) * 8 / count, row.offline_bits);
  EXPECT_DOUBLE_EQ(static_cast<double>(cost.OnlineTotal()) * 8 / count, row.online_bits);
  EXPECT_EQ(cost.OnlineBytes()[0], 0u);
}

constexpr auto kSign = ActivationKind::kSign, kRelu = ActivationKind::kRelu,
               kSquare = ActivationKind::kSquare, kTable = ActivationKind::kTable;

// Where an OR lookup ends the layer, its last entry follows from the public sum of the others and
// is not sent.
INSTANTIATE_TEST_SUITE_P(
    Lut, DealerSuiteCost,
    testing::Values(
        CostRow{"lut:chunks=2", kSign, 10, 0, false, 3, 126, 58},
        CostRow{"lut:chunks=2", kSign, 12, 0, false, 3, 174, 62},
        CostRow{"lut:chunks=3", kSign, 15, 0, false, 3, 253, 72},
        CostRow{"lut:chunks=3,form=bit", kSign, 10, 0, false, 4, 40, 62},
        CostRow{"lut:chunks=3,form=bit", kSign, 12, 0, false, 4, 56, 66},
        CostRow{"lut:form=bit", kSign, 12, 0, false, 4, 50, 70},
        CostRow{"lut:form=bit", kSign, 15, 0, false, 4, 70, 76},
        CostRow{"lut", kSign, 12, 0, true, 4, 34 + 60, 46},
        CostRow{"lut:chunks=1", kSign, 9, 0, false, 3, 272, 52},
        CostRow{"lut", kRelu, 12, 0, false, 3, 63 + 31 + 11 * 16 + 5 * 4, 62},
        CostRow{"lut:chunks=2", kRelu, 12, 4, false, 3, 128 + 15 + 13 * 16 + 5 * 8, 62},
        CostRow{"lut:chunks=2", kRelu, 16, 8, false, 3, 128 + 256 + 13 * 16 + 5 * 8, 70},
        CostRow{"lut:form=bit", kRelu, 16, 8, false, 4, 15 + 7 + 15 + 15 + 16 + 4 * 16 + 2 * 8, 82},
        // nine chunks of 3 bits, of which groups of 3, 2 and 4 deal 7, 2 and 11 bits
        CostRow{"lut:form=tree", kRelu, 28, 12, false, 5, 9 * 7 + 7 + 2 + 11 + 5 + 4 * 16,
                2 * (28 + 5 + 3 + 6 + 5 + 2 + 16)},
        CostRow{"lut:chunks=2", kSquare, 16, 8, false, 3, 256 + 256 + 11 * 16, 70},
        CostRow{"lut", kTable, 8, 0, false, 2, 255 * 16, 16 + 32},
        // the carry of 4 bits in the index's ring, of 4 bits as well
        CostRow{"lut:chunks=1", kTable, 8, 4, false, 4, 15 + 2 * 4 + 15 * 16, 16 + 2 + 8 + 32},
        CostRow{"lut:chunks=1,form=bit", kTable, 8, 4, false, 4, 15 + 2 * 4 + 15 * 16,
                16 + 2 + 8 + 32}));

// ReLU and square give vectors of 2 ring elements, ReLU of 3 where the output ring is wider; with
// truncation two comparisons give bits.
INSTANTIATE_TEST_SUITE_P(
    Fss, DealerSuiteCost,
    testing::Values(
        CostRow{"fss", kSign, 10, 0, false, 2, (5 + 4) * 144 + 2 * 256, 20 + 32},
        CostRow{"fss", kSign, 12, 0, false, 2, (7 + 6) * 144 + 2 * 256, 24 + 32},
        CostRow{"fss", kSign, 15, 0, false, 2, (10 + 9) * 144 + 2 * 256, 30 + 32},
        CostRow{"fss:form=bit", kSign, 12, 0, false, 3, (4 + 3) * 129 + 2 * 128 + 16, 24 + 2 + 32},
        CostRow{"fss", kSign, 12, 0, true, 3, (4 + 3) * 129 + 2 * 128 + 15 * 4, 24 + 2 + 8},
        CostRow{"fss", kRelu, 12, 0, false, 2, (9 + 8) * 176 + 2 * 4 * 48 + 16, 24 + 32},
        CostRow{"fss", kRelu, 16, 0, false, 2, (12 + 11) * 160 + 2 * 8 * 32 + 16, 32 + 32},
        CostRow{"fss:form=bit", kRelu, 12, 0, false, 3, (4 + 3) * 129 + 2 * 128 + 3 * 16 + 2 * 4,
                24 + 2 + 32},
        CostRow{"fss", kRelu, 12, 4, false, 3, (4 + 3) * 129 + 2 * 128 + 16 + 5 * 16 + 2 * 8,
                24 + 4 + 32},
        CostRow{"fss", kSquare, 12, 0, false, 2, (9 + 8) * 160 + 2 * 8 * 32, 24 + 32},
        CostRow{"fss", kSquare, 12, 4, false, 3, (5 + 4) * 129 + 2 * 128 + 16 + 7 * 16,
                24 + 4 + 32},
        CostRow{"fss", kTable, 8, 4, false, 3, 64 + 15 * 16, 16 + 8 + 32}));

struct RefusalRow {
  mpc::ActivationSpec spec;
  const char* choice;
  const char* error;
};

std::ostream& operator<<(std::ostream& out, const RefusalRow& row) { return out << row.error; }

class DealerSuiteRefusal : public testing::TestWithParam<RefusalRow> {};

TEST_P(DealerSuiteRefusal, SaysWhatItCannotDo) {
  const auto& [spec, choice, expected] = GetParam();
  EXPECT_THAT(mpc::RefusalOf(spec, choice), testing::HasSubstr(expected));
}

mpc::ActivationSpec WideWindow() {
  auto spec = Spec(kSign, 12, 0, true);
  spec.in = {1, 9, 9};
  spec.pool->kernel = 9;
  return spec;
}

INSTANTIATE_TEST_SUITE_P(
    All, DealerSuiteRefusal,
    testing::Values(
        RefusalRow{Spec(kSquare, 12, 0, true), "lut",
                   "layer act: suite lut has no square with max_pool2d"},
        RefusalRow{Spec(kSquare, 12, 0, true), "fss",
                   "layer act: suite fss has no square with max_pool2d"},
        RefusalRow{Spec(kSquare, 33, 0, false), "lut", "2..32 bits in square, not 33"},
        RefusalRow{Spec(kSquare, 64, 0, false), "fss", "2..63 bits in square, not 64"},
        RefusalRow{Spec(kSign, 34, 0, false), "lut", "2..33 bits in sign, not 34"},
        RefusalRow{Spec(kSign, 1, 0, false), "fss", "2..64 bits in sign, not 1"},
        RefusalRow{Spec(kRelu, 33, 33, false), "lut", "by 2^0..2^32, not 2^33"},
        RefusalRow{Spec(kRelu, 64, 64, false), "fss", "by 2^0..2^63, not 2^64"},
        RefusalRow{Spec(kTable, 9, 0, false), "lut",
                   "layer act: suite lut looks up values of 2..8"},
        RefusalRow{Spec(kTable, 12, 4, true), "fss", "suite fss has no table with truncation"},
        RefusalRow{Spec(kTable, 42, 34, false), "lut", "2..40 bits in table, not 42"},
        RefusalRow{Spec(kTable, 12, 4, false), "aby3", "layer act: suite aby3 has no table"},
        RefusalRow{Spec(kTable, 12, 4, false), "cbnn", "layer act: suite cbnn needs"},
        RefusalRow{WideWindow(), "lut", "up to 8 x 8, not 9"},
        RefusalRow{WideWindow(), "fss", "up to 8 x 8, not 9"},
        RefusalRow{Spec(kSign, 12, 0, false), "lut:chunks=6",
                   "chunks=6 found, one of auto, 1, 2, 3, 4, 5 expected"},
        RefusalRow{Spec(kSign, 12, 0, false), "lut:chunks=1",
                   "11 compared bits of values of 12 bits cannot be cut into 1 chunks of 1..8 "
                   "bits"},
        RefusalRow{Spec(kSign, 12, 0, false), "lut:size=1", "size=1 found"},
        RefusalRow{Spec(kSign, 12, 0, false), "fss:form=table", "form=table found"},
        RefusalRow{Spec(kSign, 12, 0, false), "fss:chunks=2", "chunks=2 found"}));

}  // namespace
}  // namespace tercet::protocols::dealer
