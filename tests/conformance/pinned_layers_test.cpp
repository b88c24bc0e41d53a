// Pinned keys: what a party receives in one activation layer is uniform over the key that it lacks.
#include <gmock/gmock.h>

#include <cstring>

#include "conformance/harness.h"
#include "conformance/mutants.h"
#include "conformance/pinned.h"

namespace tercet::conformance {
namespace {

/// Small, so that runs are many; messages are whole bytes, so that no bit of them is padding.
struct LayerCase {
  std::string choice;
  ActivationKind kind = ActivationKind::kSign;
  std::size_t pool = 0;  ///< kernel and stride
  unsigned shift = 0;
  unsigned value_bits = 5, out_bits = 6;
  std::size_t batch = 8;
  bool dealt = true;
};

std::optional<Layer> MakeLayer(const LayerCase& c, int helper) {
  ActivationSpec spec{.layer = "act1",
                      .kind = c.kind,
                      .shift = c.shift,
                      .in = {1, std::max<std::size_t>(1, c.pool), std::max<std::size_t>(1, c.pool)},
                      .pool = {},
                      .value_bits = c.value_bits,
                      .out_bits = c.out_bits,
                      .dealt = c.dealt,
                      .batch = c.batch};
  if (c.pool > 0) spec.pool = mpc::PoolShape{c.pool, c.pool};
  return MakeLayer(Subject{c.choice, helper}, spec);
}

/// Shares of which the receiver's is the same for both inputs, and the others' are what a missing
/// mask shows at once: zeros, ones, the ends of the range, for half of the elements each.
Shares SharesFor(const Layer& layer, int receiver, int input) {
  const auto& spec = layer.spec;
  const std::size_t rows = spec.in.Size(), cols = spec.batch;
  const std::int64_t end = std::int64_t{1} << (spec.value_bits - 1);
  const std::array<std::int64_t, 4> values{0, -1, end - 1, -end}, bare{0, -1, end - 1, end};
  return ring::DispatchWord(spec.ring_bits, [&]<mpc::Word W>(W) {
    std::array<mpc::Matrix<W>, 3> z;
    for (auto& part : z) part = ring::MakeMatrix<W>(rows, cols);
    std::array<std::uint8_t, 8> random{};
    for (std::size_t i = 0; i < rows * cols; ++i) {
      FillFrom(i + 1, random);
      W own;
      std::memcpy(&own, random.data(), sizeof own);
      const auto value = static_cast<W>(values[(i + (input == 0 ? 0 : i / 4 + 2)) % 4]);
      const auto shown = static_cast<W>(bare[(i / 2 + static_cast<std::size_t>(input)) % 4]);
      const auto r = static_cast<std::size_t>(receiver);
      z[r].data()[i] = own;
      z[(r + 1 + i % 2) % 3].data()[i] = shown;
      z[(r + 2 - i % 2) % 3].data()[i] = static_cast<W>(value - own - shown);
    }
    return Shares{AnyMatrix(z[0], spec.ring_bits), AnyMatrix(z[1], spec.ring_bits),
                  AnyMatrix(z[2], spec.ring_bits)};
  });
}

Scenario ScenarioOf(const Layer& layer, int receiver) {
  return {[=](PinnedSession& session, int input) {
            RunLayer(layer, {SharesFor(layer, receiver, input)}, {.pinned = &session});
          },
          nullptr};
}

void PrintTo(const LayerCase& c, std::ostream* out) {
  *out << fmt::format("{}, {}{}{}, {} bits to {}{}", c.choice, mpc::ActivationName(c.kind),
                      c.shift > 0 ? fmt::format(" >> {}", c.shift) : "",
                      c.pool > 0 ? fmt::format(", pool {}", c.pool) : "", c.value_bits, c.out_bits,
                      c.dealt ? "" : ", not dealt");
}

constexpr auto kSign = ActivationKind::kSign;
constexpr auto kRelu = ActivationKind::kRelu;
constexpr auto kSquare = ActivationKind::kSquare;

/// Every kind of layer of every private suite, in each of its forms.
std::vector<LayerCase> Cases() {
  return {
      {.choice = "lut", .value_bits = 7},
      {.choice = "lut", .value_bits = 7, .dealt = false},
      {.choice = "lut:chunks=1"},
      {.choice = "lut:chunks=2"},
      {.choice = "lut:chunks=2,form=bit", .dealt = false},
      {.choice = "lut:chunks=3,form=arith", .value_bits = 7},
      {.choice = "lut:chunks=4,form=bit", .value_bits = 9},
      {.choice = "lut", .pool = 2, .value_bits = 3},
      {.choice = "lut:chunks=2", .pool = 3, .value_bits = 3, .dealt = false},
      {.choice = "lut", .kind = kRelu},
      {.choice = "lut", .kind = kRelu, .shift = 2, .out_bits = 3},
      {.choice = "lut:chunks=1", .kind = kRelu, .shift = 2},  // the carry is compared apart
      {.choice = "lut:form=bit", .kind = kRelu, .shift = 2, .dealt = false},
      {.choice = "lut", .kind = kRelu, .pool = 2, .value_bits = 3},
      {.choice = "lut", .kind = kSquare, .out_bits = 8},
      {.choice = "lut", .kind = kSquare, .shift = 2},
      {.choice = "fss"},  // no tree, a leaf alone
      {.choice = "fss", .value_bits = 8, .batch = 4},
      {.choice = "fss", .dealt = false},
      {.choice = "fss:form=bit"},
      {.choice = "fss:form=bit", .value_bits = 9, .dealt = false},
      {.choice = "fss", .pool = 2, .value_bits = 3},
      {.choice = "fss", .pool = 3, .value_bits = 3},
      {.choice = "fss", .kind = kRelu, .value_bits = 4},
      {.choice = "fss", .kind = kRelu, .shift = 2, .dealt = false},
      {.choice = "fss:form=bit", .kind = kRelu, .pool = 2, .value_bits = 3},
      {.choice = "fss", .kind = kSquare, .value_bits = 4},
      {.choice = "fss", .kind = kSquare, .shift = 2},
      {.choice = "aby3"},
      {.choice = "aby3", .value_bits = 2},
      {.choice = "aby3", .value_bits = 10},
      {.choice = "aby3", .pool = 2, .value_bits = 3},
      {.choice = "aby3", .pool = 3, .value_bits = 3},
      {.choice = "aby3", .kind = kRelu, .out_bits = 5},
      {.choice = "aby3", .kind = kRelu, .out_bits = 3},
      {.choice = "aby3", .kind = kRelu, .out_bits = 9},
      {.choice = "aby3", .kind = kRelu, .shift = 2},
      {.choice = "aby3", .kind = kRelu, .pool = 2, .value_bits = 3},
      {.choice = "aby3", .kind = kSquare},
      {.choice = "aby3", .kind = kSquare, .shift = 2},
  };
}

/// What each party's view tells.
std::vector<std::string> FindingsOfAll(const LayerCase& c, int helper) {
  std::vector<std::string> findings;
  const auto layer = MakeLayer(c, helper);
  if (!layer) {
    ADD_FAILURE() << "the suite has no such layer";
    return findings;
  }
  for (const int receiver : {0, 1, 2})
    for (auto& finding : Findings(ScenarioOf(*layer, receiver), receiver))
      findings.push_back(fmt::format("party {}: {}", receiver, std::move(finding)));
  return findings;
}

class PinnedLayers : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(Suites, PinnedLayers, testing::ValuesIn(Cases()));

TEST_P(PinnedLayers, ViewsAreUniform) {
  const int helper = static_cast<int>(GetParam().value_bits % 3);
  EXPECT_THAT(FindingsOfAll(GetParam(), helper), testing::IsEmpty());
}

/// What must be caught: suites that leak, and those whose masks are wrong.
class Leaks : public testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(Suites, Leaks,
                         testing::Values(LayerCase{.choice = "insecure_open"},
                                         LayerCase{.choice = "cbnn", .out_bits = 8},
                                         LayerCase{.choice = "own_key:chunks=2"},
                                         LayerCase{.choice = "bare_bits:chunks=2"},
                                         LayerCase{.choice = "bare_share:chunks=2"},
                                         LayerCase{.choice = "mask_twice:chunks=2"},
                                         LayerCase{.choice = "bare_top:chunks=2"},
                                         LayerCase{.choice = "own_key", .kind = kRelu},
                                         LayerCase{.choice = "bare_bits", .pool = 2},
                                         LayerCase{.choice = "bare_share", .dealt = false},
                                         LayerCase{.choice = "bare_top", .kind = kSquare}));

TEST_P(Leaks, AreFound) {
  for (const int helper : {0, 1, 2})
    EXPECT_THAT(FindingsOfAll(GetParam(), helper), testing::Not(testing::IsEmpty()))
        << "helper " << helper;
}

// A mutant that computed something else would be found by the function tests: it is no mask that is
// wrong.
TEST(MutantTest, ComputeTheRightFunctionAtTheSameCost) {
  for (const auto& name : MutantNames())
    for (const int helper : {0, 1, 2})
      for (const bool dealt : {true, false}) {
        SCOPED_TRACE(fmt::format("{}, helper {}", name, helper));
        const auto layer = MakeLayer(
            LayerCase{.choice = name + ":chunks=2", .value_bits = 6, .batch = 64, .dealt = dealt},
            helper);
        ASSERT_TRUE(layer.has_value());
        CheckAgainstOracle(*layer, WholeRing(6), 1);
        const auto pooled =
            MakeLayer(LayerCase{.choice = name + ":chunks=2", .pool = 2, .batch = 16}, helper);
        ASSERT_TRUE(pooled.has_value());
        CheckAgainstOracle(*pooled, Repeat(WholeRing(5), pooled->spec.Elements()), 2);
      }
}

// What is independent is so under the affine relations that there are.
TEST(DependentBitsTest, AreThoseThatFollowFromOthers) {
  std::vector<Bytes> views(200, Bytes(4));
  std::uint64_t seed = 0;
  for (auto& view : views) {
    FillFrom(++seed, view);
    view[3] = static_cast<std::uint8_t>((view[0] & 7) | (view[1] ^ view[2]) << 4 | 8);
  }
  // Bits 0..2 are copies, 3 is constant, 4..7 are sums.
  EXPECT_THAT(DependentBits(views), testing::ElementsAre(24, 25, 26, 27, 28, 29, 30, 31));
  for (auto& view : views) FillFrom(++seed, view);
  EXPECT_THAT(DependentBits(views), testing::IsEmpty());
}

}  // namespace
}  // namespace tercet::conformance
