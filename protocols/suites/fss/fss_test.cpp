// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "mpc/plan_of.h"
#include "suites/fss/layout.h"
#include "tercet/mpc/local.h"

// Exactness of whole layers, costs on the wire and masking are shown by the conformance tests; here
// only what is particular to fss.
namespace tercet::protocols::fss {
namespace {

std::array<std::uint8_t, kHashKeyBytes> HashKey() {
  std::array<std::uint8_t, kHashKeyBytes> key{};
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(i);
  return key;
}

Buffer<Block> Roots(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  Buffer<Block> roots(count);
  for (auto& root : roots) root = {rng(), rng()};
  return roots;
}

struct Keys {
  Buffer<Block> roots1, roots2;
  Bytes first, rest;
};

/// Where x < alpha the shares add up to 1 ^ flip, else to flip.
template <ring::Word V>
Keys Deal(Dcf<V>& dcf, const DcfShape& shape, const std::vector<std::uint64_t>& alpha, V flip) {
  const std::size_t n = alpha.size();
  Keys keys{Roots(n, 1), Roots(n, 2), Bytes(shape.FirstBytes(n)), Bytes(shape.RestBytes(n))};
  const std::vector<V> below(n, flip ^ 1), above(n, flip);
  dcf.Deal(alpha, below, above, keys.roots1, keys.roots2, keys.first, keys.rest);
  return keys;
}

/// Sums of the two shares at x, reduced.
template <ring::Word V>
std::vector<V> Open(Dcf<V>& dcf, const DcfShape& shape, const Keys& keys,
                    const std::vector<std::uint64_t>& x) {
  const std::size_t values = x.size() * shape.outputs;
  std::vector<V> one(values), two(values);
  dcf.Evaluate(Evaluator::kE1, x, keys.roots1, {}, keys.rest, one);
  dcf.Evaluate(Evaluator::kE2, x, keys.roots2, keys.first, keys.rest, two);
  for (std::size_t i = 0; i < values; ++i)
    one[i] = ring::Reduce(static_cast<V>(one[i] + two[i]), shape.output_bits);
  return one;
}

void CheckShape(const DcfShape& shape, const std::vector<std::uint64_t>& points,
                const std::vector<std::uint64_t>& inputs) {
  SCOPED_TRACE(fmt::format("{} bits to {}, leaves of {}", shape.input_bits, shape.output_bits,
                           shape.leaf_bits));
  ring::DispatchWord(shape.output_bits, [&]<ring::Word V>(V) {
    Dcf<V> dcf(shape, HashKey());
    for (const V flip : {V{0}, V{1}}) {
      const Keys keys = Deal<V>(dcf, shape, points, flip);
      for (const std::uint64_t x : inputs) {
        const auto opened = Open(dcf, shape, keys, std::vector<std::uint64_t>(points.size(), x));
        for (std::size_t i = 0; i < points.size(); ++i)
          ASSERT_EQ(opened[i], (x < points[i] ? 1 : 0) ^ flip) << x << " < " << points[i];
      }
    }
  });
}

std::vector<std::uint64_t> Domain(unsigned bits) {
  std::vector<std::uint64_t> all(std::size_t{1} << bits);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}

TEST(DcfTest, ComparesEveryPairOfASmallDomainWithEveryLeafSize) {
  for (unsigned input = 1; input <= 5; ++input)
    for (unsigned output : {1u, 2u, 7u, 8u, 13u, 32u, 47u, 64u})
      for (unsigned leaf = 0; leaf <= input; ++leaf)
        CheckShape({input, output, leaf}, Domain(input), Domain(input));
}

TEST(DcfTest, ComparesEveryPairOfChosenShapes) {
  for (unsigned input = 6; input <= 8; ++input)
    for (unsigned output : {1u, 12u, 64u})
      CheckShape(MakeDcfShape(input, output), Domain(input), Domain(input));
}

TEST(DcfTest, ComparesBitsWithFullBlocksAndWideInputs) {
  std::mt19937_64 rng(3);
  for (unsigned input : {9u, 10u, 23u, 63u})
    for (unsigned output : {1u, 16u, 64u}) {
      const std::uint64_t end = std::uint64_t{1} << input;
      std::vector<std::uint64_t> points{0, 1, 63, 64, 127, 128, end / 2 - 1, end / 2, end - 1};
      for (int i = 0; i < 20; ++i) points.push_back(rng() % end);
      std::vector<std::uint64_t> inputs = points;
      for (const auto p : points) {
        inputs.push_back((p + 1) % end);
        inputs.push_back((p + end - 1) % end);
      }
      CheckShape(MakeDcfShape(input, output), points, inputs);
    }
}

// Vectors of other values than 0 and 1, that need one hash and more for a level, and one block and
// more for a leaf.
void CheckVectors(const DcfShape& shape) {
  SCOPED_TRACE(fmt::format("{} bits to {} of {}, leaves of {}{}", shape.input_bits, shape.outputs,
                           shape.output_bits, shape.leaf_bits, shape.point ? ", a point" : ""));
  const auto points = Domain(shape.input_bits);
  const std::size_t n = points.size(), values = n * shape.outputs;
  ring::DispatchWord(shape.output_bits, [&]<ring::Word V>(V) {
    Dcf<V> dcf(shape, HashKey());
    std::mt19937_64 rng(4);
    std::vector<V> below(values), above(values);
    for (auto* vector : {&below, &above})
      for (auto& value : *vector) value = ring::Reduce(static_cast<V>(rng()), shape.output_bits);
    Keys keys{Roots(n, 1), Roots(n, 2), Bytes(shape.FirstBytes(n)), Bytes(shape.RestBytes(n))};
    dcf.Deal(points, below, above, keys.roots1, keys.roots2, keys.first, keys.rest);
    for (const std::uint64_t x : points) {
      const auto opened = Open(dcf, shape, keys, std::vector<std::uint64_t>(n, x));
      for (std::size_t i = 0; i < values; ++i) {
        const std::uint64_t alpha = points[i % n];
        const V expected =
            shape.point ? (x == alpha ? above[i] : V{0}) : (x < alpha ? below : above)[i];
        ASSERT_EQ(opened[i], expected) << x << ", " << alpha << ", value " << i / n;
      }
    }
  });
}

TEST(DcfTest, GivesOneOfTwoVectors) {
  for (unsigned outputs : {2u, 3u})
    for (unsigned input : {1u, 3u, 6u})
      for (unsigned output : {2u, 16u, 21u, 22u, 33u, 64u})
        for (unsigned leaf : {0u, MakeDcfShape(input, output, outputs).leaf_bits, input})
          CheckVectors({input, output, leaf, outputs});
}

TEST(DcfTest, GivesAVectorAtOnePoint) {
  for (unsigned outputs : {2u, 11u})
    for (unsigned input : {1u, 3u, 6u})
      for (unsigned output : {2u, 16u, 21u, 64u})
        CheckVectors(
            {.input_bits = input, .output_bits = output, .outputs = outputs, .point = true});
}

// One share alone is no constant: it differs between inputs and between helpers' points.
TEST(DcfTest, OneShareLooksRandom) {
  const DcfShape shape = MakeDcfShape(12, 8);
  Dcf<std::uint8_t> dcf(shape, HashKey());
  std::vector<std::uint64_t> alpha(kChunk, 2048), x(kChunk, 77);
  const Keys keys = Deal<std::uint8_t>(dcf, shape, alpha, 0);
  std::vector<std::uint8_t> share(kChunk);
  dcf.Evaluate(Evaluator::kE1, x, keys.roots1, {}, keys.rest, share);
  std::array<int, 256> seen{};
  for (const std::uint8_t v : share) ++seen[v];
  EXPECT_LT(*std::max_element(seen.begin(), seen.end()), 25);  // 4 expected
}

std::uint16_t Word16(ByteSpan packed) {
  std::uint16_t word = 0;
  ring::Unpack(packed, 16, std::span(&word, 1));
  return word;
}

// The correction words of a small tree, worked out by hand from the hash itself.
TEST(DcfTest, FirstLevelAndLeafAreAsTheReadmeSays) {
  const DcfShape shape{1, 16, 0};
  const auto key = HashKey();
  Dcf<std::uint16_t> dcf(shape, key);
  const Keys keys =
      Deal<std::uint16_t>(dcf, shape, {1}, 0);  // goes right; the left child is smaller
  const std::span<const std::uint8_t, kHashKeyBytes> halves(key);
  crypto::FixedKeyHash tree(halves.first<16>()), value(halves.last<16>());
  std::array<Block, 2> s{keys.roots1[0], keys.roots2[0]}, child, v;
  s[0].low &= ~std::uint64_t{1};
  s[1].low |= 1;
  const Block difference = s[0] ^ s[1];
  tree.Hash(s, child);
  value.Hash(s, v);
  const Block correction = child[0] ^ child[1];
  std::array<Block, 2> next{child[0] ^ s[0], child[1] ^ s[1] ^ correction};
  EXPECT_EQ(next[0] ^ next[1], difference);
  // E2 has control bit 1: v_1 - (v_2 + word) = 1 on the left.
  const auto word = static_cast<std::uint16_t>(v[0].low - v[1].low - 1);
  ASSERT_EQ(keys.first.size(), 18u);
  EXPECT_EQ(std::memcmp(keys.first.data(), &correction, 16), 0);
  EXPECT_EQ(Word16(ByteSpan(keys.first).subspan(16)), word);
  const auto sum = static_cast<std::uint16_t>(v[0].high - v[1].high - word);
  value.Hash(next, v);
  const auto missing = static_cast<std::uint16_t>(0 - sum - (v[0].low - v[1].low));
  const auto leaf = static_cast<std::uint16_t>((next[0].low & 1) != 0 ? missing : 0 - missing);
  ASSERT_EQ(keys.rest.size(), 2u);
  EXPECT_EQ(Word16(keys.rest), leaf);
}

TEST(LayoutTest, LeavesOfBitsFillOneBlock) {
  EXPECT_EQ(MakeDcfShape(11, 1), (DcfShape{11, 1, 7}));
  EXPECT_EQ(MakeDcfShape(5, 1), (DcfShape{5, 1, 5}));
  EXPECT_EQ(MakeDcfShape(9, 12), (DcfShape{9, 12, 4}));
  EXPECT_EQ(MakeDcfShape(20, 64), (DcfShape{20, 64, 2}));
}

// A layer whose correction words need more than one message.
TEST(PiecesTest, LargeLayersGoInSeveralMessages) {
  const mpc::ActivationSpec spec{.layer = "act",
                                 .in = {1, 1, 1000},
                                 .pool = {},
                                 .value_bits = 24,
                                 .ring_bits = 24,
                                 .out_bits = 64,
                                 .dealt = false,
                                 .batch = 130};
  const auto layout = MakeLayout(spec, mpc::OptionsOf("fss"));
  ASSERT_GT(spec.Elements(), layout.PieceElements());
  EXPECT_LE(layout.SharedBytes(layout.PieceElements()) + layout.FirstBytes(layout.PieceElements()),
            kPieceBytes + kHashKeyBytes);

  std::mt19937_64 rng(6);
  std::array<mpc::Matrix<std::uint32_t>, 3> z;
  for (auto& part : z) {
    part = ring::MakeMatrix<std::uint32_t>(1000, 130);
    for (auto& v : part) v = static_cast<std::uint32_t>(rng());
  }
  const auto plan = mpc::PlanOf(spec, "fss");
  std::array<mpc::AnyShare, 3> out;
  std::array<std::uint64_t, 3> sent{};
  mpc::RunParties([&](mpc::Party& party) {
    const auto id = static_cast<std::size_t>(party.Id());
    const auto activation = plan.make(party);
    mpc::Context offline(party, mpc::Phase::kOffline), online(party, mpc::Phase::kOnline);
    offline.Enter(1, "act");
    auto prepared = activation->Prepare(offline, spec.batch);
    offline.Leave();
    online.Enter(1, "act");
    out[id] = activation->Run(online, std::move(prepared), mpc::AnyMatrix(z[id], 24));
    online.Leave();
    for (const auto bytes : party.Meter().Total(mpc::Phase::kOffline).sent_bytes) sent[id] += bytes;
  });
  EXPECT_EQ(sent, plan.cost.OfflineBytes());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < spec.Elements(); ++i) {
    std::uint64_t opened = 0;
    for (const auto& share : out) opened += share.mine.As<std::uint64_t>().data()[i];
    const auto value = static_cast<std::uint32_t>(z[0].data()[i] + z[1].data()[i] + z[2].data()[i]);
    wrong += opened != (ring::Decode(value, 24) >= 0 ? 1u : 0u);
  }
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace tercet::protocols::fss
