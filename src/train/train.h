// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tercet/files/data_options.h"

/// Training of a network in the clear with libtorch. This header needs no libtorch, so that only
/// the sources behind it pay for its headers.
namespace tercet::train {

/// How the weights follow the gradient: AdamW, whose weight decay is decoupled, or stochastic
/// gradient descent with momentum.
enum class Optimizer : std::uint8_t { kAdamW, kSgd };
/// How the learning rate falls after its linear warm-up: along a cosine to zero at the end of the
/// run, or by a factor every so many epochs.
enum class Schedule : std::uint8_t { kCosine, kStep };
/// What happens to the training images: nothing; shifts, rotations and distortions as handwriting
/// has them; or mirroring and shifts, for photographs.
enum class Augmentation : std::uint8_t { kNone, kDistort, kFlipCrop };
/// The type of a network's values in training. bfloat16 has 8 significant bits and is faster
/// on processors with AMX or AVX512_BF16 and on GPUs, slower on others. Weights, statistics
/// and logits are float32 always, as are evaluations.
enum class Precision : std::uint8_t { kFloat32, kBfloat16 };
/// What a teacher sees: the augmented images that its student sees, which costs a pass through the
/// teacher for every step; or every training image as it is, once, which is all but free over many
/// epochs and good enough where augmentation changes little.
enum class TeacherImages : std::uint8_t { kAugmented, kOriginal };
enum class Device : std::uint8_t { kCpu, kCuda, kAuto };  ///< kAuto: CUDA where there is one

/// What to train, on what and how. nets/README.md says what the weights there were trained with.
struct TrainOptions {
  std::filesystem::path network;       ///< architecture, JSON
  std::filesystem::path train_images;  ///< files or subsets, see files::LoadLabelledImages
  std::filesystem::path train_labels;  ///< may be empty for formats that hold labels
  std::filesystem::path test_images;   ///< optional; looked at once, after the last epoch
  std::filesystem::path test_labels;   ///< as train_labels
  files::DataOptions data;             ///< of all four
  std::filesystem::path out;           ///< .safetensors to write, names as in a PyTorch state_dict
  std::filesystem::path initial;       ///< optional: weights to start from instead of random ones
  std::filesystem::path checkpoint;    ///< empty: `out` with ".checkpoint" behind
  bool resume = false;                 ///< go on from the checkpoint

  int epochs = 60;
  int batch = 128;
  Optimizer optimizer = Optimizer::kAdamW;
  double lr = 2e-3;            ///< highest rate
  double momentum = 0.9;       ///< of kSgd
  double weight_decay = 0.01;  ///< of the weights of conv2d and linear only
  Schedule schedule = Schedule::kCosine;
  double warmup_epochs = 1;
  double step_epochs = 20, step_factor = 0.1;  ///< of kStep
  /// When not 0: what is kept is the mean of the weights after each step of so large a part of the
  /// run, at its end (at least one epoch), with statistics of batch normalisation measured for
  /// them; the accuracies on the held-out images are those of the mean from its first epoch on.
  double average = 0;
  double label_smoothing = 0.0;  ///< in [0, 1)
  Augmentation augmentation = Augmentation::kDistort;
  double augment = 1.0;  ///< strength of the augmentation; 0 leaves images as they are
  /// When not 0, the weights between a bounded input (the image, or +-1) and a sign are rounded, in
  /// training and in the file, to multiples of a step per output channel, such that the sums over
  /// these integers, with the bias, fit that many bits (sign included). Compiling for that width
  /// then changes nothing. Of a separable convolution the product of both parts is what is rounded,
  /// and in training only: the file holds the parts, compiling multiplies them out and rounds.
  unsigned width_bits = 10;
  /// Layers whose weights are -1 and +1 (Courbariaux et al., "Binarized neural networks", 2016):
  /// the signs of real weights that the gradient moves. {"all"}: each conv2d and linear layer. A
  /// normalisation must follow where the size of outputs matters. Never rounded for `width_bits`.
  std::vector<std::string> binary_weights;
  /// Last images of the training set, held out to choose the epoch to keep.
  std::size_t validation = 5000;

  /// Knowledge distillation: with a teacher, the loss is that of DistillationLoss.
  std::filesystem::path teacher;          ///< architecture, JSON; empty: no teacher
  std::filesystem::path teacher_weights;  ///< .safetensors
  TeacherImages teacher_images = TeacherImages::kAugmented;
  double temperature = 4;
  double distillation_weight = 0.7;  ///< lambda, the teacher's share of the loss, in [0, 1]

  std::uint64_t seed = 1;
  int threads = 1;  ///< results repeat exactly only for the same number of threads, on a CPU
  Device device = Device::kCpu;
  Precision precision = Precision::kFloat32;
};

struct EpochRecord {
  double loss = 0, accuracy = 0, validation_accuracy = 0, seconds = 0, images_per_s = 0;
  bool saved = false;  ///< the best epoch up to then
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
  /// Set when `epoch_done`: all epochs, those before a resumption too.
  std::vector<EpochRecord> history;
};

struct TrainResult {
  std::vector<EpochRecord> epochs;
  int best_epoch = 0;  ///< counts from 1
  double validation_accuracy = 0;
  std::optional<double> test_accuracy;  ///< of the file written, when test images were given
  double seconds = 0;                   ///< those before a resumption too
};

/// Trains and writes `out` (atomically) after every epoch that is at least as good as the best
/// before it on the held-out images, and the checkpoint after every epoch. Images enter as
/// nn::InputSpec says, so accuracies are those of the rounded inputs.
///
/// A run that was interrupted, by an exception of `on_progress` or the end of the process, goes on
/// with `resume` and ends with the same weights as one that was not, bit for bit on one machine
/// with the same number of threads. The checkpoint goes away when the run is complete.
///
/// Throws ConfigError when an option or file is wrong, and when the loss stops being a finite
/// number; the weights saved by then stay in `out` and the checkpoint. Sets libtorch's global seed
/// and thread count, so one training at a time per process.
///
/// `on_warning` is told, before the first step, of images that use next to nothing of their range.
TrainResult Train(const TrainOptions& options,
                  const std::function<void(const TrainProgress&)>& on_progress = {},
                  const std::function<void(const std::string&)>& on_warning = {});

/// What `resume` reads and every epoch writes.
std::filesystem::path CheckpointFile(const TrainOptions& options);
/// libtorch's version, and whether it reaches a CUDA device.
std::string LibtorchVersion();
bool HasCuda();

/// Names as in options and configuration files.
const char* Name(Optimizer optimizer);
const char* Name(Schedule schedule);
const char* Name(Augmentation augmentation);
const char* Name(TeacherImages images);
const char* Name(Device device);
const char* Name(Precision precision);

}  // namespace tercet::train
