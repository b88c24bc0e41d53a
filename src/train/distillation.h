// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <filesystem>

#include "tercet/nn/network.h"
#include "train/model.h"

namespace tercet::train {

/// The loss of a student that also learns from a teacher's logits, with the temperature T and the
/// weight lambda [Dong et al., CBNN, arXiv 2412.16449, eq. 1-5]:
///
///     lambda T^2 KL(softmax(teacher / T) || softmax(student / T)) + (1 - lambda) `hard_loss`
///
/// The divergence is the mean over the batch; both logits are N x classes. T^2 keeps the size of
/// its gradient independent of T. No gradient reaches the teacher.
torch::Tensor DistillationLoss(const torch::Tensor& student, const torch::Tensor& teacher,
                               const torch::Tensor& hard_loss, double temperature, double lambda);

/// A trained network that a student learns from. Not thread-safe.
class Teacher {
 public:
  /// ConfigError (place: the teacher's file) when a file is wrong, or the teacher has another input
  /// shape or number of classes than `student`. For `type` see Model::Forward.
  Teacher(const std::filesystem::path& network, const std::filesystem::path& weights,
          const nn::NetworkSpec& student, const torch::Device& device, torch::ScalarType type);

  /// Logits of float pixels 0..255, N x C x H x W, which enter as the teacher's own InputSpec says.
  torch::Tensor Logits(const torch::Tensor& pixels);

 private:
  nn::NetworkSpec spec_;
  Model model_;
  torch::ScalarType type_;
};

}  // namespace tercet::train
