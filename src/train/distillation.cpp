// SPDX-License-Identifier: Apache-2.0
#include "train/distillation.h"

#include <fmt/format.h>

#include "tercet/base/error.h"
#include "tercet/files/tensor_file.h"
#include "train/batches.h"

namespace tercet::train {

using torch::Tensor;

Tensor DistillationLoss(const Tensor& student, const Tensor& teacher, const Tensor& hard_loss,
                        double temperature, double lambda) {
  const Tensor wanted = torch::log_softmax(teacher.detach() / temperature, 1);
  const Tensor found = torch::log_softmax(student / temperature, 1);
  const Tensor divergence = (wanted.exp() * (wanted - found)).sum(1).mean();
  return lambda * temperature * temperature * divergence + (1 - lambda) * hard_loss;
}

Teacher::Teacher(const std::filesystem::path& network, const std::filesystem::path& weights,
                 const nn::NetworkSpec& student, const torch::Device& device,
                 torch::ScalarType type)
    : spec_(nn::LoadNetwork(network)), model_(spec_, /*width_bits=*/0), type_(type) {
  const mpc::Shape3& own = spec_.input.shape;
  const mpc::Shape3& other = student.input.shape;
  if (own != other) {
    throw ConfigError(
        network.string(),
        fmt::format("the teacher {} takes images of {}, expected {} as {} does", spec_.name,
                    mpc::ShapeText(own), mpc::ShapeText(other), student.name));
  }
  if (spec_.Classes() != student.Classes()) {
    throw ConfigError(network.string(),
                      fmt::format("the teacher {} has {} classes, expected {} as {} has",
                                  spec_.name, spec_.Classes(), student.Classes(), student.name));
  }
  model_.Load(files::LoadTensors(weights), weights.string());
  model_.To(device);
}

Tensor Teacher::Logits(const Tensor& pixels) {
  torch::NoGradGuard guard;
  return model_.Forward(QuantizeInput(pixels, spec_.input), /*training=*/false, type_);
}

}  // namespace tercet::train
