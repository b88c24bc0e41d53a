// SPDX-License-Identifier: Apache-2.0
#include "train/train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "base/scratch.h"
#include "files/idx.h"
#include "programs/failure.h"
#include "tercet/base/error.h"
#include "tercet/files/tensor_file.h"
#include "train/config.h"
#include "train/train_command.h"

namespace tercet::train {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

constexpr const char* kNetwork = R"({
  "name": "Corners",
  "input": {"shape": [1, 8, 8], "scale": 255, "mean": 0.0, "std": 1.0, "bits": 4},
  "layers": [
    {"name": "conv1", "type": "conv2d", "out_channels": 8, "kernel": 3, "stride": 1, "padding": 0},
    {"name": "bn1", "type": "batch_norm"},
    {"name": "act1", "type": "sign"},
    {"name": "pool1", "type": "max_pool2d", "kernel": 2, "stride": 2},
    {"name": "flatten", "type": "flatten"},
    {"name": "fc1", "type": "linear", "out_features": 4},
    {"name": "bn2", "type": "batch_norm"}
  ],
  "output": "logits"
})";

void Write(const fs::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

// A temporary folder with a small network and 8 x 8 images whose class is the corner that is
// bright.
class TrainTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kImages = 480;

  TrainTest() {
    Write(folder_ / "net.json", kNetwork);
    std::mt19937 random(7);
    std::vector<std::uint8_t> images, labels;
    for (std::uint32_t i = 0; i < kImages; ++i) {
      const unsigned label = random() % 4;
      labels.push_back(static_cast<std::uint8_t>(label));
      for (unsigned y = 0; y < 8; ++y) {
        for (unsigned x = 0; x < 8; ++x) {
          const bool bright = y / 4 == label / 2 && x / 4 == label % 2;
          images.push_back(static_cast<std::uint8_t>((bright ? 110 : 40) + random() % 100));
        }
      }
    }
    scratch_.Write("images", files::Idx({0x803, kImages, 8, 8}, images));
    scratch_.Write("labels", files::Idx({0x801, kImages}, labels));
    options_.network = folder_ / "net.json";
    options_.train_images = options_.test_images = folder_ / "images";
    options_.train_labels = options_.test_labels = folder_ / "labels";
    options_.out = folder_ / "model.safetensors";
    options_.epochs = 4;
    options_.batch = 32;
    options_.lr = 0.01;
    options_.augment = 0;
    options_.width_bits = 0;
    options_.validation = 96;
  }

  // The message of the ConfigError that training throws.
  std::string Failure() const {
    try {
      Train(options_);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no ConfigError";
  }

  const ScratchDirectory scratch_;
  const fs::path folder_ = scratch_.Path();
  TrainOptions options_;
};

TEST_F(TrainTest, LearnsAndSaves) {
  const TrainResult result = Train(options_);
  ASSERT_EQ(result.epochs.size(), 4u);
  EXPECT_LT(result.epochs.back().loss, 0.6 * result.epochs.front().loss);
  EXPECT_GT(result.validation_accuracy, 0.9);
  EXPECT_GT(result.test_accuracy.value(), 0.9);
  const EpochRecord& best = result.epochs.at(static_cast<std::size_t>(result.best_epoch) - 1);
  EXPECT_EQ(best.validation_accuracy, result.validation_accuracy);

  const files::TensorFile file = files::LoadTensors(options_.out);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : file.tensors) names.push_back(name);
  EXPECT_THAT(
      names, UnorderedElementsAre("conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias",
                                  "bn1.running_mean", "bn1.running_var", "fc1.weight", "fc1.bias",
                                  "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var"));
  EXPECT_EQ(file.tensors.at("conv1.weight").shape, (std::vector<std::size_t>{8, 1, 3, 3}));
  EXPECT_EQ(file.tensors.at("fc1.weight").shape, (std::vector<std::size_t>{4, 72}));
  EXPECT_EQ(file.metadata.at("network"), "Corners");
}

TEST_F(TrainTest, RepeatsWithTheSameSeedOnly) {
  options_.augment = 0.5;
  Train(options_);
  const std::string first = ReadAll(options_.out);
  Train(options_);
  EXPECT_EQ(ReadAll(options_.out), first);
  options_.seed = 2;
  Train(options_);
  EXPECT_NE(ReadAll(options_.out), first);
}

TEST_F(TrainTest, LearnsWithRoundedWeights) {
  options_.width_bits = 9;
  EXPECT_GT(Train(options_).validation_accuracy, 0.9);
  EXPECT_EQ(files::LoadTensors(options_.out).metadata.at("width_bits"), "9");
}

TEST_F(TrainTest, LearnsWithBinaryWeights) {
  options_.binary_weights = {"all"};
  EXPECT_GT(Train(options_).validation_accuracy, 0.9);
  const files::TensorFile file = files::LoadTensors(options_.out);
  for (const char* name : {"conv1.weight", "fc1.weight"}) {
    EXPECT_EQ(file.tensors.at(name).dtype, files::DType::kI8);
    for (const double weight : file.tensors.at(name).AsDoubles()) EXPECT_EQ(std::abs(weight), 1);
  }
  EXPECT_NE(std::abs(file.tensors.at("bn1.weight").AsDoubles().at(0)), 1);

  options_.initial = options_.out;
  options_.out = folder_ / "second.safetensors";
  options_.epochs = 1;
  options_.lr = 1e-6;
  EXPECT_GT(Train(options_).epochs.front().accuracy, 0.9);
}

TEST_F(TrainTest, RefusesBinaryWeightsOfNoSuchLayer) {
  options_.binary_weights = {"conv1", "bn1"};
  EXPECT_THAT(Failure(), AllOf(HasSubstr("--binary-weights"), HasSubstr("'bn1'")));
}

TEST_F(TrainTest, LearnsInBfloat16) {
  options_.precision = Precision::kBfloat16;
  EXPECT_GT(Train(options_).validation_accuracy, 0.9);
}

TEST_F(TrainTest, StartsFromGivenWeights) {
  Train(options_);
  options_.initial = options_.out;
  options_.out = folder_ / "second.safetensors";
  options_.epochs = 1;
  options_.lr = 1e-6;
  EXPECT_GT(Train(options_).epochs.front().accuracy, 0.9);
}

TEST_F(TrainTest, RejectsInitialWeightsOfAnotherShape) {
  files::TensorFile wrong;
  wrong.tensors["bn1.bias"] = files::TensorData::FromFloats({7}, std::vector<float>(7));
  options_.initial = folder_ / "wrong.safetensors";
  files::SaveTensors(wrong, options_.initial);
  EXPECT_THAT(Failure(), AllOf(HasSubstr("wrong.safetensors tensor bn1.bias"), HasSubstr("[7]"),
                               HasSubstr("[8]")));
}

TEST_F(TrainTest, StopsWhenTheLossDivergesAndKeepsTheLastGoodFile) {
  Train(options_);
  const std::string good = ReadAll(options_.out);
  options_.lr = 1e30;
  EXPECT_THAT(Failure(), AllOf(HasSubstr("--lr"), HasSubstr("epoch 1"), HasSubstr("1e+30")));
  EXPECT_EQ(ReadAll(options_.out), good);
}

struct Interruption {};

// Trains, stops after an epoch as if the process had ended, and goes on from the checkpoint.
TrainResult TrainInTwoParts(TrainOptions options, int first_epochs) {
  EXPECT_THROW(Train(options,
                     [&](const TrainProgress& progress) {
                       if (progress.epoch_done && progress.epoch == first_epochs)
                         throw Interruption();
                     }),
               Interruption);
  options.resume = true;
  return Train(options);
}

TEST_F(TrainTest, ResumesExactly) {
  options_.augment = 0.5;
  options_.width_bits = 9;
  for (const Optimizer optimizer : {Optimizer::kAdamW, Optimizer::kSgd}) {
    options_.optimizer = optimizer;
    for (const Schedule schedule : {Schedule::kCosine, Schedule::kStep}) {
      SCOPED_TRACE(fmt::format("{} {}", Name(optimizer), Name(schedule)));
      options_.schedule = schedule;
      options_.step_epochs = 1.5;
      const TrainResult whole = Train(options_);
      const std::string weights = ReadAll(options_.out);
      EXPECT_FALSE(fs::exists(CheckpointFile(options_)));
      fs::remove(options_.out);
      const TrainResult parts = TrainInTwoParts(options_, 2);
      EXPECT_EQ(ReadAll(options_.out), weights);
      ASSERT_EQ(parts.epochs.size(), 4u);
      for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(parts.epochs[i].loss, whole.epochs[i].loss);
        EXPECT_EQ(parts.epochs[i].validation_accuracy, whole.epochs[i].validation_accuracy);
      }
      EXPECT_EQ(parts.best_epoch, whole.best_epoch);
      EXPECT_EQ(parts.test_accuracy, whole.test_accuracy);
      EXPECT_FALSE(fs::exists(CheckpointFile(options_)));
    }
  }
}

TEST_F(TrainTest, AveragesTheWeightsOfTheLastSteps) {
  options_.augment = 0.5;
  options_.width_bits = 9;
  Train(options_);
  const std::string without = ReadAll(options_.out);
  options_.average = 0.5;  // the third and fourth epochs
  const TrainResult whole = Train(options_);
  EXPECT_GT(whole.validation_accuracy, 0.9);
  EXPECT_GT(whole.best_epoch, 2);
  const std::string averaged = ReadAll(options_.out);
  EXPECT_NE(averaged, without);
  // Before the first averaged step, and between two.
  for (const int first_epochs : {2, 3}) {
    SCOPED_TRACE(first_epochs);
    fs::remove(options_.out);
    const TrainResult parts = TrainInTwoParts(options_, first_epochs);
    EXPECT_EQ(ReadAll(options_.out), averaged);
    for (std::size_t i = 0; i < 4; ++i)
      EXPECT_EQ(parts.epochs.at(i).validation_accuracy, whole.epochs.at(i).validation_accuracy);
  }
  // Another part is another run.
  EXPECT_THROW(Train(options_,
                     [](const TrainProgress& progress) {
                       if (progress.epoch_done) throw Interruption();
                     }),
               Interruption);
  options_.resume = true;
  options_.average = 0.25;
  EXPECT_THAT(Failure(), AllOf(HasSubstr("with average = 0.5"), HasSubstr("expected 0.25")));
}

TEST_F(TrainTest, AveragesAtLeastTheLastEpoch) {
  options_.average = 1e-9;
  options_.epochs = 1;
  EXPECT_TRUE(Train(options_).epochs.front().saved);
  const std::string averaged = ReadAll(options_.out);
  options_.average = 0;
  Train(options_);
  EXPECT_NE(ReadAll(options_.out), averaged);
}

TEST_F(TrainTest, ResumesNothingElse) {
  options_.resume = true;
  EXPECT_THAT(Failure(), HasSubstr("model.safetensors.checkpoint: cannot be read: No such file"));
  options_.resume = false;
  EXPECT_THROW(Train(options_,
                     [](const TrainProgress& progress) {
                       if (progress.epoch_done) throw Interruption();
                     }),
               Interruption);
  options_.resume = true;
  const fs::path file = CheckpointFile(options_);
  const std::string whole = ReadAll(file);
  options_.lr = 0.02;
  EXPECT_THAT(Failure(), AllOf(HasSubstr("checkpoint: "), HasSubstr("with lr = 0.01"),
                               HasSubstr("expected 0.02")));
  options_.lr = 0.01;
  Write(file, whole.substr(0, whole.size() / 2));
  EXPECT_THAT(Failure(), HasSubstr("is no whole checkpoint"));
  Write(file, "");
  EXPECT_THAT(Failure(), HasSubstr("is no whole checkpoint"));
  Write(file, whole);
  fs::remove(options_.out);
  EXPECT_THAT(Failure(), AllOf(HasSubstr("model.safetensors: is missing"), HasSubstr("epoch 1")));
}

TEST_F(TrainTest, DivergingLosesNothingOfTheLastCheckpoint) {
  options_.schedule = Schedule::kStep;
  options_.step_epochs = 2;
  options_.step_factor = 1e30;
  std::string checkpoint;
  std::string message;
  try {
    Train(options_, [&](const TrainProgress& progress) {
      if (progress.epoch_done && progress.epoch == 2)
        checkpoint = ReadAll(CheckpointFile(options_));
    });
  } catch (const ConfigError& error) {
    message = error.what();
  }
  EXPECT_THAT(message, AllOf(HasSubstr("infinite or NaN in epoch 3"),
                             HasSubstr("model.safetensors.checkpoint epoch 2")));
  EXPECT_FALSE(checkpoint.empty());
  EXPECT_EQ(ReadAll(CheckpointFile(options_)), checkpoint);
}

constexpr const char* kTeacherNetwork = R"({
  "name": "Teacher",
  "input": {"shape": [1, 8, 8], "scale": 100, "mean": 1.0, "std": 1.0, "bits": 8},
  "layers": [
    {"name": "fc1", "type": "linear", "out_features": 16}, {"name": "act1", "type": "relu"},
    {"name": "fc2", "type": "linear", "out_features": 4}
  ],
  "output": "logits"
})";

TEST_F(TrainTest, LearnsFromATeacher) {
  TrainOptions teacher = options_;
  teacher.network = folder_ / "teacher.json";
  teacher.out = folder_ / "teacher.safetensors";
  Write(teacher.network, kTeacherNetwork);
  EXPECT_GT(Train(teacher).validation_accuracy, 0.9);

  options_.teacher = teacher.network;
  options_.teacher_weights = teacher.out;
  options_.distillation_weight = 1;  // labels play no part
  options_.augment = 0.2;
  EXPECT_GT(Train(options_).validation_accuracy, 0.9);
  // The same with an interruption.
  const std::string weights = ReadAll(options_.out);
  TrainInTwoParts(options_, 2);
  EXPECT_EQ(ReadAll(options_.out), weights);

  // Logits that are kept from the first epoch on.
  options_.teacher_images = TeacherImages::kOriginal;
  EXPECT_GT(Train(options_).validation_accuracy, 0.9);
  const std::string kept = ReadAll(options_.out);
  EXPECT_NE(kept, weights);
  TrainInTwoParts(options_, 2);
  EXPECT_EQ(ReadAll(options_.out), kept);
  // Without augmentation both kinds of images are the same.
  options_.augment = 0;
  Train(options_);
  const std::string original = ReadAll(options_.out);
  options_.teacher_images = TeacherImages::kAugmented;
  Train(options_);
  EXPECT_EQ(ReadAll(options_.out), original);
}

TEST_F(TrainTest, RefusesATeacherThatDoesNotFit) {
  options_.teacher = folder_ / "teacher.json";
  options_.teacher_weights = folder_ / "teacher.safetensors";
  const auto replace = [&](const std::string& from, const std::string& to) {
    std::string changed = kTeacherNetwork;
    changed.replace(changed.find(from), from.size(), to);
    Write(options_.teacher, changed);
  };
  replace("\"out_features\": 4", "\"out_features\": 5");
  EXPECT_THAT(Failure(),
              AllOf(HasSubstr("teacher.json"), HasSubstr("the teacher Teacher has 5 "
                                                         "classes, expected 4 as Corners")));
  replace("[1, 8, 8]", "[1, 8, 9]");
  EXPECT_THAT(Failure(),
              HasSubstr("the teacher Teacher takes images of 1 x 8 x 9, expected 1 x 8 x "
                        "8 as Corners does"));
  replace("Teacher", "Teacher");
  EXPECT_THAT(Failure(), HasSubstr("teacher.safetensors"));  // no such file
}

TEST_F(TrainTest, DoesNotSaveWeightsThatTheLastStepBroke) {
  options_.epochs = 1;
  Train(options_);
  files::TensorFile file = files::LoadTensors(options_.out);
  file.tensors["fc1.weight"] =
      files::TensorData::FromFloats({4, 72}, std::vector<float>(4 * 72, 1000.0F));
  options_.initial = folder_ / "large.safetensors";
  files::SaveTensors(file, options_.initial);
  options_.out = folder_ / "new.safetensors";
  options_.batch = static_cast<int>(kImages - options_.validation);  // one step an epoch
  options_.lr = 1e30;
  options_.weight_decay = 1e6;  // times the rate and the weight: beyond float
  EXPECT_THAT(Failure(), AllOf(HasSubstr("a weight became"), HasSubstr("nothing was saved")));
  EXPECT_FALSE(fs::exists(options_.out));
}

TEST_F(TrainTest, ReportsProgress) {
  std::vector<TrainProgress> ends;
  options_.batch = 8;  // 48 steps: a report before the end of the epoch
  std::size_t between = 0;
  Train(options_, [&](const TrainProgress& progress) {
    if (progress.epoch_done) ends.push_back(progress);
    if (!progress.epoch_done) ++between;
  });
  EXPECT_GT(between, 0u);
  ASSERT_EQ(ends.size(), 4u);
  EXPECT_TRUE(ends.front().saved);
  EXPECT_EQ(ends.back().epoch, 4);
  EXPECT_EQ(ends.back().step, 48u);
  EXPECT_EQ(ends.back().steps, 48u);
  EXPECT_DOUBLE_EQ(ends.back().left_s, 0);
}

TEST_F(TrainTest, RejectsWrongOptions) {
  struct Case {
    const char* place;
    std::function<void(TrainOptions&)> change;
  };
  const Case cases[] = {
      {"--epochs", [](TrainOptions& o) { o.epochs = 0; }},
      {"--batch-size", [](TrainOptions& o) { o.batch = 1; }},
      {"--lr", [](TrainOptions& o) { o.lr = 0; }},
      {"--lr", [](TrainOptions& o) { o.lr = std::nan(""); }},
      {"--lr", [](TrainOptions& o) { o.lr = HUGE_VAL; }},
      {"--weight-decay", [](TrainOptions& o) { o.weight_decay = -1; }},
      {"--momentum", [](TrainOptions& o) { o.momentum = 1; }},
      {"--warmup-epochs", [](TrainOptions& o) { o.warmup_epochs = 5; }},
      {"--step-epochs", [](TrainOptions& o) { o.step_epochs = 0; }},
      {"--step-factor", [](TrainOptions& o) { o.step_factor = -1; }},
      {"--temperature", [](TrainOptions& o) { o.temperature = 0; }},
      {"--distillation-weight", [](TrainOptions& o) { o.distillation_weight = 1.5; }},
      {"--teacher", [](TrainOptions& o) { o.teacher = "t.json"; }},
      {"--checkpoint", [](TrainOptions& o) { o.checkpoint = o.out / "missing" / "c"; }},
      {"network", [](TrainOptions& o) { o.network.clear(); }},
      {"--images", [](TrainOptions& o) { o.train_images.clear(); }},
      {"--label-smoothing", [](TrainOptions& o) { o.label_smoothing = 1; }},
      {"--average", [](TrainOptions& o) { o.average = -0.1; }},
      {"--average", [](TrainOptions& o) { o.average = std::nan(""); }},
      {"--average", [](TrainOptions& o) { o.average = 1.5; }},
      {"--augment", [](TrainOptions& o) { o.augment = -0.5; }},
      {"--width-bits", [](TrainOptions& o) { o.width_bits = 3; }},
      {"--threads", [](TrainOptions& o) { o.threads = 0; }},
      {"--validation", [](TrainOptions& o) { o.validation = 0; }},
      {"expected a file of labels too", [](TrainOptions& o) { o.test_labels.clear(); }},
      {"--test-labels", [](TrainOptions& o) { o.test_images.clear(); }},
      {"--out", [](TrainOptions& o) { o.out.clear(); }},
      {"--out", [](TrainOptions& o) { o.out = o.out / "missing" / "m.safetensors"; }},
      {"images", [](TrainOptions& o) { o.validation = kImages - 8; }},
      {"missing.json", [](TrainOptions& o) { o.network = "missing.json"; }},
      {"missing.idx", [](TrainOptions& o) { o.train_images = "missing.idx"; }},
  };
  const TrainOptions good = options_;
  for (const Case& wrong : cases) {
    options_ = good;
    wrong.change(options_);
    EXPECT_THAT(Failure(), HasSubstr(wrong.place));
    EXPECT_FALSE(fs::exists(good.out)) << wrong.place;
  }
}

TEST_F(TrainTest, RejectsALayerThatDoesNotFit) {
  std::string network = kNetwork;
  network.replace(network.find("\"kernel\": 3"), 11, "\"kernel\": 9");
  Write(options_.network, network);
  EXPECT_THAT(Failure(), AllOf(HasSubstr("net.json /layers/0/kernel"), HasSubstr("found 9")));
}

TEST_F(TrainTest, RejectsDataThatAreCutShort) {
  const std::string images = ReadAll(options_.train_images);
  Write(options_.train_images, images.substr(0, images.size() - 1));
  EXPECT_THAT(Failure(), AllOf(HasSubstr("images: truncated"), HasSubstr("480 times 64")));
}

TEST_F(TrainTest, RejectsLabelsOfAnotherLength) {
  scratch_.Write("labels", files::Idx({0x801, 3}, {1, 1, 1}));
  EXPECT_THAT(Failure(), AllOf(HasSubstr("labels"), HasSubstr("3 labels found, 480 expected")));
}

void RunCommand(const std::string& arguments) {
  CLI::App app;
  programs::Chosen chosen;
  AddTrainCommand(app, chosen);
  app.parse(arguments);
  EXPECT_EQ(chosen(), programs::kExitOk);
}

TEST_F(TrainTest, CommandTrainsAndLogs) {
  const fs::path log = folder_ / "log.json";
  testing::internal::CaptureStdout();
  RunCommand(
      fmt::format("train {} --images {} --labels {} --test-images {} --test-labels {} "
                  "--out {} --log {} --epochs 2 --batch-size 32 --validation 96 --lr 0.01 "
                  "--no-augment --seed 3",
                  options_.network.string(), options_.train_images.string(),
                  options_.train_labels.string(), options_.test_images.string(),
                  options_.test_labels.string(), options_.out.string(), log.string()));
  const std::string printed = testing::internal::GetCapturedStdout();
  EXPECT_THAT(printed, AllOf(HasSubstr("epoch 1/2"), HasSubstr("epoch 2/2"), HasSubstr(", test ")));
  const nlohmann::json written = nlohmann::json::parse(ReadAll(log));
  EXPECT_EQ(written.at("epochs").size(), 2u);
  EXPECT_EQ(written.at("options").at("seed"), 3);
  EXPECT_EQ(written.at("options").at("augmentation"), "none");
  for (const char* key : {"loss", "accuracy", "validation_accuracy", "seconds", "images_per_s"})
    EXPECT_TRUE(written.at("epochs").at(1).contains(key)) << key;
  for (const char* key : {"processor", "cores", "cuda", "libtorch"})
    EXPECT_TRUE(written.at("machine").contains(key)) << key;
  EXPECT_TRUE(written.contains("test_accuracy"));
  EXPECT_TRUE(fs::exists(options_.out));
}

TEST_F(TrainTest, CommandRejectsIncompleteArguments) {
  EXPECT_THROW(RunCommand("train"), CLI::RequiredError);
  // Before anything is trained, or even read.
  EXPECT_THAT(
      [&] { RunCommand("train net.json --images i --out o --log " + (folder_ / "no/l").string()); },
      testing::ThrowsMessage<ConfigError>(
          AllOf(testing::StartsWith("--log: "), HasSubstr("no: No such file"))));
  EXPECT_THROW(RunCommand("train net.json --images i --labels l --out o --test-labels t"),
               CLI::RequiresError);
  EXPECT_THROW(RunCommand("train net.json --images i --teacher t"), CLI::RequiresError);
  EXPECT_THROW(RunCommand("train net.json --images i --optimizer adagrad"), CLI::ValidationError);
  try {
    RunCommand("train net.json --labels l --out o");
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.Place(), "--images");
  }
}

// A configuration with every key.
constexpr const char* kConfig = R"({
  "$schema": "train.schema.json",
  "network": "net.json",
  "data": {"train_images": "images@train:0.25:3", "train_labels": "labels",
           "test_images": "images@test:0.25:3", "test_labels": "labels", "validation": 96},
  "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.8, "weight_decay": 0.001},
  "schedule": {"name": "step", "warmup_epochs": 0.5, "step_epochs": 1, "factor": 0.5},
  "epochs": 2, "batch": 16,
  "augmentation": {"name": "flip_crop", "strength": 0.25},
  "average": 0.125, "label_smoothing": 0.05, "width_bits": 9, "weights": {"conv1": "binary", "fc1": "real"},
  "teacher": {"network": "t.json", "weights": "t.safetensors", "images": "original",
              "temperature": 3, "lambda": 0.5},
  "seed": 5, "threads": 2, "device": "auto", "precision": "bfloat16",
  "initial": "start.safetensors",
  "out": "configured.safetensors", "checkpoint": "c", "log": "log.json"
})";

TEST_F(TrainTest, ReadsAConfiguration) {
  Write(folder_ / "config.json", kConfig);
  EXPECT_TRUE(IsTrainConfig(folder_ / "config.json"));
  EXPECT_FALSE(IsTrainConfig(folder_ / "net.json"));
  EXPECT_FALSE(IsTrainConfig(folder_ / "images"));
  const TrainConfig config = LoadTrainConfig(folder_ / "config.json");
  const TrainOptions& o = config.options;
  EXPECT_EQ(o.network, folder_ / "net.json");
  EXPECT_EQ(o.train_images, (folder_ / "images").string() + "@train:0.25:3");
  EXPECT_EQ(o.train_labels, folder_ / "labels");
  EXPECT_EQ(o.test_images, (folder_ / "images").string() + "@test:0.25:3");
  EXPECT_EQ(o.test_labels, folder_ / "labels");
  EXPECT_EQ(o.validation, 96u);
  EXPECT_EQ(o.optimizer, Optimizer::kSgd);
  EXPECT_EQ(o.lr, 0.05);
  EXPECT_EQ(o.momentum, 0.8);
  EXPECT_EQ(o.weight_decay, 0.001);
  EXPECT_EQ(o.schedule, Schedule::kStep);
  EXPECT_EQ(o.warmup_epochs, 0.5);
  EXPECT_EQ(o.step_epochs, 1);
  EXPECT_EQ(o.step_factor, 0.5);
  EXPECT_EQ(o.epochs, 2);
  EXPECT_EQ(o.batch, 16);
  EXPECT_EQ(o.augmentation, Augmentation::kFlipCrop);
  EXPECT_EQ(o.augment, 0.25);
  EXPECT_EQ(o.average, 0.125);
  EXPECT_EQ(o.label_smoothing, 0.05);
  EXPECT_EQ(o.width_bits, 9u);
  EXPECT_EQ(o.binary_weights, std::vector<std::string>{"conv1"});
  EXPECT_EQ(o.teacher, folder_ / "t.json");
  EXPECT_EQ(o.teacher_weights, folder_ / "t.safetensors");
  EXPECT_EQ(o.teacher_images, TeacherImages::kOriginal);
  EXPECT_EQ(o.temperature, 3);
  EXPECT_EQ(o.distillation_weight, 0.5);
  EXPECT_EQ(o.seed, 5u);
  EXPECT_EQ(o.threads, 2);
  EXPECT_EQ(o.device, Device::kAuto);
  EXPECT_EQ(o.precision, Precision::kBfloat16);
  EXPECT_EQ(o.initial, folder_ / "start.safetensors");
  EXPECT_EQ(o.out, folder_ / "configured.safetensors");
  EXPECT_EQ(o.checkpoint, folder_ / "c");
  EXPECT_EQ(config.log, folder_ / "log.json");
}

TEST_F(TrainTest, RefusesAWrongConfiguration) {
  struct Case {
    const char* pointer;
    nlohmann::json value;
    const char* place;
    const char* message;
  };
  const Case cases[] = {
      {"/epoch", 3, "", "unknown key 'epoch'; allowed keys of the training: $schema, augmentation"},
      {"/optimizer/betas", 3, "/optimizer", "unknown key 'betas'"},
      {"/optimizer/name", "adam", "/optimizer/name", "found \"adam\", expected \"adamw\" or"},
      {"/optimizer/lr", 0, "/optimizer/lr", "found 0, expected a number above 0"},
      {"/epochs", "3", "/epochs", "found \"3\", expected an integer from 1"},
      {"/data/train_images", "", "/data/train_images", "expected FILE"},
      {"/data/train_images", "a@test:2:1", "/data/train_images", "with 0 < PART < 1"},
      {"/average", 1.5, "/average", "expected a number from 0 (off) to 1"},
      {"/teacher/lambda", 1.5, "/teacher/lambda", "expected a number from 0 to 1"},
      {"/teacher/images", "all", "/teacher/images", "expected \"augmented\""},
      {"/precision", "half", "/precision", "expected \"float32\""},
      {"/device", "gpu", "/device", "expected \"cpu\""},
      {"/optimizer",
       {{"name", "adamw"}, {"momentum", 0.5}},
       "/optimizer/momentum",
       "has no use with \"adamw\""},
      {"/schedule/name", "cosine", "/schedule/step_epochs", "has no use with \"cosine\""},
      {"/augmentation/name", "none", "/augmentation/strength", "has no use with \"none\""},
  };
  const fs::path file = folder_ / "config.json";
  for (const Case& wrong : cases) {
    nlohmann::json document = nlohmann::json::parse(kConfig);
    document[nlohmann::json::json_pointer(wrong.pointer)] = wrong.value;
    Write(file, document.dump());
    try {
      LoadTrainConfig(file);
      ADD_FAILURE() << "no error for " << wrong.pointer;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.Place(),
                file.string() + (*wrong.place == '\0' ? "" : " ") + std::string(wrong.place));
      EXPECT_THAT(error.what(), HasSubstr(wrong.message));
    }
  }
}

// An error names the configuration and the field, unless the command line has its say.
TEST_F(TrainTest, AConfigurationsInputsMustExist) {
  const fs::path file = folder_ / "config.json";
  Write(file, kConfig);
  const auto expect = [&](const char* pointer, const char* missing) {
    const TrainConfig config = LoadTrainConfig(file);
    try {
      CheckInputsExist(config, file, config.options);
      ADD_FAILURE() << "no error for " << pointer;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.Place(), file.string() + ' ' + pointer);
      EXPECT_THAT(error.what(), HasSubstr((folder_ / missing).string() + ", which does not exist"));
    }
  };
  expect("/teacher/network", "t.json");
  for (const char* name : {"t.json", "t.safetensors"}) Write(folder_ / name, "");
  expect("/initial", "start.safetensors");
  nlohmann::json document = nlohmann::json::parse(kConfig);
  document["data"]["train_images"] = "images,more@train:0.25:3";
  Write(file, document.dump());
  expect("/data/train_images", "more");

  const TrainConfig config = LoadTrainConfig(file);
  TrainOptions used = config.options;
  used.train_images = folder_ / "images";
  used.initial.clear();
  CheckInputsExist(config, file, used);
}

TEST_F(TrainTest, OptionsOverrideTheConfiguration) {
  nlohmann::json document = nlohmann::json::parse(kConfig);
  for (const char* key : {"teacher", "initial", "checkpoint"}) document.erase(key);
  document["threads"] = 1;
  document["device"] = "cpu";
  Write(folder_ / "config.json", document.dump());
  testing::internal::CaptureStdout();
  RunCommand(fmt::format("train {} --epochs 3 --out {} --augmentation none",
                         (folder_ / "config.json").string(), options_.out.string()));
  testing::internal::GetCapturedStdout();
  EXPECT_TRUE(fs::exists(options_.out));
  const nlohmann::json written = nlohmann::json::parse(ReadAll(folder_ / "log.json"));
  EXPECT_EQ(written.at("epochs").size(), 3u);
  EXPECT_EQ(written.at("options").at("augmentation"), "none");
  EXPECT_EQ(written.at("options").at("lr"), 0.05);
}

// The examples that are shipped are valid and name networks that are there.
TEST(TrainConfigTest, ExamplesAreValid) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(TERCET_SOURCE_DIR "/configs/train")) {
    if (entry.path().filename() == "train.schema.json") continue;
    SCOPED_TRACE(entry.path().string());
    ++count;
    const TrainOptions options = LoadTrainConfig(entry.path()).options;
    EXPECT_TRUE(fs::exists(options.network)) << options.network;
    if (!options.teacher.empty()) {
      EXPECT_TRUE(fs::exists(options.teacher)) << options.teacher;
    }
  }
  EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace tercet::train
