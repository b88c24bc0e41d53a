// SPDX-License-Identifier: Apache-2.0
#include "nn/float_network_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "base/json.h"
#include "base/sizes_text.h"
#include "nn/activation_type.h"
#include "nn/convolve.h"
#include "nn/sum_windows.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::nn {
namespace {

/// Images computed at once: a row of a layer's output stays in the cache.
constexpr std::size_t kBatch = 32;

constexpr std::size_t kMaxListed = 20;  // tensors that one message names

/// What every tensor's name begins with, module by module ("module.model."), because the network
/// was part of a larger module when it was saved; empty when a layer's name begins like that too.
std::string CommonPrefix(const NetworkSpec& network, const files::TensorFile& file) {
  std::string prefix;
  if (file.tensors.empty()) return prefix;
  const std::string& first = file.tensors.begin()->first;
  for (std::size_t dot; (dot = first.find('.', prefix.size())) != std::string::npos;) {
    const std::string longer = first.substr(0, dot + 1);
    const bool everywhere =
        std::all_of(file.tensors.begin(), file.tensors.end(),
                    [&](const auto& tensor) { return tensor.first.starts_with(longer); });
    const bool of_a_layer =
        std::any_of(network.layers.begin(), network.layers.end(), [&](const LayerSpec& layer) {
          return (layer.name + '.').starts_with(longer.substr(prefix.size()));
        });
    if (!everywhere || of_a_layer) break;
    prefix = longer;
  }
  return prefix;
}

/// Takes the network's tensors out of a file and checks that none is left. What is missing, has
/// another shape or is left is collected, so that one message tells how the file differs.
class TensorReader {
 public:
  TensorReader(const NetworkSpec& network, const files::TensorFile& file, const std::string& name)
      : file_(file), name_(name), network_(network.name), prefix_(CommonPrefix(network, file)) {
    if (file.metadata.contains("tercet.network"))
      throw ConfigError(name, "found a compiled model, expected float weights");
  }

  /// Empty when the tensor does not fit.
  std::vector<float> Read(const std::string& tensor, const std::vector<std::size_t>& shape) {
    const auto found = file_.tensors.find(prefix_ + tensor);
    if (found == file_.tensors.end()) {
      misfits_.push_back({prefix_ + tensor, "missing, expected shape " + SizesText(shape)});
      return {};
    }
    used_.insert(found->first);
    if (found->second.shape != shape) {
      misfits_.push_back(
          {found->first, fmt::format("found shape {}, expected {}", SizesText(found->second.shape),
                                     SizesText(shape))});
      return {};
    }
    const std::vector<double> values = found->second.AsDoubles();
    std::vector<float> result(values.begin(), values.end());
    const auto bad =
        std::find_if(result.begin(), result.end(), [](float v) { return !std::isfinite(v); });
    if (bad != result.end()) {
      throw ConfigError(files::TensorPlace(name_, found->first),
                        fmt::format("found {} as element {}, expected finite numbers",
                                    std::isnan(*bad) ? "NaN" : "infinity", bad - result.begin()));
    }
    return result;
  }

  /// To be called when all tensors of the network are read.
  void CheckFit() {
    for (const auto& [tensor, data] : file_.tensors) {
      // PyTorch counts a batch_norm's training batches; nothing is computed with them.
      if (used_.contains(tensor) || tensor.ends_with(".num_batches_tracked")) continue;
      misfits_.push_back({tensor, fmt::format("found with shape {}, but network {} has no such "
                                              "tensor",
                                              SizesText(data.shape), network_)});
    }
    if (misfits_.empty()) return;
    std::string text = misfits_.front().problem;
    for (std::size_t i = 1; i < std::min(misfits_.size(), kMaxListed); ++i)
      text += fmt::format("; {}: {}", Printable(misfits_[i].tensor), misfits_[i].problem);
    if (misfits_.size() > kMaxListed)
      text += fmt::format("; and {} tensors more", misfits_.size() - kMaxListed);
    throw ConfigError(files::TensorPlace(name_, Printable(misfits_.front().tensor)), text);
  }

 private:
  struct Misfit {
    std::string tensor, problem;
  };
  const files::TensorFile& file_;
  const std::string& name_;
  const std::string& network_;
  const std::string prefix_;
  std::set<std::string> used_;
  std::vector<Misfit> misfits_;
};

/// As LinearShapeOf has them.
std::vector<float> Dilated(const LayerSpec& layer, std::vector<float> weights) {
  if (layer.dilation == 1 || weights.empty()) return weights;
  const mpc::LinearShape shape = LinearShapeOf(layer);
  std::vector<float> all(shape.WeightCount(), 0);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::size_t x = i % layer.kernel.w * layer.dilation.w;
    const std::size_t y = i / layer.kernel.w % layer.kernel.h * layer.dilation.h;
    all[(i / layer.kernel.Area() * shape.kernel_h + y) * shape.kernel_w + x] = weights[i];
  }
  return all;
}

FloatLayer ReadLayer(const LayerSpec& layer, TensorReader& reader, const std::string& file) {
  FloatLayer weights;
  const std::string weight = layer.name + ".weight", bias = layer.name + ".bias";
  switch (layer.type) {
    case LayerType::kConv2d:
      weights.weight =
          Dilated(layer, reader.Read(weight, {layer.out_channels, layer.in.channels / layer.groups,
                                              layer.kernel.h, layer.kernel.w}));
      if (layer.bias) weights.bias = reader.Read(bias, {layer.out_channels});
      break;
    case LayerType::kLinear:
      weights.weight = reader.Read(weight, {layer.out_channels, layer.in.Size()});
      if (layer.bias) weights.bias = reader.Read(bias, {layer.out_channels});
      break;
    case LayerType::kBatchNorm: {
      const std::string variance = layer.name + ".running_var";
      const std::size_t channels = layer.in.channels;
      weights.weight = reader.Read(weight, {channels});
      weights.bias = reader.Read(bias, {channels});
      weights.mean = reader.Read(layer.name + ".running_mean", {channels});
      weights.variance = reader.Read(variance, {channels});
      const auto bad = std::find_if(weights.variance.begin(), weights.variance.end(),
                                    [](float v) { return v < 0; });
      if (bad != weights.variance.end()) {
        throw ConfigError(files::TensorPlace(file, variance),
                          fmt::format("element {} is negative, expected variances",
                                      bad - weights.variance.begin()));
      }
      break;
    }
    default:
      break;
  }
  return weights;
}

void BatchNorm(const LayerSpec& layer, const FloatLayer& weights, std::vector<float>& x,
               std::size_t batch) {
  const std::size_t length = layer.in.height * layer.in.width * batch;
  for (std::size_t c = 0; c < layer.in.channels; ++c) {
    const double factor = weights.weight[c] / std::sqrt(weights.variance[c] + layer.eps);
    const auto scale = static_cast<float>(factor);
    const float mean = weights.mean[c], beta = weights.bias[c];
    float* values = x.data() + c * length;
    for (std::size_t i = 0; i < length; ++i) values[i] = (values[i] - mean) * scale + beta;
  }
}

std::vector<float> AveragePool(const LayerSpec& layer, const std::vector<float>& x,
                               std::size_t batch) {
  std::vector<float> sums(layer.out.Size() * batch);
  const SumPool pool{layer.kernel, layer.stride, layer.padding, layer.count_include_pad};
  SumWindows(layer.in, pool, x.data(), batch, sums.data());
  for (float& v : sums) v /= static_cast<float>(pool.Divisor(layer.in));
  return sums;
}

/// What leaves the input and layers that later ones take, by their names.
using Kept = std::map<std::string, std::vector<float>>;

/// A convolution with numbers other than zero around its map.
std::vector<float> ConvolvePadded(const LayerSpec& layer, const FloatLayer& weights,
                                  const Kept& kept, const std::vector<float>& x,
                                  std::size_t batch) {
  mpc::LinearShape shape = LinearShapeOf(layer);
  shape.bias_per_element = true;
  std::vector<double> bias(weights.bias.begin(), weights.bias.end());
  bias.resize(layer.out_channels);
  bias =
      BiasWithPadding(shape, {weights.weight.begin(), weights.weight.end()}, bias, layer.pad_value);
  return Convolve(shape, weights.weight, std::vector<float>(bias.begin(), bias.end()),
                  layer.from.empty() ? x : kept.at(layer.from), batch);
}

/// What leaves a layer when x leaves the one before.
std::vector<float> RunLayer(const LayerSpec& layer, const FloatLayer& weights, std::vector<float> x,
                            std::size_t batch, const Kept& kept) {
  switch (layer.type) {
    case LayerType::kConv2d:
      if (PadsWithNumber(layer)) return ConvolvePadded(layer, weights, kept, x, batch);
      [[fallthrough]];
    case LayerType::kLinear:
      return Convolve(LinearShapeOf(layer), weights.weight, weights.bias,
                      layer.from.empty() ? x : kept.at(layer.from), batch);
    case LayerType::kBatchNorm:
      BatchNorm(layer, weights, x, batch);
      return x;
    case LayerType::kMaxPool2d:
      return Pool(layer.in, {layer.kernel, layer.stride, layer.padding}, x, batch,
                  [](float a, float b) { return std::max(a, b); });
    case LayerType::kAvgPool2d:
      return AveragePool(layer, x, batch);
    case LayerType::kFlatten:
      return x;
    case LayerType::kAdd: {
      const std::vector<float>& other = kept.at(layer.from);
      std::transform(x.begin(), x.end(), other.begin(), x.begin(), std::plus<>());
      return x;
    }
    default:
      FindActivation(layer.type)->Apply(layer, x);
      return x;
  }
}

}  // namespace

FloatNetwork::FloatNetwork(NetworkSpec spec, const files::TensorFile& tensors, std::string file) {
  auto state = std::make_shared<State>();
  state->spec = std::move(spec);
  state->file = std::move(file);
  TensorReader reader(state->spec, tensors, state->file);
  for (const LayerSpec& layer : state->spec.layers)
    state->layers.push_back(ReadLayer(layer, reader, state->file));
  reader.CheckFit();
  state_ = std::move(state);
}

const NetworkSpec& FloatNetwork::Spec() const { return state_->spec; }

std::vector<float> FloatNetwork::Run(const files::Images& images, std::size_t first,
                                     std::size_t count, const LayerVisitor& visit) const {
  return state_->Run(images, first, count, visit);
}

std::vector<float> FloatNetwork::State::Run(const files::Images& images, std::size_t first,
                                            std::size_t count, const Observer& observer) const {
  const std::size_t classes = spec.Classes();
  std::vector<float> logits(count * classes);
  for (std::size_t done = 0; done < count; done += kBatch) {
    const std::size_t batch = std::min(kBatch, count - done);
    const std::vector<float> x = RunBatch(RealInput(images, first + done, batch), batch, observer);
    for (std::size_t c = 0; c < classes; ++c)
      for (std::size_t b = 0; b < batch; ++b) logits[(done + b) * classes + c] = x[c * batch + b];
  }
  return logits;
}

std::vector<float> FloatNetwork::State::RealInput(const files::Images& images, std::size_t first,
                                                  std::size_t count) const {
  const double step = 255.0 / ((1U << spec.input.bits) - 1);
  const std::vector<std::int64_t> q = QuantiseInput(spec.input, images, first, count);
  std::vector<float> x(q.size());
  std::transform(q.begin(), q.end(), x.begin(), [&](std::int64_t v) {
    return static_cast<float>((static_cast<double>(v) * step / spec.input.scale - spec.input.mean) /
                              spec.input.std);
  });
  return x;
}

std::vector<float> FloatNetwork::State::RunBatch(std::vector<float> x, std::size_t batch,
                                                 const Observer& observer) const {
  std::set<std::string> kept_names;
  for (const LayerSpec& layer : spec.layers) kept_names.insert(layer.from);
  Kept kept;
  if (kept_names.contains("input")) kept["input"] = x;
  for (std::size_t l = 0; l < spec.layers.size(); ++l) {
    x = RunLayer(spec.layers[l], layers[l], std::move(x), batch, kept);
    if (kept_names.contains(spec.layers[l].name)) kept[spec.layers[l].name] = x;
    if (observer) observer(l, x);
  }
  return x;
}

}  // namespace tercet::nn
