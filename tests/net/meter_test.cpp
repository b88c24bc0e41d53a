// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/meter.h"

#include <gtest/gtest.h>

#include "tercet/base/error.h"
#include "tercet/net/link.h"

namespace tercet::net {
namespace {

TEST(MeterTest, CountsApartAndSums) {
  Meter meter(3);
  meter.AddSent(Phase::kOnline, 1, 2, 100);
  meter.AddSent(Phase::kOnline, 1, 2, 50);
  meter.AddSent(Phase::kOnline, 2, 0, 7);
  meter.AddSent(Phase::kOffline, 1, 2, 1);
  meter.AddLayer(Phase::kOnline, 1, 2, 0.5);
  meter.AddLayer(Phase::kOnline, 1, 1, 0.25);
  meter.AddLayer(Phase::kOnline, 2, 3, 1);
  const auto layers = meter.Layers(Phase::kOnline);
  EXPECT_EQ(layers[1].sent_bytes[2], 150U);
  EXPECT_EQ(layers[1].sent_messages[2], 2U);
  EXPECT_EQ(layers[1].hops, 2U);
  EXPECT_EQ(layers[1].seconds, 0.75);
  const auto total = meter.Total(Phase::kOnline);
  EXPECT_EQ(total.sent_bytes, (std::array<std::uint64_t, 3>{7, 0, 150}));
  EXPECT_EQ(total.hops, 5U);
  EXPECT_EQ(total.seconds, 1.75);
  EXPECT_EQ(meter.Total(Phase::kOffline).sent_messages[2], 1U);
  EXPECT_THROW(meter.AddSent(Phase::kOnline, 3, 0, 1), InternalError);
  EXPECT_THROW(meter.AddSent(Phase::kOnline, 0, 3, 1), InternalError);
  EXPECT_THROW(meter.AddLayer(Phase::kOnline, 3, 1, 1), InternalError);
}

TEST(PhaseTest, HasNames) {
  EXPECT_STREQ(PhaseName(Phase::kSetup), "setup");
  EXPECT_STREQ(PhaseName(Phase::kOffline), "offline");
  EXPECT_STREQ(PhaseName(Phase::kOnline), "online");
}

}  // namespace
}  // namespace tercet::net
