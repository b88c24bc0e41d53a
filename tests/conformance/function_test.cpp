// SPDX-License-Identifier: Apache-2.0
// Every suite computes the plain function, exactly and at the declared cost.
#include <algorithm>
#include <limits>
#include <set>

#include "conformance/harness.h"

namespace tercet::conformance {
namespace {

using mpc::PoolShape;
using mpc::Shape3;

class FunctionTest : public testing::TestWithParam<Subject> {
 protected:
  bool IsBareName() const { return GetParam().choice.find(':') == std::string::npos; }
};
INSTANTIATE_TEST_SUITE_P(Suites, FunctionTest, testing::ValuesIn(Subjects()), SubjectName);

ActivationSpec Spec(ActivationKind kind, Shape3 in, unsigned value_bits, unsigned out_bits,
                    std::size_t batch, bool dealt) {
  return {.layer = "act1",
          .kind = kind,
          .in = in,
          .pool = {},
          .value_bits = value_bits,
          .out_bits = out_bits,
          .dealt = dealt,
          .batch = batch};
}

// Enough features for all `values` in a batch; the shape is odd, so that elements are no multiple
// of 8 where batches are not.
Shape3 Features(std::size_t values, std::size_t batch) {
  return {(values + batch - 1) / batch | 1, 1, 1};
}

TEST_P(FunctionTest, SignOverTheWholeRing) {
  const std::array<unsigned, 6> out_bits{16, 5, 32, 11, 64, 8};
  const std::array<std::size_t, 3> batches{1, 7, 128};
  int done = 0;
  for (unsigned n = 2; n <= 12; ++n) {
    const Values all = WholeRing(n);
    const std::size_t batch = batches[n % 3];
    auto spec = Spec(ActivationKind::kSign, Features(all.size(), batch), n, out_bits[n % 6], batch,
                     n % 2 == 0);
    const auto layer = MakeLayer(GetParam(), spec);
    if (!layer) {
      EXPECT_FALSE(IsBareName() || n >= 10) << "values of " << n << " bits are refused";
      continue;
    }
    CheckAgainstOracle(*layer, Repeat(all, spec.Elements()), n);
    ++done;
  }
  EXPECT_GT(done, 0);
}

TEST_P(FunctionTest, SignAtBordersOfWideValues) {
  for (unsigned n : {13u, 14u, 16u, 17u, 20u, 24u})
    for (bool dealt : {true, false}) {
      const Values values = BordersAndRandom(n, n);
      auto spec = Spec(ActivationKind::kSign, Features(values.size(), 7), n, 13, 7, dealt);
      const auto layer = MakeLayer(GetParam(), spec);
      EXPECT_TRUE(layer.has_value() || !IsBareName() || n > 16)
          << "values of " << n << " bits are refused";
      if (layer) CheckAgainstOracle(*layer, Repeat(values, spec.Elements()), n);
    }
}

TEST_P(FunctionTest, EveryBatchAndOutputRing) {
  for (std::size_t batch : {1u, 7u, 128u})
    for (unsigned out_bits : {3u, 8u, 9u, 16u, 23u, 32u, 47u, 64u})
      for (bool dealt : {true, false}) {
        auto spec = Spec(ActivationKind::kSign, {3, 1, 1}, 10, out_bits, batch, dealt);
        const auto layer = MakeLayer(GetParam(), spec);
        ASSERT_TRUE(layer.has_value()) << "output of " << out_bits << " bits is refused";
        CheckAgainstOracle(*layer, Repeat(BordersAndRandom(10, batch), spec.Elements()), out_bits);
      }
}

struct SignPool {
  Shape3 in;
  PoolShape pool;
  std::size_t batch;
};
std::vector<SignPool> SignPools() {
  return {{{3, 6, 6}, {2, 2}, 7},  {{1, 2, 2}, {2, 2}, 1},   {{2, 5, 7}, {2, 2}, 7},
          {{2, 7, 7}, {3, 2}, 3},  {{1, 4, 5}, {2, 1}, 128}, {{2, 9, 9}, {3, 3}, 1},
          {{1, 12, 12}, {4, 4}, 7}};
}
ActivationSpec SpecOf(const SignPool& pool, bool dealt) {
  auto spec = Spec(ActivationKind::kSign, pool.in, 8, 12, pool.batch, dealt);
  spec.pool = pool.pool;
  return spec;
}
void CheckPool(const Layer& layer) {
  const auto& spec = layer.spec;
  CheckAgainstOracle(layer, Repeat(BordersAndRandom(8, spec.batch), spec.Elements()), 1);
  // Mostly negative values: windows without any, with one and with several ones.
  Values z(spec.Elements(), -1);
  std::mt19937_64 rng(2);
  for (std::size_t i = 0; i < z.size(); i += 1 + rng() % 7) z[i] = 0;
  CheckAgainstOracle(layer, z, 3);
  CheckAgainstOracle(layer, Values(spec.Elements(), -1), 4);
}

TEST_P(FunctionTest, SignWithMaxPool) {
  for (const auto& pool : SignPools())
    for (bool dealt : {true, false})
      if (const auto layer = MakeLayer(GetParam(), SpecOf(pool, dealt))) CheckPool(*layer);
}

TEST_P(FunctionTest, Relu) {
  for (unsigned n : {4u, 8u, 12u, 20u}) {
    const Values values = n <= 12 ? WholeRing(n) : BordersAndRandom(n, n);
    for (bool dealt : {true, false}) {
      auto spec = Spec(ActivationKind::kRelu, Features(values.size(), 7), n, n, 7, dealt);
      if (const auto layer = MakeLayer(GetParam(), spec))
        CheckAgainstOracle(*layer, Repeat(values, spec.Elements()), n);
      // As wide as the incoming ring, and as narrow as it gets.
      try {
        spec.out_bits = AllProtocols()
                            .FindSuite(mpc::ParseSuiteChoice(GetParam().choice, "").name)
                            .RingBits(spec);
      } catch (const UnsupportedError&) {
        continue;
      }
      if (const auto layer = MakeLayer(GetParam(), spec))
        CheckAgainstOracle(*layer, Repeat(values, spec.Elements()), n);
    }
  }
}

// ReLU and square with division by 2^shift, exact to the last unit, into narrower, equal and wider
// rings. Each suite's every choice sees every case that it does not refuse.
void CheckFixedPoint(const Subject& subject, ActivationKind kind, unsigned n, unsigned shift,
                     unsigned out_bits, bool dealt, const Values& values) {
  const std::size_t batch = n % 2 == 0 ? 7 : 16;
  auto spec = Spec(kind, Features(values.size(), batch), n, out_bits, batch, dealt);
  spec.shift = shift;
  if (const auto layer = MakeLayer(subject, spec))
    CheckAgainstOracle(*layer, Repeat(values, spec.Elements()), n + shift);
}

TEST_P(FunctionTest, TruncationOverTheWholeRing) {
  for (unsigned n = 2; n <= 10; ++n)
    for (auto kind : {ActivationKind::kRelu, ActivationKind::kSquare})
      for (unsigned shift : std::set<unsigned>{0, 1, n / 2, n - 1}) {
        const unsigned width = kind == ActivationKind::kRelu ? n - shift : 2 * (n - shift);
        for (unsigned out_bits : {std::max(1u, width / 2), width, n + 13})
          CheckFixedPoint(GetParam(), kind, n, shift, out_bits, (n + shift + out_bits) % 2 == 0,
                          WholeRing(n));
      }
}

TEST_P(FunctionTest, TruncationAtBordersOfWideValues) {
  for (unsigned n : {16u, 20u, 24u, 29u, 32u, 33u})
    for (auto kind : {ActivationKind::kRelu, ActivationKind::kSquare})
      for (unsigned shift : {0u, 8u, 13u}) {
        Values values = BordersAndRandom(n, n);
        // Both sides of every multiple of 2^shift nearby.
        for (std::int64_t unit : {-3, -2, -1, 1, 2, 3})
          for (std::int64_t offset : {-1, 0, 1}) values.push_back((unit << shift) + offset);
        CheckFixedPoint(GetParam(), kind, n, shift, n % 2 == 0 ? n : 64, true, values);
        CheckFixedPoint(GetParam(), kind, n, shift, 12, false, values);
      }
}

// The widest values: what a suite takes, it takes exactly.
TEST_P(FunctionTest, TruncationOfTheWidestValues) {
  for (auto kind : {ActivationKind::kRelu, ActivationKind::kSquare})
    for (unsigned n : {48u, 63u, 64u})
      for (unsigned shift : {0u, 20u, n - 1}) {
        const std::int64_t end = std::numeric_limits<std::int64_t>::max() >> (64 - n);
        const Values values{0, -1, 1, end, -end - 1, end / 3, -end / 3, end - 1, -end};
        for (unsigned out_bits : {30u, 64u})
          CheckFixedPoint(GetParam(), kind, n, shift, out_bits, shift == 0, values);
      }
}

// Any function of up to 8 bits of what is left, into narrower and wider rings.
TEST_P(FunctionTest, TableOverTheWholeRing) {
  for (unsigned index : {2u, 3u, 5u, 8u})
    for (unsigned shift : {0u, 1u, 4u})
      for (unsigned out_bits : {1u, 8u, 23u, 64u})
        CheckFixedPoint(GetParam(), ActivationKind::kTable, index + shift, shift, out_bits,
                        (shift + out_bits) % 2 == 0, WholeRing(index + shift));
}

TEST_P(FunctionTest, TableOfTheHighestBitsOfWideValues) {
  for (unsigned shift : {9u, 16u, 25u, 31u, 56u})
    for (bool dealt : {true, false})
      CheckFixedPoint(GetParam(), ActivationKind::kTable, shift + 8, shift, 16, dealt,
                      BordersAndRandom(shift + 8, shift));
}

// More entries than go in one message, and more indices than are exchanged in one.
TEST_P(FunctionTest, LargeTablesGoInPieces) {
  auto spec = Spec(ActivationKind::kTable, {1501, 1, 1}, 9, 8, 100, true);
  spec.shift = 5;
  if (const auto layer = MakeLayer(GetParam(), spec))
    CheckAgainstOracle(*layer, Repeat(WholeRing(9), spec.Elements()), 9);
}

TEST_P(FunctionTest, ReluWithMaxPool) {
  struct Case {
    Shape3 in;
    PoolShape pool;
    std::size_t batch;
  };
  const std::vector<Case> cases{{{3, 4, 6}, {2, 2}, 7},
                                {{2, 7, 7}, {3, 2}, 3},
                                {{1, 4, 5}, {2, 1}, 16},
                                {{1, 5, 5}, {5, 5}, 4},
                                {{2, 3, 3}, {1, 2}, 3}};
  for (const auto& [in, pool, batch] : cases)
    for (unsigned shift : {0u, 3u})
      for (bool dealt : {true, false}) {
        auto spec = Spec(ActivationKind::kRelu, in, 8, 8, batch, dealt);
        spec.pool = pool;
        spec.shift = shift;
        const auto layer = MakeLayer(GetParam(), spec);
        if (!layer) continue;
        CheckAgainstOracle(*layer, Repeat(BordersAndRandom(8, batch), spec.Elements()), 1);
        CheckAgainstOracle(*layer, Repeat({-5, -128, -1, 127, 0, -128}, spec.Elements()), 2);
      }
}

// Material may wait in a file between the phases.
TEST_P(FunctionTest, CorrelationsPassThroughAnArchive) {
  std::size_t done = 0;
  for (auto kind : {ActivationKind::kSign, ActivationKind::kRelu, ActivationKind::kSquare,
                    ActivationKind::kTable})
    for (bool pooled : {false, true})
      for (unsigned shift : {0u, 3u})
        for (bool dealt : {true, false}) {
          auto spec = Spec(kind, {2, 6, 6}, 9, 10, 3, dealt);
          spec.shift = shift;
          if (pooled) spec.pool = PoolShape{3, 3};
          const auto layer = MakeLayer(GetParam(), spec);
          if (!layer) continue;
          SCOPED_TRACE(fmt::format("{}, shift {}{}{}", mpc::ActivationName(kind), shift,
                                   pooled ? ", pooled" : "", dealt ? ", dealt" : ""));
          const Values z = Repeat(WholeRing(9), spec.Elements());
          const auto session =
              RunLayer(*layer, {ShareOut(z, spec.in.Size(), spec.batch, layer->spec.ring_bits, 6)},
                       {.record = false, .ledger = nullptr, .archive = true});
          CheckSession(*layer, session);
          ExpectOutput(*layer, session.queries[0], z);
          ++done;
        }
  EXPECT_GT(done, 0u);
}

// A layer of more elements than go in one message.
TEST_P(FunctionTest, LargeLayersGoInPieces) {
  for (bool dealt : {true, false}) {
    auto spec = Spec(ActivationKind::kSign, {1501, 1, 1}, 8, 8, 100, dealt);
    const auto layer = MakeLayer(GetParam(), spec);
    ASSERT_TRUE(layer.has_value());
    CheckAgainstOracle(*layer, Repeat(WholeRing(8), spec.Elements()), 9);
  }
}

// What a suite has not, it refuses by name, and says what it has.
TEST_P(FunctionTest, RefusalsNameWhatExists) {
  const auto choice = mpc::ParseSuiteChoice(GetParam().choice, "conformance test");
  const auto& suite = AllProtocols().FindSuite(choice.name);
  for (auto kind : {ActivationKind::kSign, ActivationKind::kRelu, ActivationKind::kSquare,
                    ActivationKind::kNone})
    for (bool pooled : {false, true})
      for (unsigned shift : {0u, 4u, 10u}) {
        if (kind == ActivationKind::kSign && shift > 0) continue;
        auto spec = Spec(kind, {1, 4, 4}, 10, 16, 1, true);
        spec.shift = shift;
        if (pooled) spec.pool = PoolShape{};
        spec.ring_bits = suite.RingBits(spec);
        try {
          suite.Plan(spec, choice, RolesWith(GetParam().helper));
          EXPECT_LT(shift, 10u) << "values of 10 bits divided by 2^10";
        } catch (const UnsupportedError& e) {
          const std::string text = e.what();
          EXPECT_FALSE(kind == ActivationKind::kSign && !pooled &&
                       GetParam().choice.find("chunks") == std::string::npos)
              << text;
          EXPECT_NE(text.find("act1"), std::string::npos) << text;
          if (shift == 0) {
            EXPECT_NE(text.find("sign"), std::string::npos) << text;
          }
        }
      }
}

// An activation lives through many queries; each is prepared before any is run.
TEST_P(FunctionTest, ManyQueriesPreparedAhead) {
  for (bool dealt : {true, false}) {
    auto spec = Spec(ActivationKind::kSign, {9, 1, 1}, 10, 16, 5, dealt);
    const auto layer = MakeLayer(GetParam(), spec);
    ASSERT_TRUE(layer.has_value());
    std::vector<Values> inputs;
    std::vector<Shares> shares;
    for (std::uint64_t q = 0; q < 4; ++q) {
      const Values all = BordersAndRandom(10, q);
      inputs.emplace_back(all.end() - 45, all.end());
      shares.push_back(ShareOut(inputs.back(), 9, 5, layer->spec.ring_bits, q));
    }
    const auto session = RunLayer(*layer, shares);
    CheckSession(*layer, session);
    for (std::size_t q = 0; q < inputs.size(); ++q)
      ExpectOutput(*layer, session.queries[q], inputs[q]);
  }
}

// Sign, the map that follows it computed on what is opened: exact for every value, map and pool.
class FusedTest : public FunctionTest {
 protected:
  // Nothing where the suite has no such form.
  std::optional<Layer> MakeFused(ActivationSpec spec, std::size_t outputs) const {
    const auto choice = Fused(GetParam().choice);
    if (!choice) return std::nullopt;
    spec.next = mpc::LinearShape{.in = {spec.Out().Size(), 1, 1}, .out_channels = outputs};
    auto layer = MakeLayer({*choice, GetParam().helper}, spec);
    EXPECT_TRUE(!layer || layer->plan.fused) << *choice;
    return layer;
  }
};
INSTANTIATE_TEST_SUITE_P(Suites, FusedTest, testing::ValuesIn(Subjects()), SubjectName);

TEST_P(FusedTest, MapsOfSignsOverTheWholeRing) {
  const std::array<unsigned, 6> out_bits{16, 5, 32, 11, 64, 8};
  for (unsigned n = 2; n <= 12; ++n) {
    const Values all = WholeRing(n);
    const std::size_t batch = n % 3 == 0 ? 1 : n % 3 == 1 ? 7 : 128;
    const auto spec = Spec(ActivationKind::kSign, Features(all.size(), batch), n, out_bits[n % 6],
                           batch, n % 2 == 0);
    if (const auto layer = MakeFused(spec, 1 + n % 5))
      CheckAgainstOracle(*layer, Repeat(all, layer->spec.Elements()), n);
  }
}

TEST_P(FusedTest, EveryBatchRingAndFanOut) {
  for (std::size_t batch : {1u, 7u, 128u})
    for (unsigned out_bits : {2u, 8u, 9u, 23u, 47u})
      for (std::size_t outputs : {1u, 10u, 33u}) {
        const bool dealt = (batch + outputs) % 2 == 0;
        const auto spec = Spec(ActivationKind::kSign, {3, 1, 1}, 10, out_bits, batch, dealt);
        if (const auto layer = MakeFused(spec, outputs))
          CheckAgainstOracle(*layer, Repeat(BordersAndRandom(10, batch), spec.Elements()),
                             out_bits);
      }
}

TEST_P(FusedTest, AfterMaxPool) {
  for (const auto& pool : SignPools())
    if (const auto layer = MakeFused(SpecOf(pool, pool.batch != 7), 5)) CheckPool(*layer);
}

TEST_P(FusedTest, LargeLayersGoInPiecesAndMaterialWaitsInAFile) {
  const auto large = MakeFused(Spec(ActivationKind::kSign, {701, 1, 1}, 8, 9, 30, true), 12);
  if (large) CheckAgainstOracle(*large, Repeat(WholeRing(8), large->spec.Elements()), 9);
  for (const std::size_t pool : {0u, 3u})
    for (const bool dealt : {true, false}) {
      auto spec = Spec(ActivationKind::kSign, {2, 6, 6}, 9, 10, 3, dealt);
      if (pool > 0) spec.pool = PoolShape{pool, pool};
      const auto layer = MakeFused(spec, 4);
      if (!layer) continue;
      const Values z = Repeat(WholeRing(9), spec.Elements());
      const auto session =
          RunLayer(*layer, {ShareOut(z, spec.in.Size(), spec.batch, layer->spec.ring_bits, 6)},
                   {.record = false, .ledger = nullptr, .archive = true});
      CheckSession(*layer, session);
      ExpectOutput(*layer, session.queries[0], z);
    }
}

// Two activations with a linear layer between, 2 s - 1, which turns {0, 1} into {-1, 1}: the second
// Sign gives the first one's bits again, whatever suite does which.
class MixTest : public testing::TestWithParam<Subject> {};
INSTANTIATE_TEST_SUITE_P(Suites, MixTest, testing::ValuesIn(Subjects()), SubjectName);

AnyShare Public(int party, std::int64_t value, std::size_t diagonal, std::size_t cols,
                unsigned bits) {
  return ring::DispatchWord(bits, [&]<mpc::Word W>(W) {
    mpc::Matrix<W> m = xt::zeros<W>({diagonal, cols});
    for (std::size_t i = 0; i < diagonal; ++i)
      m(i, cols == 1 ? 0 : i) = ring::Encode<W>(value, bits);
    const auto share = mpc::PublicShare(party, m, bits);
    return AnyShare{AnyMatrix(share.mine, bits), AnyMatrix(share.next, bits)};
  });
}

void CheckMix(const Subject& first, const Subject& second, bool first_dealt) {
  constexpr std::size_t kFeatures = 5, kBatch = 7;
  auto spec2 = Spec(ActivationKind::kSign, {kFeatures, 1, 1}, 5, 9, kBatch, true);
  spec2.layer = "act2";
  // The first layer's output ring is the second's ring.
  const auto& suite1 = AllProtocols().FindSuite(mpc::ParseSuiteChoice(first.choice, "").name);
  spec2.dealt = suite1.Info().dealt_output;
  const auto layer2 = MakeLayer(second, spec2);
  ASSERT_TRUE(layer2.has_value());
  auto spec1 = Spec(ActivationKind::kSign, {kFeatures, 1, 1}, 9, layer2->spec.ring_bits, kBatch,
                    first_dealt);
  const auto layer1 = MakeLayer(first, spec1);
  ASSERT_TRUE(layer1.has_value());

  const mpc::LinearShape shape{.in = {kFeatures, 1, 1}, .out_channels = kFeatures};
  const Values z = Repeat(BordersAndRandom(9, 3), kFeatures * kBatch);
  const Shares shares = ShareOut(z, kFeatures, kBatch, layer1->spec.ring_bits, 4);
  std::array<AnyShare, 3> output;
  std::array<std::array<std::uint64_t, 3>, 2> sent{};
  std::array<std::uint32_t, 3> hops{};
  mpc::RunParties(
      [&](mpc::Party& party) {
        const auto id = static_cast<std::size_t>(party.Id());
        const bool helps = party.Id() == layer1->roles.helper;
        const auto act1 = layer1->plan.make(party);
        const auto act2 = layer2->plan.make(party);
        const unsigned bits = layer2->spec.ring_bits;
        const auto linear = AllProtocols()
                                .FindLinear(mpc::kReplicatedLinear)
                                .plan({"fc2", shape, bits, kBatch}, layer2->roles)
                                .make(party, Public(party.Id(), 2, kFeatures, kFeatures, bits),
                                      Public(party.Id(), -1, kFeatures, 1, bits), {});
        mpc::Context offline(party, Phase::kOffline);
        offline.Enter(1, "act1");
        auto prepared1 =
            mpc::PrepareAny(*act1, offline, kBatch, helps && first_dealt ? &shares[id] : nullptr);
        offline.Leave();
        const mpc::KnownHalves known(mpc::KnownOf(prepared1.get()));
        AnyMatrix partial = linear->Prepare(offline, kBatch, mpc::KnownOf(prepared1.get()));
        offline.Enter(2, "act2");
        auto prepared2 =
            mpc::PrepareAny(*act2, offline, kBatch, helps && spec2.dealt ? &partial : nullptr);
        offline.Leave();

        mpc::Context online(party, Phase::kOnline);
        online.Enter(1, "act1");
        const AnyShare s = act1->Run(online, std::move(prepared1), shares[id]);
        online.Leave();
        const AnyMatrix z2 = linear->Run(online, std::move(partial), known, s);
        online.Enter(2, "act2");
        output[id] = act2->Run(online, std::move(prepared2), z2);
        online.Leave();
        hops[id] = online.Depth();
        for (std::size_t phase : {0u, 1u})
          for (const auto bytes :
               party.Meter().Total(phase == 0 ? Phase::kOffline : Phase::kOnline).sent_bytes)
            sent[phase][id] += bytes;
      },
      {.layers = 2, .ledger = nullptr, .wrap = nullptr});
  ExpectOutput(*layer2, output, z);
  mpc::Cost cost = layer1->plan.cost;
  cost += layer2->plan.cost;
  EXPECT_EQ(sent[0], cost.OfflineBytes());
  EXPECT_EQ(sent[1], cost.OnlineBytes());
  EXPECT_EQ(*std::max_element(hops.begin(), hops.end()), cost.OnlineHops());
}

TEST_P(MixTest, WithEverySuiteBefore) {
  for (const auto& name : AllProtocols().SuiteNames())
    for (bool dealt : {true, false}) {
      SCOPED_TRACE(fmt::format("{} before, {}", name, dealt ? "dealt" : "not dealt"));
      CheckMix({name, GetParam().helper}, GetParam(), dealt);
    }
}

TEST(RegistryTest, HoldsTheExampleAndTheBuiltinSuites) {
  const auto names = AllProtocols().SuiteNames();
  EXPECT_NE(std::find(names.begin(), names.end(), "insecure_open"), names.end());
  EXPECT_GT(names.size(), 1u);
  for (const auto& name : names) {
    const auto& info = AllProtocols().FindSuite(name).Info();
    EXPECT_EQ(info.name, name);
    EXPECT_FALSE(info.summary.empty()) << name;
    EXPECT_EQ(info.is_private, info.leaks.empty()) << name << ": says what it leaks, if it does";
  }
}

}  // namespace
}  // namespace tercet::conformance
