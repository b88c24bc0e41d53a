#include "fss/layout.h"

#include <algorithm>
#include <string>

#include "dealer/steps.h"

namespace tercet::protocols::fss {

std::size_t Layout::PieceElements() const {
  const std::size_t chunk = shape.FirstBytes(kChunk) + shape.RestBytes(kChunk);
  return std::max<std::size_t>(1, kPieceBytes / chunk) * kChunk;
}

Layout MakeLayout(const mpc::ActivationSpec& spec, const mpc::SuiteChoice& choice) {
  if (spec.kind != mpc::ActivationKind::kSign)
    throw UnsupportedError(
        fmt::format("layer {}: suite fss has no {}; it has sign, and sign with max_pool2d",
                    spec.layer, mpc::ActivationName(spec.kind)));
  if (spec.value_bits < 2 || spec.value_bits > ring::kMaxBits)
    throw UnsupportedError(fmt::format("layer {}: suite fss takes values of 2..{} bits, not {}",
                                       spec.layer, ring::kMaxBits, spec.value_bits));
  if (spec.pool && spec.pool->kernel > dealer::kMaxWindow)
    throw UnsupportedError(
        fmt::format("layer {}: suite fss takes sign with pools of up to {} x {}, not {}",
                    spec.layer, dealer::kMaxWindow, dealer::kMaxWindow, spec.pool->kernel));
  Layout layout;
  layout.arithmetic = !spec.pool;
  for (const auto& [key, value] : choice.options) {
    if (key != "form" || (value != "arith" && value != "bit" && value != "auto"))
      throw ConfigError("suite " + choice.Text(),
                        fmt::format("{}={} found; the option is form=arith|bit|auto", key, value));
    if (value == "bit") layout.arithmetic = false;
  }
  layout.shape = MakeDcfShape(spec.value_bits - 1, layout.arithmetic ? spec.out_bits : 1);
  if (!layout.arithmetic) layout.steps = dealer::PoolSteps(spec);
  return layout;
}

mpc::Cost LayoutCost(const Layout& layout, const mpc::ActivationSpec& spec,
                     const mpc::Roles& roles) {
  mpc::Cost cost;
  dealer::AddOpenMasked(cost, spec, roles);
  ForRanges(spec.Elements(), layout.PieceElements(), [&](std::size_t, std::size_t count) {
    const std::uint64_t shared = layout.SharedBytes(count);
    cost.Add(mpc::Phase::kOffline,
             {{roles.helper, roles.Evaluator1(), shared},
              {roles.helper, roles.Evaluator2(), shared + layout.shape.FirstBytes(count)}});
  });
  dealer::AddOrSteps(cost, layout.steps, spec, roles);
  dealer::AddExchange(cost, roles, spec.Outputs(), spec.out_bits);  // reshare_evaluators
  return cost;
}

}  // namespace tercet::protocols::fss
