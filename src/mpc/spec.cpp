// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/spec.h"

#include <fmt/format.h>

namespace tercet::mpc {

std::string PerAxisText(const PerAxis& sizes) { return fmt::format("{} x {}", sizes.h, sizes.w); }

std::string ShapeText(const Shape3& shape) {
  return fmt::format("{} x {} x {}", shape.channels, shape.height, shape.width);
}

}  // namespace tercet::mpc
