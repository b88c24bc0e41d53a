// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tercet/mpc/builtin_protocols.h"

namespace tercet {
namespace {

using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::LinearShape;
using testing::ElementsAre;
using Values = std::vector<std::int64_t>;

class PlainTest : public testing::Test {
 protected:
  const mpc::Registry registry_ = BuiltinProtocols();
  const mpc::Oracle& oracle_ = registry_.PlainOracle();
};

TEST_F(PlainTest, FullyConnected) {
  const LinearShape shape{.in = {3, 1, 1}, .out_channels = 2};
  const Values z = oracle_.Linear(shape, {1, 2, 3, -1, 0, 5}, {10, -20}, {1, 4, 2, 5, 3, 6}, 2);
  EXPECT_THAT(z, ElementsAre(1 + 4 + 9 + 10, 4 + 10 + 18 + 10, -1 + 15 - 20, -4 + 30 - 20));
}

TEST_F(PlainTest, BiasPerElement) {
  const LinearShape shape{.in = {1, 1, 3}, .out_channels = 1, .bias_per_element = true};
  EXPECT_THAT(oracle_.Linear(shape, {2}, {100, 200, 300}, {1, 2, 3}, 1),
              ElementsAre(102, 204, 306));
}

TEST_F(PlainTest, PaddedStridedByHand) {
  const LinearShape shape{
      .in = {1, 3, 3}, .out_channels = 1, .kernel_h = 2, .kernel_w = 2, .stride = 2, .padding = 1};
  // 0 0 0 0 0
  // 0 1 2 3 0   kernel 1 10 / 100 1000 at the four even corners
  // 0 4 5 6 0
  // 0 7 8 9 0
  EXPECT_THAT(oracle_.Linear(shape, {1, 10, 100, 1000}, {0}, {1, 2, 3, 4, 5, 6, 7, 8, 9}, 1),
              ElementsAre(1000, 3200, 40 + 7000, 5 + 60 + 800 + 9000));
}

// Against the definition, written down index by index.
TEST_F(PlainTest, GroupedAgainstDefinition) {
  const LinearShape shape{.in = {4, 5, 6},
                          .out_channels = 6,
                          .kernel_h = 3,
                          .kernel_w = 2,
                          .stride = 2,
                          .padding = 1,
                          .groups = 2};
  constexpr std::size_t kBatch = 3;
  std::mt19937_64 rng(1);
  const auto draw = [&](std::size_t n) {
    Values v(n);
    for (auto& e : v) e = static_cast<std::int64_t>(rng() % 201) - 100;
    return v;
  };
  const Values w = draw(shape.WeightCount()), b = draw(shape.BiasCount());
  const Values x = draw(shape.in.Size() * kBatch);
  const Values z = oracle_.Linear(shape, w, b, x, kBatch);
  const auto out = shape.Out();
  ASSERT_EQ(z.size(), out.Size() * kBatch);
  for (std::size_t o = 0; o < 6; ++o)
    for (std::size_t r = 0; r < out.height; ++r)
      for (std::size_t c = 0; c < out.width; ++c)
        for (std::size_t i = 0; i < kBatch; ++i) {
          std::int64_t want = b[o];
          for (int ch = 0; ch < 2; ++ch)
            for (int ky = 0; ky < 3; ++ky)
              for (int kx = 0; kx < 2; ++kx) {
                const int y = static_cast<int>(r) * 2 + ky - 1,
                          xx = static_cast<int>(c) * 2 + kx - 1;
                if (y < 0 || y >= 5 || xx < 0 || xx >= 6) continue;
                const int channel = static_cast<int>(o / 3) * 2 + ch;
                want += w[((o * 2 + ch) * 3 + ky) * 2 + kx] *
                        x[((channel * 5 + y) * 6 + xx) * kBatch + i];
              }
          EXPECT_EQ(z[((o * out.height + r) * out.width + c) * kBatch + i], want);
        }
}

TEST_F(PlainTest, Activations) {
  ActivationSpec spec{.layer = "act", .in = {4, 1, 1}, .pool = {}, .batch = 1};
  EXPECT_THAT(oracle_.Activate(spec, {-2, -1, 0, 1}), ElementsAre(0, 0, 1, 1));
  spec.kind = ActivationKind::kRelu;
  EXPECT_THAT(oracle_.Activate(spec, {-2, -1, 0, 7}), ElementsAre(0, 0, 0, 7));
  spec.kind = ActivationKind::kNone;
  EXPECT_THAT(oracle_.Activate(spec, {-2, -1, 0, 7}), ElementsAre(-2, -1, 0, 7));
}

TEST_F(PlainTest, MaxPoolLeavesOddEdgesOut) {
  const ActivationSpec spec{.layer = "act",
                            .kind = ActivationKind::kRelu,
                            .in = {1, 3, 5},
                            .pool = mpc::PoolShape{2, 2},
                            .batch = 1};
  EXPECT_THAT(oracle_.Activate(spec, {1, 2, 3, -4, 9, 5, -6, 3, 8, 9, 99, 99, 99, 99, 99}),
              ElementsAre(5, 8));
}

TEST_F(PlainTest, OverlappingPool) {
  const ActivationSpec spec{.layer = "act",
                            .kind = ActivationKind::kNone,
                            .in = {1, 3, 5},
                            .pool = mpc::PoolShape{3, 2},
                            .batch = 2};
  Values z(30);
  for (std::size_t i = 0; i < 15; ++i)
    z[2 * i] = static_cast<std::int64_t>(i), z[2 * i + 1] = -static_cast<std::int64_t>(i);
  EXPECT_THAT(oracle_.Activate(spec, z), ElementsAre(12, 0, 14, -2));
}

TEST_F(PlainTest, WrongSizesThrow) {
  const LinearShape shape{.in = {3, 1, 1}, .out_channels = 2};
  EXPECT_THROW(oracle_.Linear(shape, Values(5), Values(2), Values(3), 1), InternalError);
  EXPECT_THROW(oracle_.Linear(shape, Values(6), Values(1), Values(3), 1), InternalError);
  EXPECT_THROW(oracle_.Linear(shape, Values(6), Values(2), Values(4), 1), InternalError);
  const ActivationSpec spec{.layer = "act", .in = {4, 1, 1}, .pool = {}, .batch = 1};
  EXPECT_THROW(oracle_.Activate(spec, Values(3)), InternalError);
}

}  // namespace
}  // namespace tercet
