// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tercet/mpc/registry.h"

namespace tercet::conformance {

/// Suites that compute the right function and keep nothing secret: `lut` with one mask done wrong,
/// at all who hold it alike. Each was put in on purpose once and passed the tests of the day. Each
/// says of itself that it is private, and takes the options of `lut`.
///
///     own_key      what E1 and E2 send each other is masked by the key that both hold
///     bare_bits    E1's mask of the opened bits is 0
///     bare_share   x_{D+1} = 0 in reshare_evaluators
///     mask_twice   one mask for two rows of a table
///     bare_top     E1's mask in open_masked lacks its top bit
///     bare_index   E1's mask of a table's opened index is 0
std::vector<std::string> MutantNames();
void RegisterMutants(mpc::Registry& registry, const mpc::Suite& lut);

}  // namespace tercet::conformance
