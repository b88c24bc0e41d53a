// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tercet/base/error.h"

namespace tercet {

/// Wide enough that sums of 64-bit integers over a layer do not wrap.
__extension__ typedef __int128
    Int128;  // NOLINT(modernize-use-using): `using` takes no __extension__

/// Exact, or ConfigError (`layer` says where) beyond 127 bits.
inline Int128 Product(Int128 x, Int128 y, const std::string& layer) {
  Int128 product = 0;
  if (__builtin_mul_overflow(x, y, &product))
    throw ConfigError(layer, "its values may exceed 127 bits");
  return product;
}

}  // namespace tercet
