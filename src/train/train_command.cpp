// SPDX-License-Identifier: Apache-2.0
#include "train/train_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "programs/build_identity.h"
#include "programs/data_options.h"
#include "programs/failure.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "train/config.h"
#include "train/train.h"

namespace tercet::train {
namespace {

using nlohmann::ordered_json;

struct Arguments {
  std::filesystem::path file;  // network or configuration
  TrainConfig flags;
  bool no_augment = false;
  // One for each flag: takes its value over into the options if it was given.
  std::vector<std::function<void(TrainConfig&)>> given;
};

std::string Duration(double seconds) {
  const auto whole = std::lround(seconds);
  return whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60)
                      : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

void Print(const TrainProgress& p, bool terminal) {
  if (p.epoch_done) {
    programs::Print(
        "{}epoch {}/{}  loss {:.4f}  accuracy {:.2f} %  held out {:.2f} %{}  {:.0f} images/s  {} "
        "left\n",
        terminal ? "\r\033[K" : "", p.epoch, p.epochs, p.loss, 100 * p.accuracy,
        100 * p.validation_accuracy, p.saved ? " (saved)" : "", p.images_per_s, Duration(p.left_s));
  } else if (terminal) {
    programs::Print(
        "\r\033[Kepoch {}/{}  step {}/{}  loss {:.4f}  accuracy {:.2f} %  {:.0f} images/s  {} left",
        p.epoch, p.epochs, p.step, p.steps, p.loss, 100 * p.accuracy, p.images_per_s,
        Duration(p.left_s));
  }
  programs::FlushOutput();
}

ordered_json Describe(const TrainOptions& o) {
  ordered_json options = {
      {"network", o.network.string()},         {"images", o.train_images.string()},
      {"labels", o.train_labels.string()},     {"test_images", o.test_images.string()},
      {"test_labels", o.test_labels.string()}, {"out", o.out.string()},
      {"initial", o.initial.string()},         {"resume", o.resume}};
  if (!o.teacher.empty()) {
    options["teacher"] = o.teacher.string();
    options["teacher_weights"] = o.teacher_weights.string();
  }
  options.update(DescribeRun(o));
  return options;
}

ordered_json DescribeMachine() {
  return {{"processor", programs::ProcessorName()},
          {"cores", std::thread::hardware_concurrency()},
          {"cuda", HasCuda()},
          {"libtorch", LibtorchVersion()}};
}

ordered_json Describe(const std::vector<EpochRecord>& history) {
  ordered_json epochs = ordered_json::array();
  for (std::size_t i = 0; i < history.size(); ++i) {
    const EpochRecord& e = history[i];
    epochs.push_back({{"epoch", i + 1},
                      {"loss", e.loss},
                      {"accuracy", e.accuracy},
                      {"validation_accuracy", e.validation_accuracy},
                      {"seconds", e.seconds},
                      {"images_per_s", e.images_per_s},
                      {"saved", e.saved}});
  }
  return epochs;
}

int RunCommand(const Arguments& arguments) {
  TrainConfig config;
  const bool is_config = IsTrainConfig(arguments.file);
  if (is_config) {
    config = LoadTrainConfig(arguments.file);
  } else {
    config.options.network = arguments.file;
  }
  const TrainConfig written = config;
  for (const auto& take_over : arguments.given) take_over(config);
  TrainOptions& options = config.options;
  if (is_config) CheckInputsExist(written, arguments.file, options);
  if (arguments.no_augment) options.augmentation = Augmentation::kNone;

  const bool terminal = isatty(STDOUT_FILENO) != 0;
  ordered_json log = {{"options", Describe(options)}, {"machine", DescribeMachine()}};
  if (!config.log.empty()) CheckWritable(config.log, "--log");
  // Rewritten after every epoch, so that an interrupted run has its log too.
  const auto write_log = [&](const std::vector<EpochRecord>& history) {
    if (config.log.empty()) return;
    log["epochs"] = Describe(history);
    WriteFile(config.log, log.dump(2) + '\n', FileRights::kOwner);
  };
  const auto on_progress = [&](const TrainProgress& progress) {
    Print(progress, terminal);
    if (progress.epoch_done) write_log(progress.history);
  };
  const TrainResult result = Train(options, on_progress, programs::PrintWarning);
  programs::Print("{}: epoch {} of {}, held out {:.2f} %", options.out.string(), result.best_epoch,
                  options.epochs, 100 * result.validation_accuracy);
  if (result.test_accuracy) programs::Print(", test {:.2f} %", 100 * *result.test_accuracy);
  programs::Print("; {} in all\n", Duration(result.seconds));
  log["best_epoch"] = result.best_epoch;
  log["validation_accuracy"] = result.validation_accuracy;
  if (result.test_accuracy) log["test_accuracy"] = *result.test_accuracy;
  log["seconds"] = result.seconds;
  write_log(result.epochs);
  return programs::kExitOk;
}

/// The options of the command, each of which overrides a configuration's value if it is given.
class OptionAdder {
 public:
  OptionAdder(CLI::App& command, std::shared_ptr<Arguments> arguments)
      : command_(command), arguments_(std::move(arguments)) {}

  void AddData() {
    Add("--images", &O::train_images,
        fmt::format("Training images, FILE[,FILE...]: {}; behind it @train:PART:SEED for all but a "
                    "random PART",
                    programs::kImageFormats));
    Add("--labels", &O::train_labels,
        "Their labels; CIFAR's files, folders of classes and CSV tables hold them");
    CLI::Option* test_images =
        Add("--test-images", &O::test_images,
            "Images to measure the final accuracy on; choose nothing. @test:PART:SEED: that PART");
    Add("--test-labels", &O::test_labels, "Their labels")->needs(test_images);
    Add("--out", &O::out, "Weights to write (.safetensors)");
    Add("--init", &O::initial, "Weights to start from");
    for (auto& [option, take] :
         programs::AddDataOptions(command_, arguments_->flags.options.data)) {
      arguments_->given.emplace_back(
          [option = option, take = take, flags = &arguments_->flags](TrainConfig& config) {
            if (option->count() > 0) take(config.options.data, flags->options.data);
          });
    }
  }

  void AddSteps() {
    Add("--epochs", &O::epochs, "Passes over the training images");
    Add("--batch-size", &O::batch, "Images per step");
    AddChoice("--optimizer", &O::optimizer, std::vector{Optimizer::kAdamW, Optimizer::kSgd},
              "How weights follow the gradient");
    Add("--lr", &O::lr, "Highest learning rate");
    Add("--momentum", &O::momentum, "Momentum of sgd");
    Add("--weight-decay", &O::weight_decay, "Decay of the weights");
    AddChoice("--schedule", &O::schedule, std::vector{Schedule::kCosine, Schedule::kStep},
              "How the learning rate falls");
    Add("--warmup-epochs", &O::warmup_epochs, "Epochs in which the learning rate rises");
    Add("--step-epochs", &O::step_epochs, "Epochs between two steps of the schedule step");
    Add("--step-factor", &O::step_factor, "Factor of the learning rate at each");
  }

  void AddRegularisation() {
    Add("--average", &O::average,
        "Part of the run, at its end, whose weights are averaged; 0: keep those of one epoch");
    Add("--label-smoothing", &O::label_smoothing, "Share of uniform target");
    AddChoice("--augmentation", &O::augmentation,
              std::vector{Augmentation::kNone, Augmentation::kDistort, Augmentation::kFlipCrop},
              "Random changes of the training images");
    Add("--augment", &O::augment, "Strength of these changes");
    command_.add_flag("--no-augment", arguments_->no_augment, "The same as --augmentation none");
    Add("--width-bits", &O::width_bits,
        "Train with weights rounded for integer sums of that many bits; 0: off");
    Add("--binary-weights", &O::binary_weights,
        "Layers whose weights are -1 and +1: LAYER[,LAYER...] of conv2d and linear, or all")
        ->delimiter(',')
        ->type_name("LAYERS");
    Add("--validation", &O::validation, "Last training images, held out");
  }

  void AddTeacher() {
    CLI::Option* teacher =
        Add("--teacher", &O::teacher, "Architecture of a network to learn from (distillation)");
    CLI::Option* weights = Add("--teacher-weights", &O::teacher_weights, "Its weights");
    AddChoice(
        "--teacher-images", &O::teacher_images,
        std::vector{TeacherImages::kAugmented, TeacherImages::kOriginal},
        "What it sees: the student's augmented images, or every image as it is, once, which is "
        "faster");
    Add("--temperature", &O::temperature, "Temperature of the distillation");
    Add("--distillation-weight", &O::distillation_weight, "The teacher's share of the loss");
    teacher->needs(weights);
    weights->needs(teacher);
  }

  void AddMachine() {
    Add("--seed", &O::seed, "Seed of everything random");
    Add("--threads", &O::threads, "Threads of libtorch");
    AddChoice("--device", &O::device, std::vector{Device::kCpu, Device::kCuda, Device::kAuto},
              "Where to compute; auto: on a GPU where libtorch finds one");
    AddChoice("--precision", &O::precision, std::vector{Precision::kFloat32, Precision::kBfloat16},
              "Type of the values; bfloat16 is faster with AMX, AVX512_BF16 or a GPU");
  }

  void AddFiles() {
    Add("--checkpoint", &O::checkpoint,
        "State to resume from, written after every epoch; without it that of --out with "
        ".checkpoint behind");
    Remember(command_.add_flag("--resume", arguments_->flags.options.resume,
                               "Go on from the checkpoint of an interrupted run"),
             &O::resume);
    CLI::Option* log = command_.add_option(
        "--log", arguments_->flags.log,
        "JSON log to write, with every epoch; scripts/plot draws its loss and accuracies");
    arguments_->given.emplace_back([log, flags = &arguments_->flags](TrainConfig& config) {
      if (log->count() > 0) config.log = flags->log;
    });
  }

 private:
  using O = TrainOptions;

  template <class Member>
  void Remember(CLI::Option* option, Member member) {
    arguments_->given.emplace_back(
        [option, member, flags = &arguments_->flags](TrainConfig& config) {
          if (option->count() > 0) config.options.*member = flags->options.*member;
        });
  }

  template <class Member>
  CLI::Option* Add(const char* name, Member member, const std::string& description) {
    CLI::Option* option = command_.add_option(name, arguments_->flags.options.*member, description);
    using Value = std::remove_reference_t<decltype(arguments_->flags.options.*member)>;
    if constexpr (std::is_arithmetic_v<Value>)
      option->capture_default_str()->type_name(std::is_integral_v<Value> ? "N" : "X");
    Remember(option, member);
    return option;
  }

  template <class Choice>
  void AddChoice(const char* name, Choice O::*member, const std::vector<Choice>& choices,
                 const char* description) {
    std::vector<std::string> names;
    for (const Choice choice : choices) names.emplace_back(Name(choice));
    const auto take_over = [member, choices, flags = &arguments_->flags](const std::string& text) {
      for (const Choice choice : choices)
        if (text == Name(choice)) flags->options.*member = choice;
    };
    Remember(command_.add_option_function<std::string>(name, take_over, description)
                 ->check(CLI::IsMember(names))
                 ->default_str(Name(TrainOptions().*member)),
             member);
  }

  CLI::App& command_;
  std::shared_ptr<Arguments> arguments_;
};

}  // namespace

void AddTrainCommand(CLI::App& app, programs::Chosen& chosen) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("train", "Train a network in the clear");
  command
      ->add_option("network", arguments->file,
                   "Architecture (nets/*.json), or a configuration (configs/train/*.json) whose "
                   "values the options below override")
      ->required();
  OptionAdder options(*command, arguments);
  options.AddData();
  options.AddSteps();
  options.AddRegularisation();
  options.AddTeacher();
  options.AddMachine();
  options.AddFiles();
  command->callback(
      [arguments, &chosen] { chosen = [arguments] { return RunCommand(*arguments); }; });
}

}  // namespace tercet::train
