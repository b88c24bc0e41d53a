// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "compile/bounds.h"
#include "tercet/mpc/spec.h"

/// From real weights to integers of a given width. All functions are thread safe.
namespace tercet::compile {

/// The number, perhaps no whole one, among the integers that enter a map that stands for the real
/// number 0: 1/2 where 0 and 1 stand for -1 and +1.
struct Zero {
  std::vector<double> at;  ///< of each input element; empty for 0 everywhere
  bool uneven = false;     ///< differs within a channel
};

/// A second summand with real weights, on the integers that it comes from: one factor for all, or a
/// map of its own.
struct RealSummand {
  std::optional<mpc::LinearShape> shape;
  std::vector<double> weight;
  double factor = 1;  ///< without a shape; positive
  Int128 input_max = 1;
  Zero zero;
};

/// A linear map on integers 0..input_max with real weights: w (q - zero) + bias, and perhaps a
/// summand. What the zero adds to the bias follows from the *rounded* weights: where those are
/// exact, so is the sum, and where they are not, their errors do not add up.
struct RealLayer {
  mpc::LinearShape shape;  ///< bias_per_element decided
  std::vector<double> weight;
  std::vector<double> bias;  ///< BiasCount() values; infinities mean a Sign that is constant
  Int128 input_max = 1;
  Zero zero;
  std::optional<RealSummand> summand;
};

/// The smallest and the largest real value of a layer on some images.
struct RealRange {
  double low = 0, high = 0;
};

/// The smallest and the largest value of the layer over all inputs.
RealRange ProvenRange(const RealLayer& layer);

struct QuantisedLayer {
  nn::LayerWeights weights;
  double scale = 1;         ///< integers per real unit; not of layers quantised for Sign
  unsigned shift = 0;       ///< of ReLU, square and table
  Interval values;          ///< proven
  unsigned exact_bits = 0;  ///< hold every partial sum and whatever else is computed with them
  /// What rounding adds to the sums, as a part of their size: root mean squares over inputs that
  /// take all integers alike. 0 where weights (and without Sign the bias) are exact.
  double error = 0;
  /// Output channels whose weights all became zero, though some are not and the bias leaves the
  /// output open.
  std::vector<std::size_t> lost;
};

/// Widths that quantising supports: up to the largest, doubles hold every value exactly.
constexpr unsigned kMinWidth = 2, kMaxWidth = 32;

/// Integers whose Sign approximates that of the real layer, each output channel with a scale of its
/// own; they fit `bits`. Weights that are whole multiples of a common step stay so where the width
/// has room. The bias is rounded down, which changes no Sign, as w q is an integer;
/// where all inputs give the same Sign it is moved towards zero as far as they still do. Without
/// summand.
QuantisedLayer QuantiseForSign(const RealLayer& layer, unsigned bits);

/// What the integers of one scale are for, besides fitting their width.
struct FixedPointTarget {
  mpc::ActivationKind activation = mpc::ActivationKind::kNone;
  unsigned activation_bits = 8;
  /// Of a table: bits of its index, and the real number that one step of it stands for.
  unsigned table_bits = 0;
  double input_scale = 1;
  std::optional<RealRange> seen;
  /// Whether all values must fit; otherwise those seen, with head_room bits to spare.
  bool proven = true;
  unsigned head_room = 0;
};

/// Integers with one scale for all channels, as large as fits `bits`; rounded to nearest. Where all
/// weights and biases are whole multiples of a common step, the scale that makes them so. A
/// summand's factor is exact: the scale is a multiple of what it needs. Nothing when the factor
/// would be less than 1, so that only more bits help.
///
/// ReLU and square end with a division by 2^shift. The shift leaves `activation_bits` bits of the
/// largest value seen (else proven) of a ReLU, and before squaring 3/4 of them, so that the square
/// has 1.5 times as many; half of the divisor is added to the bias, so that the division rounds to
/// nearest. A table gives the scale: all bits beyond those of its index are divided away. Nothing
/// where values may lie beyond the table.
std::optional<QuantisedLayer> QuantiseFixedPoint(const RealLayer& layer, unsigned bits,
                                                 const FixedPointTarget& target);

}  // namespace tercet::compile
