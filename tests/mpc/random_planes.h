// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <random>

#include "tercet/mpc/planes.h"

namespace tercet::mpc {

inline Planes Random(std::mt19937_64& rng, std::size_t rows, std::size_t count) {
  Planes planes(rows, count);
  for (auto& word : planes.All()) word = rng();  // beyond `count` too
  return planes;
}

inline bool Bit(const Planes& planes, std::size_t row, std::size_t e) {
  return (planes[row][e / 64] >> (e % 64) & 1) != 0;
}

}  // namespace tercet::mpc
