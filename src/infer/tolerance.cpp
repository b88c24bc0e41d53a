// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/tolerance.h"

#include <algorithm>
#include <vector>

#include "base/int128.h"
#include "mpc/activation_function.h"

namespace tercet::infer {
namespace {

using nn::LayerWeights;
using nn::PublicLayer;

constexpr Int128 kMost = Int128{1} << 62;  // products of two such, and of weights, do not wrap

// What inputs that are off by 1 make of a linear map's outputs: the largest sum of a row's weights.
Int128 RowNorm(const std::vector<std::int64_t>& weights, std::size_t depth) {
  Int128 norm = 0;
  for (std::size_t first = 0; first < weights.size(); first += depth) {
    Int128 sum = 0;
    for (std::size_t i = first; i < first + depth; ++i)
      sum += weights[i] < 0 ? -Int128{weights[i]} : Int128{weights[i]};
    norm = std::max(norm, sum);
  }
  return std::min(norm, kMost);
}

}  // namespace

std::uint64_t ResultTolerance(const nn::IntegerNetwork& network, const Plan& plan) {
  std::vector<Int128> off{0};  // of what leaves the input and each layer
  for (std::size_t k = 0; k < plan.layers.size(); ++k) {
    const PublicLayer& layer = plan.layers[k].layer;
    const LayerWeights& weights = network.weights[k];
    Int128 values = off.back() * RowNorm(weights.weight, layer.linear.Depth());
    if (layer.shortcut) {
      const auto& map = layer.shortcut->linear;
      values += off[layer.shortcut->from] * RowNorm(weights.shortcut, map ? map->Depth() : 1);
    }
    Int128 out =
        mpc::FunctionOf(layer.activation).Deviation(layer.Activation(1), std::min(values, kMost)) +
        plan.layers[k].tolerance;
    if (layer.sum_pool)
      out = std::min(out, kMost) *
            static_cast<Int128>(layer.sum_pool->Divisor(layer.Activation(1).Out()));
    off.push_back(std::min(out, kMost));
  }
  return static_cast<std::uint64_t>(off.back());
}

}  // namespace tercet::infer
