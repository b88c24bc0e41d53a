// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

namespace tercet::train {

/// A NetworkSpec as a differentiable function: every layer type, and inputs from earlier layers
/// (LayerSpec::from). Not thread-safe.
///
///     Model model(spec, /*width_bits=*/0);
///     torch::Tensor logits = model.Forward(images, /*training=*/true);
///     files::SaveTensors(model.Save(), "m.safetensors");
class Model {
 public:
  /// Random weights from libtorch's global generator. For `width_bits` see TrainOptions; the
  /// two parts of a separable convolution are rounded as the one that they make together. The
  /// weights of the layers named in `binary` are used and saved as their signs, -1 and +1, and are
  /// not rounded. ConfigError ("--binary-weights") where one is no conv2d or linear layer.
  Model(const nn::NetworkSpec& spec, unsigned width_bits, const std::set<std::string>& binary = {});

  /// Logits (N x classes) of a batch N x C x H x W of real inputs. `training` uses and updates
  /// batch statistics as PyTorch's batch_norm does, else the running ones are used. `type`
  /// (float32 or bfloat16) is that of the convolutions and of what is between them; weights,
  /// statistics, linear layers and logits are float32 always.
  torch::Tensor Forward(const torch::Tensor& input, bool training,
                        torch::ScalarType type = torch::kFloat32);

  /// Rounds as if the width had so many bits more, in training only: rounding that starts fine and
  /// gets coarser finds weights where rounding that starts coarse would leave nothing but zeros.
  void SetExtraTrainingBits(double bits) { extra_training_bits_ = bits; }

  /// The part of a batch's mean and variance in the running ones after a pass in training; 0.1 as
  /// in PyTorch unless it is set.
  void SetMomentum(double momentum) { momentum_ = momentum; }

  /// Moves every weight and bias by `part` of the way to that of `other`, a model of the same
  /// network on the same device; statistics stay, and the scales of the rounding become those of
  /// `other`.
  void MoveTowards(const Model& other, double part);

  /// Weights of conv2d and linear, which weight decay applies to / all other trained tensors.
  std::vector<torch::Tensor> Weights() const;
  std::vector<torch::Tensor> OtherParameters() const;

  /// No parameter or running statistic is infinite or NaN.
  bool IsFinite() const;

  /// Moves everything to a device; before any optimiser takes hold of the parameters.
  void To(const torch::Device& device);

  /// Takes over every tensor that the network needs; others are ignored. ConfigError ("FILE tensor
  /// NAME") when one is missing or has another shape.
  void Load(const files::TensorFile& file, const std::string& name);
  /// The tensors in float32, names as in a PyTorch state_dict; binary weights are saved as -1 and
  /// +1, a byte each, and weights that are rounded for the width are saved rounded, each output
  /// channel as multiples of a step of its own.
  files::TensorFile Save() const;

  /// Everything that training changes, to go on from exactly here: the tensors of Save as they are
  /// before rounding, and the scales of the rounding, "NAME.scale". The tensors are the model's
  /// own.
  std::map<std::string, torch::Tensor> State() const;
  /// Takes over a state of a model of the same network and width. ConfigError (place: `name`) when
  /// a tensor is missing or has another shape.
  void SetState(const std::map<std::string, torch::Tensor>& state, const std::string& name);

 private:
  // The real values low, low + unit, ..., low + top * unit that enter a layer.
  struct Grid {
    double unit = 1, low = 0, top = 0;
  };
  struct Step {
    nn::LayerSpec layer;
    torch::Tensor weight, bias, running_mean, running_var;  // undefined where the type has none
    bool referenced = false;                                // a later layer names this one
    bool binary = false;                                    // used as the signs of `weight`
    // Of a conv2d or linear whose weights are rounded: what enters, and the index of the batch_norm
    // between it and its sign.
    std::optional<Grid> rounded_for;
    std::size_t norm = 0;
    // Of the pointwise part of a separable convolution: the step of its depthwise part.
    std::optional<std::size_t> depthwise;
    torch::Tensor scale;  // integers per unit of weight at the last step of training, per channel
  };

  // Steps i and i + 1 are the depthwise and the pointwise part of a separable convolution.
  bool IsSeparable(std::size_t i) const;
  // How many steps from i on NormSign computes, which nothing else takes an output of: a
  // batch_norm, perhaps a max_pool2d, and the sign; or 0.
  std::size_t NormSignSteps(std::size_t i) const;
  void FindRounded(const nn::InputSpec& input);
  // The weights of the step, or their signs.
  static torch::Tensor OwnWeight(const Step& step);
  // The same, and of a pointwise part those of the whole separable convolution.
  torch::Tensor WholeWeight(const Step& step) const;
  // The same, or what rounding with `scale` makes of them.
  torch::Tensor UsedWeight(const Step& step, const torch::Tensor& scale) const;
  // Largest fitting scale of each output channel, where `extra_bits` more than the width are there
  // for the sums.
  torch::Tensor RoundingScale(const Step& step, double extra_bits) const;
  // For this pass; in training the scale is kept for the next.
  torch::Tensor WeightFor(Step& step, bool training) const;
  torch::Tensor Apply(Step& step, const torch::Tensor& input, bool training,
                      const std::map<std::string, torch::Tensor>& outputs) const;
  std::map<std::string, torch::Tensor> NamedTensors() const;

  std::vector<Step> steps_;
  unsigned width_bits_;
  double extra_training_bits_ = 0;
  double momentum_ = 0.1;
};

}  // namespace tercet::train
