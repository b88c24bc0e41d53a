// SPDX-License-Identifier: Apache-2.0
#include "conformance/pinned_layers.h"

#include <cstring>

namespace tercet::conformance {

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
  if (c.fan_out > 0)
    spec.next = mpc::LinearShape{.in = {spec.Out().Size(), 1, 1}, .out_channels = c.fan_out};
  auto layer = MakeLayer(Subject{c.choice, helper}, spec);
  EXPECT_TRUE(!layer || layer->plan.fused == (c.fan_out > 0)) << c.choice;
  if (layer && c.opened) return WithOpened(*layer);
  if (!layer || c.multiplier == 0) return layer;
  return WithMultiplier(*layer, (helper + c.multiplier) % 3, true, c.fan_out == 0);
}

namespace {

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
      if (spec.opened) {
        for (const int party : {0, 1, 2})
          z[static_cast<std::size_t>(party)].data()[i] =
              (party == layer.roles.helper) == (receiver == layer.roles.helper)
                  ? own
                  : static_cast<W>(value - own);
        continue;
      }
      z[r].data()[i] = own;
      z[(r + 1 + i % 2) % 3].data()[i] = shown;
      z[(r + 2 - i % 2) % 3].data()[i] = static_cast<W>(value - own - shown);
    }
    return Shares{AnyMatrix(z[0], spec.ring_bits), AnyMatrix(z[1], spec.ring_bits),
                  AnyMatrix(z[2], spec.ring_bits)};
  });
}

}  // namespace

Scenario LayerScenario(const Layer& layer, int receiver) {
  return {[=](PinnedSession& session, int input) {
            RunLayer(layer, {SharesFor(layer, receiver, input)}, {.pinned = &session});
          },
          nullptr};
}

void PrintTo(const LayerCase& c, std::ostream* out) {
  *out << fmt::format(
      "{}, {}{}{}, {} bits to {}{}{}{}{}", c.choice, mpc::ActivationName(c.kind),
      c.shift > 0 ? fmt::format(" >> {}", c.shift) : "",
      c.pool > 0 ? fmt::format(", pool {}", c.pool) : "", c.value_bits, c.out_bits,
      c.dealt ? "" : ", not dealt", c.opened ? ", opened" : "",
      c.multiplier > 0 ? fmt::format(", evaluator {} multiplies", c.multiplier) : "",
      c.fan_out > 0 ? fmt::format(", {} outputs", c.fan_out) : "");
}

constexpr auto kRelu = ActivationKind::kRelu;
constexpr auto kSquare = ActivationKind::kSquare;
constexpr auto kTable = ActivationKind::kTable;

std::vector<LayerCase> LayerCases() {
  return {
      {.choice = "lut", .value_bits = 7},
      {.choice = "lut", .value_bits = 7, .dealt = false},
      {.choice = "lut:chunks=1"},
      {.choice = "lut:chunks=1", .kind = kRelu, .dealt = false},
      {.choice = "lut:chunks=1", .kind = kRelu, .shift = 2, .value_bits = 3},  // no sign to compare
      {.choice = "lut:chunks=1", .kind = kTable, .shift = 2},
      {.choice = "lut:chunks=2"},
      {.choice = "lut:chunks=2,form=bit", .dealt = false},
      {.choice = "lut:chunks=3,form=arith", .value_bits = 7},
      {.choice = "lut:chunks=4,form=bit", .value_bits = 9},
      {.choice = "lut:chunks=5", .value_bits = 6},
      {.choice = "lut:chunks=5", .kind = kRelu, .value_bits = 6, .dealt = false},
      {.choice = "lut:chunks=5", .kind = kRelu, .shift = 2, .value_bits = 7},
      {.choice = "lut", .pool = 2, .value_bits = 3},
      {.choice = "lut:chunks=2", .pool = 3, .value_bits = 3, .dealt = false},
      {.choice = "lut:form=bit", .pool = 2, .value_bits = 3},
      {.choice = "lut:form=bit", .pool = 3, .value_bits = 3, .dealt = false},
      {.choice = "lut:form=bit,fuse=yes", .pool = 2, .value_bits = 3, .fan_out = 3},
      {.choice = "lut", .kind = kRelu},
      {.choice = "lut", .kind = kRelu, .shift = 2, .out_bits = 3},
      {.choice = "lut:chunks=2", .kind = kRelu, .shift = 2},
      {.choice = "lut:form=bit", .kind = kRelu, .shift = 2, .dealt = false},
      {.choice = "lut:chunks=4,form=bit", .kind = kRelu, .shift = 3, .value_bits = 8},
      {.choice = "lut:chunks=4,form=bit",
       .kind = kRelu,
       .shift = 3,
       .value_bits = 8,
       .out_bits = 5},
      {.choice = "lut:form=tree", .value_bits = 9},
      {.choice = "lut:form=tree", .value_bits = 10, .batch = 16, .dealt = false},
      {.choice = "lut:form=tree", .kind = kRelu, .shift = 4, .value_bits = 10},
      {.choice = "lut:form=tree", .kind = kRelu, .value_bits = 9, .dealt = false, .multiplier = 1},
      {.choice = "lut:form=tree", .kind = kRelu, .shift = 4, .value_bits = 10, .opened = true},
      {.choice = "lut:form=tree", .kind = kSquare, .shift = 4, .value_bits = 9},
      {.choice = "lut:form=tree", .pool = 2, .value_bits = 9},
      {.choice = "lut:form=tree,fuse=yes", .value_bits = 9, .fan_out = 2},
      {.choice = "lut", .kind = kRelu, .pool = 2, .value_bits = 3},
      {.choice = "lut", .kind = kSquare, .out_bits = 8},
      {.choice = "lut", .kind = kSquare, .shift = 2},
      {.choice = "lut", .kind = kTable, .value_bits = 3},
      {.choice = "lut", .kind = kTable, .value_bits = 2, .dealt = false},
      {.choice = "lut", .kind = kTable, .shift = 2},
      {.choice = "lut:chunks=2", .kind = kTable, .shift = 3, .dealt = false},
      {.choice = "lut:form=bit", .kind = kTable, .shift = 2, .value_bits = 4},
      {.choice = "lut:fuse=yes", .value_bits = 7, .fan_out = 3},
      {.choice = "lut:chunks=1,fuse=yes", .dealt = false, .fan_out = 2},
      {.choice = "lut:chunks=2,form=bit,fuse=yes", .fan_out = 3},
      {.choice = "lut:fuse=yes", .pool = 2, .value_bits = 3, .fan_out = 1},
      {.choice = "fss:fuse=yes", .fan_out = 2},
      {.choice = "fss:fuse=yes", .value_bits = 8, .batch = 4, .dealt = false, .fan_out = 3},
      {.choice = "fss:form=bit,fuse=yes", .fan_out = 2},
      {.choice = "fss:fuse=yes", .pool = 2, .value_bits = 3, .fan_out = 1},
      {.choice = "fss:fuse=yes",  // the OR by a point function
       .pool = 2,
       .value_bits = 3,
       .out_bits = 8,
       .batch = 2,
       .fan_out = 8},
      {.choice = "lut", .value_bits = 7, .multiplier = 1},
      {.choice = "lut", .value_bits = 7, .multiplier = 2},
      {.choice = "lut:chunks=3,form=bit", .value_bits = 7, .dealt = false, .multiplier = 1},
      {.choice = "lut", .pool = 2, .value_bits = 3, .multiplier = 2},
      {.choice = "lut", .kind = kRelu, .shift = 2, .multiplier = 1},
      {.choice = "lut:form=bit", .kind = kRelu, .shift = 2, .multiplier = 2},
      {.choice = "lut", .kind = kRelu, .pool = 2, .value_bits = 3, .multiplier = 1},
      {.choice = "lut", .kind = kRelu, .pool = 2, .value_bits = 3, .multiplier = 2},
      {.choice = "lut", .kind = kTable, .value_bits = 3, .multiplier = 2},
      {.choice = "fss:fuse=yes", .multiplier = 2, .fan_out = 2},
      {.choice = "lut:fuse=yes", .value_bits = 7, .multiplier = 1, .fan_out = 3},
      {.choice = "lut", .value_bits = 7, .opened = true},
      {.choice = "lut", .value_bits = 7, .dealt = false, .opened = true},
      {.choice = "lut:chunks=3,form=bit", .value_bits = 7, .opened = true},
      {.choice = "lut", .pool = 2, .value_bits = 3, .opened = true},
      {.choice = "lut", .kind = kRelu, .shift = 2, .dealt = false, .opened = true},
      {.choice = "lut:form=bit", .kind = kRelu, .shift = 2, .opened = true},
      {.choice = "lut", .kind = kRelu, .pool = 2, .value_bits = 3, .opened = true},
      {.choice = "lut", .kind = kTable, .shift = 2, .opened = true},
      {.choice = "fss"},  // no tree, a leaf alone
      {.choice = "fss", .value_bits = 8, .batch = 4},
      {.choice = "fss", .dealt = false},
      {.choice = "fss:form=bit"},
      {.choice = "fss:form=bit", .value_bits = 9, .dealt = false},
      {.choice = "fss", .pool = 2, .value_bits = 3},
      {.choice = "fss", .pool = 3, .value_bits = 3},
      {.choice = "fss:form=bit", .pool = 2, .value_bits = 3},
      {.choice = "fss", .kind = kRelu, .value_bits = 4},
      {.choice = "fss", .kind = kRelu, .value_bits = 6},  // no wrap
      {.choice = "fss", .kind = kRelu, .shift = 2, .dealt = false},
      {.choice = "fss:form=bit", .kind = kRelu, .pool = 2, .value_bits = 3},
      {.choice = "fss", .kind = kSquare, .value_bits = 4},
      {.choice = "fss", .kind = kSquare, .shift = 2},
      {.choice = "fss", .kind = kTable, .value_bits = 3},
      {.choice = "fss", .kind = kTable, .shift = 3},
      {.choice = "fss:form=bit", .kind = kTable, .shift = 2, .dealt = false},
      {.choice = "fss", .value_bits = 8, .batch = 4, .multiplier = 1},
      {.choice = "fss", .multiplier = 2},
      {.choice = "fss", .pool = 2, .value_bits = 3, .multiplier = 1},
      {.choice = "fss", .kind = kSquare, .shift = 2, .multiplier = 2},
      {.choice = "fss", .value_bits = 8, .batch = 4, .opened = true},
      {.choice = "fss", .dealt = false, .opened = true},
      {.choice = "fss", .pool = 2, .value_bits = 3, .opened = true},
      {.choice = "fss", .kind = kSquare, .shift = 2, .opened = true},
      {.choice = "aby3"},
      {.choice = "aby3", .opened = true},
      {.choice = "aby3", .kind = kRelu, .pool = 2, .value_bits = 3, .opened = true},
      {.choice = "aby3", .kind = kRelu, .out_bits = 9, .opened = true},
      {.choice = "aby3", .kind = kSquare, .shift = 2, .opened = true},
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

std::vector<LayerCase> LeakCases() {
  return {{.choice = "insecure_open"},
          {.choice = "cbnn", .out_bits = 8},
          {.choice = "lut_own_key:chunks=2"},
          {.choice = "lut_bare_bits:chunks=2"},
          {.choice = "lut_bare_share:chunks=2"},
          {.choice = "lut_mask_twice:chunks=2"},
          {.choice = "lut_bare_top:chunks=2"},
          // E1 is masked by a key that E2 lacks; with evaluator 2 it sends the other's part of all.
          {.choice = "lut_own_key:chunks=2", .multiplier = 2},
          {.choice = "lut_bare_bits:chunks=2", .multiplier = 2},
          {.choice = "lut_bare_share:chunks=2", .multiplier = 2},
          {.choice = "lut_mask_twice:chunks=2", .multiplier = 2},
          {.choice = "lut_bare_top:chunks=2", .multiplier = 2},
          {.choice = "lut_bare_bits:chunks=2", .multiplier = 1},
          {.choice = "lut_bare_top:chunks=2", .multiplier = 1},
          {.choice = "fss_own_key", .multiplier = 2},
          {.choice = "fss_bare_share", .multiplier = 2},
          {.choice = "fss_bare_top", .multiplier = 2},
          // Where nothing is opened, and where D opens its share to both evaluators.
          {.choice = "lut_own_key:chunks=2", .opened = true},
          {.choice = "lut_bare_bits:chunks=2", .opened = true},
          {.choice = "lut_bare_share:chunks=2", .opened = true},
          {.choice = "lut_mask_twice:chunks=2", .opened = true},
          {.choice = "lut_bare_top:chunks=2", .dealt = false, .opened = true},
          {.choice = "fss_bare_share", .opened = true},
          {.choice = "fss_mask_twice", .opened = true},
          {.choice = "fss_bare_top", .dealt = false, .opened = true},
          {.choice = "aby3_bare_bits", .opened = true},
          {.choice = "aby3_bare_share", .opened = true},
          {.choice = "aby3_mask_twice", .opened = true},
          {.choice = "lut_own_key", .kind = kRelu},
          {.choice = "lut_bare_parts:form=tree", .kind = kRelu, .shift = 5, .value_bits = 12},
          {.choice = "lut_bare_bits:form=tree", .kind = kRelu, .shift = 5, .value_bits = 12},
          {.choice = "lut_bare_product:form=tree", .kind = kRelu, .shift = 5, .value_bits = 12},
          {.choice = "lut_bare_product:form=bit", .kind = kRelu, .shift = 2},
          {.choice = "lut_bare_product:chunks=5", .kind = kRelu, .shift = 2, .value_bits = 7},
          {.choice = "lut_bare_bits", .pool = 2},
          {.choice = "lut_bare_or:form=bit", .pool = 2},
          {.choice = "lut_bare_or", .pool = 2, .multiplier = 2},
          {.choice = "lut_bare_share", .dealt = false},
          {.choice = "lut_bare_top", .kind = kSquare},
          {.choice = "lut_own_key", .kind = kTable, .shift = 2},
          // its first draw after that of open_masked: the table's
          {.choice = "lut_bare_bits", .kind = kTable, .value_bits = 3},
          {.choice = "lut_bare_index", .kind = kTable, .shift = 2},
          {.choice = "lut_bare_share", .kind = kTable, .value_bits = 3},
          {.choice = "lut_bare_top", .kind = kTable, .value_bits = 3},
          {.choice = "lut_own_key:chunks=2,fuse=yes", .fan_out = 2},
          {.choice = "lut_bare_bits:chunks=2,fuse=yes", .fan_out = 2},
          {.choice = "lut_bare_products:chunks=2,fuse=yes", .fan_out = 3},
          {.choice = "lut_products_twice:chunks=2,fuse=yes", .fan_out = 3},
          {.choice = "lut_bare_products:chunks=2,form=bit,fuse=yes", .fan_out = 3},
          {.choice = "lut_products_twice:chunks=1,fuse=yes", .dealt = false, .fan_out = 2},
          {.choice = "fss_mask_twice:fuse=yes", .fan_out = 2},
          {.choice = "fss_bare_top:fuse=yes", .fan_out = 2},
          {.choice = "fss_own_key"},
          {.choice = "fss_own_key:form=bit"},
          {.choice = "fss_own_key", .kind = kRelu, .shift = 2},
          {.choice = "fss_bare_bits:form=bit"},
          {.choice = "fss_bare_bits", .kind = kRelu, .shift = 2, .dealt = false},
          {.choice = "fss_bare_bits", .pool = 2},
          {.choice = "fss_bare_share"},
          {.choice = "fss_bare_share", .kind = kTable, .shift = 2},
          {.choice = "fss_mask_twice"},
          {.choice = "fss_mask_twice", .value_bits = 8, .batch = 4},
          {.choice = "fss_bare_top"},
          {.choice = "fss_bare_top", .kind = kSquare},
          {.choice = "aby3_own_key"},
          {.choice = "aby3_own_key", .kind = kRelu, .shift = 2},
          {.choice = "aby3_bare_bits"},
          {.choice = "aby3_bare_bits", .kind = kRelu, .shift = 2},
          {.choice = "aby3_bare_bits", .pool = 2},
          {.choice = "aby3_bare_share"},
          {.choice = "aby3_bare_share", .kind = kSquare},
          {.choice = "aby3_bare_share", .kind = kRelu, .shift = 2},
          {.choice = "aby3_mask_twice"},
          {.choice = "aby3_mask_twice", .kind = kRelu, .out_bits = 9},
          {.choice = "aby3_bare_top"},
          {.choice = "aby3_bare_top", .kind = kSquare, .shift = 2}};
}

int UsualHelper(const LayerCase& c) { return static_cast<int>(c.value_bits % 3); }

std::vector<std::string> LayerFindings(const LayerCase& c, int helper) {
  std::vector<std::string> findings;
  const auto layer = MakeLayer(c, helper);
  if (!layer) {
    ADD_FAILURE() << "the suite has no such layer";
    return findings;
  }
  // E2 first, to whom most leaks leak.
  for (const int receiver : {PrevParty(helper), NextParty(helper), helper})
    if (findings.empty())
      for (auto& finding : Findings(LayerScenario(*layer, receiver), receiver))
        findings.push_back(fmt::format("party {}: {}", receiver, std::move(finding)));
  return findings;
}

}  // namespace tercet::conformance
