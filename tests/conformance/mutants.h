// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tercet/mpc/registry.h"

namespace tercet::conformance {

/// Suites that compute the right function and keep nothing secret: one of the private suites, lut,
/// fss or aby3, with one mask done wrong, at all who hold it alike. Each was put into lut on
/// purpose once and passed the tests of the day. Each says of itself that it is private, and takes
/// the options of its suite, whose name begins its own: "lut_own_key".
///
///     own_key      what E1 and E2 send each other is masked by the key that both hold
///     bare_bits    E1's mask of opened bits is 0: of flags, or in aby3 its share of a random bit.
///                  Of fss without a table, where they are opened (form=bit, shift or pool)
///     bare_share   x_{D+1} = 0 in reshare_evaluators; in aby3 what D and E1 draw in each reshare
///     mask_twice   one mask for two rows of a table; in fss one root for two functions, in aby3
///                  one mask for two rows of bits that D shares
///     bare_top     E1's mask in open_masked lacks its top bit
///     bare_index   E1's mask of a table's opened index is 0; of lut alone
///     bare_product   E1's mask of the second bit of a selection, the carry or its product with the
///                  sign, is 0 (form=bit, without pool); of lut alone
///     bare_parts   E1's mask of the flags that follow from those of groups is 0 (form=tree); of
///     lut
///                  alone
///     bare_or      E1's mask of the OR of a window is 0 (2 x 2 max-pool, form=bit); of lut alone
///     bare_products, products_twice   of a fused layer (sign, without pool; lut alone): products
///                  with the columns of the map that follows are dealt without masks, or the first
///                  two of each element under one
///
/// The linear layers send nothing, so there is nothing to be done wrong in them; what surrounds
/// them in a query is looked at by leaving out its draws one by one.
std::vector<std::string> MutantNames(const std::string& suite);
/// Of one suite, which must outlive the registry.
void RegisterMutants(mpc::Registry& registry, const mpc::Suite& suite);

}  // namespace tercet::conformance
