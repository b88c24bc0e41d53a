#include "nn/evaluate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "nn/convolve.h"
#include "nn/sum_windows.h"
#include "tercet/base/error.h"

namespace tercet::nn {
namespace {

using mpc::ActivationKind;

constexpr std::size_t kBatch = 32;

template <class T>
using Outputs = std::map<std::size_t, std::vector<T>>;

/// A quantised layer with its weights as floating-point numbers.
template <class T>
class FastLayer {
 public:
  FastLayer(const PublicLayer& layer, const QuantisedLayer& quantised)
      : layer_(layer),
        weight_(quantised.weights.weight.begin(), quantised.weights.weight.end()),
        bias_(quantised.weights.bias.begin(), quantised.weights.bias.end()),
        shortcut_(quantised.weights.shortcut.begin(), quantised.weights.shortcut.end()),
        divisor_(std::ldexp(T{1}, -static_cast<int>(quantised.shift))) {}

  /// W x + b + shortcut for what leaves output `index`.
  std::vector<T> Values(const Outputs<T>& outputs, std::size_t index, std::size_t batch) const {
    std::vector<T> z = Convolve(layer_.linear, weight_, bias_, outputs.at(index), batch);
    if (!layer_.shortcut) return z;
    const std::vector<T>& from = outputs.at(layer_.shortcut->from);
    if (layer_.shortcut->linear) {
      const std::vector<T> more = Convolve(*layer_.shortcut->linear, shortcut_, {}, from, batch);
      for (std::size_t i = 0; i < z.size(); ++i) z[i] += more[i];
    } else {
      for (std::size_t i = 0; i < z.size(); ++i) z[i] += shortcut_[0] * from[i];
    }
    return z;
  }

  std::vector<T> Output(std::vector<T> z, std::size_t batch) const {
    for (T& v : z) {
      switch (layer_.activation) {
        case ActivationKind::kNone:
          break;
        case ActivationKind::kSign:
          v = v >= 0 ? T{1} : T{0};
          break;
        case ActivationKind::kRelu:
          v = std::floor(std::max(v, T{0}) * divisor_);
          break;
        case ActivationKind::kSquare:
          v = std::floor(v * divisor_);
          v *= v;
          break;
      }
    }
    const mpc::Shape3 in = layer_.linear.Out();
    if (layer_.pool) z = Pool(in, *layer_.pool, z, batch, [](T a, T b) { return std::max(a, b); });
    if (!layer_.sum_pool) return z;
    PublicLayer before = layer_;
    before.sum_pool.reset();
    std::vector<T> sums(layer_.Out().Size() * batch);
    SumWindows(before.Out(), *layer_.sum_pool, z.data(), batch, sums.data());
    return sums;
  }

 private:
  const PublicLayer& layer_;
  std::vector<T> weight_, bias_, shortcut_;
  T divisor_;
};

template <class T>
std::vector<FastLayer<T>> Prepare(const std::vector<PublicLayer>& layers,
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

template <class T>
void Widen(ValueRange& range, const std::vector<T>& values, bool first) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const auto l = static_cast<std::int64_t>(*low), h = static_cast<std::int64_t>(*high);
  range = first ? ValueRange{l, h} : ValueRange{std::min(range.low, l), std::max(range.high, h)};
}

}  // namespace

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

Evaluator::Evaluator(const std::vector<PublicLayer>& layers, const InputSpec& input,
                     const Sample& sample)
    : layers_(layers), sample_(sample) {
  const std::size_t count = sample.images.count;
  for (std::size_t first = 0; first < count; first += kBatch)
    input_.outputs[0].emplace_back(
        QuantiseInput(input, sample.images, first, std::min(kBatch, count - first)));
}

std::size_t Evaluator::BatchOf(std::size_t chunk) const {
  return std::min(kBatch, sample_.images.count - chunk * kBatch);
}

bool Evaluator::UsedFrom(std::size_t output, std::size_t layer) const {
  if (output == layer) return true;
  for (std::size_t l = layer; l < layers_.size(); ++l)
    if (layers_[l].shortcut && layers_[l].shortcut->from == output) return true;
  return false;
}

double Evaluator::Accuracy(const std::vector<QuantisedLayer>& network, const Activations& from,
                           std::vector<ValueRange>* ranges) const {
  return Single(network, from.layer) ? AccuracyWith<float>(network, from, ranges)
                                     : AccuracyWith<double>(network, from, ranges);
}

Activations Evaluator::Advance(const std::vector<QuantisedLayer>& network, const Activations& from,
                               std::size_t to) const {
  return Single(network, from.layer) ? AdvanceWith<float>(network, from, to)
                                     : AdvanceWith<double>(network, from, to);
}

template <class T>
double Evaluator::AccuracyWith(const std::vector<QuantisedLayer>& network, const Activations& from,
                               std::vector<ValueRange>* ranges) const {
  const auto fast = Prepare<T>(layers_, network, from.layer, layers_.size());
  if (ranges != nullptr) ranges->resize(layers_.size());
  const std::size_t classes = layers_.back().linear.Out().Size();
  std::size_t correct = 0;
  for (std::size_t chunk = 0; chunk * kBatch < sample_.images.count; ++chunk) {
    const std::size_t batch = BatchOf(chunk);
    Outputs<T> outputs = Unpack<T>(from, chunk);
    for (std::size_t i = 0; i < fast.size(); ++i) {
      const std::size_t l = from.layer + i;
      std::vector<T> z = fast[i].Values(outputs, l, batch);
      if (ranges != nullptr) Widen((*ranges)[l], z, chunk == 0);
      if (!UsedFrom(l, l + 1)) outputs.erase(l);
      outputs[l + 1] = fast[i].Output(std::move(z), batch);
    }
    const std::vector<T>& x = outputs.at(layers_.size());
    for (std::size_t b = 0; b < batch; ++b) {
      std::size_t best = 0;
      for (std::size_t c = 1; c < classes; ++c)
        if (x[c * batch + b] > x[best * batch + b]) best = c;
      correct += best == sample_.labels[chunk * kBatch + b] ? 1 : 0;
    }
  }
  return 100.0 * static_cast<double>(correct) / static_cast<double>(sample_.images.count);
}

template <class T>
Activations Evaluator::AdvanceWith(const std::vector<QuantisedLayer>& network,
                                   const Activations& from, std::size_t to) const {
  const auto fast = Prepare<T>(layers_, network, from.layer, to);
  Activations result;
  result.layer = to;
  for (std::size_t chunk = 0; chunk * kBatch < sample_.images.count; ++chunk) {
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

}  // namespace tercet::nn
