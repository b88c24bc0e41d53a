// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "tercet/mpc/spec.h"

/// Linear maps with real weights, and their products. Whatever changes a map's shape has a function
/// of shapes alone, which the one of real numbers follows. All functions are thread safe.
namespace tercet::compile {

/// What the architecture alone says of a map.
struct MapShape {
  mpc::LinearShape shape;
  bool biased = false;  ///< whether there is a bias at all
};

/// W x + b on real numbers; padding is the number 0.
struct RealMap : MapShape {
  std::vector<double> weight;
  std::vector<double> bias;  ///< BiasCount() values
};

/// The most weights that a product may have.
constexpr std::size_t kMostWeights = std::size_t{1} << 26;

/// Of DepthwiseMap.
MapShape DepthwiseShape(const mpc::Shape3& in, const mpc::PerAxis& kernel,
                        const mpc::PerAxis& stride, const mpc::Sides& padding);
/// Of AddToBias.
void AddToBiasShape(MapShape& map, bool uneven);
/// Of AddBias, and of ScaleChannels where not `per_element`.
void AddBiasShape(MapShape& map, bool per_element);
/// Of Compose. Nothing when the product would have more than kMostWeights.
std::optional<MapShape> ProductShape(const MapShape& first, const MapShape& second);

/// Every channel by itself: kernel x kernel windows, all weights alike, no bias. With a kernel of 1
/// and a weight of 1 the identity.
RealMap DepthwiseMap(const mpc::Shape3& in, const mpc::PerAxis& kernel, const mpc::PerAxis& stride,
                     const mpc::Sides& padding, double weight);

/// factor_c * (W x + b) + shift_c for each output channel c.
void ScaleChannels(RealMap& map, const std::vector<double>& factor,
                   const std::vector<double>& shift);

/// b + W x for one input x, which is constant and public in kind: `x` has in.Size() values. The map
/// gets a bias per element when `uneven` (x differs within a channel) or where padding meets it.
void AddToBias(RealMap& map, const std::vector<double>& x, bool uneven);

/// Adds to the bias, one value a channel or, when `per_element`, one an element.
void AddBias(RealMap& map, const std::vector<double>& bias, bool per_element);

/// second(first(x)), exactly: one convolution where padding allows it, and otherwise, or where
/// `second` takes the flattened map, one dense matrix, whose output is {features, 1, 1}. Nothing
/// when that would have more than kMostWeights.
std::optional<RealMap> Compose(const RealMap& first, const RealMap& second);

}  // namespace tercet::compile
