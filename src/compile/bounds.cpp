// SPDX-License-Identifier: Apache-2.0
#include "compile/bounds.h"

#include <fmt/format.h>

#include <algorithm>

#include "mpc/activation_function.h"
#include "nn/windows.h"
#include "tercet/base/error.h"

namespace tercet::compile {

Interval ValueInterval(const mpc::LinearShape& shape, const nn::LayerWeights& weights,
                       Int128 input_max, const std::string& layer) {
  const nn::WindowPatterns patterns(shape);
  const std::size_t area = shape.Out().height * shape.Out().width;
  Interval total;
  for (std::size_t c = 0; c < shape.out_channels; ++c) {
    const std::int64_t* w = weights.weight.data() + c * shape.Depth();
    // Fewer than 2^63 weights of 64 bits each: these sums do not wrap.
    const auto negative =
        patterns.Sums<Int128>([w](std::size_t i) { return std::min<Int128>(w[i], 0); });
    const auto positive =
        patterns.Sums<Int128>([w](std::size_t i) { return std::max<Int128>(w[i], 0); });
    for (std::size_t position = 0; position < area; ++position) {
      const std::size_t pattern = patterns.Of(position);
      const Int128 bias = weights.bias[shape.bias_per_element ? c * area + position : c];
      Interval here;
      if (__builtin_mul_overflow(negative[pattern], input_max, &here.low) ||
          __builtin_mul_overflow(positive[pattern], input_max, &here.high) ||
          __builtin_add_overflow(here.low, bias, &here.low) ||
          __builtin_add_overflow(here.high, bias, &here.high)) {
        throw ConfigError(layer, fmt::format("the values of output channel {} exceed 127 bits", c));
      }
      const bool first = c == 0 && position == 0;
      total.low = first ? here.low : std::min(total.low, here.low);
      total.high = first ? here.high : std::max(total.high, here.high);
    }
  }
  return total;
}

bool Fits(const Interval& interval, unsigned bits) {
  const Int128 bound = Int128{1} << (bits - 1);
  return -bound <= interval.low && interval.high < bound;
}

Interval Sum(const Interval& x, const Interval& y, const std::string& layer) {
  Interval sum;
  if (__builtin_add_overflow(x.low, y.low, &sum.low) ||
      __builtin_add_overflow(x.high, y.high, &sum.high))
    throw ConfigError(layer, "its values may exceed 127 bits");
  return sum;
}

Interval ShortcutInterval(const nn::Shortcut& shortcut, const std::vector<std::int64_t>& weights,
                          Int128 input_max, const std::string& where) {
  if (!shortcut.linear) {
    const Int128 end = Product(weights.at(0), input_max, where);
    return {std::min<Int128>(end, 0), std::max<Int128>(end, 0)};
  }
  mpc::LinearShape shape = *shortcut.linear;
  shape.bias_per_element = false;
  return ValueInterval(shape, {weights, std::vector<std::int64_t>(shape.BiasCount(), 0), {}},
                       input_max, where);
}

Int128 OutputMax(const nn::PublicLayer& layer, const Interval& values, const std::string& where) {
  Int128 max = mpc::FunctionOf(layer.activation)
                   .Largest(layer.Activation(1), values.low, values.high, where);
  if (layer.sum_pool) {
    const mpc::Shape3 in = layer.Activation(1).Out();
    max = Product(max, static_cast<Int128>(layer.sum_pool->Divisor(in)), where);
  }
  return max;
}

std::vector<Interval> ValueIntervals(const nn::IntegerNetwork& network, const std::string& place) {
  std::vector<Interval> intervals;
  std::vector<Int128> max{network.net.InputMax()};  // what leaves the input and each layer
  for (std::size_t l = 0; l < network.weights.size(); ++l) {
    const nn::PublicLayer& layer = network.net.layers[l];
    const nn::LayerWeights& weights = network.weights[l];
    const std::string where = fmt::format("{} layer {}", place, layer.name);
    const Int128 half = Int128{1} << (layer.value_bits - 1);
    Interval values{-half, half - 1};
    if (layer.proven) {
      values = ValueInterval(layer.linear, weights, max.back(), where);
      if (layer.shortcut) {
        const Interval more =
            ShortcutInterval(*layer.shortcut, weights.shortcut, max[layer.shortcut->from], where);
        values = Sum(values, more, where);
      }
    }
    intervals.push_back(values);
    max.push_back(OutputMax(layer, values, where));
  }
  return intervals;
}

unsigned BitsOf(const Interval& interval) {
  unsigned bits = 1;
  while (!Fits(interval, bits)) ++bits;
  return bits;
}

std::string IntegerText(Int128 value) { return fmt::format("{}", value); }

std::size_t ShortcutWeights(const nn::PublicLayer& layer) {
  if (!layer.shortcut) return 0;
  return layer.shortcut->linear ? layer.shortcut->linear->WeightCount() : 1;
}

void CheckSizes(const nn::IntegerNetwork& network) {
  TERCET_CHECK(network.weights.size() == network.net.layers.size(),
               "got weights of {} layers, expected {}", network.weights.size(),
               network.net.layers.size());
  for (std::size_t l = 0; l < network.weights.size(); ++l) {
    const nn::PublicLayer& layer = network.net.layers[l];
    const nn::LayerWeights& weights = network.weights[l];
    TERCET_CHECK(weights.weight.size() == layer.linear.WeightCount() &&
                     weights.bias.size() == layer.linear.BiasCount(),
                 "layer {}: got {} weights and {} biases, expected {} and {}", layer.name,
                 weights.weight.size(), weights.bias.size(), layer.linear.WeightCount(),
                 layer.linear.BiasCount());
    const std::size_t shortcut = ShortcutWeights(layer);
    TERCET_CHECK(weights.shortcut.size() == shortcut,
                 "layer {}: got {} weights of the shortcut, expected {}", layer.name,
                 weights.shortcut.size(), shortcut);
  }
}

void ProveWidths(const nn::IntegerNetwork& network, const std::string& place) {
  CheckSizes(network);
  const std::vector<Interval> intervals = ValueIntervals(network, place);
  for (std::size_t l = 0; l < intervals.size(); ++l) {
    const nn::PublicLayer& layer = network.net.layers[l];
    if (Fits(intervals[l], layer.value_bits)) continue;
    // The bounds are functions of the secret weights, so they stay out of the message.
    throw ConfigError(
        fmt::format("{} layer {}", place, layer.name),
        fmt::format("its values do not fit {} bits, as the model says", layer.value_bits));
  }
}

}  // namespace tercet::compile
