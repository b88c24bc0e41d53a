// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "tercet/mpc/spec.h"

/// Numbers of each axis or side in JSON: one number where all are alike. Thread safe.
namespace tercet::nn {

template <class Json = nlohmann::json>
Json AxesToJson(const mpc::PerAxis& sizes) {
  if (sizes.h == sizes.w) return sizes.h;
  return {sizes.h, sizes.w};
}
template <class Json = nlohmann::json>
Json AxesToJson(const mpc::Sides& sides) {
  if (sides == mpc::Sides(sides.top)) return sides.top;
  return {sides.top, sides.left, sides.bottom, sides.right};
}

}  // namespace tercet::nn
