// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/ranges.h>

#include <string>

namespace tercet {

/// The sizes of a tensor as "[1, 28, 28]".
template <class Sizes>
std::string SizesText(const Sizes& sizes) {
  return fmt::format("[{}]", fmt::join(sizes, ", "));
}

}  // namespace tercet
