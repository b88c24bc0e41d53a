// SPDX-License-Identifier: Apache-2.0
#include "common/ot3/ot3.h"

#include <gtest/gtest.h>

#include <random>

#include "common/ot3/bit_times.h"
#include "tercet/mpc/local.h"

namespace tercet::protocols::ot3 {
namespace {

using net::Phase;
using ring::PackedBytes;

using Sent = std::array<std::array<std::uint64_t, 3>, 3>;  // [from][to]

struct Seen {
  Sent sent{};
  std::array<std::uint32_t, 3> depth{};

  void Note(Party& party, const Context& ctx, Phase phase) {
    const auto id = static_cast<std::size_t>(party.Id());
    sent[id] = party.Meter().Total(phase).sent_bytes;
    depth[id] = ctx.Depth();
  }
  std::uint32_t Hops() const { return *std::max_element(depth.begin(), depth.end()); }
};

template <Word W>
Matrix<W> Random(std::mt19937_64& rng, std::size_t rows, std::size_t cols) {
  auto m = ring::MakeMatrix<W>(rows, cols);
  for (auto& v : m) v = static_cast<W>(rng());
  return m;
}

template <Word W>
void CheckTransfer(TransferRoles roles, std::size_t rows, std::size_t cols, unsigned bits) {
  std::mt19937_64 rng(7);
  const auto m0 = Random<W>(rng, rows, cols), m1 = Random<W>(rng, rows, cols);
  const std::size_t count = rows * cols;
  Buffer<std::uint8_t> choice(count);
  for (std::size_t i = 0; i < count; ++i) choice[i] = count < 4 ? i % 2 : rng() % 2;
  for (int query = 0; query < 2; ++query) {
    auto got = ring::MakeMatrix<W>(0, 0);
    Seen seen;
    mpc::RunParties([&](Party& party) {
      Transfer ot(party, roles, "test/ot");
      Context ctx(party, Phase::kOnline);
      ctx.Enter(1, "test");
      if (ctx.Is(roles.sender)) ot.Offer(ctx, m0, m1, bits);
      if (ctx.Is(roles.helper)) ot.Forward<W>(ctx, choice, rows, cols, bits);
      if (ctx.Is(roles.receiver)) got = ot.Take<W>(ctx, choice, rows, cols, bits);
      ctx.Leave();
      seen.Note(party, ctx, Phase::kOnline);
    });
    ASSERT_EQ(got.size(), count);
    for (std::size_t i = 0; i < count; ++i)
      ASSERT_EQ(ring::Reduce(got.flat(i), bits), ring::Reduce((choice[i] ? m1 : m0).flat(i), bits))
          << i;
    Sent want{};
    want[roles.sender][roles.helper] = 2 * PackedBytes(count, bits);
    want[roles.helper][roles.receiver] = PackedBytes(count, bits);
    EXPECT_EQ(seen.sent, want);
    EXPECT_EQ(seen.Hops(), 2u);
    for (auto& c : choice) c ^= 1;  // the second query takes the other message each time
  }
}

TEST(TransferTest, EveryRoleAndChoice) {
  for (int sender = 0; sender < 3; ++sender)
    for (int turn : {1, 2}) {
      const TransferRoles roles{sender, (sender + turn) % 3, (sender + 2 * turn) % 3};
      SCOPED_TRACE(sender * 10 + turn);
      CheckTransfer<std::uint8_t>(roles, 3, 7, 5);
      CheckTransfer<std::uint16_t>(roles, 1, 1, 16);
      CheckTransfer<std::uint32_t>(roles, 2, 1, 23);
      CheckTransfer<std::uint64_t>(roles, 9, 13, 64);
    }
}

TEST(TransferTest, RolesMustDiffer) {
  EXPECT_THROW(mpc::RunParties([](Party& party) {
                 Transfer(party, {0, 0, 2}, "test/ot");
               }),
               InternalError);
}

// A shared bit times the sender's factor, for every P0 and sharing of the bit.
TEST(BitTimesTest, EveryRoleAndSharing) {
  constexpr std::size_t kRows = 8, kCols = 3, kCount = kRows * kCols;
  constexpr unsigned kBits = 13;
  std::mt19937_64 rng(7);
  const auto factor = Random<std::uint16_t>(rng, kRows, kCols);
  const auto bit = [](std::size_t i, std::size_t share) {
    return static_cast<std::uint8_t>(i >> share & 1);
  };
  for (int p0 = 0; p0 < 3; ++p0) {
    SCOPED_TRACE(p0);
    std::array<std::optional<ArithShare<std::uint16_t>>, 3> x;
    Seen seen;
    mpc::RunParties([&](Party& party) {
      const auto id = static_cast<std::size_t>(party.Id());
      BitShare b{Buffer<std::uint8_t>(kCount), Buffer<std::uint8_t>(kCount)};
      for (std::size_t i = 0; i < kCount; ++i) {
        b.mine[i] = bit(i, id);
        b.next[i] = bit(i, (id + 1) % 3);
      }
      BitTimes times(party, p0, "test/times");
      Context ctx(party, Phase::kOnline);
      ctx.Enter(1, "test");
      times.Offer(ctx, b, factor, kRows, kCols, kBits);
      times.Forward<std::uint16_t>(ctx, b, kRows, kCols, kBits);
      times.Take<std::uint16_t>(ctx, b, kRows, kCols, kBits);
      x[id] = times.Finish<std::uint16_t>(ctx, kRows, kCols, kBits);
      ctx.Leave();
      seen.Note(party, ctx, Phase::kOnline);
    });
    for (std::size_t i = 0; i < kCount; ++i) {
      unsigned sum = 0;
      for (std::size_t p = 0; p < 3; ++p) {
        const std::uint16_t mine = ring::Reduce(x[p]->mine.flat(i), kBits);
        ASSERT_EQ(mine, ring::Reduce(x[(p + 2) % 3]->next.flat(i), kBits)) << i;
        sum += mine;
      }
      const bool b = (bit(i, 0) ^ bit(i, 1) ^ bit(i, 2)) != 0;
      ASSERT_EQ(sum % (1u << kBits), b ? ring::Reduce(factor.flat(i), kBits) : 0u) << i;
    }
    const auto bytes = PackedBytes(kCount, kBits);
    const auto p1 = static_cast<std::size_t>(p0 + 1) % 3, p2 = static_cast<std::size_t>(p0 + 2) % 3;
    Sent want{};
    want[p1][p2] = 2 * bytes;
    want[p2][static_cast<std::size_t>(p0)] = bytes;
    want[static_cast<std::size_t>(p0)][p2] = bytes;
    EXPECT_EQ(seen.sent, want);
    EXPECT_EQ(seen.Hops(), 3u);
  }
}

}  // namespace
}  // namespace tercet::protocols::ot3
