// SPDX-License-Identifier: Apache-2.0
#include "compile/evaluate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "mpc/activation_function.h"
#include "nn/convolve.h"
#include "nn/sum_windows.h"

namespace tercet::compile {
namespace {

using mpc::ActivationKind;

constexpr std::size_t kBatch = 32;

template <class T>
using Outputs = std::map<std::size_t, std::vector<T>>;

/// A quantised layer with its weights as floating-point numbers.
template <class T>
class FastLayer {
 public:
  FastLayer(const nn::PublicLayer& layer, const QuantisedLayer& quantised)
      : layer_(layer),
        weight_(quantised.weights.weight.begin(), quantised.weights.weight.end()),
        bias_(quantised.weights.bias.begin(), quantised.weights.bias.end()),
        shortcut_(quantised.weights.shortcut.begin(), quantised.weights.shortcut.end()),
        spec_(layer.Activation(1)) {
    spec_.shift = quantised.shift;
  }

  /// W x + b + shortcut for what leaves output `index`.
  std::vector<T> Values(const Outputs<T>& outputs, std::size_t index, std::size_t batch) const {
    std::vector<T> z = nn::Convolve(layer_.linear, weight_, bias_, outputs.at(index), batch);
    if (!layer_.shortcut) return z;
    const std::vector<T>& from = outputs.at(layer_.shortcut->from);
    if (layer_.shortcut->linear) {
      const std::vector<T> more =
          nn::Convolve(*layer_.shortcut->linear, shortcut_, {}, from, batch);
      for (std::size_t i = 0; i < z.size(); ++i) z[i] += more[i];
    } else {
      for (std::size_t i = 0; i < z.size(); ++i) z[i] += shortcut_[0] * from[i];
    }
    return z;
  }

  std::vector<T> Output(std::vector<T> z, std::size_t batch) const {
    mpc::FunctionOf(spec_.kind).Apply(spec_, std::span<T>(z));
    const mpc::Shape3 in = layer_.linear.Out();
    if (layer_.pool)
      z = nn::Pool(in, *layer_.pool, z, batch, [](T a, T b) { return std::max(a, b); });
    if (!layer_.sum_pool) return z;
    std::vector<T> sums(layer_.Out().Size() * batch);
    nn::SumWindows(spec_.Out(), *layer_.sum_pool, z.data(), batch, sums.data());
    return sums;
  }

 private:
  const nn::PublicLayer& layer_;
  std::vector<T> weight_, bias_, shortcut_;
  mpc::ActivationSpec spec_;
};

template <class T>
std::vector<FastLayer<T>> Prepare(const std::vector<nn::PublicLayer>& layers,
                                  const std::vector<QuantisedLayer>& network, std::size_t from,
                                  std::size_t to) {
  std::vector<FastLayer<T>> fast;
  for (std::size_t l = from; l < to; ++l) fast.emplace_back(layers[l], network[l]);
  return fast;
}

/// Whether single precision holds all partial sums of the layers and all that leaves them.
bool Single(const std::vector<QuantisedLayer>& network, std::size_t from) {
  return std::all_of(network.begin() + static_cast<std::ptrdiff_t>(from), network.end(),
                     [](const QuantisedLayer& layer) {
                       return layer.exact_bits <= std::numeric_limits<float>::digits;
                     });
}

template <class T>
Outputs<T> Unpack(const Activations& from, std::size_t chunk) {
  Outputs<T> outputs;
  for (const auto& [index, chunks] : from.outputs)
    outputs[index] = chunks[chunk].template Unpack<T>();
  return outputs;
}

}  // namespace

template <class T>
void Seen::Add(const std::vector<T>& values, std::size_t batch) {
  const bool first = lows.empty();
  const std::size_t elements = values.size() / batch;
  lows.resize(elements);
  highs.resize(elements);
  for (std::size_t e = 0; e < elements; ++e) {
    const T* row = values.data() + e * batch;
    const auto [least, most] = std::minmax_element(row, row + batch);
    lows[e] = first ? *least : std::min<double>(lows[e], *least);
    highs[e] = first ? *most : std::max<double>(highs[e], *most);
  }
  low = *std::min_element(lows.begin(), lows.end());
  high = *std::max_element(highs.begin(), highs.end());
}
template void Seen::Add(const std::vector<float>& values, std::size_t batch);
template void Seen::Add(const std::vector<double>& values, std::size_t batch);

bool Seen::ElementVaries(const mpc::ActivationSpec& spec, std::size_t element) const {
  std::array<double, 2> ends{lows[element], highs[element]};
  const mpc::ActivationFunction& function = mpc::FunctionOf(spec.kind);
  if (function.Monotone()) {
    function.Apply(spec, ends);
  } else if (spec.shift > 0) {
    for (double& end : ends) end = std::floor(std::ldexp(end, -static_cast<int>(spec.shift)));
  }
  return ends[0] != ends[1];
}

bool Seen::Varies(ActivationKind activation, unsigned shift) const {
  const mpc::ActivationSpec spec{.kind = activation, .shift = shift};
  for (std::size_t e = 0; e < lows.size(); ++e)
    if (ElementVaries(spec, e)) return true;
  return false;
}

bool Seen::ChannelVaries(ActivationKind activation, std::size_t channel,
                         std::size_t channels) const {
  const mpc::ActivationSpec spec{.kind = activation};
  const std::size_t area = lows.size() / channels;
  for (std::size_t e = channel * area; e < (channel + 1) * area; ++e)
    if (ElementVaries(spec, e)) return true;
  return false;
}

template <class T>
PackedValues::PackedValues(const std::vector<T>& values) {
  const bool small =
      std::all_of(values.begin(), values.end(), [](T v) { return v >= 0 && v <= 255; });
  if (small) {
    bytes_.assign(values.begin(), values.end());
  } else {
    wide_.assign(values.begin(), values.end());
  }
}

template <class T>
std::vector<T> PackedValues::Unpack() const {
  if (wide_.empty()) return {bytes_.begin(), bytes_.end()};
  return {wide_.begin(), wide_.end()};
}

Evaluator::Evaluator(const std::vector<nn::PublicLayer>& layers, const nn::InputSpec& input,
                     const files::Images& images)
    : layers_(layers), images_(images.count) {
  for (std::size_t first = 0; first < images_; first += kBatch)
    input_.outputs[0].emplace_back(
        nn::QuantiseInput(input, images, first, std::min(kBatch, images_ - first)));
}

std::size_t Evaluator::BatchOf(std::size_t chunk) const {
  return std::min(kBatch, images_ - chunk * kBatch);
}

bool Evaluator::UsedFrom(std::size_t output, std::size_t layer) const {
  if (output == layer) return true;
  for (std::size_t l = layer; l < layers_.size(); ++l)
    if (layers_[l].shortcut && layers_[l].shortcut->from == output) return true;
  return false;
}

std::vector<double> Evaluator::Logits(const std::vector<QuantisedLayer>& network,
                                      const Activations& from, std::vector<Seen>* seen) const {
  return Single(network, from.layer) ? LogitsWith<float>(network, from, seen)
                                     : LogitsWith<double>(network, from, seen);
}

Activations Evaluator::Advance(const std::vector<QuantisedLayer>& network, const Activations& from,
                               std::size_t to) const {
  return Single(network, from.layer) ? AdvanceWith<float>(network, from, to)
                                     : AdvanceWith<double>(network, from, to);
}

template <class T>
std::vector<double> Evaluator::LogitsWith(const std::vector<QuantisedLayer>& network,
                                          const Activations& from, std::vector<Seen>* seen) const {
  const auto fast = Prepare<T>(layers_, network, from.layer, layers_.size());
  if (seen != nullptr) seen->resize(layers_.size());
  const std::size_t classes = layers_.back().linear.Out().Size();
  std::vector<double> logits(images_ * classes);
  for (std::size_t chunk = 0; chunk * kBatch < images_; ++chunk) {
    const std::size_t batch = BatchOf(chunk);
    Outputs<T> outputs = Unpack<T>(from, chunk);
    for (std::size_t i = 0; i < fast.size(); ++i) {
      const std::size_t l = from.layer + i;
      std::vector<T> z = fast[i].Values(outputs, l, batch);
      if (seen != nullptr) (*seen)[l].Add(z, batch);
      if (!UsedFrom(l, l + 1)) outputs.erase(l);
      outputs[l + 1] = fast[i].Output(std::move(z), batch);
    }
    const std::vector<T>& x = outputs.at(layers_.size());
    for (std::size_t b = 0; b < batch; ++b)
      for (std::size_t c = 0; c < classes; ++c)
        logits[(chunk * kBatch + b) * classes + c] =
            static_cast<double>(x[c * batch + b]) / network.back().scale;
  }
  return logits;
}

template <class T>
Activations Evaluator::AdvanceWith(const std::vector<QuantisedLayer>& network,
                                   const Activations& from, std::size_t to) const {
  const auto fast = Prepare<T>(layers_, network, from.layer, to);
  Activations result;
  result.layer = to;
  for (std::size_t chunk = 0; chunk * kBatch < images_; ++chunk) {
    const std::size_t batch = BatchOf(chunk);
    Outputs<T> outputs = Unpack<T>(from, chunk);
    for (std::size_t i = 0; i < fast.size(); ++i) {
      const std::size_t l = from.layer + i;
      outputs[l + 1] = fast[i].Output(fast[i].Values(outputs, l, batch), batch);
    }
    for (const auto& [index, values] : outputs)
      if (UsedFrom(index, to)) result.outputs[index].emplace_back(values);
  }
  return result;
}

}  // namespace tercet::compile
