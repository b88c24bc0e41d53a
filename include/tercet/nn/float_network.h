// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tercet/files/images.h"
#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

namespace tercet::compile {
class Compiler;
}

namespace tercet::nn {

/// The float network with its trained weights, for calibration and comparison. Weights and names as
/// in a PyTorch state_dict.
class FloatNetwork {
 public:
  /// Checks that every tensor exists, has the right shape and holds no NaN or infinity, and that
  /// none is left over; ConfigError "FILE tensor NAME: found, expected", with all tensors that do
  /// not fit. A prefix that all tensors and no layer have ("module.", "model.") is left away,
  /// PyTorch's num_batches_tracked are passed over, and other types of numbers become floats.
  FloatNetwork(NetworkSpec spec, const files::TensorFile& tensors, std::string file);
  /// Is given every layer's output, front to back, for some images at a time, in their order: the
  /// layer's index and the values, features x images, row-major.
  using LayerVisitor = std::function<void(std::size_t layer, const std::vector<float>& output)>;
  /// Logits of images [first, first + count), image after image. Inputs are quantised as InputSpec
  /// says. Thread safe; `visit` is called in the caller's thread.
  std::vector<float> Run(const files::Images& images, std::size_t first, std::size_t count,
                         const LayerVisitor& visit = nullptr) const;
  const NetworkSpec& Spec() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
  friend class compile::Compiler;
};

}  // namespace tercet::nn
