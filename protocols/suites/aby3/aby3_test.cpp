// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "mpc/plan_of.h"
#include "mpc/random_planes.h"
#include "suites/aby3/adder.h"
#include "tercet/mpc/local.h"
#include "tercet/net/wrappers.h"

namespace tercet::protocols::aby3 {
namespace {

using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::Bit;
using mpc::Matrix;
using mpc::Random;
using mpc::Word;
using net::Phase;

// The carry for every width, alone or with one out of fewer bits beside it, over random operands
// and those whose carry runs all the way.
TEST(AdderTest, CarriesOfEveryWidth) {
  constexpr std::size_t kCount = 203;
  std::mt19937_64 rng(1);
  for (int helper : {0, 1, 2})
    for (unsigned width = 1; width <= 64; width += width < 20 ? 1 : 11)
      for (unsigned low : std::set<unsigned>{0, 1, width / 3, width - 1, width}) {
        SCOPED_TRACE(fmt::format("helper {}, {} bits, {} bits", helper, width, low));
        const std::uint64_t ones = ring::LowMask<std::uint64_t>(width);
        Buffer<std::uint64_t> a(kCount), b(kCount);
        for (std::size_t e = 0; e < kCount; ++e) {
          a[e] = rng() & ones;
          b[e] = e % 4 == 0   ? rng() & ones
                 : e % 4 == 1 ? ~a[e] & ones         // no carry, by one
                 : e % 4 == 2 ? (~a[e] + 1) & ones   // carry, by none, unless a = 0
                              : ones - (rng() & 1);  // long runs of propagates
        }
        std::vector<AdderShape> shapes{{width}};
        if (low > 0) shapes.push_back({low});
        const Planes rows =
            SharedRows(shapes[0], mpc::Slice(std::span<const std::uint64_t>(a), width));
        const Planes drawn = Random(rng, rows.Rows(), kCount);
        std::array<Planes, 3> carries;
        std::array<std::uint32_t, 3> hops{};
        mpc::RunParties([&](Party& party) {
          const auto id = static_cast<std::size_t>(party.Id());
          Adder adder(party, helper, shapes, "test/adder");
          AdderInput input;
          Planes masked = rows;
          masked ^= drawn;
          if (party.Id() != PrevParty(helper)) {
            (party.Id() == helper ? input.a.next : input.a.mine) = drawn;
          }
          if (party.Id() != NextParty(helper))
            (party.Id() == helper ? input.a.mine : input.a.next) = masked;
          if (party.Id() != helper) input.b = mpc::Slice(std::span<const std::uint64_t>(b), width);
          Context ctx(party, Phase::kOnline);
          ctx.Enter(1, "test");
          carries[id] = adder.Leaves(ctx, input, kCount);
          if (adder.HasTree()) {
            adder.SendLeaves(ctx, std::move(carries[id]));
            adder.ReceiveLeaves(ctx);
            carries[id] = adder.Carries(ctx, input);
          }
          ctx.Leave();
          hops[id] = ctx.Depth();
        });
        for (std::size_t row = 0; row < shapes.size(); ++row)
          for (std::size_t e = 0; e < kCount; ++e) {
            // The sum overflows, by itself or in the low bits, if it is less than a summand.
            const auto mask = ring::LowMask<std::uint64_t>(shapes[row].width);
            const bool carry = ((a[e] + b[e]) & mask) < (a[e] & mask);
            ASSERT_EQ(Bit(carries[0], row, e) ^ Bit(carries[1], row, e) ^ Bit(carries[2], row, e),
                      carry)
                << row << " of " << e;
          }
        // One AND level for each doubling of the width; the last is not sent.
        unsigned levels = 0;
        while ((1u << levels) < width) ++levels;
        EXPECT_EQ(*std::max_element(hops.begin(), hops.end()), levels == 0 ? 0 : levels - 1);
      }
}

ActivationSpec Spec(ActivationKind kind, unsigned value_bits) {
  return {.layer = "act1",
          .kind = kind,
          .in = {2, 12, 12},
          .pool = {},
          .value_bits = value_bits,
          .ring_bits = value_bits,
          .out_bits = 16};
}
std::string Refusal(const ActivationSpec& spec) { return mpc::RefusalOf(spec, "aby3"); }
mpc::Cost Costs(const ActivationSpec& spec) { return mpc::PlanOf(spec, "aby3").cost; }

TEST(Aby3SuiteTest, IsPrivateAndTakesAnyWidth) {
  const auto registry = BuiltinProtocols();
  const auto& suite = registry.FindSuite("aby3");
  EXPECT_TRUE(suite.Info().is_private);
  EXPECT_FALSE(suite.Info().dealt_output);
  for (unsigned n : {1u, 2u, 11u, 64u}) {
    EXPECT_EQ(suite.RingBits(Spec(ActivationKind::kSign, n)), n);
    EXPECT_EQ(Refusal(Spec(ActivationKind::kSign, n)), "");
  }
}

TEST(Aby3SuiteTest, RefusesWhatItHasNot) {
  EXPECT_NE(Refusal(Spec(ActivationKind::kNone, 8)).find("act1"), std::string::npos);
  EXPECT_NE(
      Refusal(Spec(ActivationKind::kNone, 8)).find("supported: sign, sign with max-pool, relu"),
      std::string::npos);
  auto spec = Spec(ActivationKind::kRelu, 16);
  EXPECT_EQ(Refusal(spec), "");
  for (auto kind : {ActivationKind::kRelu, ActivationKind::kSquare}) {
    spec = Spec(kind, 16);
    for (unsigned shift : {0u, 1u, 15u}) {
      spec.shift = shift;
      EXPECT_EQ(Refusal(spec), "");
    }
    spec.shift = 16;
    EXPECT_NE(Refusal(spec).find("cannot truncate values of 16 bits by 16"), std::string::npos);
  }
  spec = Spec(ActivationKind::kSquare, 16);
  spec.pool = mpc::PoolShape{};
  EXPECT_NE(Refusal(spec).find("no square with max-pool"), std::string::npos);
  spec = Spec(ActivationKind::kSign, 12);
  spec.ring_bits = 11;
  EXPECT_NE(Refusal(spec).find("value width 12 and ring 11"), std::string::npos);
  spec = Spec(ActivationKind::kSign, 12);
  spec.pool = mpc::PoolShape{13, 1};
  EXPECT_NE(Refusal(spec).find("must fit"), std::string::npos);
  EXPECT_THROW(mpc::OptionsOf("aby3:chunks=2"), ConfigError);
}

// ReLU into wider rings: every value of n bits, or the borders, comes out in the output ring.
TEST(Aby3SuiteTest, ReluWidens) {
  for (const auto& [n, ring, out] : std::vector<std::array<unsigned, 3>>{{1, 1, 2},
                                                                         {2, 2, 5},
                                                                         {3, 3, 8},
                                                                         {4, 4, 16},
                                                                         {7, 7, 9},
                                                                         {8, 8, 64},
                                                                         {9, 12, 13},
                                                                         {10, 10, 33},
                                                                         {31, 31, 32},
                                                                         {33, 33, 64},
                                                                         {63, 63, 64}}) {
    SCOPED_TRACE(fmt::format("{} bits in a ring of {}, to {}", n, ring, out));
    auto spec = Spec(ActivationKind::kRelu, n);
    spec.ring_bits = ring;
    spec.out_bits = out;
    spec.in = {1031, 1, 1};
    ASSERT_EQ(Refusal(spec), "");
    std::mt19937_64 rng(n);
    std::vector<std::int64_t> values(spec.Elements());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint64_t border = std::uint64_t{1} << (n - 1);
      const std::uint64_t v = i < 1024 && n <= 10 ? i : i % 5 == 0 ? border - i / 5 : rng();
      values[i] = ring::Decode(v, n);
    }
    std::array<AnyMatrix, 3> z;
    ring::DispatchWord(ring, [&, ring = ring]<Word W>(W) {
      std::array<Matrix<W>, 3> parts;
      for (auto& part : parts) part = ring::MakeMatrix<W>(values.size(), 1);
      for (std::size_t i = 0; i < values.size(); ++i) {
        parts[0].data()[i] = static_cast<W>(rng());
        parts[1].data()[i] = static_cast<W>(rng());
        parts[2].data()[i] = static_cast<W>(static_cast<std::uint64_t>(values[i]) -
                                            parts[0].data()[i] - parts[1].data()[i]);
      }
      for (std::size_t p = 0; p < 3; ++p) z[p] = AnyMatrix(parts[p], ring);
    });
    for (int helper : {0, 1, 2}) {
      const mpc::Roles roles{.helper = helper,
                             .data_owner = NextParty(helper),
                             .model_owner = PrevParty(helper),
                             .receiver = NextParty(helper)};
      const auto plan = mpc::PlanOf(spec, "aby3", roles);
      std::array<mpc::AnyShare, 3> x;
      std::array<std::uint32_t, 3> hops{};
      std::array<std::uint64_t, 3> sent{};
      mpc::RunParties([&](Party& party) {
        const auto id = static_cast<std::size_t>(party.Id());
        const auto activation = plan.make(party);
        Context offline(party, Phase::kOffline), online(party, Phase::kOnline);
        offline.Enter(1, "act1");
        auto prepared = activation->Prepare(offline, 1);
        offline.Leave();
        online.Enter(1, "act1");
        x[id] = activation->Run(online, std::move(prepared), z[id]);
        online.Leave();
        hops[id] = online.Depth();
        for (const auto bytes : party.Meter().Total(Phase::kOnline).sent_bytes) sent[id] += bytes;
      });
      ring::DispatchWord(out, [&, out = out]<Word V>(V) {
        for (std::size_t i = 0; i < values.size(); ++i) {
          V sum = 0;
          for (std::size_t p = 0; p < 3; ++p) {
            const V mine = ring::Reduce(x[p].mine.As<V>().data()[i], out);
            ASSERT_EQ(mine, ring::Reduce(x[(p + 2) % 3].next.As<V>().data()[i], out)) << i;
            sum = static_cast<V>(sum + mine);
          }
          ASSERT_EQ(ring::Reduce(sum, out),
                    ring::Encode<V>(std::max<std::int64_t>(values[i], 0), out))
              << values[i];
        }
      });
      const auto& cost = plan.cost;
      EXPECT_EQ(sent, cost.OnlineBytes());
      EXPECT_EQ(*std::max_element(hops.begin(), hops.end()), cost.OnlineHops());
    }
  }
}

// The figures of the README.
TEST(Aby3SuiteTest, Hops) {
  const std::array<std::pair<unsigned, std::uint32_t>, 10> hops{
      {{1, 2}, {2, 2}, {3, 2}, {4, 3}, {5, 3}, {6, 4}, {9, 4}, {10, 5}, {17, 5}, {64, 7}}};
  for (const auto& [n, expected] : hops) {
    auto spec = Spec(ActivationKind::kSign, n);
    EXPECT_EQ(Costs(spec).OnlineHops(), expected) << n;
    EXPECT_EQ(Costs(spec).OfflineHops(), 3u) << n;
    spec.out_bits = 1;
    spec.kind = ActivationKind::kRelu;
    EXPECT_EQ(Costs(spec).OnlineHops(), expected) << n;
    for (unsigned shift : {1u, n / 2, n - 1}) {  // the carry of the low bits takes no more hops
      if (shift == 0 || shift >= n) continue;
      spec.shift = shift;
      EXPECT_EQ(Costs(spec).OnlineHops(), expected) << n << " by " << shift;
      EXPECT_EQ(Costs(spec).OfflineHops(), 4u) << n << " by " << shift;
    }
    spec.shift = 0;
    spec.kind = ActivationKind::kSign;
    spec.pool = mpc::PoolShape{1, 2};
    EXPECT_EQ(Costs(spec).OnlineHops(), expected) << n;
    spec.pool = mpc::PoolShape{2, 2};
    EXPECT_EQ(Costs(spec).OnlineHops(), expected + 2) << n;
    spec.pool = mpc::PoolShape{3, 3};
    EXPECT_EQ(Costs(spec).OnlineHops(), expected + 4) << n;
  }
}

TEST(Aby3SuiteTest, HopsOfSquare) {
  for (const auto& [n, expected] : std::array<std::pair<unsigned, std::uint32_t>, 6>{
           {{1, 3}, {2, 3}, {4, 4}, {8, 5}, {16, 6}, {64, 8}}}) {
    auto spec = Spec(ActivationKind::kSquare, n);
    for (unsigned shift : {0u, n - 1}) {
      spec.shift = shift;
      EXPECT_EQ(Costs(spec).OnlineHops(), expected) << n << " by " << shift;
      EXPECT_EQ(Costs(spec).OfflineHops(), 3u) << n << " by " << shift;
    }
  }
}

// What all parties learn, the sign and the carries under their masks, is uniform for any input.
TEST(Aby3SuiteTest, OpenedBitsAreUniform) {
  constexpr std::size_t kCount = 8 * 512;
  for (auto kind : {ActivationKind::kRelu, ActivationKind::kSquare})
    for (const std::uint16_t value : {0, 1023}) {
      auto spec = Spec(kind, 11);
      spec.shift = 4;
      spec.in = {kCount, 1, 1};
      const auto recorder = std::make_shared<net::Recorder>();
      mpc::RunParties(
          [&](Party& party) {
            const auto activation = mpc::PlanOf(spec, "aby3").make(party);
            Matrix<std::uint16_t> z = xt::zeros<std::uint16_t>({kCount, std::size_t{1}});
            if (party.Id() == 0) z += value;
            Context offline(party, Phase::kOffline), online(party, Phase::kOnline);
            offline.Enter(1, "act1");
            auto prepared = activation->Prepare(offline, 1);
            offline.Leave();
            online.Enter(1, "act1");
            activation->Run(online, std::move(prepared), AnyMatrix(std::move(z), spec.ring_bits));
            online.Leave();
          },
          {.layers = 1, .ledger = nullptr, .wrap = [&](std::unique_ptr<net::Link> link, int owner) {
             return owner == 0 ? net::MakeRecordingLink(std::move(link), recorder)
                               : std::move(link);
           }});
      std::vector<Planes> parts;  // of the two bits, at party 0
      for (const auto& r : recorder->Take()) {
        if (r.message.phase != Phase::kOnline || r.message.payload.size() != kCount / 4) continue;
        if (!r.sent || r.peer == 1) parts.push_back(mpc::Unpack(r.message.payload, 2, kCount));
      }
      ASSERT_EQ(parts.size(), 3u);
      for (std::size_t i : {1u, 2u}) parts[0] ^= parts[i];
      for (std::size_t row : {0u, 1u}) {
        int set = 0;
        for (std::size_t e = 0; e < kCount; ++e) set += Bit(parts[0], row, e) ? 1 : 0;
        EXPECT_NEAR(set, static_cast<int>(kCount) / 2, 6 * 32) << row;  // six standard deviations
      }
    }
}

TEST(Aby3SuiteTest, BitsPerElement) {
  const auto bits = [](std::uint64_t bytes, std::size_t elements) {
    EXPECT_EQ(8 * bytes % elements, 0u);
    return 8 * bytes / elements;
  };
  const std::array<std::pair<unsigned, std::size_t>, 3> sign{{{10, 67}, {12, 84}, {15, 107}}};
  for (const auto& [n, expected] : sign) {
    const auto spec = Spec(ActivationKind::kSign, n);
    const auto cost = Costs(spec);
    EXPECT_EQ(bits(cost.OnlineTotal(), spec.Elements()), expected) << n;
    EXPECT_EQ(bits(cost.OfflineTotal(), spec.Elements()), 64u) << n;
  }
  auto spec = Spec(ActivationKind::kSign, 12);
  spec.pool = mpc::PoolShape{};
  EXPECT_EQ(bits(Costs(spec).OnlineTotal(), spec.Outputs()), 4 * (84u - 6 + 3) + 3 * 2 + 6);
  EXPECT_EQ(bits(Costs(spec).OfflineTotal(), spec.Outputs()), 64u);
  spec = Spec(ActivationKind::kRelu, 20);
  EXPECT_EQ(bits(Costs(spec).OnlineTotal(), spec.Elements()),
            bits(Costs(Spec(ActivationKind::kSign, 20)).OnlineTotal(), spec.Elements()) + 64);
  EXPECT_EQ(bits(Costs(spec).OnlineTotal(), spec.Elements()), 213u);
  spec = Spec(ActivationKind::kRelu, 12);
  EXPECT_EQ(bits(Costs(spec).OnlineTotal(), spec.Elements()), 160u);
  spec = Spec(ActivationKind::kRelu, 20);
  spec.shift = 8;
  EXPECT_EQ(bits(Costs(spec).OnlineTotal(), spec.Elements()), 254u);
  EXPECT_EQ(bits(Costs(spec).OfflineTotal(), spec.Elements()), 3 * 64u + 3);
  spec = Spec(ActivationKind::kSquare, 12);
  EXPECT_EQ(bits(Costs(spec).OnlineTotal(), spec.Elements()), 152u);
  EXPECT_EQ(bits(Costs(spec).OfflineTotal(), spec.Elements()), 64u);
  spec.shift = 4;
  EXPECT_EQ(bits(Costs(spec).OnlineTotal(), spec.Elements()), 164u);
  EXPECT_EQ(bits(Costs(spec).OfflineTotal(), spec.Elements()), 2 * 64u);
}

}  // namespace
}  // namespace tercet::protocols::aby3
