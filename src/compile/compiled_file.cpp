// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/compiled_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "compile/bounds.h"
#include "tercet/base/error.h"
#include "tercet/compile/announcement.h"
#include "tercet/files/tensor_file.h"

namespace tercet::compile {
namespace {

using mpc::LinearShape;
using nlohmann::json;

constexpr char kNetworkKey[] = "tercet.network";
constexpr char kFormatKey[] = "tercet.format";
constexpr char kFormat[] = "2";
constexpr char kDigestKey[] = "tercet.sha256";
constexpr std::string_view kKeyPrefix = "tercet.";  // of all of them
constexpr char kWarningsKey[] = "tercet.warnings";
constexpr std::size_t kMostWarnings = 1000, kLongestWarning = 1024;

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
files::DType SmallestType(const std::vector<std::int64_t>& values) {
  std::int64_t low = 0, high = 0;
  for (const std::int64_t v : values) low = std::min(low, v), high = std::max(high, v);
  const auto fits = [&](auto type) {
    return std::in_range<decltype(type)>(low) && std::in_range<decltype(type)>(high);
  };
  if (fits(std::int8_t{})) return files::DType::kI8;
  if (fits(std::int16_t{})) return files::DType::kI16;
  return fits(std::int32_t{}) ? files::DType::kI32 : files::DType::kI64;
}

std::vector<std::int64_t> TakeIntegers(files::TensorFile& data, const std::string& file,
                                       const std::string& tensor,
                                       const std::vector<std::size_t>& shape) {
  const std::string place = files::TensorPlace(file, tensor);
  const auto found = data.tensors.find(tensor);
  if (found == data.tensors.end())
    throw ConfigError(place, fmt::format("missing, expected shape [{}]", fmt::join(shape, ", ")));
  const files::TensorData taken = std::move(found->second);
  data.tensors.erase(found);
  if (taken.shape != shape) {
    throw ConfigError(place, fmt::format("found shape [{}], expected [{}]",
                                         fmt::join(taken.shape, ", "), fmt::join(shape, ", ")));
  }
  if (taken.dtype == files::DType::kF32 || taken.dtype == files::DType::kF64)
    throw ConfigError(place, "found floating-point numbers, expected an integer type");
  return taken.AsIntegers(place);
}

std::vector<std::size_t> ShortcutShape(const nn::PublicLayer& layer) {
  const auto& linear = layer.shortcut->linear;
  if (!linear) return {1};
  return {linear->out_channels, linear->Depth()};
}

files::TensorFile Compiled(const nn::IntegerNetwork& network) {
  CheckSizes(network);
  files::TensorFile data;
  data.metadata[kFormatKey] = std::string(kFormat);
  data.metadata[kNetworkKey] = AnnouncementToJson(AnnouncementOf(network.net));
  if (!network.warnings.empty())
    data.metadata[kWarningsKey] =
        json(network.warnings).dump(-1, ' ', true, json::error_handler_t::replace);
  for (std::size_t l = 0; l < network.weights.size(); ++l) {
    const nn::PublicLayer& layer = network.net.layers[l];
    const nn::LayerWeights& weights = network.weights[l];
    data.tensors[layer.name + ".weight"] =
        files::TensorData::FromIntegers({layer.linear.out_channels, layer.linear.Depth()},
                                        weights.weight, SmallestType(weights.weight));
    data.tensors[layer.name + ".bias"] = files::TensorData::FromIntegers(
        {layer.linear.BiasCount()}, weights.bias, SmallestType(weights.bias));
    if (!weights.shortcut.empty()) {
      data.tensors[layer.name + ".shortcut"] = files::TensorData::FromIntegers(
          ShortcutShape(layer), weights.shortcut, SmallestType(weights.shortcut));
    }
  }
  data.metadata[kDigestKey] = files::ContentDigest(data, kDigestKey);
  return data;
}

}  // namespace

void SaveCompiled(const nn::IntegerNetwork& network, const std::filesystem::path& file) {
  files::SaveTensors(Compiled(network), file);
}

std::string CompiledDigest(const nn::IntegerNetwork& network) {
  return Compiled(network).metadata.at(kDigestKey);
}

namespace {

// Whoever compiled the model may not have said that a layer is lost.
void WarnOfNoWeights(const std::string& layer, const nn::LayerWeights& weights,
                     std::vector<std::string>& warnings) {
  const auto is_zero = [](std::int64_t weight) { return weight == 0; };
  if (!std::all_of(weights.weight.begin(), weights.weight.end(), is_zero) ||
      !std::all_of(weights.shortcut.begin(), weights.shortcut.end(), is_zero))
    return;
  const bool said = std::any_of(warnings.begin(), warnings.end(), [&](const std::string& warning) {
    return warning.starts_with("layer " + layer + ":");
  });
  if (!said)
    warnings.push_back(
        fmt::format("layer {}: all weights are zero, so no image makes a difference", layer));
}

}  // namespace

nn::IntegerNetwork LoadCompiled(const std::filesystem::path& file, const nn::NetworkSpec& spec) {
  files::TensorFile data = files::LoadTensors(file);
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
  const auto digest = data.metadata.find(kDigestKey);
  if (digest == data.metadata.end()) {
    throw ConfigError(header, fmt::format("has no {}, which would show damage; compile the model "
                                          "again",
                                          kDigestKey));
  }
  if (digest->second != files::ContentDigest(data, kDigestKey)) {
    throw ConfigError(name, fmt::format("is damaged: what it holds has another SHA-256 than it "
                                        "states ({})",
                                        kDigestKey));
  }
  nn::IntegerNetwork network;
  const std::string place = fmt::format("{} metadata {}", name, kNetworkKey);
  network.net = NetworkOf(spec, AnnouncementFromJson(network_text->second, place), place);
  if (const auto warnings = data.metadata.find(kWarningsKey); warnings != data.metadata.end())
    network.warnings =
        ReadWarnings(warnings->second, fmt::format("{} metadata {}", name, kWarningsKey));
  for (const nn::PublicLayer& layer : network.net.layers) {
    const LinearShape& linear = layer.linear;
    nn::LayerWeights weights;
    weights.weight =
        TakeIntegers(data, name, layer.name + ".weight", {linear.out_channels, linear.Depth()});
    weights.bias = TakeIntegers(data, name, layer.name + ".bias", {linear.BiasCount()});
    if (ShortcutWeights(layer) > 0) {
      weights.shortcut = TakeIntegers(data, name, layer.name + ".shortcut", ShortcutShape(layer));
    }
    WarnOfNoWeights(layer.name, weights, network.warnings);
    network.weights.push_back(std::move(weights));
  }
  if (!data.tensors.empty()) {
    throw ConfigError(files::TensorPlace(name, Printable(data.tensors.begin()->first)),
                      fmt::format("found, but network {} has no such tensor", network.net.name));
  }
  ProveWidths(network, name);
  return network;
}

bool IsCompiled(const std::filesystem::path& file) {
  // By any of the keys, so that damage to one does not make float weights of the rest.
  const auto metadata = files::LoadTensorMetadata(file);
  return std::any_of(metadata.begin(), metadata.end(),
                     [](const auto& entry) { return entry.first.starts_with(kKeyPrefix); });
}

}  // namespace tercet::compile
