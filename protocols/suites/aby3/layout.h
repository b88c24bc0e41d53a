// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "suites/aby3/adder.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::aby3 {

using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::Roles;

/// Sizes that costs and messages have in common; public.
struct Layout {
  explicit Layout(const ActivationSpec& spec)
      : relu(spec.kind == ActivationKind::kRelu),
        square(spec.kind == ActivationKind::kSquare),
        shift(relu || square ? spec.shift : 0),
        carries{{square ? spec.value_bits : spec.value_bits - 1}},
        window(spec.pool ? spec.pool->kernel.Area() : 1) {
    if (shift > 0) carries.push_back({shift});
    const unsigned kept = spec.value_bits - shift;
    const bool wider = spec.out_bits > (shift > 0 ? kept : spec.ring_bits);
    if (relu && wider) wrap_bits = spec.out_bits - kept;
    whole = relu && !wider && shift == 0;
    opened_bits = whole ? std::max(spec.value_bits, spec.out_bits) : spec.value_bits;
  }

  bool relu, square;
  unsigned shift;
  std::vector<AdderShape>
      carries;             ///< out of the low n-1 bits (square: n), then of the low `shift`
  std::size_t window;      ///< elements per output
  unsigned wrap_bits = 0;  ///< ReLU: bits of the output ring above the values'; else 0
  bool whole;              ///< ReLU: a and b go as they are, as elements of the output ring
  unsigned opened_bits;    ///< of b

  /// ReLU with truncation: a carry is multiplied by the sign.
  bool TakesCarry() const { return relu && shift > 0; }
  /// Random bits per output: a mask of each bit that is opened, and the product of two.
  std::size_t RandomBits() const { return carries.size() + (TakesCarry() ? 1 : 0); }
};

/// Throws UnsupportedError where the suite has no such layer.
void Check(const ActivationSpec& spec);

mpc::Cost CostOf(const ActivationSpec& spec, const Roles& roles);

}  // namespace tercet::protocols::aby3
