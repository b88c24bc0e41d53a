// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tercet/compile/compile.h"

/// Comparing the float network with what another program computed, layer by layer.
namespace tercet::programs {

/// How far a layer's output is from the reference's, over all images.
struct LayerDifference {
  std::string layer, type;
  bool compared = false;  ///< the reference has this layer; else the rest is 0
  double largest = 0;     ///< absolute difference
  double relative = 0;    ///< that, as a part of the reference's largest value in this layer
  /// How many, and those that differ by more than the tolerance times that largest value.
  std::size_t values = 0, beyond = 0;
};

/// Runs the network on all images and compares each layer that `reference` has: a tensor with the
/// layer's name and the shape images x ..., features in the order channel, row, column; one called
/// "output" is the last layer's, unless a layer has that name. ConfigError ("FILE tensor NAME")
/// when a tensor has another number of images or features or holds NaN or infinity, and ("FILE")
/// when none belongs to a layer. Thread safe.
std::vector<LayerDifference> CompareLayers(const nn::FloatNetwork& network,
                                           const files::Images& images,
                                           const files::TensorFile& reference,
                                           const std::string& file, double tolerance);

/// The same as a table on stdout, with the first layer beyond the tolerance named below it: the
/// exit code, kExitFailed when there is one.
int CheckLayers(const nn::FloatNetwork& network, const files::Images& images,
                const std::string& file, double tolerance);

}  // namespace tercet::programs
