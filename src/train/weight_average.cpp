// SPDX-License-Identifier: Apache-2.0
#include "train/weight_average.h"

namespace tercet::train {

void WeightAverage::Add(const Model& model) {
  ++steps_;
  model_.MoveTowards(model, 1.0 / static_cast<double>(steps_));
}

Model& WeightAverage::Estimate(std::size_t batches, const std::function<void(Model&)>& forward) {
  torch::NoGradGuard guard;
  for (std::size_t batch = 1; batch <= batches; ++batch) {
    model_.SetMomentum(1.0 / static_cast<double>(batch));
    forward(model_);
  }
  return model_;
}

void WeightAverage::SetState(const std::map<std::string, torch::Tensor>& state, std::int64_t steps,
                             const std::string& name) {
  model_.SetState(state, name);
  steps_ = steps;
}

}  // namespace tercet::train
