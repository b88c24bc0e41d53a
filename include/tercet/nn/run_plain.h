// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "tercet/mpc/registry.h"
#include "tercet/nn/integer_network.h"

/// The integer network in the clear.
namespace tercet::nn {

/// The smallest and the largest value that entered a layer's activation.
struct ValueRange {
  std::int64_t low = 0, high = 0;
  /// Bits, sign included, that hold them.
  unsigned Bits() const;
  /// By how many bits (a logarithm) the largest value may grow before it does not fit `width` bits.
  double HeadRoom(unsigned width) const;
};

/// Logits of images [first, first + count), image after image; of a network that gives only the
/// class, 1 for the class and 0 for the others. `ranges` (may be null) takes the range of each
/// layer's values, widening what is in it when it has one entry for each layer. Throws ConfigError
/// when a value does not fit its layer's width, which can happen only where the width is not
/// proven. Thread safe.
std::vector<std::int64_t> RunPlain(const IntegerNetwork& network, const mpc::Oracle& oracle,
                                   const files::Images& images, std::size_t first,
                                   std::size_t count, std::vector<ValueRange>* ranges = nullptr);

/// Index of the largest logit of each image, the first where several are equal. T: std::int64_t,
/// float, double. Up to kMaxClasses. Thread safe.
template <class T>
std::vector<std::uint8_t> Predictions(const std::vector<T>& logits, std::size_t classes);

}  // namespace tercet::nn
