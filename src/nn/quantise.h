#pragma once

#include <cstdint>
#include <vector>

#include "nn/bounds.h"
#include "tercet/mpc/spec.h"

/// From real weights to integers of a given width. All functions are thread safe.
namespace tercet::nn {

/// A linear map on integers 0..input_max with real weights: w q + bias.
struct RealLayer {
  mpc::LinearShape shape;  ///< bias_per_element decided
  std::vector<double> weight;
  std::vector<double> bias;  ///< BiasCount() values; infinities mean a Sign that is constant
  std::int64_t input_max = 1;
};

struct QuantisedLayer {
  LayerWeights weights;
  double scale = 1;  ///< integers per real unit; of the logits only
  Interval values;
};

/// Widths that quantising supports: up to the largest, doubles hold every value exactly.
constexpr unsigned kMinWidth = 2, kMaxWidth = 32;

/// Integers whose Sign approximates that of the real layer, each output channel with a scale of its
/// own; they fit `bits`. The bias is rounded down, which changes no Sign, as w q is an integer;
/// where all inputs give the same Sign it is moved towards zero as far as they still do.
QuantisedLayer QuantiseForSign(const RealLayer& layer, unsigned bits);

/// Integers with one scale for all channels, as large as fits `bits`; rounded to nearest.
QuantisedLayer QuantiseLogits(const RealLayer& layer, unsigned bits);

}  // namespace tercet::nn
