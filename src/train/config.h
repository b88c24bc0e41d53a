// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "train/train.h"

namespace tercet::train {

/// A training run as a JSON file describes it.
struct TrainConfig {
  TrainOptions options;       ///< what the file leaves out has its default
  std::filesystem::path log;  ///< empty when the file names none
};

/// Reads a configuration; configs/train/train.schema.json, built into the program, says what may
/// stand in it, and paths are relative to the file. ConfigError ("FILE POINTER") for what the
/// schema does not allow (an unknown key, a wrong type, a number out of range) and for a key that
/// the chosen optimizer, schedule or augmentation does not use.
TrainConfig LoadTrainConfig(const std::filesystem::path& file);

/// ConfigError ("FILE POINTER") for an input that `config`, as it was read from `file`, names and
/// `used`, after the command line, still uses, although there is no such file.
void CheckInputsExist(const TrainConfig& config, const std::filesystem::path& file,
                      const TrainOptions& used);

/// All that decides what a run computes, but for the contents of files: for its log, and to tell
/// whether a checkpoint belongs to it.
nlohmann::ordered_json DescribeRun(const TrainOptions& options);

/// Whether a file is such a configuration: a JSON object without "layers", which a network has.
/// False for what cannot be read as JSON.
bool IsTrainConfig(const std::filesystem::path& file);

}  // namespace tercet::train
