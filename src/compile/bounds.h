// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/int128.h"
#include "tercet/nn/integer_network.h"

/// Intervals of the values of integer layers. All functions are thread safe.
namespace tercet::compile {

/// The values low..high that W x + b takes at its outermost outputs, for inputs 0..input_max.
struct Interval {
  Int128 low = 0, high = 0;
};

/// The interval over all outputs of a layer; tight, each end is reached by some input. `layer` says
/// where in a ConfigError, which is thrown when the ends are beyond 127 bits.
Interval ValueInterval(const mpc::LinearShape& shape, const nn::LayerWeights& weights,
                       Int128 input_max, const std::string& layer);

/// -2^(bits-1) <= interval < 2^(bits-1).
bool Fits(const Interval& interval, unsigned bits);

/// Exact, or ConfigError (`layer` says where) beyond 127 bits.
Interval Sum(const Interval& x, const Interval& y, const std::string& layer);

/// What a shortcut adds to its layer's values when 0..input_max enters it.
Interval ShortcutInterval(const nn::Shortcut& shortcut, const std::vector<std::int64_t>& weights,
                          Int128 input_max, const std::string& where);

/// The largest value that leaves a layer whose values lie in `values`, after all pools.
Int128 OutputMax(const nn::PublicLayer& layer, const Interval& values, const std::string& where);

/// The interval of each layer's values, over all inputs in range; that of a layer whose width is
/// not proven is all that its width holds. `place` says where in a ConfigError.
std::vector<Interval> ValueIntervals(const nn::IntegerNetwork& network, const std::string& place);

/// The fewest bits, sign included, that hold the interval.
unsigned BitsOf(const Interval& interval);

/// Decimal digits.
std::string IntegerText(Int128 value);

/// How many weights the summand of a layer has: of its map, or its factor; 0 where there is none.
std::size_t ShortcutWeights(const nn::PublicLayer& layer);
/// Throws InternalError unless the network has as many weights as its layers say.
void CheckSizes(const nn::IntegerNetwork& network);

/// Throws ConfigError unless every layer's interval of values, over all inputs in range, fits its
/// value_bits (of layers whose width is not `proven`, values are taken to fit).
void ProveWidths(const nn::IntegerNetwork& network, const std::string& place);

}  // namespace tercet::compile
