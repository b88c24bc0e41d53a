// SPDX-License-Identifier: Apache-2.0
// What the parties see says nothing of the inputs, and no randomness is used twice. The example
// suite insecure_open and cbnn's opened value must be caught: a check that cannot fail is none.
#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "conformance/harness.h"

namespace tercet::conformance {
namespace {

using net::Recorded;

constexpr const char* kUnmaskedSuite = "insecure_open";

class PrivacyTest : public testing::TestWithParam<Subject> {
 protected:
  mpc::SuiteChoice Choice() const {
    return mpc::ParseSuiteChoice(GetParam().choice, "conformance test");
  }
  const mpc::SuiteInfo& Info() const { return AllProtocols().FindSuite(Choice().name).Info(); }

  /// The layers to look at: each kind that the suite has, with and without the helper's share known
  /// offline. Rings are those of values of `value_bits` bits.
  std::vector<Layer> Layers(mpc::Shape3 in, unsigned value_bits, unsigned out_bits,
                            std::size_t batch) const {
    std::vector<Layer> layers;
    for (bool dealt : {true, false})
      for (auto kind : {ActivationKind::kSign, ActivationKind::kRelu, ActivationKind::kSquare,
                        ActivationKind::kTable})
        for (const auto& [pooled, shift] : Variants(kind)) {
          ActivationSpec spec{.layer = "act1",
                              .kind = kind,
                              .shift = shift,
                              .in = in,
                              .pool = {},
                              .value_bits = value_bits,
                              .out_bits = out_bits,
                              .dealt = dealt,
                              .batch = batch};
          if (pooled) spec.pool = mpc::PoolShape{};
          if (mpc::IsTournament(spec)) --spec.value_bits;  // differences have one bit more
          if (auto layer = MakeLayer(GetParam(), spec)) layers.push_back(*layer);
        }
    return layers;
  }
  static std::string Describe(const ActivationSpec& spec) {
    return fmt::format("{}{}{}{}", mpc::ActivationName(spec.kind),
                       spec.shift > 0 ? fmt::format(" >> {}", spec.shift) : "",
                       spec.pool ? " with max-pool" : "", spec.dealt ? ", dealt" : "");
  }

 private:
  /// With max-pool or not, and shifts.
  static std::vector<std::pair<bool, unsigned>> Variants(ActivationKind kind) {
    if (kind == ActivationKind::kSign) return {{false, 0}, {true, 0}};
    if (kind == ActivationKind::kSquare) return {{false, 0}, {false, 5}};
    if (kind == ActivationKind::kTable) return {{false, 0}, {false, 5}};
    return {{false, 0}, {false, 5}, {true, 0}, {true, 5}};
  }
};
INSTANTIATE_TEST_SUITE_P(Suites, PrivacyTest, testing::ValuesIn(Subjects()), SubjectName);

std::string Describe(const Recorded& r) {
  return fmt::format("{} message {} {} party {}", net::PhaseName(r.message.phase),
                     r.message.tag & 0xffff, r.sent ? "to" : "from", r.peer);
}

// ----------------------------------------------------------------------------------------------
// masks

// Whole 8-byte blocks; equal ones are no chance (2^-64 a pair).
std::vector<std::uint64_t> Blocks(const Bytes& payload) {
  std::vector<std::uint64_t> blocks(payload.size() / 8);
  if (!blocks.empty()) std::memcpy(blocks.data(), payload.data(), 8 * blocks.size());
  return blocks;
}

using Step = std::tuple<std::size_t, int, Phase, std::uint32_t>;  // receiver, sender, phase, tag
std::map<Step, std::vector<std::uint64_t>> ReceivedBlocks(const Session& session) {
  std::map<Step, std::vector<std::uint64_t>> all;
  for (std::size_t party = 0; party < 3; ++party)
    for (const auto& r : session.views[party])
      if (!r.sent) all[{party, r.peer, r.message.phase, r.message.tag}] = Blocks(r.message.payload);
  return all;
}

/// Counts the blocks of messages that stay the same when only the keys change.
std::size_t UnchangedBlocks(const Layer& layer, const Shares& shares) {
  const auto first = ReceivedBlocks(RunLayer(layer, {shares}, {.record = true}));
  const auto second = ReceivedBlocks(RunLayer(layer, {shares}, {.record = true}));
  EXPECT_FALSE(first.empty());
  std::size_t unchanged = 0;
  for (const auto& [step, blocks] : first) {
    const auto found = second.find(step);
    if (found == second.end() || found->second.size() != blocks.size()) {
      ADD_FAILURE() << "messages of two runs differ in number or length";
      continue;
    }
    for (std::size_t i = 0; i < blocks.size(); ++i) unchanged += blocks[i] == found->second[i];
  }
  return unchanged;
}

TEST_P(PrivacyTest, EveryMessageChangesWithTheKeys) {
  for (const auto& layer : Layers({3, 4, 4}, 10, 16, 8)) {
    SCOPED_TRACE(Describe(layer.spec));
    const std::size_t rows = layer.spec.in.Size(), batch = layer.spec.batch;
    const auto shares = ShareOut(Repeat(BordersAndRandom(layer.spec.value_bits, 1), rows * batch),
                                 rows, batch, layer.spec.ring_bits, 2);
    const std::size_t unchanged = UnchangedBlocks(layer, shares);
    if (Choice().name == kUnmaskedSuite) {
      EXPECT_GT(unchanged, 0u) << "the test does not see unmasked messages";
    } else {
      EXPECT_EQ(unchanged, 0u) << "8-byte blocks are the same under other keys";
    }
  }
}

TEST_P(PrivacyTest, ZeroSharesGiveNeitherZeroNorRepeatedMessages) {
  for (const auto& layer : Layers({3, 4, 4}, 10, 16, 8)) {
    SCOPED_TRACE(Describe(layer.spec));
    Shares zeros;
    for (auto& z : zeros)
      z = ring::DispatchWord(layer.spec.ring_bits, [&]<mpc::Word W>(W) {
        return AnyMatrix(mpc::Matrix<W>(xt::zeros<W>({layer.spec.in.Size(), layer.spec.batch})),
                         layer.spec.ring_bits);
      });
    const auto session = RunLayer(layer, {zeros, zeros}, {.record = true});
    std::size_t zero = 0, repeated = 0;
    for (const auto& view : session.views) {
      std::set<std::uint64_t> seen;
      for (const auto& r : view) {
        if (r.sent) continue;
        for (const std::uint64_t block : Blocks(r.message.payload)) {
          zero += block == 0;
          repeated += !seen.insert(block).second;
        }
      }
    }
    if (Choice().name == kUnmaskedSuite) {
      EXPECT_GT(zero, 0u) << "the test does not see unmasked messages";
      EXPECT_GT(repeated, 0u) << "the test does not see unmasked messages";
    } else {
      EXPECT_EQ(zero, 0u) << "8-byte blocks are zero";
      EXPECT_EQ(repeated, 0u) << "8-byte blocks come twice to the same party";
    }
  }
}

// ----------------------------------------------------------------------------------------------
// chi-square

using Histogram = std::array<std::uint32_t, 256>;

/// Whether a histogram over 256 equally likely bins is off: chi-square with 255 degrees of freedom.
/// The mean is 255, the standard deviation 22.6; the bound is passed by chance with probability
/// below 1e-12 (Wilson-Hilferty: 448), and a run of all tests looks at fewer than 1e6 histograms.
bool IsUneven(const Histogram& histogram) {
  constexpr double kBound = 470;
  double total = 0, squares = 0;
  for (const double n : histogram) {
    total += n;
    squares += n * n;
  }
  return squares * 256 / total - total > kBound;
}

TEST(ChiSquareTest, TellsUniformFromBiased) {
  std::mt19937_64 rng(1);
  Histogram uniform{}, biased{};
  for (int i = 0; i < 1 << 15; ++i) {
    ++uniform[rng() % 256];
    ++biased[rng() % 256 % 247];
  }
  EXPECT_FALSE(IsUneven(uniform));
  EXPECT_TRUE(IsUneven(biased));
}

constexpr std::size_t kFewest = 8192;  // samples in a histogram: 32 a bin

Histogram BytesOf(const Bytes& payload) {
  Histogram histogram{};
  for (const std::uint8_t b : payload) ++histogram[b];
  return histogram;
}

/// Whether the bytes of p ^ q, two messages of the same length, are uneven.
bool XorIsUneven(const Bytes& p, const Bytes& q) {
  Histogram histogram{};
  for (std::size_t i = 0; i < p.size(); ++i) ++histogram[p[i] ^ q[i]];
  return IsUneven(histogram);
}

using Column = std::vector<std::uint16_t>;

/// The message as `count` elements of 16 bits; nothing when its length is another.
std::optional<Column> AsColumn(const Recorded& r, std::size_t count) {
  if (r.message.payload.size() != 2 * count) return std::nullopt;
  Column column(count);
  std::memcpy(column.data(), r.message.payload.data(), 2 * count);
  return column;
}

/// Whether the upper bytes of p + q + r are uneven; `r` may be null. The upper byte alone, since a
/// party may pass on what it received, and the lowest bit of twice a uniform value is 0.
bool SumIsUneven(const Column& p, const Column& q, const Column* r) {
  Histogram histogram{};
  for (std::size_t i = 0; i < p.size(); ++i) {
    const unsigned sum = p[i] + q[i] + (r != nullptr ? (*r)[i] : 0u);
    ++histogram[sum >> 8 & 0xff];
  }
  return IsUneven(histogram);
}

bool DifferenceIsUneven(const Column& p, const Column& q) {
  Histogram histogram{};
  for (std::size_t i = 0; i < p.size(); ++i) ++histogram[(unsigned{p[i]} - q[i]) >> 8 & 0xff];
  return IsUneven(histogram);
}

/// What is uneven in one party's view. A message alone is not all: an opened value arrives as one
/// more share, uniform by itself, and shows in the sum with the shares that the party sent or
/// received before. So these are looked at too:
/// - sums of two and of three different messages of `count` 16-bit elements, sent or received, for
/// each of `counts`;
/// - differences and XORs of two received messages, which show a mask that was used twice;
/// - XORs of a sent and a received online message, which show bits that were opened without a mask
/// (offline, a party may pass on parts of what it received).
std::vector<std::string> UnevenThings(const std::vector<Recorded>& view,
                                      const std::set<std::size_t>& counts) {
  std::vector<std::string> uneven;
  std::vector<const Recorded*> received;
  for (const auto& r : view)
    if (!r.sent && r.message.payload.size() >= kFewest) received.push_back(&r);
  for (std::size_t i = 0; i < received.size(); ++i) {
    const Bytes& payload = received[i]->message.payload;
    if (IsUneven(BytesOf(payload))) uneven.push_back(Describe(*received[i]));
    for (const auto& r : view) {
      const Bytes& sent = r.message.payload;
      if (r.sent && r.message.phase == Phase::kOnline &&
          received[i]->message.phase == Phase::kOnline && sent.size() == payload.size() &&
          sent != payload && XorIsUneven(sent, payload))
        uneven.push_back(fmt::format("XOR of {} and {}", Describe(r), Describe(*received[i])));
    }
    for (std::size_t j = i + 1; j < received.size(); ++j) {
      if (received[j]->message.payload.size() != payload.size()) continue;
      if (XorIsUneven(payload, received[j]->message.payload))
        uneven.push_back(
            fmt::format("XOR of {} and {}", Describe(*received[i]), Describe(*received[j])));
      for (const std::size_t count : counts)
        if (const auto p = AsColumn(*received[i], count);
            p && DifferenceIsUneven(*p, *AsColumn(*received[j], count)))
          uneven.push_back(fmt::format("difference of {} and {}", Describe(*received[i]),
                                       Describe(*received[j])));
    }
  }
  for (const std::size_t count : counts) {
    std::map<Column, std::string>
        columns;  // each content once: what goes to two receivers is one message
    for (const auto& r : view)
      if (auto column = AsColumn(r, count)) columns.emplace(std::move(*column), Describe(r));
    for (auto p = columns.begin(); p != columns.end(); ++p)
      for (auto q = std::next(p); q != columns.end(); ++q) {
        if (SumIsUneven(p->first, q->first, nullptr))
          uneven.push_back(fmt::format("sum of {} and {}", p->second, q->second));
        for (auto r = std::next(q); r != columns.end(); ++r)
          if (SumIsUneven(p->first, q->first, &r->first))
            uneven.push_back(fmt::format("sum of {}, {} and {}", p->second, q->second, r->second));
      }
  }
  return uneven;
}

TEST(ChiSquareTest, FindsWhatTwoOrThreeMessagesTell) {
  constexpr std::size_t kCount = 8192;
  std::mt19937_64 rng(2);
  const auto message = [](bool sent, int peer, const Column& column) {
    Bytes payload(2 * column.size());
    std::memcpy(payload.data(), column.data(), payload.size());
    return Recorded{sent, peer, {Phase::kOnline, 0, 1, payload}};
  };
  Column p(kCount), q(kCount), opened(kCount), masked_again(kCount), bits(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    p[i] = static_cast<std::uint16_t>(rng());
    q[i] = static_cast<std::uint16_t>(rng());
    opened[i] = static_cast<std::uint16_t>(1000 - p[i] - q[i]);
    masked_again[i] = static_cast<std::uint16_t>(p[i] + rng() % 2);
    bits[i] = static_cast<std::uint16_t>(p[i] ^ 0x1111);
  }
  EXPECT_TRUE(
      UnevenThings({message(true, 1, p), message(true, 2, p), message(false, 1, q)}, {kCount})
          .empty());
  EXPECT_EQ(
      UnevenThings({message(true, 1, p), message(false, 1, q), message(false, 2, opened)}, {kCount})
          .size(),
      1u);
  EXPECT_EQ(UnevenThings({message(false, 1, p), message(false, 1, masked_again)}, {kCount}).size(),
            2u);
  EXPECT_EQ(UnevenThings({message(true, 1, p), message(false, 1, bits)}, {}).size(), 1u);
}

TEST_P(PrivacyTest, ViewsAreUniformWhateverTheInput) {
  // Elements of 16 bits inside and out, so that they are whole bytes on the wire.
  const auto& suite = AllProtocols().FindSuite(Choice().name);
  const unsigned value_bits = 16 - suite.Info().spare_bits;
  std::size_t looked_at = 0;
  for (const auto& layer : Layers({8, 16, 16}, value_bits, 16, 16)) {
    ++looked_at;
    const auto& spec = layer.spec;
    for (const std::int64_t value :
         {std::int64_t{0}, (std::int64_t{1} << (spec.value_bits - 1)) - 1}) {
      SCOPED_TRACE(fmt::format("{}, all values {}", Describe(spec), value));
      const auto shares =
          ShareOut(Values(spec.Elements(), value), spec.in.Size(), spec.batch, spec.ring_bits, 5);
      const auto session = RunLayer(layer, {shares}, {.record = true});
      std::vector<std::string> uneven;
      for (const auto& view : session.views)
        for (auto& thing : UnevenThings(view, {spec.Elements(), spec.Outputs()}))
          uneven.push_back(std::move(thing));
      if (Info().is_private) {
        EXPECT_TRUE(uneven.empty()) << fmt::format("{}", fmt::join(uneven, "; "));
      } else {
        EXPECT_FALSE(uneven.empty()) << "the suite leaks, and the test does not see it";
      }
    }
  }
  EXPECT_GT(looked_at, 0u);
}

// ----------------------------------------------------------------------------------------------
// counters

TEST_P(PrivacyTest, NoCounterIsUsedTwice) {
  for (const auto& layer : Layers({3, 4, 4}, 10, 16, 5)) {
    SCOPED_TRACE(Describe(layer.spec));
    crypto::PrfLedger ledger;
    const std::size_t rows = layer.spec.in.Size(), batch = layer.spec.batch;
    std::vector<Shares> queries;
    for (std::uint64_t q = 0; q < 3; ++q)
      queries.push_back(ShareOut(Values(rows * batch, 0), rows, batch, layer.spec.ring_bits, q));
    RunLayer(layer, queries, {.record = false, .ledger = &ledger});

    std::map<std::pair<int, std::uint64_t>, std::map<std::uint64_t, std::vector<std::uint64_t>>>
        drawn;
    std::map<std::uint64_t, std::string> purpose_of;
    std::map<std::string, std::uint64_t> nonce_of;
    for (const auto& use : ledger.Uses()) {
      drawn[{use.key, use.nonce}][use.first_block].push_back(use.blocks);
      EXPECT_EQ(purpose_of.emplace(use.nonce, use.purpose).first->second, use.purpose)
          << "two purposes, one nonce";
      EXPECT_EQ(nonce_of.emplace(use.purpose, use.nonce).first->second, use.nonce)
          << "two nonces, one purpose";
    }
    for (const auto& [stream, ranges] : drawn) {
      const std::string& name = purpose_of[stream.second];
      std::uint64_t end = 0;
      for (const auto& [first, blocks] : ranges) {
        EXPECT_GE(first, end) << name << ": ranges of key " << stream.first << " overlap";
        // Both holders of a key draw the same ranges, each once.
        EXPECT_LE(blocks.size(), 2u)
            << name << ": block " << first << " of key " << stream.first << " is drawn again";
        EXPECT_EQ(blocks.front(), blocks.back())
            << name << ": the holders of key " << stream.first << " differ";
        end = first + blocks.front();
      }
    }
    EXPECT_EQ(ledger.Uses().empty(), Choice().name == kUnmaskedSuite);
  }
}

}  // namespace
}  // namespace tercet::conformance
