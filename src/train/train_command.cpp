#include "train/train_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "tercet/base/error.h"
#include "train/train.h"

namespace tercet::train {
namespace {

struct Arguments {
  TrainOptions options;
  bool no_augment = false;
  std::filesystem::path log;
};

std::string Duration(double seconds) {
  const auto whole = std::lround(seconds);
  return whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60)
                      : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

void Print(const TrainProgress& p, bool terminal) {
  if (p.epoch_done) {
    fmt::print(
        "{}epoch {}/{}  loss {:.4f}  accuracy {:.2f} %  held out {:.2f} %{}  {:.0f} images/s  {} "
        "left\n",
        terminal ? "\r\033[K" : "", p.epoch, p.epochs, p.loss, 100 * p.accuracy,
        100 * p.validation_accuracy, p.saved ? " (saved)" : "", p.images_per_s, Duration(p.left_s));
  } else if (terminal) {
    fmt::print(
        "\r\033[Kepoch {}/{}  step {}/{}  loss {:.4f}  accuracy {:.2f} %  {:.0f} images/s  {} left",
        p.epoch, p.epochs, p.step, p.steps, p.loss, 100 * p.accuracy, p.images_per_s,
        Duration(p.left_s));
  }
  std::fflush(stdout);
}

nlohmann::ordered_json Describe(const TrainOptions& o) {
  return {{"network", o.network.string()},
          {"images", o.train_images.string()},
          {"labels", o.train_labels.string()},
          {"out", o.out.string()},
          {"initial", o.initial.string()},
          {"epochs", o.epochs},
          {"batch_size", o.batch},
          {"lr", o.lr},
          {"weight_decay", o.weight_decay},
          {"label_smoothing", o.label_smoothing},
          {"augment", o.augment},
          {"width_bits", o.width_bits},
          {"validation", o.validation},
          {"seed", o.seed},
          {"threads", o.threads}};
}

// Rewritten after every epoch, so that an interrupted run has its log too.
void WriteLog(const std::filesystem::path& file, const nlohmann::ordered_json& log) {
  std::filesystem::path temporary = file;
  temporary += ".tmp";
  std::ofstream stream(temporary);
  stream << log.dump(2) << '\n';
  stream.close();
  std::error_code error;
  if (stream) std::filesystem::rename(temporary, file, error);
  if (!stream || error) throw ConfigError(file.string(), "cannot write the log (--log)");
}

void RunCommand(const Arguments& arguments) {
  TrainOptions options = arguments.options;
  if (arguments.no_augment) options.augment = 0;
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  nlohmann::ordered_json log = {{"options", Describe(options)},
                                {"epochs", nlohmann::ordered_json::array()}};
  const auto on_progress = [&](const TrainProgress& progress) {
    Print(progress, terminal);
    if (!progress.epoch_done || arguments.log.empty()) return;
    log["epochs"].push_back({{"epoch", progress.epoch},
                             {"loss", progress.loss},
                             {"accuracy", progress.accuracy},
                             {"validation_accuracy", progress.validation_accuracy},
                             {"images_per_s", progress.images_per_s},
                             {"saved", progress.saved}});
    WriteLog(arguments.log, log);
  };
  const TrainResult result = Train(options, on_progress);
  fmt::print("{}: epoch {} of {}, held out {:.2f} %", options.out.string(), result.best_epoch,
             options.epochs, 100 * result.validation_accuracy);
  if (result.test_accuracy) fmt::print(", test {:.2f} %", 100 * *result.test_accuracy);
  fmt::print("; {} in all\n", Duration(result.seconds));
  if (arguments.log.empty()) return;
  log["best_epoch"] = result.best_epoch;
  log["validation_accuracy"] = result.validation_accuracy;
  if (result.test_accuracy) log["test_accuracy"] = *result.test_accuracy;
  log["seconds"] = result.seconds;
  WriteLog(arguments.log, log);
}

}  // namespace

void AddTrainCommand(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  TrainOptions& o = arguments->options;
  CLI::App* command = app.add_subcommand("train", "Train a network in the clear");
  command->add_option("network", o.network, "Architecture (nets/*.json)")->required();
  command->add_option("--images", o.train_images, "Training images: IDX (also .gz) or .npy")
      ->required();
  command->add_option("--labels", o.train_labels, "Their labels")->required();
  CLI::Option* test_images = command->add_option(
      "--test-images", o.test_images, "Images to measure the final accuracy on; choose nothing");
  CLI::Option* test_labels = command->add_option("--test-labels", o.test_labels, "Their labels");
  test_images->needs(test_labels);
  test_labels->needs(test_images);
  command->add_option("--out", o.out, "Weights to write (.safetensors)")->required();
  command->add_option("--init", o.initial, "Weights to start from");
  command->add_option("--epochs", o.epochs, "Passes over the training images")
      ->capture_default_str();
  command->add_option("--batch-size", o.batch, "Images per step")->capture_default_str();
  command->add_option("--lr", o.lr, "Highest learning rate")->capture_default_str();
  command->add_option("--weight-decay", o.weight_decay, "Decay of the weights (AdamW)")
      ->capture_default_str();
  command->add_option("--label-smoothing", o.label_smoothing, "Share of uniform target")
      ->capture_default_str();
  command->add_option("--augment", o.augment, "Strength of random shifts and distortions")
      ->capture_default_str();
  command->add_flag("--no-augment", arguments->no_augment, "The same as --augment 0");
  command
      ->add_option("--width-bits", o.width_bits,
                   "Train with weights rounded for integer sums of that many bits; 0: off")
      ->capture_default_str();
  command->add_option("--validation", o.validation, "Last training images, held out")
      ->capture_default_str();
  command->add_option("--seed", o.seed, "Seed of everything random")->capture_default_str();
  command->add_option("--threads", o.threads, "Threads of libtorch")->capture_default_str();
  command->add_option("--log", arguments->log, "JSON log to write");
  command->callback([arguments] { RunCommand(*arguments); });
}

}  // namespace tercet::train
