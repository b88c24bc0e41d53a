#include "tercet/nn/integer_network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "nn/bounds.h"
#include "nn/input.h"
#include "tercet/base/error.h"
#include "tercet/nn/announcement.h"
#include "tercet/nn/tensor_file.h"

namespace tercet::nn {
namespace {

using mpc::ActivationKind;
using mpc::LinearShape;
using nlohmann::json;

constexpr char kNetworkKey[] = "tercet.network";
constexpr char kFormatKey[] = "tercet.format";
constexpr char kFormat[] = "2";
constexpr char kWarningsKey[] = "tercet.warnings";
constexpr std::size_t kMostWarnings = 1000, kLongestWarning = 1024;

json ShapeToJson(const Shape3& shape) { return {shape.channels, shape.height, shape.width}; }

json LinearToJson(const LinearShape& linear) {
  return {{"in", ShapeToJson(linear.in)},
          {"out_channels", linear.out_channels},
          {"kernel", {linear.kernel_h, linear.kernel_w}},
          {"stride", linear.stride},
          {"padding", linear.padding},
          {"groups", linear.groups},
          {"bias_per_element", linear.bias_per_element}};
}

std::vector<std::string> ReadWarnings(const std::string& text, const std::string& place) {
  const json document = ReadJson(text, place, JsonLimits{.string_length = kLongestWarning});
  const auto is_text = [](const json& value) {
    return value.is_string() && std::all_of(value.get_ref<const std::string&>().begin(),
                                            value.get_ref<const std::string&>().end(),
                                            [](char c) { return c >= ' ' && c <= '~'; });
  };
  if (!document.is_array() || document.size() > kMostWarnings ||
      !std::all_of(document.begin(), document.end(), is_text))
    throw ConfigError(place,
                      fmt::format("found {}, expected an array of at most {} printable texts",
                                  ValueText(document), kMostWarnings));
  return document.get<std::vector<std::string>>();
}

/// The name of the smallest signed type that holds the values.
DType SmallestType(const std::vector<std::int64_t>& values) {
  std::int64_t low = 0, high = 0;
  for (const std::int64_t v : values) low = std::min(low, v), high = std::max(high, v);
  const auto fits = [&](auto type) {
    return std::in_range<decltype(type)>(low) && std::in_range<decltype(type)>(high);
  };
  if (fits(std::int8_t{})) return DType::kI8;
  if (fits(std::int16_t{})) return DType::kI16;
  return fits(std::int32_t{}) ? DType::kI32 : DType::kI64;
}

std::vector<std::int64_t> TakeIntegers(TensorFile& data, const std::string& file,
                                       const std::string& tensor,
                                       const std::vector<std::size_t>& shape) {
  const std::string place = TensorPlace(file, tensor);
  const auto found = data.tensors.find(tensor);
  if (found == data.tensors.end())
    throw ConfigError(place, fmt::format("missing, expected shape [{}]", fmt::join(shape, ", ")));
  const TensorData taken = std::move(found->second);
  data.tensors.erase(found);
  if (taken.shape != shape) {
    throw ConfigError(place, fmt::format("found shape [{}], expected [{}]",
                                         fmt::join(taken.shape, ", "), fmt::join(shape, ", ")));
  }
  if (taken.dtype == DType::kF32 || taken.dtype == DType::kF64)
    throw ConfigError(place, "found floating-point numbers, expected an integer type");
  return taken.AsIntegers(place);
}

std::size_t ShortcutWeights(const PublicLayer& layer) {
  if (!layer.shortcut) return 0;
  return layer.shortcut->linear ? layer.shortcut->linear->WeightCount() : 1;
}

std::vector<std::size_t> ShortcutShape(const PublicLayer& layer) {
  const auto& linear = layer.shortcut->linear;
  if (!linear) return {1};
  return {linear->out_channels, linear->Depth()};
}

void CheckSizes(const IntegerNetwork& network) {
  TERCET_CHECK(network.weights.size() == network.net.layers.size(),
               "got weights of {} layers, expected {}", network.weights.size(),
               network.net.layers.size());
  for (std::size_t l = 0; l < network.weights.size(); ++l) {
    const PublicLayer& layer = network.net.layers[l];
    const LayerWeights& weights = network.weights[l];
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

}  // namespace

Shape3 PublicLayer::ActivationIn() const {
  const Shape3 out = linear.Out();
  if (compared_classes == 0) return out;
  const auto window = static_cast<std::size_t>(std::lround(
      std::sqrt(static_cast<double>(out.Size()) / static_cast<double>(compared_classes))));
  return {compared_classes, window, window};
}

Shape3 PublicLayer::Out() const {
  mpc::ActivationSpec spec;
  spec.in = ActivationIn();
  spec.pool = pool;
  return sum_pool ? sum_pool->Out(spec.Out()) : spec.Out();
}

std::string PublicNetworkToJson(const PublicNetwork& network) {
  // Adding 0.0 makes -0.0, which compares equal, the same text.
  json document = {{"name", network.name},
                   {"spec_digest", network.spec_digest},
                   {"input",
                    {{"shape", ShapeToJson(network.input.shape)},
                     {"scale", network.input.scale + 0.0},
                     {"mean", network.input.mean + 0.0},
                     {"std", network.input.std + 0.0},
                     {"bits", network.input.bits}}},
                   {"layers", json::array()}};
  for (const PublicLayer& layer : network.layers) {
    json pool;
    if (layer.pool) pool = {{"kernel", layer.pool->kernel}, {"stride", layer.pool->stride}};
    json written = {{"name", layer.name},
                    {"type", layer.type},
                    {"linear", LinearToJson(layer.linear)},
                    {"activation", mpc::ActivationName(layer.activation)},
                    {"pool", pool},
                    {"value_bits", layer.value_bits},
                    {"suite", layer.suite}};
    // Only where they are used, so that the form stays one for each network.
    if (layer.shift != 0) written["shift"] = layer.shift;
    if (!layer.proven) written["proven"] = false;
    if (layer.compared_classes != 0) written["compared_classes"] = layer.compared_classes;
    if (layer.shortcut) {
      written["shortcut"] = {{"from", layer.shortcut->from}};
      if (layer.shortcut->linear)
        written["shortcut"]["linear"] = LinearToJson(*layer.shortcut->linear);
    }
    if (layer.sum_pool) {
      written["sum_pool"] = {{"kernel", layer.sum_pool->kernel},
                             {"stride", layer.sum_pool->stride},
                             {"padding", layer.sum_pool->padding}};
    }
    document["layers"].push_back(std::move(written));
  }
  return document.dump(-1, ' ', true, json::error_handler_t::replace);
}

void SaveCompiled(const IntegerNetwork& network, const std::filesystem::path& file) {
  CheckSizes(network);
  TensorFile data;
  data.metadata[kFormatKey] = kFormat;
  data.metadata[kNetworkKey] = AnnouncementToJson(AnnouncementOf(network.net));
  if (!network.warnings.empty())
    data.metadata[kWarningsKey] =
        json(network.warnings).dump(-1, ' ', true, json::error_handler_t::replace);
  for (std::size_t l = 0; l < network.weights.size(); ++l) {
    const PublicLayer& layer = network.net.layers[l];
    const LayerWeights& weights = network.weights[l];
    data.tensors[layer.name + ".weight"] =
        TensorData::FromIntegers({layer.linear.out_channels, layer.linear.Depth()}, weights.weight,
                                 SmallestType(weights.weight));
    data.tensors[layer.name + ".bias"] = TensorData::FromIntegers(
        {layer.linear.BiasCount()}, weights.bias, SmallestType(weights.bias));
    if (!weights.shortcut.empty()) {
      data.tensors[layer.name + ".shortcut"] = TensorData::FromIntegers(
          ShortcutShape(layer), weights.shortcut, SmallestType(weights.shortcut));
    }
  }
  SaveTensors(data, file);
}

IntegerNetwork LoadCompiled(const std::filesystem::path& file, const NetworkSpec& spec) {
  TensorFile data = LoadTensors(file);
  const std::string name = file.string();
  const std::string header = name + " header";
  const auto network_text = data.metadata.find(kNetworkKey);
  const auto format = data.metadata.find(kFormatKey);
  if (network_text == data.metadata.end() || format == data.metadata.end()) {
    throw ConfigError(header, fmt::format("has no metadata {} and {}; expected a compiled model",
                                          kFormatKey, kNetworkKey));
  }
  if (format->second != kFormat) {
    throw ConfigError(header, fmt::format("found {} '{}', expected '{}'; compile the model again",
                                          kFormatKey, Printable(format->second), kFormat));
  }
  IntegerNetwork network;
  const std::string place = fmt::format("{} metadata {}", name, kNetworkKey);
  network.net = NetworkOf(spec, AnnouncementFromJson(network_text->second, place), place);
  if (const auto warnings = data.metadata.find(kWarningsKey); warnings != data.metadata.end())
    network.warnings =
        ReadWarnings(warnings->second, fmt::format("{} metadata {}", name, kWarningsKey));
  for (const PublicLayer& layer : network.net.layers) {
    const LinearShape& linear = layer.linear;
    LayerWeights weights;
    weights.weight =
        TakeIntegers(data, name, layer.name + ".weight", {linear.out_channels, linear.Depth()});
    weights.bias = TakeIntegers(data, name, layer.name + ".bias", {linear.BiasCount()});
    if (ShortcutWeights(layer) > 0) {
      weights.shortcut = TakeIntegers(data, name, layer.name + ".shortcut", ShortcutShape(layer));
    }
    network.weights.push_back(std::move(weights));
  }
  if (!data.tensors.empty()) {
    throw ConfigError(TensorPlace(name, Printable(data.tensors.begin()->first)),
                      fmt::format("found, but network {} has no such tensor", network.net.name));
  }
  ProveWidths(network, name);
  return network;
}

bool IsCompiled(const std::filesystem::path& file) {
  return LoadTensorMetadata(file).contains(kNetworkKey);
}

void ProveWidths(const IntegerNetwork& network, const std::string& place) {
  CheckSizes(network);
  const std::vector<Interval> intervals = ValueIntervals(network, place);
  for (std::size_t l = 0; l < intervals.size(); ++l) {
    const PublicLayer& layer = network.net.layers[l];
    if (Fits(intervals[l], layer.value_bits)) continue;
    // The bounds are functions of the secret weights, so they stay out of the message.
    throw ConfigError(
        fmt::format("{} layer {}", place, layer.name),
        fmt::format("its values do not fit {} bits, as the model says", layer.value_bits));
  }
}

std::vector<std::int64_t> QuantiseInput(const InputSpec& spec, const Images& images,
                                        std::size_t first, std::size_t count) {
  const std::size_t features = spec.shape.Size();
  TERCET_CHECK(images.shape == spec.shape, "got images of {}, expected {}", ShapeText(images.shape),
               ShapeText(spec.shape));
  TERCET_CHECK(first <= images.count && count <= images.count - first,
               "got images {} to {}, but there are {}", first, first + count, images.count);
  const std::int64_t largest = (std::int64_t{1} << spec.bits) - 1;
  std::vector<std::int64_t> q(features * count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* pixels = images.pixels.data() + (first + i) * features;
    for (std::size_t f = 0; f < features; ++f) q[f * count + i] = (pixels[f] * largest + 127) / 255;
  }
  return q;
}

}  // namespace tercet::nn
