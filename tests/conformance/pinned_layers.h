// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "conformance/harness.h"
#include "conformance/pinned.h"

namespace tercet::conformance {

/// Small, so that runs are many; messages are whole bytes, so that no bit of them is padding.
struct LayerCase {
  std::string choice;
  ActivationKind kind = ActivationKind::kSign;
  std::size_t pool = 0;  ///< kernel and stride
  unsigned shift = 0;
  unsigned value_bits = 5, out_bits = 6;
  std::size_t batch = 8;
  bool dealt = true;
  int multiplier = 0;       ///< evaluator 1 or 2, where one alone multiplies (WithMultiplier)
  bool opened = false;      ///< WithOpened
  std::size_t fan_out = 0;  ///< of the map that the layer is fused with
};
void PrintTo(const LayerCase& c, std::ostream* out);

std::optional<Layer> MakeLayer(const LayerCase& c, int helper);

/// One query of the layer. The receiver's share is the same for both inputs, and the others' are
/// what a missing mask shows at once: zeros, ones, the ends of the range, for half of the elements
/// each.
Scenario LayerScenario(const Layer& layer, int receiver);

/// Every kind of layer of every private suite, in each of its forms.
std::vector<LayerCase> LayerCases();
/// What must be caught: suites that leak, and those whose masks are wrong.
std::vector<LayerCase> LeakCases();
/// The helper of the everyday tests.
int UsualHelper(const LayerCase& c);

/// What the view of a party tells: of the first of the three that tells anything.
std::vector<std::string> LayerFindings(const LayerCase& c, int helper);

}  // namespace tercet::conformance
