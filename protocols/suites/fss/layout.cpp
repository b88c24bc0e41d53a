// SPDX-License-Identifier: Apache-2.0
#include "suites/fss/layout.h"

#include <algorithm>

#include "common/dealer/activation.h"

namespace tercet::protocols::fss {
std::size_t Layout::FirstBytes(std::size_t count) const {
  std::size_t bytes = 0;
  for (const auto& shape : shapes) bytes += shape.FirstBytes(count);
  return bytes;
}

std::size_t Layout::RestBytes(std::size_t count) const {
  std::size_t bytes = 0;
  for (const auto& shape : shapes) bytes += shape.RestBytes(count);
  return bytes;
}

std::size_t Layout::PieceElements() const {
  const std::size_t chunk = FirstBytes(kChunk) + RestBytes(kChunk);
  return std::max<std::size_t>(1, kPieceBytes / chunk) * kChunk;
}

std::optional<Layout> PointLayout(const mpc::ActivationSpec& spec) {
  if (!spec.pool || !spec.next) return std::nullopt;
  const dealer::OrStep last = dealer::PoolSteps(spec, true).back();
  Layout layout;
  layout.arithmetic = true;
  layout.shapes = {{.input_bits = last.width,
                    .output_bits = spec.out_bits,
                    .outputs = static_cast<unsigned>(1 + dealer::FanOut(spec)),
                    .point = true}};
  const std::size_t entries =
      ring::PackedBytes(kChunk * dealer::DealtOfOr(last, spec), spec.out_bits);
  if (layout.FirstBytes(kChunk) + 2 * layout.RestBytes(kChunk) >= entries) return std::nullopt;
  return layout;
}

Layout MakeLayout(const mpc::ActivationSpec& spec, const mpc::OptionValues& options) {
  Layout layout;
  const dealer::Formula formula(spec);
  // Elements at once follow from one comparison alone, and several are of a ring of 2 bits or more.
  const auto outputs =
      static_cast<unsigned>(Compared(formula, spec.out_bits).size() + formula.FanOut());
  layout.arithmetic = options.at("form") != "bit" && !spec.pool && formula.CarryBits() == 0 &&
                      (outputs == 1 || spec.out_bits > 1);
  if (layout.arithmetic) {
    layout.shapes = {MakeDcfShape(formula.ComparedBits(), spec.out_bits, outputs)};
  } else {
    layout.shapes = {MakeDcfShape(formula.ComparedBits(), 1)};
    if (formula.CarryBits() > 0) layout.shapes.push_back(MakeDcfShape(formula.CarryBits(), 1));
  }
  return layout;
}

std::vector<std::size_t> Compared(const dealer::Formula& formula, unsigned out_bits) {
  std::vector<std::size_t> compared;
  const std::size_t elements = formula.Elements(false);
  for (std::size_t j = 0; j < elements; ++j)
    if (formula.Uses(j, 1)) compared.push_back(j);
  if (formula.WrapBits(out_bits) > 0) compared.push_back(dealer::Formula::kWrap);
  return compared;
}

}  // namespace tercet::protocols::fss
