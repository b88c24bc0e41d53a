// SPDX-License-Identifier: Apache-2.0
#include "nn/activation_type.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace tercet::nn {
namespace {

using mpc::ActivationKind;

class Sign final : public ActivationType {
 public:
  Sign() : ActivationType(LayerType::kSign, ActivationKind::kSign) {}
  void Apply(const LayerSpec& /*layer*/, std::span<float> x) const override {
    for (float& v : x) v = v >= 0 ? 1.0F : -1.0F;
  }
  ActivationEncoding Encoding(const LayerSpec& /*layer*/) const override {
    return {.low = -1, .unit = 2};
  }
};

class Relu final : public ActivationType {
 public:
  Relu() : ActivationType(LayerType::kRelu, ActivationKind::kRelu) {}
  void Apply(const LayerSpec& /*layer*/, std::span<float> x) const override {
    for (float& v : x) v = std::max(v, 0.0F);
  }
};

class Square final : public ActivationType {
 public:
  Square() : ActivationType(LayerType::kSquare, ActivationKind::kSquare) {}
  void Apply(const LayerSpec& /*layer*/, std::span<float> x) const override {
    for (float& v : x) v *= v;
  }
};

class Table final : public ActivationType {
 public:
  Table()
      : ActivationType(LayerType::kTable, ActivationKind::kTable,
                       {{"input_scale", &LayerSpec::input_scale},
                        {"output_scale", &LayerSpec::output_scale},
                        {"values", &LayerSpec::values}}) {}
  Problem Check(const LayerSpec& layer) const override {
    if (std::has_single_bit(layer.values.size())) return {};
    return {"/values", fmt::format("found {} values, expected a power of two from 4 to 256",
                                   layer.values.size())};
  }
  void Apply(const LayerSpec& layer, std::span<float> x) const override {
    const double half = static_cast<double>(layer.values.size()) / 2;
    for (float& v : x) {
      const double index = std::floor(v / layer.input_scale + 0.5);
      v = static_cast<float>(
          layer.output_scale *
          static_cast<double>(
              layer.values[static_cast<std::size_t>(std::clamp(index, -half, half - 1) + half)]));
    }
  }
  ActivationEncoding Encoding(const LayerSpec& layer) const override {
    const std::int64_t least = *std::min_element(layer.values.begin(), layer.values.end());
    ActivationEncoding encoding{.low = layer.output_scale * static_cast<double>(least),
                                .unit = layer.output_scale,
                                .table = layer.values,
                                .input_scale = layer.input_scale};
    for (std::int64_t& value : encoding.table) value -= least;
    return encoding;
  }
};

/// min(max(x, low), high); in integers a table of as many steps as one may have, or without
/// input_scale two ReLUs.
class Clip final : public ActivationType {
 public:
  Clip()
      : ActivationType(LayerType::kClip, ActivationKind::kTable,
                       {{"low", &LayerSpec::low},
                        {"high", &LayerSpec::high},
                        {"input_scale", &LayerSpec::input_scale, true}}) {}
  Problem Check(const LayerSpec& layer) const override {
    if (layer.input_scale == 0) {
      if (layer.low < layer.high) return {};
      return {"/high", fmt::format("found {}, expected more than low, {}", layer.high, layer.low)};
    }
    const double least = kLeast * layer.input_scale, most = kMost * layer.input_scale;
    if (layer.low < layer.high && layer.low >= least && layer.high <= most) return {};
    return {"/high",
            fmt::format("found {} with low {}, expected low to be less, and both from {} to "
                        "{}, which are 256 steps of input_scale",
                        layer.high, layer.low, least, most)};
  }
  void Apply(const LayerSpec& layer, std::span<float> x) const override {
    const auto low = static_cast<float>(layer.low), high = static_cast<float>(layer.high);
    for (float& v : x) v = std::clamp(v, low, high);
  }
  ActivationEncoding Encoding(const LayerSpec& layer) const override {
    const double step = layer.input_scale;
    const auto least = static_cast<std::int64_t>(std::nearbyint(layer.low / step));
    ActivationEncoding encoding{
        .low = static_cast<double>(least) * step, .unit = step, .input_scale = step};
    for (std::int64_t i = kLeast; i <= kMost; ++i) {
      const double value = std::clamp(static_cast<double>(i) * step, layer.low, layer.high);
      encoding.table.push_back(static_cast<std::int64_t>(std::nearbyint(value / step)) - least);
    }
    return encoding;
  }

 private:
  static constexpr std::int64_t kMost = (1 << (mpc::kMaxTableBits - 1)) - 1, kLeast = -kMost - 1;
};

}  // namespace

void ActivationType::ReadOptions(const nlohmann::json& value, LayerSpec& layer) const {
  for (const auto& option : options_) {
    const bool absent = option.optional && !value.contains(option.key);
    const nlohmann::json zero = 0;
    std::visit([&](auto field) { (absent ? zero : value.at(option.key)).get_to(layer.*field); },
               option.field);
  }
}

nlohmann::ordered_json ActivationType::Options(const LayerSpec& layer) const {
  auto options = nlohmann::ordered_json::object();
  for (const auto& option : options_) {
    std::visit([&](auto field) { options[option.key] = layer.*field; }, option.field);
    if (option.optional && options[option.key] == 0) options.erase(option.key);
  }
  return options;
}

std::span<const ActivationType* const> ActivationTypes() {
  static const Sign sign;
  static const Relu relu;
  static const Square square;
  static const Table table;
  static const Clip clip;
  static const std::array<const ActivationType*, 5> types{&sign, &relu, &square, &table, &clip};
  return types;
}

const ActivationType* FindActivation(LayerType type) {
  const auto types = ActivationTypes();
  const auto found =
      std::find_if(types.begin(), types.end(),
                   [=](const ActivationType* activation) { return activation->Type() == type; });
  return found == types.end() ? nullptr : *found;
}

}  // namespace tercet::nn
