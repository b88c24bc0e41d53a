// SPDX-License-Identifier: Apache-2.0
#include "train/train.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>
#include <set>
#include <utility>

#include "base/clock.h"
#include "tercet/base/error.h"
#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"
#include "train/batches.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/distillation.h"
#include "train/model.h"
#include "train/options.h"
#include "train/weight_average.h"

namespace tercet::train {
namespace {

using torch::Tensor;

constexpr std::int64_t kEvaluationBatch = 500;
constexpr std::size_t kStepsPerReport = 20;
// So many images held out are of one class only where the set is in order of its classes.
constexpr std::size_t kEnoughForAllClasses = 50;
// Batches of training images that the statistics of averaged weights come from.
constexpr std::size_t kStatisticsBatches = 50;
// With --width-bits, rounding starts so many bits finer and gets to the wanted width half way
// through the run.
constexpr double kExtraBitsAtStart = 5;

// Fisher-Yates with a generator and a reduction that the standard fixes, unlike std::shuffle.
Tensor Shuffled(std::size_t count, std::mt19937_64& generator) {
  std::vector<std::int64_t> order(count);
  for (std::size_t i = 0; i < count; ++i) {
    order[i] = static_cast<std::int64_t>(i);
    std::swap(order[i], order[generator() % (i + 1)]);
  }
  return torch::tensor(order, torch::kInt64);
}

std::int64_t Hits(const Tensor& logits, const Tensor& labels) {
  return logits.argmax(1).eq(labels).sum().item<std::int64_t>();
}

double Accuracy(Model& model, const DataSet& data, const nn::InputSpec& input,
                const torch::Device& device) {
  torch::NoGradGuard guard;
  std::int64_t hits = 0;
  const std::int64_t count = data.pixels.size(0);
  for (std::int64_t begin = 0; begin < count; begin += kEvaluationBatch) {
    const std::int64_t size = std::min(kEvaluationBatch, count - begin);
    const Tensor pixels = data.pixels.narrow(0, begin, size).to(device, torch::kFloat32);
    hits += Hits(model.Forward(QuantizeInput(pixels, input), /*training=*/false),
                 data.labels.narrow(0, begin, size).to(device));
  }
  return static_cast<double>(hits) / static_cast<double>(count);
}

torch::Device TorchDevice(Device device) {
  const bool cuda = device == Device::kCuda || (device == Device::kAuto && HasCuda());
  return torch::Device(cuda ? torch::kCUDA : torch::kCPU);
}

Tensor Augmented(const Tensor& pixels, const TrainOptions& options) {
  if (options.augment == 0) return pixels;
  switch (options.augmentation) {
    case Augmentation::kNone:
      return pixels;
    case Augmentation::kDistort:
      return Distort(pixels, options.augment);
    case Augmentation::kFlipCrop:
      return FlipAndCrop(pixels, options.augment);
  }
  throw InternalError("unknown augmentation");
}

class Trainer {
 public:
  Trainer(const TrainOptions& options, const std::function<void(const TrainProgress&)>& on_progress,
          const std::function<void(const std::string&)>& on_warning)
      : options_(options),
        on_progress_(on_progress),
        on_warning_(on_warning),
        device_(TorchDevice(options.device)),
        type_(options.precision == Precision::kBfloat16 ? torch::kBFloat16 : torch::kFloat32),
        spec_(nn::LoadNetwork(options.network)),
        shuffle_(options.seed) {
    torch::set_num_threads(options.threads);
    torch::manual_seed(options.seed);
    LoadData();
    model_ = std::make_unique<Model>(spec_, options.width_bits, BinaryLayers());
    if (!options.initial.empty()) {
      model_->Load(files::LoadTensors(options.initial), options.initial.string());
    }
    model_->To(device_);
    if (!options.teacher.empty()) {
      teacher_ = std::make_unique<Teacher>(options.teacher, options.teacher_weights, spec_, device_,
                                           type_);
    }
    if (options.average > 0) {
      average_.emplace(Model(spec_, options.width_bits, BinaryLayers()));
      average_->To(device_);
    }
    MakeOptimizer();
    if (options.resume) Resume();
  }

  TrainResult Run() {
    start_ = Clock::now();
    for (int epoch = first_epoch_; epoch <= options_.epochs; ++epoch) {
      const Clock::time_point epoch_start = Clock::now();
      TrainProgress progress = RunEpoch(epoch);
      // The last step's update is in no loss yet.
      if (!model_->IsFinite()) ThrowDiverged("a weight", epoch, steps_);
      Model& trained = TrainedModel();
      progress.validation_accuracy = Accuracy(trained, validation_, spec_.input, device_);
      // Of equals the later one: its learning rate was lower.
      progress.saved = progress.validation_accuracy >= result_.validation_accuracy;
      if (progress.saved) SaveBest(trained, epoch, progress.validation_accuracy);
      progress.epoch_done = true;
      result_.epochs.push_back({progress.loss, progress.accuracy, progress.validation_accuracy,
                                SecondsSince(epoch_start), progress.images_per_s, progress.saved});
      progress.history = result_.epochs;
      WriteCheckpoint();
      if (on_progress_) on_progress_(progress);
    }
    if (!options_.test_images.empty()) {
      Model best(spec_, /*width_bits=*/0);  // what was saved is rounded already
      best.Load(files::LoadTensors(options_.out), options_.out.string());
      best.To(device_);
      result_.test_accuracy = Accuracy(best, test_, spec_.input, device_);
    }
    result_.seconds = seconds_before_ + SecondsSince(start_);
    std::error_code ignored;
    std::filesystem::remove(CheckpointFile(options_), ignored);
    return result_;
  }

 private:
  std::set<std::string> BinaryLayers() const {
    if (options_.binary_weights != std::vector<std::string>{"all"})
      return {options_.binary_weights.begin(), options_.binary_weights.end()};
    std::set<std::string> all;
    for (const nn::LayerSpec& layer : spec_.layers) {
      if (layer.type == nn::LayerType::kConv2d || layer.type == nn::LayerType::kLinear)
        all.insert(layer.name);
    }
    return all;
  }

  void LoadData() {
    const DataSet all = LoadDataSet(spec_, options_.train_images, options_.train_labels,
                                    options_.data, on_warning_);
    const auto batch = static_cast<std::size_t>(options_.batch);
    if (all.Size() < options_.validation + batch) {
      throw ConfigError(
          options_.train_images.string(),
          fmt::format("holds {} images; expected at least {} (--validation) + {} (--batch-size)",
                      all.Size(), options_.validation, batch));
    }
    CheckHeldOut(all);
    const auto held_out = static_cast<std::int64_t>(options_.validation);
    const std::int64_t used = all.pixels.size(0) - held_out;
    training_ = {all.pixels.narrow(0, 0, used), all.labels.narrow(0, 0, used)};
    validation_ = {all.pixels.narrow(0, used, held_out), all.labels.narrow(0, used, held_out)};
    if (!options_.test_images.empty()) {
      test_ = LoadDataSet(spec_, options_.test_images, options_.test_labels, options_.data,
                          on_warning_);
    }
    steps_ = training_.Size() / batch;
  }

  // A folder's images come class by class, so that the last ones may tell nothing of the others.
  void CheckHeldOut(const DataSet& all) const {
    const auto held_out = static_cast<std::int64_t>(options_.validation);
    const Tensor labels = all.labels.narrow(0, all.labels.size(0) - held_out, held_out);
    if (options_.validation < kEnoughForAllClasses || labels.ne(labels[0]).any().item<bool>())
      return;
    throw ConfigError(options_.train_images.string(),
                      fmt::format("its last {} images (--validation) are all of class {}; put them "
                                  "in random order, by @train:PART:SEED behind the name",
                                  options_.validation, labels[0].item<std::int64_t>()));
  }

  void MakeOptimizer() {
    const auto make = [&](auto settings, auto& result) {
      using Settings = decltype(settings);
      std::vector<torch::optim::OptimizerParamGroup> groups;
      groups.emplace_back(
          model_->Weights(),
          std::make_unique<Settings>(Settings(settings).weight_decay(options_.weight_decay)));
      groups.emplace_back(model_->OtherParameters(),
                          std::make_unique<Settings>(Settings(settings).weight_decay(0)));
      using Kind = typename std::remove_reference_t<decltype(result)>::element_type;
      result = std::make_unique<Kind>(groups, settings);
    };
    if (options_.optimizer == Optimizer::kAdamW) {
      std::unique_ptr<torch::optim::AdamW> adam;
      make(torch::optim::AdamWOptions(), adam);
      optimizer_ = std::move(adam);
    } else {
      std::unique_ptr<torch::optim::SGD> sgd;
      make(torch::optim::SGDOptions(options_.lr).momentum(options_.momentum), sgd);
      optimizer_ = std::move(sgd);
    }
  }

  // All that decides what the run computes, but for the contents of files.
  std::string Settings() const {
    nlohmann::json settings = DescribeRun(options_);
    settings["network"] = spec_.Digest();
    settings["training images"] = training_.Size();
    settings["device"] = device_.str();
    return settings.dump();
  }

  void Resume() {
    Checkpoint checkpoint =
        LoadCheckpoint(CheckpointFile(options_), Settings(), *optimizer_, device_);
    model_->SetState(checkpoint.model, CheckpointFile(options_).string());
    if (average_ && checkpoint.averaged_steps > 0) {
      average_->SetState(checkpoint.average, checkpoint.averaged_steps,
                         CheckpointFile(options_).string());
    }
    if (checkpoint.best_epoch > 0 && !std::filesystem::exists(options_.out)) {
      throw ConfigError(options_.out.string(),
                        fmt::format("is missing; expected the weights of epoch {}, the best one "
                                    "before the checkpoint",
                                    checkpoint.best_epoch));
    }
    first_epoch_ = static_cast<int>(checkpoint.history.size()) + 1;
    result_.epochs = std::move(checkpoint.history);
    result_.best_epoch = checkpoint.best_epoch;
    result_.validation_accuracy = checkpoint.validation_accuracy;
    seconds_before_ = checkpoint.seconds;
    shuffle_ = checkpoint.shuffle;
  }

  void SetLearningRate(int epoch, std::size_t step) {
    const auto steps = static_cast<double>(steps_);
    const double done = epoch - 1 + static_cast<double>(step) / steps;
    const double warm_up =
        options_.warmup_epochs > 0 ? std::min(1.0, (done + 1 / steps) / options_.warmup_epochs) : 1;
    const double fall =
        options_.schedule == Schedule::kCosine
            ? (1 + std::cos(std::numbers::pi * done / options_.epochs)) / 2
            : std::pow(options_.step_factor, std::floor(done / options_.step_epochs));
    for (torch::optim::OptimizerParamGroup& group : optimizer_->param_groups())
      group.options().set_lr(options_.lr * warm_up * fall);
  }

  // Of the training images `chosen`, which augmentation has made `pixels` of.
  Tensor TeacherLogits(const Tensor& chosen, const Tensor& pixels) {
    if (options_.teacher_images == TeacherImages::kAugmented) return teacher_->Logits(pixels);
    if (!teacher_logits_.defined()) {
      teacher_logits_ =
          torch::full({training_.pixels.size(0), static_cast<std::int64_t>(spec_.Classes())}, NAN);
    }
    const Tensor known = teacher_logits_.index_select(0, chosen);
    if (!known.isnan().any().item<bool>()) return known.to(device_);
    const Tensor found =
        teacher_->Logits(training_.pixels.index_select(0, chosen).to(device_, torch::kFloat32));
    teacher_logits_.index_copy_(0, chosen, found.to(torch::kCPU));
    return found;
  }

  Tensor Loss(const Tensor& logits, const Tensor& chosen, const Tensor& pixels,
              const Tensor& labels) {
    const Tensor hard = at::cross_entropy_loss(logits, labels, {}, at::Reduction::Mean, -100,
                                               options_.label_smoothing);
    if (!teacher_) return hard;
    return DistillationLoss(logits, TeacherLogits(chosen, pixels), hard, options_.temperature,
                            options_.distillation_weight);
  }

  // Whether weights are averaged in an epoch: in the last ones, at least one.
  bool Averages(int epoch) const {
    return average_ && epoch > std::min(options_.epochs * (1 - options_.average),
                                        static_cast<double>(options_.epochs - 1));
  }

  // What an epoch has come to: the mean of the weights where there is one.
  Model& TrainedModel() {
    if (!average_ || average_->Steps() == 0) return *model_;
    const Tensor order = Shuffled(training_.Size(), shuffle_);
    std::int64_t begin = 0;
    return average_->Estimate(std::min(steps_, kStatisticsBatches), [&](Model& model) {
      model.Forward(
          QuantizeInput(TrainingPixels(order.narrow(0, begin, options_.batch)), spec_.input),
          /*training=*/true, type_);
      begin += options_.batch;
    });
  }

  void WriteCheckpoint() const {
    Checkpoint checkpoint{Settings(),
                          result_.best_epoch,
                          result_.validation_accuracy,
                          seconds_before_ + SecondsSince(start_),
                          result_.epochs,
                          shuffle_,
                          model_->State(),
                          {},
                          0};
    if (average_ && average_->Steps() > 0) {
      checkpoint.average = average_->State();
      checkpoint.averaged_steps = average_->Steps();
    }
    SaveCheckpoint(checkpoint, *optimizer_, CheckpointFile(options_));
  }

  // The chosen training images as augmentation makes them.
  Tensor TrainingPixels(const Tensor& chosen) const {
    return Augmented(training_.pixels.index_select(0, chosen).to(device_, torch::kFloat32),
                     options_);
  }

  // One pass over the training images in a fresh order; the last, incomplete batch is left out.
  TrainProgress RunEpoch(int epoch) {
    const Clock::time_point epoch_start = Clock::now();
    const Tensor order = Shuffled(training_.Size(), shuffle_);
    TrainProgress progress;
    progress.epoch = epoch;
    progress.epochs = options_.epochs;
    progress.steps = steps_;
    const double half_runs = 2.0 * (epoch - 1) / options_.epochs;
    model_->SetExtraTrainingBits(kExtraBitsAtStart * std::max(0.0, 1 - half_runs));
    double loss_sum = 0;
    std::int64_t hits = 0;
    for (std::size_t step = 0; step < steps_; ++step) {
      SetLearningRate(epoch, step);
      const Tensor chosen =
          order.narrow(0, static_cast<std::int64_t>(step) * options_.batch, options_.batch);
      const Tensor labels = training_.labels.index_select(0, chosen).to(device_);
      const Tensor pixels = TrainingPixels(chosen);
      const Tensor logits =
          model_->Forward(QuantizeInput(pixels, spec_.input), /*training=*/true, type_);
      const Tensor loss = Loss(logits, chosen, pixels, labels);
      const double loss_value = loss.item<double>();
      if (!std::isfinite(loss_value)) ThrowDiverged("the loss", epoch, step + 1);
      optimizer_->zero_grad();
      loss.backward();
      optimizer_->step();
      if (Averages(epoch)) average_->Add(*model_);

      loss_sum += loss_value;
      hits += Hits(logits.detach(), labels);
      const auto done = static_cast<double>(step + 1);
      progress.step = step + 1;
      progress.loss = loss_sum / done;
      progress.accuracy = static_cast<double>(hits) / (done * options_.batch);
      progress.images_per_s = done * options_.batch / SecondsSince(epoch_start);
      const double epochs_done = epoch - first_epoch_ + done / static_cast<double>(steps_);
      const double part = epochs_done / (options_.epochs - first_epoch_ + 1);
      progress.left_s = SecondsSince(start_) * (1 - part) / part;
      if (on_progress_ && (step + 1) % kStepsPerReport == 0) on_progress_(progress);
    }
    return progress;
  }

  [[noreturn]] void ThrowDiverged(const char* what, int epoch, std::size_t step) const {
    const std::string kept =
        result_.best_epoch == 0
            ? std::string("nothing was saved")
            : fmt::format("{} holds epoch {}, {} epoch {}", options_.out.string(),
                          result_.best_epoch, CheckpointFile(options_).string(), epoch - 1);
    throw ConfigError("--lr", fmt::format("{} became infinite or NaN in epoch {}, step {}, with "
                                          "learning rate {}; try a lower one ({})",
                                          what, epoch, step, options_.lr, kept));
  }

  void SaveBest(const Model& model, int epoch, double accuracy) {
    files::TensorFile file = model.Save();
    file.metadata["format"] = "pt";
    file.metadata["network"] = spec_.name;
    file.metadata["network_digest"] = spec_.Digest();
    file.metadata["epoch"] = std::to_string(epoch);
    if (options_.width_bits != 0) {
      file.metadata["width_bits"] = std::to_string(options_.width_bits);
    }
    file.metadata["validation_accuracy"] = fmt::format("{:.4f}", accuracy);
    files::SaveTensors(file, options_.out);
    result_.best_epoch = epoch;
    result_.validation_accuracy = accuracy;
  }

  const TrainOptions& options_;
  const std::function<void(const TrainProgress&)>& on_progress_;
  const std::function<void(const std::string&)>& on_warning_;
  torch::Device device_;
  torch::ScalarType type_;
  nn::NetworkSpec spec_;
  std::mt19937_64 shuffle_;
  DataSet training_, validation_, test_;
  std::size_t steps_ = 0;
  std::unique_ptr<Model> model_;
  std::optional<WeightAverage> average_;
  std::unique_ptr<Teacher> teacher_;
  Tensor teacher_logits_;  // of original training images, NaN where not computed yet
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  int first_epoch_ = 1;
  double seconds_before_ = 0;
  TrainResult result_;
  Clock::time_point start_;
};

}  // namespace

TrainResult Train(const TrainOptions& options,
                  const std::function<void(const TrainProgress&)>& on_progress,
                  const std::function<void(const std::string&)>& on_warning) {
  CheckOptions(options);
  return Trainer(options, on_progress, on_warning).Run();
}

}  // namespace tercet::train
