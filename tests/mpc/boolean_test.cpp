// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/boolean.h"

#include <gtest/gtest.h>

#include <bit>

#include "mpc/random_planes.h"
#include "tercet/mpc/local.h"
#include "tercet/net/wrappers.h"

namespace tercet::mpc {
namespace {

// Opening reveals the XOR alone: what is sent does not show the parts, even when they are all zero.
TEST(OpenTest, HidesTheParts) {
  constexpr std::size_t kCount = 8 * 512;
  std::mt19937_64 rng(3);
  for (bool zero_parts : {true, false}) {
    std::array<Planes, 3> part, opened;
    for (auto& p : part) {
      p = Random(rng, 1, kCount);
      if (zero_parts) std::fill(p.All().begin(), p.All().end(), 0);
    }
    const auto recorder = std::make_shared<net::Recorder>();
    RunParties(
        [&](Party& party) {
          const auto id = static_cast<std::size_t>(party.Id());
          ZeroBits zero(party, "test/zero");
          Context ctx(party, Phase::kOnline);
          ctx.Enter(1, "test");
          const Planes mine = SendToAll(ctx, zero, part[id]);
          opened[id] = ReceiveFromAll(ctx, mine);
          ctx.Leave();
        },
        {.layers = 1,
         .ledger = nullptr,
         .wrap = [&](std::unique_ptr<net::Link> link, int /*owner*/) {
           return net::MakeRecordingLink(std::move(link), recorder);
         }});
    Planes sum = part[0];
    sum ^= part[1];
    sum ^= part[2];
    for (const auto& x : opened) EXPECT_EQ(Pack(x), Pack(sum));
    std::size_t looked_at = 0;
    for (const auto& r : recorder->Take()) {
      if (!r.sent || r.message.payload.size() != kCount / 8) continue;
      ++looked_at;
      for (const auto& p : part) {  // half of the bits differ, within six standard deviations
        const Bytes plain = Pack(p);
        int differ = 0;
        for (std::size_t i = 0; i < plain.size(); ++i)
          differ += std::popcount(static_cast<unsigned>(plain[i] ^ r.message.payload[i]));
        EXPECT_NEAR(differ, static_cast<int>(kCount) / 2, 6 * 32);
      }
    }
    EXPECT_EQ(looked_at, 6u);
  }
}

TEST(AndTreeTest, EveryNumberOfTerms) {
  constexpr std::size_t kCount = 77;
  for (std::size_t terms = 2; terms <= 17; ++terms) {
    SCOPED_TRACE(terms);
    std::mt19937_64 rng(terms);
    std::array<Planes, 3> x;
    for (auto& part : x) part = Random(rng, terms, kCount);
    for (std::size_t i = 0; i < terms; ++i)  // every term is 1 for the first 64 elements
      x[2][i][0] = ~(x[0][i][0] ^ x[1][i][0]);
    std::array<Planes, 3> product;
    RunParties([&](Party& party) {
      const auto id = static_cast<std::size_t>(party.Id());
      ZeroBits zero(party, "test/zero");
      Context ctx(party, Phase::kOnline);
      ctx.Enter(1, "test");
      std::vector<BitRef> refs;
      for (std::size_t i = 0; i < terms; ++i)
        refs.push_back({x[id][i], x[NextParty(party.Id())][i]});
      product[id] = AndTree(ctx, zero, refs, kCount);
      ctx.Leave();
    });
    for (std::size_t e = 0; e < kCount; ++e) {
      bool all = true;
      for (std::size_t i = 0; i < terms; ++i)
        all = all && (Bit(x[0], i, e) ^ Bit(x[1], i, e) ^ Bit(x[2], i, e)) != 0;
      ASSERT_EQ(Bit(product[0], 0, e) ^ Bit(product[1], 0, e) ^ Bit(product[2], 0, e), all) << e;
    }
  }
}

}  // namespace
}  // namespace tercet::mpc
