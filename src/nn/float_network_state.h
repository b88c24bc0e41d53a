// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tercet/nn/float_network.h"

namespace tercet::nn {

/// The weights of one layer of the JSON; what the type does not have stays empty.
struct FloatLayer {
  std::vector<float> weight, bias;  ///< of a batch_norm gamma and beta
  std::vector<float> mean, variance;
};

struct FloatNetwork::State {
  NetworkSpec spec;
  std::string file;
  std::vector<FloatLayer> layers;  ///< one per layer of the JSON

  /// Sees what leaves a layer of the JSON, given by its index: features x batch.
  using Observer = std::function<void(std::size_t layer, const std::vector<float>& values)>;
  /// As FloatNetwork::Run; `observer` may be empty.
  std::vector<float> Run(const files::Images& images, std::size_t first, std::size_t count,
                         const Observer& observer) const;

 private:
  /// The input's real numbers, features x count.
  std::vector<float> RealInput(const files::Images& images, std::size_t first,
                               std::size_t count) const;
  /// What leaves the last layer, classes x batch.
  std::vector<float> RunBatch(std::vector<float> x, std::size_t batch,
                              const Observer& observer) const;
};

}  // namespace tercet::nn
