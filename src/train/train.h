#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

/// Training of a network in the clear with libtorch. This header needs no libtorch, so that only
/// the sources behind it pay for its headers.
namespace tercet::train {

/// What to train, on what and how. nets/README.md says what the weights there were trained with.
struct TrainOptions {
  std::filesystem::path network;       ///< architecture, JSON
  std::filesystem::path train_images;  ///< IDX or .npy, see nn::LoadImages
  std::filesystem::path train_labels;
  std::filesystem::path test_images;  ///< optional; looked at once, after the last epoch
  std::filesystem::path test_labels;
  std::filesystem::path out;      ///< .safetensors to write, names as in a PyTorch state_dict
  std::filesystem::path initial;  ///< optional: weights to start from instead of random ones

  int epochs = 60;
  int batch = 128;
  double lr = 2e-3;  ///< highest rate: linear warm-up over one epoch, then a cosine to zero
  double weight_decay = 0.01;    ///< decoupled (AdamW), of the weights of conv2d and linear only
  double label_smoothing = 0.0;  ///< in [0, 1)
  double augment =
      1.0;  ///< strength of shifts, rotations and distortions; 0 leaves images as they are
  /// When not 0, the weights between a bounded input (the image, or +-1) and a sign are rounded, in
  /// training and in the file, to multiples of a step per output channel, such that the sums over
  /// these integers, with the bias, fit that many bits (sign included). Compiling for that width
  /// then changes nothing.
  unsigned width_bits = 10;
  std::size_t validation =
      5000;  ///< last images of the training set, held out to choose the epoch to keep
  std::uint64_t seed = 1;
  int threads = 1;  ///< results repeat exactly only for the same number of threads
};

/// Where a run stands. Sent after every few steps and, with `epoch_done`, after every epoch.
struct TrainProgress {
  int epoch = 0, epochs = 0;            ///< epoch counts from 1
  std::size_t step = 0, steps = 0;      ///< within the epoch
  double loss = 0, accuracy = 0;        ///< means over the epoch so far, in training
  double images_per_s = 0, left_s = 0;  ///< speed of this epoch; estimate for the rest of the run
  bool epoch_done = false;
  double validation_accuracy = 0;  ///< set when `epoch_done`
  bool saved = false;              ///< set when `epoch_done`: the best epoch so far, now in `out`
};

struct EpochRecord {
  double loss = 0, accuracy = 0, validation_accuracy = 0, seconds = 0;
};

struct TrainResult {
  std::vector<EpochRecord> epochs;
  int best_epoch = 0;  ///< counts from 1
  double validation_accuracy = 0;
  std::optional<double> test_accuracy;  ///< of the file written, when test images were given
  double seconds = 0;
};

/// Trains and writes `out` (atomically) after every epoch that is at least as good as the best
/// before it on the held-out images. Images enter as nn::InputSpec says, so accuracies are those of
/// the rounded inputs.
///
/// Throws ConfigError when an option or file is wrong, and when the loss stops being a finite
/// number; the weights saved by then stay in `out`. Sets libtorch's global seed and thread count,
/// so one training at a time per process.
TrainResult Train(const TrainOptions& options,
                  const std::function<void(const TrainProgress&)>& on_progress = {});

}  // namespace tercet::train
