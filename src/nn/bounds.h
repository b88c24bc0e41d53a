#pragma once

#include <cstdint>
#include <string>

#include "tercet/nn/integer_network.h"

/// Intervals of the values of integer layers. All functions are thread safe.
namespace tercet::nn {

/// Wide enough that sums of 64-bit integers over a layer do not wrap.
__extension__ typedef __int128
    Int128;  // NOLINT(modernize-use-using): `using` takes no __extension__

/// The values low..high that W x + b takes at its outermost outputs, for inputs 0..input_max.
struct Interval {
  Int128 low = 0, high = 0;
};

/// The interval over all outputs of a layer; tight, each end is reached by some input. `layer` says
/// where in a ConfigError, which is thrown when the ends are beyond 127 bits.
Interval ValueInterval(const mpc::LinearShape& shape, const LayerWeights& weights, Int128 input_max,
                       const std::string& layer);

/// -2^(bits-1) <= interval < 2^(bits-1).
bool Fits(const Interval& interval, unsigned bits);

/// Exact, or ConfigError (`layer` says where) beyond 127 bits.
Int128 Product(Int128 x, Int128 y, const std::string& layer);
Interval Sum(const Interval& x, const Interval& y, const std::string& layer);

/// Decimal digits.
std::string IntegerText(Int128 value);

/// The tensor's name in messages: "FILE tensor NAME".
inline std::string TensorPlace(const std::string& file, const std::string& tensor) {
  return file + " tensor " + tensor;
}

}  // namespace tercet::nn
