// SPDX-License-Identifier: Apache-2.0
#include "tercet/nn/run_plain.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "nn/sum_windows.h"
#include "tercet/base/error.h"

namespace tercet::nn {
namespace {

using Values = std::vector<std::int64_t>;

/// Images at a time.
constexpr std::size_t kBatch = 32;

ValueRange RangeOf(const Values& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {*low, *high};
}

// Sums wrap as the ring's do; widths that hold rule that out.
void AddTo(Values& z, const Values& x, std::int64_t factor) {
  for (std::size_t i = 0; i < z.size(); ++i)
    z[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(z[i]) +
                                     static_cast<std::uint64_t>(factor) *
                                         static_cast<std::uint64_t>(x[i]));
}

// W x + b + shortcut.
Values LayerValues(const PublicLayer& layer, const LayerWeights& weights, const mpc::Oracle& oracle,
                   const std::vector<Values>& outputs, const Values& x, std::size_t batch) {
  Values z = oracle.Linear(layer.linear, weights.weight, weights.bias, x, batch);
  if (!layer.shortcut) return z;
  const Shortcut& shortcut = *layer.shortcut;
  const Values& from = outputs[shortcut.from];
  if (!shortcut.linear) {
    AddTo(z, from, weights.shortcut.at(0));
    return z;
  }
  const Values no_bias(shortcut.linear->BiasCount(), 0);
  AddTo(z, oracle.Linear(*shortcut.linear, weights.shortcut, no_bias, from, batch), 1);
  return z;
}

// Activation and pools.
Values LayerOutput(const PublicLayer& layer, const mpc::Oracle& oracle, const Values& z,
                   std::size_t batch) {
  const mpc::ActivationSpec spec = layer.Activation(batch);
  Values y = oracle.Activate(spec, z);
  if (!layer.sum_pool) return y;
  Values sums(layer.Out().Size() * batch);
  SumWindows(spec.Out(), *layer.sum_pool, y.data(), batch, sums.data());
  return sums;
}

}  // namespace

unsigned ValueRange::Bits() const {
  const auto bits = [](std::int64_t v) {
    return static_cast<unsigned>(std::bit_width(static_cast<std::uint64_t>(v < 0 ? ~v : v))) + 1;
  };
  return std::max(bits(low), bits(high));
}

double ValueRange::HeadRoom(unsigned width) const {
  const double largest = std::max({-static_cast<double>(low), static_cast<double>(high) + 1, 1.0});
  return width - 1 - std::log2(largest);
}

std::vector<std::int64_t> RunPlain(const IntegerNetwork& network, const mpc::Oracle& oracle,
                                   const files::Images& images, std::size_t first,
                                   std::size_t count, std::vector<ValueRange>* ranges) {
  const std::size_t classes = network.net.Classes();
  const std::size_t layers = network.weights.size();
  std::vector<std::int64_t> logits(count * classes);
  for (std::size_t done = 0; done < count; done += kBatch) {
    const std::size_t batch = std::min(kBatch, count - done);
    // What leaves the input and each layer; kept for shortcuts.
    std::vector<Values> outputs{QuantiseInput(network.net.input, images, first + done, batch)};
    for (std::size_t l = 0; l < layers; ++l) {
      const PublicLayer& layer = network.net.layers[l];
      const Values z =
          LayerValues(layer, network.weights[l], oracle, outputs, outputs.back(), batch);
      const ValueRange range = RangeOf(z);
      if (range.Bits() > layer.value_bits)
        throw ConfigError(fmt::format("network {} layer {}", network.net.name, layer.name),
                          fmt::format("a value of {} bits, expected at most {}; give the layer "
                                      "more head-room",
                                      range.Bits(), layer.value_bits));
      if (ranges != nullptr) {
        if (ranges->size() < layers) {
          ranges->resize(l);
          ranges->push_back(range);
        } else {
          (*ranges)[l] = {std::min((*ranges)[l].low, range.low),
                          std::max((*ranges)[l].high, range.high)};
        }
      }
      outputs.push_back(LayerOutput(layer, oracle, z, batch));
    }
    const Values& x = outputs.back();
    for (std::size_t c = 0; c < classes; ++c)
      for (std::size_t b = 0; b < batch; ++b) {
        const std::int64_t value = x[c * batch + b];
        logits[(done + b) * classes + c] = network.net.OnlyClass() ? 1 - value : value;
      }
  }
  return logits;
}

template <class T>
std::vector<std::uint8_t> Predictions(const std::vector<T>& logits, std::size_t classes) {
  TERCET_CHECK(classes > 0 && classes <= kMaxClasses && logits.size() % classes == 0,
               "{} logits of {} classes; expected up to {} classes and all of each image",
               logits.size(), classes, kMaxClasses);
  std::vector<std::uint8_t> predictions;
  predictions.reserve(logits.size() / classes);
  const T* row = logits.data();
  for (; row != logits.data() + logits.size(); row += classes)
    predictions.push_back(static_cast<std::uint8_t>(std::max_element(row, row + classes) - row));
  return predictions;
}
template std::vector<std::uint8_t> Predictions(const std::vector<std::int64_t>&, std::size_t);
template std::vector<std::uint8_t> Predictions(const std::vector<float>&, std::size_t);
template std::vector<std::uint8_t> Predictions(const std::vector<double>&, std::size_t);

}  // namespace tercet::nn
