// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/customise.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "nn/activation_type.h"
#include "nn/axes_json.h"
#include "tercet/base/error.h"

namespace tercet::compile {
namespace {

using Layers = std::vector<nn::LayerSpec>;

std::string Quoted(const std::string& text) { return nlohmann::json(text).dump(); }

// The shortest text that gives the same number.
std::string Number(double value) { return nlohmann::json(value).dump(); }

template <class T>
std::string AxesText(const T& axes) {
  const auto json = nn::AxesToJson(axes);
  if (!json.is_array()) return json.dump();
  return fmt::format("[{}]", fmt::join(json.template get<std::vector<std::size_t>>(), ", "));
}

// The layer's keys in the order that a reader expects; those at their defaults are left out, but
// for the ones that tell a convolution.
std::string LayerText(const nn::LayerSpec& layer) {
  std::string text = fmt::format("{{\"name\": {}, \"type\": \"{}\"", Quoted(layer.name),
                                 nn::LayerTypeName(layer.type));
  const auto add = [&](const char* key, const auto& value) {
    text += fmt::format(", \"{}\": {}", key, value);
  };
  switch (layer.type) {
    case nn::LayerType::kConv2d:
      add("out_channels", layer.out_channels);
      add("kernel", AxesText(layer.kernel));
      add("stride", AxesText(layer.stride));
      add("padding", AxesText(layer.padding));
      if (layer.pad_value != 0) add("pad_value", Number(layer.pad_value));
      if (layer.dilation != 1) add("dilation", AxesText(layer.dilation));
      if (layer.groups != 1) add("groups", layer.groups);
      if (!layer.bias) add("bias", "false");
      break;
    case nn::LayerType::kLinear:
      add("out_features", layer.out_channels);
      if (!layer.bias) add("bias", "false");
      break;
    case nn::LayerType::kBatchNorm:
      if (layer.eps != nn::LayerSpec{}.eps) add("eps", Number(layer.eps));
      break;
    case nn::LayerType::kMaxPool2d:
    case nn::LayerType::kAvgPool2d:
      add("kernel", AxesText(layer.kernel));
      add("stride", AxesText(layer.stride));
      if (!layer.padding.None()) add("padding", AxesText(layer.padding));
      if (!layer.count_include_pad) add("count_include_pad", "false");
      break;
    default:
      break;
  }
  if (const nn::ActivationType* activation = nn::FindActivation(layer.type)) {
    const nlohmann::ordered_json options = activation->Options(layer);
    for (const auto& [key, option] : options.items())
      add(key.c_str(),
          option.is_array()
              ? fmt::format("[{}]", fmt::join(option.get<std::vector<std::int64_t>>(), ", "))
              : option.dump());
  }
  if (!layer.from.empty()) add("from", Quoted(layer.from));
  if (!layer.suite.empty()) add("suite", Quoted(layer.suite));
  return text + "}";
}

class Rewriter {
 public:
  Rewriter(const nn::NetworkSpec& network, const CustomiseOptions& options)
      : options_(options), layers_(network.layers) {
    for (const nn::LayerSpec& layer : layers_)
      if (!layer.from.empty()) sources_.insert(layer.from);
    CheckNames("--separable", options.separable, {nn::LayerType::kConv2d});
    CheckNames("--sign", options.sign, {nn::LayerType::kRelu, nn::LayerType::kSquare});
    CheckNames("--max-pool", options.max_pool, {nn::LayerType::kAvgPool2d});
  }

  Layers Run(std::vector<std::string>& changes) {
    changes_ = &changes;
    ReplaceTypes();
    if (options_.order) {
      PoolAfterSign();
      NormBeforeSign();
    }
    Separate();
    return std::move(layers_);
  }

 private:
  void CheckNames(const char* option, const LayerSelection& selection,
                  std::initializer_list<nn::LayerType> types) const {
    for (const std::string& name : selection.names) {
      const auto found =
          std::find_if(layers_.begin(), layers_.end(),
                       [&](const nn::LayerSpec& layer) { return layer.name == name; });
      if (found == layers_.end())
        throw ConfigError(option, fmt::format("found '{}', expected the name of a layer", name));
      if (std::find(types.begin(), types.end(), found->type) != types.end()) continue;
      std::string expected;
      for (const nn::LayerType type : types)
        expected += fmt::format("{}{}", expected.empty() ? "" : " or ", nn::LayerTypeName(type));
      throw ConfigError(option, fmt::format("found '{}', a {}, expected a {}", name,
                                            nn::LayerTypeName(found->type), expected));
    }
  }

  void Say(std::string change) { changes_->push_back(std::move(change)); }

  void CheckMovable(const nn::LayerSpec& layer) const {
    if (sources_.contains(layer.name))
      throw UnsupportedError(fmt::format(
          "layer {} cannot change places: a later layer takes its output from it", layer.name));
  }

  void ReplaceTypes() {
    for (nn::LayerSpec& layer : layers_) {
      const bool smooth =
          layer.type == nn::LayerType::kRelu || layer.type == nn::LayerType::kSquare;
      if (smooth && options_.sign.Has(layer.name)) {
        Say(fmt::format("{}: {} becomes sign", layer.name, nn::LayerTypeName(layer.type)));
        layer.type = nn::LayerType::kSign;
      }
      if (layer.type == nn::LayerType::kAvgPool2d && options_.max_pool.Has(layer.name)) {
        if (!layer.padding.None())
          throw UnsupportedError(
              fmt::format("layer {}: a padded average pool has no max-pool like it", layer.name));
        Say(fmt::format("{}: average pool becomes max-pool", layer.name));
        layer.type = nn::LayerType::kMaxPool2d;
      }
    }
  }

  nn::LayerType TypeAt(std::size_t index) const {
    return index < layers_.size() ? layers_[index].type : nn::LayerType::kFlatten;
  }

  void PoolAfterSign() {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (layers_[i].type != nn::LayerType::kMaxPool2d) continue;
      const std::size_t sign = TypeAt(i + 1) == nn::LayerType::kBatchNorm ? i + 2 : i + 1;
      if (TypeAt(sign) != nn::LayerType::kSign) continue;
      for (std::size_t k = i; k <= sign; ++k) CheckMovable(layers_[k]);
      Say(fmt::format("{}: moved after {}", layers_[i].name, layers_[sign].name));
      std::rotate(At(i), At(i + 1), At(sign + 1));
    }
  }

  void NormBeforeSign() {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (layers_[i].type != nn::LayerType::kSign || i == 0 ||
          layers_[i - 1].type == nn::LayerType::kBatchNorm)
        continue;
      std::size_t norm = i + 1;
      while (TypeAt(norm) == nn::LayerType::kMaxPool2d) ++norm;
      if (TypeAt(norm) == nn::LayerType::kBatchNorm) {
        for (std::size_t k = i; k <= norm; ++k) CheckMovable(layers_[k]);
        Say(fmt::format("{}: moved before {}", layers_[norm].name, layers_[i].name));
        std::rotate(At(i), At(norm), At(norm + 1));
      } else {
        nn::LayerSpec added;
        added.name = FreeName("bn_" + layers_[i].name);
        added.type = nn::LayerType::kBatchNorm;
        Say(fmt::format("{}: batch normalisation added before {}", added.name, layers_[i].name));
        layers_.insert(At(i), added);
      }
      ++i;
    }
  }

  void Separate() {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      nn::LayerSpec& layer = layers_[i];
      const bool convolves =
          layer.type == nn::LayerType::kConv2d && layer.kernel != 1 && layer.groups == 1;
      const bool named = options_.separable.Names(layer.name);
      if (named && !convolves)
        throw ConfigError("--separable",
                          fmt::format("layer {}: found kernel {} and {} groups, expected a kernel "
                                      "larger than 1 and one group",
                                      layer.name, AxesText(layer.kernel), layer.groups));
      if (!convolves || !options_.separable.Has(layer.name)) continue;
      if (layer.in.channels == 1 && !named) continue;
      Say(fmt::format("{}: {} convolution becomes depthwise and pointwise", layer.name,
                      mpc::PerAxisText(layer.kernel)));
      nn::LayerSpec depthwise = layer;
      depthwise.name = FreeName(layer.name + ".depthwise");
      depthwise.out_channels = depthwise.groups = layer.in.channels;
      depthwise.bias = false;
      layer.kernel = layer.stride = layer.dilation = 1;
      layer.padding = 0;
      layer.pad_value = 0;
      layer.from.clear();
      layers_.insert(At(i), depthwise);
      ++i;
    }
  }

  std::string FreeName(const std::string& wanted) const {
    std::string name = wanted;
    const auto taken = [&] {
      return std::any_of(layers_.begin(), layers_.end(),
                         [&](const nn::LayerSpec& layer) { return layer.name == name; });
    };
    for (int i = 2; taken(); ++i) name = fmt::format("{}_{}", wanted, i);
    return name;
  }

  Layers::iterator At(std::size_t index) {
    return layers_.begin() + static_cast<std::ptrdiff_t>(index);
  }

  const CustomiseOptions& options_;
  Layers layers_;
  std::set<std::string> sources_;  // names that a later layer refers to
  std::vector<std::string>* changes_ = nullptr;
};

}  // namespace

NetworkCounts CountNetwork(const nn::NetworkSpec& network) {
  NetworkCounts counts;
  for (const nn::LayerSpec& layer : network.layers) {
    const std::uint64_t out = layer.out.Size();
    switch (layer.type) {
      case nn::LayerType::kConv2d: {
        const mpc::LinearShape shape = nn::LinearShapeOf(layer);
        const std::size_t depth = layer.in.channels / layer.groups * layer.kernel.Area();
        counts.weights += layer.out_channels * depth;
        counts.macs += shape.Out().Size() * depth;
        if (layer.bias) counts.biases += layer.out_channels;
        break;
      }
      case nn::LayerType::kLinear:
        counts.weights += layer.in.Size() * out;
        counts.macs += layer.in.Size() * out;
        if (layer.bias) counts.biases += out;
        break;
      case nn::LayerType::kBatchNorm:
        counts.norm_channels += layer.out.channels;
        break;
      case nn::LayerType::kMaxPool2d:
      case nn::LayerType::kAvgPool2d:
        counts.pooled += out;
        break;
      case nn::LayerType::kFlatten:
      case nn::LayerType::kAdd:
        break;
      default:
        counts.activations[nn::LayerTypeName(layer.type)] += out;
    }
  }
  return counts;
}

std::string NetworkText(const nn::NetworkSpec& network) {
  const nn::InputSpec& input = network.input;
  std::string text = fmt::format(
      "{{\n  \"$schema\": \"network.schema.json\",\n  \"name\": {},\n  \"input\": {{\"shape\": "
      "[{}, {}, {}], "
      "\"scale\": {}, \"mean\": {}, \"std\": {}, \"bits\": {}}},\n  \"layers\": [\n",
      Quoted(network.name), input.shape.channels, input.shape.height, input.shape.width,
      Number(input.scale), Number(input.mean), Number(input.std), input.bits);
  for (std::size_t i = 0; i < network.layers.size(); ++i)
    text += fmt::format("    {}{}\n", LayerText(network.layers[i]),
                        i + 1 < network.layers.size() ? "," : "");
  return text + fmt::format("  ],\n  \"output\": {}\n}}\n", Quoted(network.output));
}

LayerSelection LayerSelection::Parse(const std::string& text) {
  LayerSelection selection;
  if (text == "none") return selection;
  if (text == "all") {
    selection.all = true;
    return selection;
  }
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    selection.names.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return selection;
}

Customised Customise(const nn::NetworkSpec& network, const CustomiseOptions& options) {
  Customised result;
  result.network = network;
  result.network.name = options.name.empty() ? network.name + "-customised" : options.name;
  result.network.layers = Rewriter(network, options).Run(result.changes);
  // Parsing gives the layers their shapes and checks what the rules made.
  result.network = nn::ParseNetwork(NetworkText(result.network), "customised " + network.name);
  return result;
}

}  // namespace tercet::compile
