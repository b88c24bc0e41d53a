// SPDX-License-Identifier: Apache-2.0
#include "tercet/nn/integer_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "nn/axes_json.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/files/tensor_file.h"

namespace tercet::nn {
namespace {

using mpc::ActivationKind;
using mpc::LinearShape;
using nlohmann::json;

json ShapeToJson(const Shape3& shape) { return {shape.channels, shape.height, shape.width}; }

json LinearToJson(const LinearShape& linear) {
  return {{"in", ShapeToJson(linear.in)},
          {"out_channels", linear.out_channels},
          {"kernel", {linear.kernel_h, linear.kernel_w}},
          {"stride", AxesToJson(linear.stride)},
          {"padding", AxesToJson(linear.padding)},
          {"groups", linear.groups},
          {"bias_per_element", linear.bias_per_element}};
}

/// How many members each window of a channel has inside the map.
std::vector<std::size_t> MembersOf(const SumPool& pool, const Shape3& in) {
  const Shape3 channel{1, in.height, in.width};
  std::vector<std::size_t> members(pool.Out(channel).Size(), 0);
  mpc::Windows{channel, pool.kernel, pool.stride, pool.padding}.ForEach(
      [&](std::size_t output, std::size_t, std::size_t) { ++members[output]; });
  return members;
}

}  // namespace

std::size_t SumPool::Divisor(const Shape3& in) const {
  if (counts_padding) return kernel.Area();
  std::size_t divisor = 1;
  for (const std::size_t members : MembersOf(*this, in)) {
    divisor = std::lcm(divisor, members);
    if (divisor > kMostDivisor) return 0;
  }
  return divisor;
}

std::vector<std::size_t> SumPool::Factors(const Shape3& in) const {
  std::vector<std::size_t> factors = MembersOf(*this, in);
  const std::size_t divisor = Divisor(in);
  for (std::size_t& factor : factors) factor = counts_padding ? 1 : divisor / factor;
  return factors;
}

Shape3 PublicLayer::ActivationIn() const {
  const Shape3 out = linear.Out();
  if (compared_classes == 0) return out;
  const auto window = static_cast<std::size_t>(std::lround(
      std::sqrt(static_cast<double>(out.Size()) / static_cast<double>(compared_classes))));
  return {compared_classes, window, window};
}

mpc::ActivationSpec PublicLayer::Activation(std::size_t batch) const {
  return {.layer = name,
          .kind = activation,
          .shift = shift,
          .in = ActivationIn(),
          .pool = pool,
          .value_bits = value_bits,
          .ring_bits = value_bits,
          .out_bits = value_bits,
          .batch = batch,
          .table = table};
}

Shape3 PublicLayer::Out() const {
  const Shape3 out = Activation(1).Out();
  return sum_pool ? sum_pool->Out(out) : out;
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
    if (layer.pool) {
      pool = {{"kernel", AxesToJson(layer.pool->kernel)},
              {"stride", AxesToJson(layer.pool->stride)}};
      if (!layer.pool->padding.None()) pool["padding"] = AxesToJson(layer.pool->padding);
    }
    json written = {{"name", layer.name},
                    {"type", layer.type},
                    {"linear", LinearToJson(layer.linear)},
                    {"activation", mpc::ActivationName(layer.activation)},
                    {"pool", pool},
                    {"value_bits", layer.value_bits},
                    {"suite", layer.suite}};
    // Only where they are used, so that the form stays one for each network.
    if (layer.shift != 0) written["shift"] = layer.shift;
    if (!layer.table.empty()) written["table"] = layer.table;
    if (!layer.proven) written["proven"] = false;
    if (layer.compared_classes != 0) written["compared_classes"] = layer.compared_classes;
    if (layer.shortcut) {
      written["shortcut"] = {{"from", layer.shortcut->from}};
      if (layer.shortcut->linear)
        written["shortcut"]["linear"] = LinearToJson(*layer.shortcut->linear);
    }
    if (layer.sum_pool) {
      written["sum_pool"] = {{"kernel", AxesToJson(layer.sum_pool->kernel)},
                             {"stride", AxesToJson(layer.sum_pool->stride)},
                             {"padding", AxesToJson(layer.sum_pool->padding)}};
      if (!layer.sum_pool->counts_padding) written["sum_pool"]["counts_padding"] = false;
    }
    document["layers"].push_back(std::move(written));
  }
  return document.dump(-1, ' ', true, json::error_handler_t::replace);
}

std::vector<std::int64_t> QuantiseInput(const InputSpec& spec, const files::Images& images,
                                        std::size_t first, std::size_t count) {
  const std::size_t features = spec.shape.Size();
  TERCET_CHECK(images.shape == spec.shape, "got images of {}, expected {}",
               mpc::ShapeText(images.shape), mpc::ShapeText(spec.shape));
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
