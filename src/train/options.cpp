// SPDX-License-Identifier: Apache-2.0
#include "train/options.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <cmath>
#include <string>

#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"

namespace tercet::train {
namespace {

// Products of the two stay below the largest float, where libtorch would stop with an error of its
// own.
constexpr double kMaxRate = 1e30;
constexpr double kMaxDecay = 1e6;
constexpr double kMaxTemperature = 1e6;
constexpr double kMaxAugment = 100;

void Require(bool good, const char* option, const std::string& problem) {
  if (!good) throw ConfigError(option, problem);
}

}  // namespace

void CheckOptions(const TrainOptions& o) {
  Require(!o.network.empty(), "network", "expected an architecture, nets/*.json");
  Require(!o.train_images.empty(), "--images", "expected a file of training images");
  Require(!o.test_images.empty() || o.test_labels.empty(), "--test-labels",
          "expected together with --test-images, or neither");
  Require(o.epochs >= 1, "--epochs", fmt::format("expected at least 1, got {}", o.epochs));
  Require(o.batch >= 2, "--batch-size",
          fmt::format("expected at least 2 (batch_norm needs them), got {}", o.batch));
  Require(o.lr > 0 && o.lr <= kMaxRate, "--lr",
          fmt::format("expected 0 < rate <= {}, got {}", kMaxRate, o.lr));
  Require(o.momentum >= 0 && o.momentum < 1, "--momentum",
          fmt::format("expected 0 <= momentum < 1, got {}", o.momentum));
  Require(o.weight_decay >= 0 && o.weight_decay <= kMaxDecay, "--weight-decay",
          fmt::format("expected 0 <= decay <= {}, got {}", kMaxDecay, o.weight_decay));
  Require(o.warmup_epochs >= 0 && o.warmup_epochs <= o.epochs, "--warmup-epochs",
          fmt::format("expected 0 to {} (--epochs), got {}", o.epochs, o.warmup_epochs));
  Require(o.step_epochs > 0 && std::isfinite(o.step_epochs), "--step-epochs",
          fmt::format("expected a number above 0, got {}", o.step_epochs));
  Require(o.step_factor > 0 && o.step_factor <= kMaxRate, "--step-factor",
          fmt::format("expected 0 < factor <= {}, got {}", kMaxRate, o.step_factor));
  Require(o.average >= 0 && o.average <= 1, "--average",
          fmt::format("expected 0 (off) to 1, got {}", o.average));
  Require(o.label_smoothing >= 0 && o.label_smoothing < 1, "--label-smoothing",
          fmt::format("expected 0 <= s < 1, got {}", o.label_smoothing));
  Require(std::isfinite(o.augment) && o.augment >= 0 && o.augment <= kMaxAugment, "--augment",
          fmt::format("expected a number from 0 to {}, got {}", kMaxAugment, o.augment));
  Require(o.width_bits == 0 || (o.width_bits >= 4 && o.width_bits <= 32), "--width-bits",
          fmt::format("expected 0 (off) or 4..32, got {}", o.width_bits));
  Require(o.threads >= 1, "--threads", fmt::format("expected at least 1, got {}", o.threads));
  Require(o.validation >= 1, "--validation", "expected at least 1 held-out image, got 0");
  Require(o.teacher.empty() == o.teacher_weights.empty(), "--teacher",
          "expected together with --teacher-weights, or neither");
  Require(o.temperature > 0 && o.temperature <= kMaxTemperature, "--temperature",
          fmt::format("expected 0 < T <= {}, got {}", kMaxTemperature, o.temperature));
  Require(o.distillation_weight >= 0 && o.distillation_weight <= 1, "--distillation-weight",
          fmt::format("expected 0 <= lambda <= 1, got {}", o.distillation_weight));
  Require(o.device != Device::kCuda || HasCuda(), "--device",
          fmt::format("no CUDA device was found by libtorch {}; expected cpu or auto",
                      LibtorchVersion()));
  Require(!o.out.empty(), "--out", "expected a file to write");
  CheckWritable(o.out, "--out");
  CheckWritable(CheckpointFile(o), "--checkpoint");
}

std::filesystem::path CheckpointFile(const TrainOptions& options) {
  if (!options.checkpoint.empty()) return options.checkpoint;
  std::filesystem::path file = options.out;
  file += ".checkpoint";
  return file;
}

std::string LibtorchVersion() { return TORCH_VERSION; }
bool HasCuda() { return torch::cuda::is_available(); }

const char* Name(Optimizer optimizer) { return optimizer == Optimizer::kAdamW ? "adamw" : "sgd"; }
const char* Name(Schedule schedule) { return schedule == Schedule::kCosine ? "cosine" : "step"; }
const char* Name(Augmentation augmentation) {
  switch (augmentation) {
    case Augmentation::kNone:
      return "none";
    case Augmentation::kDistort:
      return "distort";
    case Augmentation::kFlipCrop:
      return "flip_crop";
  }
  throw InternalError("unknown augmentation");
}
const char* Name(Precision precision) {
  return precision == Precision::kFloat32 ? "float32" : "bfloat16";
}
const char* Name(TeacherImages images) {
  return images == TeacherImages::kAugmented ? "augmented" : "original";
}
const char* Name(Device device) {
  switch (device) {
    case Device::kCpu:
      return "cpu";
    case Device::kCuda:
      return "cuda";
    case Device::kAuto:
      return "auto";
  }
  throw InternalError("unknown device");
}

}  // namespace tercet::train
