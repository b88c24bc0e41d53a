// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "train/model.h"

namespace tercet::train {

/// The mean of the weights that a model has after each of its last steps (Izmailov et al.,
/// "Averaging weights leads to wider optima and better generalization", 2018). Not thread-safe.
class WeightAverage {
 public:
  /// `model`: of the same network, width and binary layers as those that Add is given; its values
  /// play no part.
  explicit WeightAverage(Model model) : model_(std::move(model)) {}

  /// To the device of those that Add is given.
  void To(const torch::Device& device) { model_.To(device); }

  /// Takes the weights after one more step into the mean.
  void Add(const Model& model);
  /// How many steps the mean is of.
  std::int64_t Steps() const { return steps_; }

  /// The model with the mean weights. The statistics of its batch normalisations are those of the
  /// `batches` batches that `forward` passes through it in training: means of other weights'
  /// statistics would not be those of the mean weights. At least one step and one batch.
  Model& Estimate(std::size_t batches, const std::function<void(Model&)>& forward);

  /// To go on from exactly here; the tensors are the average's own.
  std::map<std::string, torch::Tensor> State() const { return model_.State(); }
  /// Takes over a state and the number of its steps; errors as of Model::SetState.
  void SetState(const std::map<std::string, torch::Tensor>& state, std::int64_t steps,
                const std::string& name);

 private:
  Model model_;
  std::int64_t steps_ = 0;
};

}  // namespace tercet::train
