// SPDX-License-Identifier: Apache-2.0
#include "mpc/activation_function.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace tercet::mpc {
namespace {

constexpr unsigned kBits = 6;
constexpr std::int64_t kLow = -32, kHigh = 31;

/// Layers of values of kBits bits, with all shifts that the kind may have.
std::vector<ActivationSpec> Layers() {
  std::vector<ActivationSpec> layers;
  for (const auto kind : {ActivationKind::kNone, ActivationKind::kSign, ActivationKind::kRelu,
                          ActivationKind::kSquare, ActivationKind::kTable}) {
    const ShiftRule rule = FunctionOf(kind).Shift();
    for (unsigned shift = 0; shift <= (rule == ShiftRule::kNone ? 0 : 3); ++shift) {
      ActivationSpec spec{.layer = "act", .kind = kind, .shift = shift, .value_bits = kBits};
      for (std::int64_t i = 0; rule == ShiftRule::kIndexes && i < 64 >> shift; ++i)
        spec.table.push_back(7 * i % 23);
      layers.push_back(spec);
    }
  }
  return layers;
}

std::int64_t Of(const ActivationSpec& spec, std::int64_t z) {
  spec.Apply({&z, 1});
  return z;
}

std::string Text(const ActivationSpec& spec) {
  return std::string(ActivationName(spec.kind)) + " >> " + std::to_string(spec.shift);
}

TEST(ActivationFunctionTest, FloatingPointNumbersGiveTheSameAsIntegers) {
  for (const ActivationSpec& spec : Layers())
    for (std::int64_t z = kLow; z <= kHigh; ++z) {
      auto single = static_cast<float>(z);
      auto real = static_cast<double>(z);
      FunctionOf(spec.kind).Apply(spec, std::span(&single, 1));
      FunctionOf(spec.kind).Apply(spec, std::span(&real, 1));
      EXPECT_EQ(static_cast<std::int64_t>(single), Of(spec, z)) << Text(spec) << " of " << z;
      EXPECT_EQ(static_cast<std::int64_t>(real), Of(spec, z)) << Text(spec) << " of " << z;
    }
}

TEST(ActivationFunctionTest, StatesTightBounds) {
  for (const ActivationSpec& spec : Layers()) {
    const std::int64_t bound = std::int64_t{1} << (spec.OutputBits() - 1);
    std::int64_t most = Of(spec, kLow);
    for (std::int64_t z = kLow; z <= kHigh; ++z) {
      most = std::max(most, Of(spec, z));
      EXPECT_LT(Of(spec, z), bound) << Text(spec) << " of " << z;
    }
    EXPECT_EQ(FunctionOf(spec.kind).Largest(spec, kLow, kHigh, "act"), Int128{most}) << Text(spec);
  }
}

TEST(ActivationFunctionTest, NoResultDeviatesByMoreThanItSays) {
  for (const ActivationSpec& spec : Layers())
    for (std::int64_t off = 0; off <= 9; ++off)
      for (std::int64_t z = kLow; z + off <= kHigh; ++z)
        EXPECT_LE(Int128{std::abs(Of(spec, z + off) - Of(spec, z))},
                  FunctionOf(spec.kind).Deviation(spec, off))
            << Text(spec) << " of " << z << " and " << z + off;
}

TEST(ActivationFunctionTest, IsMonotoneAndFreeOfScaleWhereItSaysSo) {
  for (const ActivationSpec& spec : Layers()) {
    const ActivationFunction& function = FunctionOf(spec.kind);
    bool falls = false, scales = false;
    for (std::int64_t z = kLow; z < kHigh; ++z) falls |= Of(spec, z + 1) < Of(spec, z);
    for (std::int64_t z = kLow / 2; z < kHigh / 2; ++z) scales |= Of(spec, 2 * z) != Of(spec, z);
    EXPECT_EQ(falls, !function.Monotone()) << Text(spec);
    EXPECT_EQ(scales, !function.ScaleFree()) << Text(spec);
  }
}

TEST(ActivationFunctionTest, ReportsASquareThatIsTooLarge) {
  const ActivationSpec spec{.kind = ActivationKind::kSquare, .value_bits = 64};
  const Int128 huge = Int128{1} << 64;
  EXPECT_THROW(FunctionOf(spec.kind).Largest(spec, -huge, huge, "layer x"), ConfigError);
}

}  // namespace
}  // namespace tercet::mpc
