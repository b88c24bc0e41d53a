// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <mutex>
#include <random>

#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/local.h"
#include "tercet/mpc/sharing.h"

namespace tercet {
namespace {

using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::LinearShape;

struct Case {
  LinearShape shape;
  unsigned bits;
  std::size_t batch;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.shape.in.channels << "x" << c.shape.in.height << "x" << c.shape.in.width << "->"
       << c.shape.out_channels << " k" << c.shape.kernel_h << "s" << c.shape.stride.h << "p"
       << c.shape.padding.top << "g" << c.shape.groups << " " << c.bits << " bits, batch "
       << c.batch;
}

std::vector<Case> Cases() {
  const LinearShape fully{.in = {37, 1, 1}, .out_channels = 11};
  const LinearShape conv{.in = {3, 9, 8}, .out_channels = 5, .kernel_h = 3, .kernel_w = 3};
  LinearShape strided = conv, padded = conv, uneven = conv, depthwise = conv, per_element = conv,
              all = conv;
  strided.stride = 2;
  padded.padding = 1;
  uneven.kernel_w = 2;
  uneven.stride = {2, 1};
  uneven.padding = {1, 0, 0, 2};
  padded.bias_per_element = true;
  depthwise.out_channels = 6;
  depthwise.groups = 3;
  per_element.bias_per_element = true;
  all = {.in = {4, 7, 7},
         .out_channels = 8,
         .kernel_h = 3,
         .kernel_w = 3,
         .stride = 2,
         .padding = 1,
         .groups = 2};
  std::vector<Case> cases;
  for (const auto& shape : {fully, conv, strided, padded, uneven, depthwise, per_element, all})
    for (unsigned bits : {7u, 12u, 23u, 64u})
      for (std::size_t batch : {1u, 7u, 33u}) cases.push_back({shape, bits, batch});
  return cases;
}

class LinearLayer : public testing::TestWithParam<Case> {};

// Shares of random W, x, b are multiplied and opened: with nothing known offline, and with each
// party knowing the halves that a suite that deals would give it.
TEST_P(LinearLayer, SharesSumToThePlainProduct) {
  const auto& [shape, bits, batch] = GetParam();
  const mpc::Registry registry = BuiltinProtocols();
  ring::DispatchWord(bits, [&, &shape = shape, bits = bits, batch = batch](auto word) {
    using W = decltype(word);
    std::mt19937_64 rng(bits * 1000 + batch);
    const auto random = [&](std::size_t rows, std::size_t cols) {
      std::array<ring::Matrix<W>, 3> parts;
      for (auto& part : parts) {
        part = ring::MakeMatrix<W>(rows, cols);
        for (auto& v : part) v = ring::Reduce(static_cast<W>(rng()), bits);
      }
      return parts;
    };
    const auto weight = random(shape.out_channels, shape.Depth()),
               bias = random(shape.BiasCount(), 1), x = random(shape.in.Size(), batch);
    const auto open = [](const auto& parts) {
      std::vector<std::int64_t> sum;
      for (std::size_t i = 0; i < parts[0].size(); ++i)
        sum.push_back(static_cast<std::int64_t>(
            static_cast<W>(parts[0].data()[i] + parts[1].data()[i] + parts[2].data()[i])));
      return sum;
    };
    const auto want =
        registry.PlainOracle().Linear(shape, open(weight), open(bias), open(x), batch);
    const auto share = [bits = bits](const auto& parts, int i) {
      return AnyShare{AnyMatrix(parts[i], bits), AnyMatrix(parts[(i + 1) % 3], bits)};
    };
    // Of the model's owner: the weights themselves.
    const auto whole = [bits = bits](const auto& parts) {
      ring::Matrix<W> sum = parts[0] + parts[1] + parts[2];
      return AnyMatrix(std::move(sum), bits);
    };
    struct Way {
      const char* protocol;
      mpc::Roles roles;
      bool dealt;
      bool opened = false;
    };
    const Way ways[] = {{mpc::kReplicatedLinear, {}, false},
                        {mpc::kReplicatedLinear, {}, true},
                        {mpc::kClearLinear, {0, 1, 2, 1}, true},
                        {mpc::kClearLinear, {0, 2, 1, 0}, true},
                        {mpc::kClearLinear, {0, 0, 2, 0}, false},
                        {mpc::kPublicLinear, {0, 1, 2, 1}, true, true},
                        {mpc::kPublicLinear, {0, 1, 0, 1}, false, true},
                        {mpc::kPublicLinear, {0, 1, 2, 1}, true},
                        {mpc::kPublicLinear, {0, 1, 2, 2}, false},
                        {mpc::kPublicLinear, {0, 1, 0, 0}, true}};
    for (const auto& [protocol, roles, dealt, opened] : ways) {
      const auto plan =
          registry.FindLinear(protocol).plan({"fc", shape, bits, batch, opened}, roles);
      const bool is_public = registry.FindLinear(protocol).public_weights;
      ring::Matrix<W> common;  // of an opened result, at the evaluators
      EXPECT_EQ(plan.cost.OnlineTotal() + plan.cost.OfflineTotal(), 0u);
      std::vector<W> got(want.size(), 0);
      std::mutex mutex;
      mpc::RunParties([&, dealt = dealt, opened = opened](mpc::Party& at) {
        const int party = at.Id();
        mpc::Context ctx(at, mpc::Phase::kOnline);
        const auto layer = is_public
                               ? plan.make(at, {}, {whole(bias), {}}, whole(weight))
                               : plan.make(at, share(weight, party), share(bias, party),
                                           plan.multiplier == party ? whole(weight) : AnyMatrix());
        auto full = share(x, party);
        AnyShare known;
        if (dealt && party != 2)
          known.mine = full.mine;  // x_0 and x_1 are the dealt ones; party 0 holds both
        if (dealt && party != 1) known.next = full.next;
        auto z = layer->Prepare(ctx, batch, known);
        // x_2 reaches the multiplier alone, where there is one.
        if (plan.multiplier && party == 3 - *plan.multiplier) {
          (party == 1 ? full.next : full.mine) = AnyMatrix();
          const auto offline = z.template As<W>();
          z = layer->Run(ctx, std::move(z), mpc::KnownHalves(known), full);
          EXPECT_TRUE(!dealt || z.template As<W>() == offline) << "known offline";
        } else {
          z = layer->Run(ctx, std::move(z), mpc::KnownHalves(known), full);
        }
        const std::lock_guard lock(mutex);
        if (opened && party != 0) {
          const auto& own = z.template As<W>();
          if (common.size() > 0) {
            EXPECT_TRUE(common == own) << "not opened";
            return;
          }
          common = own;
        }
        for (std::size_t i = 0; i < got.size(); ++i)
          got[i] = static_cast<W>(got[i] + z.template As<W>().data()[i]);
      });
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_EQ(ring::Reduce(got[i], bits), ring::Encode<W>(want[i], bits))
            << "element " << i << ", " << protocol << ", dealt " << dealt;
    }
  });
}
INSTANTIATE_TEST_SUITE_P(Shapes, LinearLayer, testing::ValuesIn(Cases()));

TEST(Linear, OneReshareMakesTheProductReplicated) {
  const mpc::Registry registry = BuiltinProtocols();
  const LinearShape shape{.in = {20, 1, 1}, .out_channels = 6};
  constexpr unsigned kBits = 14;
  using W = std::uint16_t;
  auto weight = ring::MakeMatrix<W>(6, 20), bias = ring::MakeMatrix<W>(6, 1),
       x = ring::MakeMatrix<W>(20, 3);
  std::mt19937 rng(5);
  for (auto* m : {&weight, &bias, &x})
    for (auto& v : *m) v = static_cast<W>(rng());
  mpc::RunParties([&](mpc::Party& party) {
    mpc::Context setup(party, mpc::Phase::kSetup), ctx(party, mpc::Phase::kOnline);
    const auto share = [&](const ring::Matrix<W>& m, const std::string& name) {
      mpc::Sharing sharing(party, 2, name);
      auto s = sharing.Share<W>(setup, party.Id() == 2 ? &m : nullptr, m.shape()[0], m.shape()[1],
                                kBits);
      return AnyShare{AnyMatrix(std::move(s.mine), kBits), AnyMatrix(std::move(s.next), kBits)};
    };
    const auto w = share(weight, "w"), b = share(bias, "b"), v = share(x, "x");
    const auto layer = registry.FindLinear(mpc::kReplicatedLinear)
                           .plan({"fc", shape, kBits, 3}, {})
                           .make(party, w, b, {});
    const auto z =
        layer->Run(ctx, layer->Prepare(ctx, 3, AnyShare{}), mpc::KnownHalves(AnyShare{}), v);
    mpc::ZeroSharing zero(party, "zero");
    ctx.Enter(1, "fc");
    const auto y = mpc::Reshare(ctx, zero, mpc::AdditiveShare<W>{z.As<W>(), kBits});
    ctx.Leave();
    EXPECT_EQ(ctx.Depth(), 1u);
    EXPECT_EQ(party.Meter()
                  .Layers(mpc::Phase::kOnline)[1]
                  .sent_bytes[static_cast<std::size_t>(party.Prev())],
              ring::PackedBytes(18, kBits));
    const auto open = mpc::Reveal(ctx, y);
    for (std::size_t m = 0; m < 6; ++m)
      for (std::size_t c = 0; c < 3; ++c) {
        W want = bias(m, 0);
        for (std::size_t k = 0; k < 20; ++k)
          want = static_cast<W>(want + ring::Times(weight(m, k), x(k, c)));
        ASSERT_EQ(open(m, c), ring::Reduce(want, kBits));
      }
  });
}

TEST(Linear, ClearNeedsAModelOwnerWhoIsAnEvaluator) {
  const mpc::Registry registry = BuiltinProtocols();
  const auto refusal = [&](const mpc::Roles& roles) -> std::string {
    try {
      registry.FindLinear(mpc::kClearLinear)
          .plan({"fc1", {.in = {2, 1, 1}, .out_channels = 1}, 8, 1}, roles);
    } catch (const UnsupportedError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(refusal({0, 1, 2, 1}), "");
  EXPECT_EQ(refusal({0, 0, 1, 0}), "");
  const auto helps = refusal({1, 0, 1, 0});
  EXPECT_NE(helps.find("layer fc1"), std::string::npos) << helps;
  EXPECT_NE(helps.find("party 1, its owner, is the helper"), std::string::npos) << helps;
  const auto outside = refusal(mpc::Roles::ForClients(2));
  EXPECT_NE(outside.find("comes from outside"), std::string::npos) << outside;
}

TEST(Linear, PublicWeightsAreThoseOfAParty) {
  const mpc::Registry registry = BuiltinProtocols();
  const auto& protocol = registry.FindLinear(mpc::kPublicLinear);
  EXPECT_TRUE(protocol.public_weights && protocol.local);
  EXPECT_FALSE(registry.FindLinear(mpc::kClearLinear).public_weights);
  EXPECT_FALSE(registry.FindLinear(mpc::kReplicatedLinear).public_weights);
  const mpc::LinearSpec spec{"fc1", {.in = {2, 1, 1}, .out_channels = 1}, 8, 1};
  EXPECT_EQ(protocol.plan(spec, {1, 2, 1, 2}).multiplier, 2);
  EXPECT_EQ(protocol.plan(spec, {1, 2, 1, 1}).multiplier, 2);
  try {
    protocol.plan(spec, mpc::Roles::ForClients(2));
    FAIL() << "weights from outside are no secret";
  } catch (const UnsupportedError& e) {
    EXPECT_NE(std::string(e.what()).find("layer fc1: public weights need a model"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace tercet
