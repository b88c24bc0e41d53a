// SPDX-License-Identifier: Apache-2.0
#include "compile/compare_classes.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "compile/bounds.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/compile/announcement.h"

namespace tercet::compile {
namespace {

/// The largest max-pool that the default suite has, over which a class's comparisons are joined.
constexpr std::size_t kMaxWindow = 8;

/// Which two logits each output subtracts: of class k, the others in order, then the last of them
/// again until there are window^2.
struct Pair {
  std::size_t winner, other;
};

std::vector<Pair> Pairs(std::size_t classes, std::size_t window) {
  std::vector<Pair> pairs;
  for (std::size_t k = 0; k < classes; ++k) {
    const std::size_t last = k + 1 == classes ? k - 1 : classes - 1;
    for (std::size_t i = 0; i < window * window; ++i) {
      const std::size_t other = i < k ? i : i + 1;
      pairs.push_back({k, other < classes ? other : last});
    }
  }
  return pairs;
}

/// Rows `depth` long: that of the other class minus that of the winner.
std::vector<std::int64_t> Differences(const std::vector<std::int64_t>& rows, std::size_t depth,
                                      const std::vector<Pair>& pairs) {
  std::vector<std::int64_t> differences;
  differences.reserve(pairs.size() * depth);
  for (const Pair& pair : pairs)
    for (std::size_t i = 0; i < depth; ++i)
      differences.push_back(rows[pair.other * depth + i] - rows[pair.winner * depth + i]);
  return differences;
}

/// The side of the smallest square that holds all but one of the classes.
std::size_t Window(std::size_t classes) {
  std::size_t window = 1;
  while (window * window < classes - 1) ++window;
  return window;
}

/// The rows of factor * identity.
std::vector<std::int64_t> ScaledIdentity(std::size_t n, std::int64_t factor) {
  std::vector<std::int64_t> rows(n * n);
  for (std::size_t i = 0; i < n; ++i) rows[i * n + i] = factor;
  return rows;
}

}  // namespace

void CompareClasses(nn::PublicNetwork& network) {
  nn::PublicLayer& layer = network.layers.back();
  const std::size_t classes = layer.linear.out_channels;
  const bool shortcut_groups =
      layer.shortcut && layer.shortcut->linear && layer.shortcut->linear->groups != 1;
  if (layer.linear.Out() != mpc::Shape3{classes, 1, 1} || layer.linear.groups != 1 ||
      shortcut_groups || classes < 2) {
    throw UnsupportedError(fmt::format(
        "layer {}: the compile step does not compare its {} values in {} groups; \"class\" as "
        "output needs a last conv2d or linear of one group with one value for each of at least 2 "
        "classes",
        layer.name, mpc::ShapeText(layer.linear.Out()), layer.linear.groups));
  }
  const std::size_t window = Window(classes);
  if (window > kMaxWindow)
    throw UnsupportedError(fmt::format(
        "layer {}: found {} classes; \"class\" as output, which compares them all with each other, "
        "supports up to {}",
        layer.name, classes, kMaxWindow * kMaxWindow + 1));
  layer.linear.out_channels = classes * window * window;
  layer.linear.bias_per_element = false;
  if (layer.shortcut) {
    auto& shortcut = layer.shortcut->linear;
    if (!shortcut) shortcut = {.in = {classes, 1, 1}, .out_channels = classes};
    shortcut->out_channels = layer.linear.out_channels;
  }
  layer.activation = mpc::ActivationKind::kSign;
  if (window > 1) layer.pool = mpc::PoolShape{window, window};
  layer.compared_classes = classes;
  layer.type += "+class";
}

void CompareClasses(nn::IntegerNetwork& network) {
  nn::PublicLayer& layer = network.net.layers.back();
  nn::LayerWeights& weights = network.weights.back();
  const mpc::LinearShape linear = layer.linear;
  const std::optional<nn::Shortcut> shortcut = layer.shortcut;
  CompareClasses(network.net);
  const std::size_t classes = layer.compared_classes;
  const std::vector<Pair> pairs = Pairs(classes, Window(classes));
  weights.weight = Differences(weights.weight, linear.Depth(), pairs);
  weights.bias = Differences(weights.bias, 1, pairs);
  for (std::size_t i = 0; i < pairs.size(); ++i)
    if (pairs[i].other > pairs[i].winner) --weights.bias[i];  // the lower class wins ties
  if (shortcut) {
    if (!shortcut->linear) weights.shortcut = ScaledIdentity(classes, weights.shortcut.at(0));
    weights.shortcut = Differences(weights.shortcut, layer.shortcut->linear->Depth(), pairs);
  }
  layer.value_bits = layer.proven
                         ? std::max(2U, BitsOf(ValueIntervals(network, network.net.name).back()))
                         : layer.value_bits + kComparisonBits;
}

}  // namespace tercet::compile
