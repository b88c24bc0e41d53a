// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "train/train.h"

namespace tercet::train {

/// What a run needs to go on after an epoch as if it had never stopped, apart from the optimiser's
/// state. libtorch's CPU generator, the only one drawn from, is part of it.
struct Checkpoint {
  std::string settings;  ///< JSON object of all that must be equal for the run to go on
  int best_epoch = 0;
  double validation_accuracy = 0;    ///< of the best epoch
  double seconds = 0;                ///< spent so far
  std::vector<EpochRecord> history;  ///< one an epoch
  std::mt19937_64 shuffle;
  std::map<std::string, torch::Tensor> model;  ///< Model::State
  std::map<std::string, torch::Tensor>
      average;                      ///< WeightAverage::State; empty before its first step
  std::int64_t averaged_steps = 0;  ///< WeightAverage::Steps
};

/// Writes the checkpoint, the optimiser's state and that of libtorch's CPU generator atomically: a
/// temporary file beside it, then rename. ConfigError when it cannot; what was there stays then.
void SaveCheckpoint(const Checkpoint& checkpoint, const torch::optim::Optimizer& optimizer,
                    const std::filesystem::path& file);

/// Reads what SaveCheckpoint wrote; sets the optimiser's state and libtorch's CPU generator.
/// ConfigError (place: the file) when it is missing, damaged or of a run whose settings differ from
/// `settings`; the message names the first one that does. Tensors are put on `device`.
Checkpoint LoadCheckpoint(const std::filesystem::path& file, const std::string& settings,
                          torch::optim::Optimizer& optimizer, const torch::Device& device);

}  // namespace tercet::train
