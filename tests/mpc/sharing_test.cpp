// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/sharing.h"

#include <gtest/gtest.h>

#include <array>
#include <random>

#include "tercet/mpc/local.h"

namespace tercet::mpc {
namespace {

template <Word W>
Matrix<W> Random(std::size_t rows, std::size_t cols, unsigned bits, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  auto m = ring::MakeMatrix<W>(rows, cols);
  for (auto& v : m) v = ring::Reduce(static_cast<W>(rng()), bits);
  return m;
}

template <Word W>
void ExpectEqual(const Matrix<W>& got, const Matrix<W>& want) {
  ASSERT_EQ(got.shape(), want.shape());
  for (std::size_t i = 0; i < want.size(); ++i)
    ASSERT_EQ(got.data()[i], want.data()[i]) << "element " << i;
}

class SharingAtWidth : public testing::TestWithParam<unsigned> {};

TEST_P(SharingAtWidth, ShareThenRevealGivesTheSecretAndCopiesAgree) {
  const unsigned bits = GetParam();
  ring::DispatchWord(bits, [&](auto word) {
    using W = decltype(word);
    for (int owner = 0; owner < 3; ++owner) {
      const auto secret = Random<W>(5, 7, bits, bits + owner);
      std::array<ArithShare<W>, 3> shares;
      RunParties(
          [&](Party& party) {
            Context ctx(party, Phase::kOnline);
            ctx.Enter(1, "share");
            Sharing sharing(party, owner, "test");
            auto x = sharing.Share<W>(ctx, party.Id() == owner ? &secret : nullptr, 5, 7, bits);
            ctx.Leave();
            EXPECT_EQ(ctx.Depth(), party.Id() == owner ? 0u : 1u);
            ctx.Enter(2, "reveal");
            ExpectEqual(Reveal(ctx, x), secret);
            const auto alone = RevealTo(ctx, 1, x);
            if (party.Id() == 1) {
              ExpectEqual(alone, secret);
            } else {
              EXPECT_EQ(alone.size(), 0u);
            }
            shares[party.Id()] = std::move(x);
          },
          {.layers = 2});
      for (int i = 0; i < 3; ++i)
        for (std::size_t j = 0; j < secret.size(); ++j)
          EXPECT_EQ(ring::Reduce(shares[i].next.data()[j], bits),
                    ring::Reduce(shares[(i + 1) % 3].mine.data()[j], bits));
    }
  });
}
INSTANTIATE_TEST_SUITE_P(Widths, SharingAtWidth,
                         testing::Values(1u, 3u, 8u, 9u, 14u, 16u, 17u, 32u, 33u, 63u, 64u));

TEST(Sharing, LocalOperationsActOnTheSecret) {
  constexpr unsigned kBits = 11;
  using W = std::uint16_t;
  const auto x = Random<W>(3, 4, kBits, 1), y = Random<W>(3, 4, kBits, 2);
  RunParties([&](Party& party) {
    Context ctx(party, Phase::kOnline);
    ctx.Enter(1, "test");
    Sharing share_x(party, 0, "x"), share_y(party, 2, "y");
    const auto sx = share_x.Share<W>(ctx, party.Id() == 0 ? &x : nullptr, 3, 4, kBits);
    const auto sy = share_y.Share<W>(ctx, party.Id() == 2 ? &y : nullptr, 3, 4, kBits);
    const auto check = [&](const ArithShare<W>& share, auto plain) {
      const auto got = Reveal(ctx, share);
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_EQ(got.data()[i],
                  ring::Reduce(static_cast<W>(plain(x.data()[i], y.data()[i])), kBits));
    };
    check(Add(sx, sy), [](int a, int b) { return a + b; });
    check(Negate(sx), [](int a, int) { return -a; });
    check(Scale(sx, W{37}), [](int a, int) { return 37 * a; });
    check(AddPublic(party.Id(), sx, W{1999}), [](int a, int) { return a + 1999; });
    check(PublicShare(party.Id(), x, kBits), [](int a, int) { return a; });
    ZeroSharing zero(party, "zero");
    check(Reshare(ctx, zero, ToAdditive(sx)), [](int a, int) { return a; });
  });
}

TEST(Sharing, BitsXorAndReveal) {
  RunParties([&](Party& party) {
    Context ctx(party, Phase::kOnline);
    ctx.Enter(1, "bits");
    RandomSharing random(party, "bits");
    const auto x = random.DrawBits(101), y = random.DrawBits(101);
    const auto open_x = RevealBits(ctx, x), open_y = RevealBits(ctx, y),
               open_z = RevealBits(ctx, Xor(x, y));
    const auto flipped = RevealBits(ctx, XorPublic(party.Id(), x, 1));
    std::size_t ones = 0;
    for (std::size_t i = 0; i < 101; ++i) {
      ASSERT_EQ(open_z[i], open_x[i] ^ open_y[i]);
      ASSERT_EQ(flipped[i], open_x[i] ^ 1);
      ones += open_x[i];
    }
    EXPECT_GT(ones, 10u);
    EXPECT_LT(ones, 91u);
  });
}

TEST(Sharing, RandomShareIsConsistent) {
  std::array<ArithShare<std::uint32_t>, 3> shares;
  RunParties([&](Party& party) {
    RandomSharing random(party, "r");
    shares[party.Id()] = random.Draw<std::uint32_t>(2, 9, 32);
  });
  for (int i = 0; i < 3; ++i) ExpectEqual(shares[i].next, shares[(i + 1) % 3].mine);
}

class InputOutput : public testing::TestWithParam<std::tuple<int, int, int, bool>> {};

TEST_P(InputOutput, TheReceiverGetsTheOwnersInput) {
  const auto [helper, owner_step, receiver_step, dealt] = GetParam();
  const int owner = (helper + owner_step) % 3, receiver = (helper + receiver_step) % 3;
  constexpr unsigned kBits = 13;
  using W = std::uint16_t;
  const auto secret = Random<W>(6, 5, kBits, 77);
  std::array<std::uint64_t, 3> online{}, offline{};
  RunParties([&, helper = helper, dealt = dealt](Party& party) {
    Context pre(party, Phase::kOffline), ctx(party, Phase::kOnline);
    InputSharing input(party, helper, owner);
    std::array<bool, 3> parts_known{};
    parts_known.at(static_cast<std::size_t>(helper)) = dealt;
    OutputReveal output(party, helper, receiver, parts_known);
    pre.Enter(0, "input");
    auto known = input.Prepare(6, 5, kBits);
    // An additive share of x: x_i alone; the helper's is known offline, perhaps as zero.
    AnyMatrix z =
        known.mine.IsZero() ? AnyMatrix(Matrix<W>(xt::zeros<W>({6, 5})), kBits) : known.mine;
    pre.Enter(2, "output");
    auto material = output.Prepare(pre, &z, 6, 5, kBits);
    ctx.Enter(0, "input");
    const AnyMatrix x(secret, kBits);
    const auto share = input.Run(ctx, std::move(known), &x, 6, 5, kBits);
    if (!share.mine.IsZero()) z = share.mine;
    ctx.Enter(2, "output");
    const auto values = output.Run(ctx, std::move(material), z);
    ASSERT_EQ(values.size(), party.Id() == receiver ? secret.size() : 0);
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(values[i], ring::Decode(secret.data()[i], kBits));
    for (auto sent : party.Meter().Total(Phase::kOnline).sent_bytes) online[party.Id()] += sent;
    for (auto sent : party.Meter().Total(Phase::kOffline).sent_bytes) offline[party.Id()] += sent;
  });
  const std::uint64_t one = ring::PackedBytes(secret.size(), kBits);
  const bool owns = owner == helper, receives = receiver == helper;
  const bool sends_offline = dealt && !receives;
  EXPECT_EQ(offline[helper], sends_offline ? one : 0);
  EXPECT_EQ(offline[0] + offline[1] + offline[2], offline[helper]);
  EXPECT_EQ(online[helper], (owns ? 2 * one : 0) + (dealt || receives ? 0 : one));
  EXPECT_EQ(online[0] + online[1] + online[2],
            (owns ? 2 * one : one) + (sends_offline ? one : 2 * one));
}
// One evaluator alone needs the input, and gives its part of the output online; the others' parts
// are known offline.
TEST(InputOutputOfOne, OneEvaluatorAloneGetsTheInput) {
  constexpr unsigned kBits = 13;
  using W = std::uint16_t;
  const auto secret = Random<W>(6, 5, kBits, 77);
  const std::uint64_t one = ring::PackedBytes(secret.size(), kBits);
  for (int helper : {0, 1, 2})
    for (int owner : {0, 1, 2})
      for (int receiver : {0, 1, 2})
        for (int only : {(helper + 1) % 3, (helper + 2) % 3}) {
          SCOPED_TRACE(fmt::format("helper {}, owner {}, receiver {}, only to {}", helper, owner,
                                   receiver, only));
          std::array<std::uint64_t, 3> online{}, offline{};
          RunParties([&](Party& party) {
            Context pre(party, Phase::kOffline), ctx(party, Phase::kOnline);
            InputSharing input(party, helper, owner, only);
            std::array<bool, 3> parts_known{true, true, true};
            parts_known.at(static_cast<std::size_t>(only)) = false;
            OutputReveal output(party, helper, receiver, parts_known);
            pre.Enter(0, "input");
            auto known = input.Prepare(6, 5, kBits);
            // The three shares of x at those who have them: the drawn ones at the helper.
            auto z = Matrix<W>(xt::zeros<W>({6, 5}));
            const auto add = [&](const AnyMatrix& half) {
              if (!half.IsZero()) z += half.As<W>();
            };
            if (party.Id() == helper) {
              add(known.mine);
              add(known.next);
            }
            pre.Enter(2, "output");
            const AnyMatrix part(z, kBits);
            auto material = output.Prepare(pre, &part, 6, 5, kBits);
            ctx.Enter(0, "input");
            const AnyMatrix x(secret, kBits);
            const auto share = input.Run(ctx, std::move(known), &x, 6, 5, kBits);
            const AnyMatrix& third = party.Id() == (helper + 1) % 3 ? share.next : share.mine;
            if (party.Id() == only) {
              add(third);
              const auto& half = party.Id() == (helper + 1) % 3 ? share.mine : share.next;
              EXPECT_TRUE(half.IsZero());
            } else if (party.Id() != helper && party.Id() != owner) {
              EXPECT_TRUE(third.Empty());
            }
            ctx.Enter(2, "output");
            const auto values = output.Run(ctx, std::move(material), AnyMatrix(z, kBits));
            ASSERT_EQ(values.size(), party.Id() == receiver ? secret.size() : 0);
            for (std::size_t i = 0; i < values.size(); ++i)
              ASSERT_EQ(values[i], ring::Decode(secret.data()[i], kBits));
            for (auto sent : party.Meter().Total(Phase::kOnline).sent_bytes)
              online[party.Id()] += sent;
            for (auto sent : party.Meter().Total(Phase::kOffline).sent_bytes)
              offline[party.Id()] += sent;
          });
          std::array<std::uint64_t, 3> want_online{}, want_offline{};
          if (owner != only) want_online[owner] += one;
          for (int p = 0; p < 3; ++p)
            if (p != receiver) (p == only ? want_online : want_offline)[p] += one;
          EXPECT_EQ(online, want_online);
          EXPECT_EQ(offline, want_offline);
        }
}

INSTANTIATE_TEST_SUITE_P(Roles, InputOutput,
                         testing::Combine(testing::Values(0, 1, 2), testing::Values(0, 1, 2),
                                          testing::Values(0, 1, 2), testing::Bool()));

}  // namespace
}  // namespace tercet::mpc
