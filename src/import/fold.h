// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "import/model_parts.h"

/// What nodes compute of constants alone: exporters leave such arithmetic on weights and shapes.
namespace tercet::importer {

/// The node's inputs; null where one is absent.
using Inputs = std::vector<std::optional<Array>>;

/// Whether Fold knows the node's operator, in whatever domain.
bool CanFold(const Node& node);

/// What a node for which CanFold holds gives for its inputs, as ONNX defines it; floats are rounded
/// as such. ConfigError (place: that of the node) where the inputs do not fit the operator.
Array Fold(Node& node, const Inputs& inputs);

/// Elements of a shape; an error of the node when there are too many.
std::size_t CountOf(const Node& node, const Sizes& shape);

/// The array as one of `shape`, to which it is broadcast as in numpy.
Array Broadcast(const Node& node, const Array& array, const Sizes& shape);

/// The places that a Slice takes in each axis that it says. `integers` gives those of an input.
std::map<std::size_t, std::vector<std::size_t>> SlicedPlaces(
    Node& node, const Sizes& shape, const std::function<std::optional<Sizes>(int)>& integers);

/// The shape with an axis of size 1 at each of `axes`, which count in what comes out.
Sizes UnsqueezedShape(const Node& node, const Sizes& shape, const Sizes& axes);

/// Index of the element of a transposed array in the one before, for each element: axis i of what
/// comes out is axis permutation[i] of `shape`.
std::vector<std::size_t> TransposedOrder(const Sizes& shape,
                                         const std::vector<std::size_t>& permutation);

}  // namespace tercet::importer
