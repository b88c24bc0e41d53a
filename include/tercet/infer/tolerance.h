// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tercet/infer/plan.h"

namespace tercet::infer {

/// By how much a logit of the plan's network may differ from the plain network's: what its layers'
/// suites state, carried through the weights behind them in the worst case; 0 if all are exact. At
/// most 2^62, which stands for more, too. Thread safe.
std::uint64_t ResultTolerance(const nn::IntegerNetwork& network, const Plan& plan);

}  // namespace tercet::infer
