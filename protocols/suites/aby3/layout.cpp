// SPDX-License-Identifier: Apache-2.0
#include "suites/aby3/layout.h"

#include "common/ot3/bit_times.h"

namespace tercet::protocols::aby3 {

void Check(const ActivationSpec& spec) {
  const bool fixed_point =
      spec.kind == ActivationKind::kRelu || spec.kind == ActivationKind::kSquare;
  if (spec.kind != ActivationKind::kSign && (!fixed_point || spec.pool))
    throw mpc::Refusal(
        spec, "aby3",
        fmt::format("has no {}{}; supported: sign, sign with max-pool, relu, square",
                    mpc::ActivationName(spec.kind), spec.pool ? " with max-pool" : ""));
  if (fixed_point && spec.shift >= spec.value_bits)
    throw mpc::Refusal(
        spec, "aby3",
        fmt::format("cannot truncate values of {} bits by {}", spec.value_bits, spec.shift));
}

mpc::Cost CostOf(const ActivationSpec& spec, const Roles& roles) {
  const Layout layout(spec);
  const int d = roles.helper, e1 = roles.Evaluator1(), e2 = roles.Evaluator2();
  const std::size_t count = spec.Elements(), outputs = spec.Outputs();
  mpc::Cost cost;
  if (layout.TakesCarry())
    cost.Add(mpc::Phase::kOffline, mpc::ReshareRound(ring::PackedBytes(outputs, 1)));
  ot3::BitTimes::AddCost(d, layout.RandomBits() * outputs, spec.out_bits, mpc::Phase::kOffline,
                         cost);

  const auto add = [&](mpc::Round round) { cost.Add(mpc::Phase::kOnline, std::move(round)); };
  const std::uint64_t opened = ring::PackedBytes(count, layout.opened_bits);
  mpc::Round first;
  if (!spec.opened) first = {{e1, e2, opened}, {e2, e1, opened}};
  const AdderShape& widest = layout.carries.front();
  if (widest.width > 0) first.push_back({d, e2, ring::PackedBytes(count * widest.SharedRows(), 1)});
  const std::uint64_t wrap = ring::PackedBytes(count, layout.wrap_bits);
  if (layout.relu || layout.square)
    first.push_back({d, e2, ring::PackedBytes(count, spec.out_bits)});
  if (layout.wrap_bits > 0) first.push_back({d, e2, wrap});
  add(std::move(first));
  mpc::Round second;
  const auto exchange = [&](std::uint64_t bytes) {
    second.push_back({e1, e2, bytes});
    second.push_back({e2, e1, bytes});
  };
  const bool has_tree = Adder::HasTree(layout.carries);
  if (has_tree) exchange(ring::PackedBytes(count * Adder::LeafRows(layout.carries), 1));
  if (layout.wrap_bits > 0) exchange(wrap);
  if (!second.empty()) add(std::move(second));
  if (has_tree) {
    for (const std::size_t rows : Adder::Levels(layout.carries))
      add(mpc::ReshareRound(ring::PackedBytes(count * rows, 1)));
  }
  if (layout.window > 1) {
    add(mpc::ReshareRound(ring::PackedBytes(count, 1)));
    for (const std::size_t rows : mpc::AndTreeLevels(layout.window))
      add(mpc::ReshareRound(ring::PackedBytes(outputs * rows, 1)));
  }
  mpc::Round open = mpc::OpenRound(ring::PackedBytes(layout.carries.size() * outputs, 1));
  if (layout.relu)
    for (const auto& message : mpc::ReshareRound(ring::PackedBytes(count, spec.out_bits)))
      open.push_back(message);
  add(std::move(open));
  if (layout.square) add(mpc::ReshareRound(ring::PackedBytes(count, spec.out_bits)));
  return cost;
}

}  // namespace tercet::protocols::aby3
