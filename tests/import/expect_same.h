// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "import/evaluate.h"
#include "import/model.h"
#include "tercet/nn/float_network.h"

namespace tercet::importer {

inline Dims InputDims(const Model& m, std::int64_t images) {
  Dims dims;
  for (const auto& dim : m.proto.graph().input(0).type().tensor_type().shape().dim())
    dims.push_back(dim.has_dim_value() ? dim.dim_value() : images);
  return dims;
}

/// Imports the model and compares what the network computes of three images with what the model
/// does. `channels_last`: the model takes images in that order. `tolerance` is a part of the
/// largest value.
inline ImportedNetwork ExpectSame(const Model& m, bool channels_last = false,
                                  const ImportOptions& options = Scaled(),
                                  float tolerance = 1e-5F) {
  const ImportedNetwork network = m.Import(options);
  const auto spec = nn::ParseNetwork(network.architecture, "imported");
  const nn::FloatNetwork floats(spec, network.weights, "weights");
  const mpc::Shape3 shape = spec.input.shape;
  files::Images images{shape, 3, {}};
  for (std::size_t i = 0; i < 3 * shape.Size(); ++i)
    images.pixels.push_back(static_cast<std::uint8_t>(i * 29 + i / 7 + i * i / 5));
  const std::vector<float> logits = floats.Run(images, 0, images.count);

  std::vector<double> inputs;
  for (std::size_t n = 0; n < images.count; ++n)
    for (std::size_t i = 0; i < shape.Size(); ++i) {
      const std::size_t area = shape.height * shape.width;
      const std::size_t from = channels_last ? i % shape.channels * area + i / shape.channels : i;
      inputs.push_back(images.pixels[n * shape.Size() + from] / options.input.scale -
                       options.input.mean);
    }
  std::vector<float> expected;
  const Dims dims = InputDims(m, 3);
  const auto at_once = static_cast<std::size_t>(reference::Count(dims)) / shape.Size();
  for (std::size_t n = 0; n < images.count; n += at_once) {
    std::vector<double> some(at_once * shape.Size());
    for (std::size_t i = 0; i < some.size(); ++i)
      some[i] = inputs[(n * shape.Size() + i) % inputs.size()];
    const reference::Tensor y = reference::Evaluator(m.proto.graph()).Run("x", {dims, some});
    expected.insert(expected.end(), y.values.begin(), y.values.end());
  }
  expected.resize(logits.size());
  float largest = 1;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  EXPECT_THAT(logits, testing::Pointwise(testing::FloatNear(tolerance * largest), expected));
  return network;
}

}  // namespace tercet::importer
