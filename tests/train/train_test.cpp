#include "train/train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "tercet/base/error.h"
#include "tercet/nn/tensor_file.h"
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

std::string Bytes(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

void Write(const fs::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

std::string BigEndian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 255);
  return bytes;
}

// A temporary folder with a small network and 8 x 8 images whose class is the corner that is
// bright.
class TrainTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kImages = 480;

  TrainTest() {
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    folder_ = fs::temp_directory_path() / fmt::format("tercet_train_{}_{}", name, getpid());
    fs::create_directories(folder_);
    Write(folder_ / "net.json", kNetwork);
    std::mt19937 random(7);
    std::string images = BigEndian(0x803) + BigEndian(kImages) + BigEndian(8) + BigEndian(8);
    std::string labels = BigEndian(0x801) + BigEndian(kImages);
    for (std::uint32_t i = 0; i < kImages; ++i) {
      const unsigned label = random() % 4;
      labels += static_cast<char>(label);
      for (unsigned y = 0; y < 8; ++y) {
        for (unsigned x = 0; x < 8; ++x) {
          const bool bright = y / 4 == label / 2 && x / 4 == label % 2;
          images += static_cast<char>((bright ? 110 : 40) + random() % 100);
        }
      }
    }
    Write(folder_ / "images", images);
    Write(folder_ / "labels", labels);
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
  ~TrainTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
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

  fs::path folder_;
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

  const nn::TensorFile file = nn::LoadTensors(options_.out);
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
  const std::string first = Bytes(options_.out);
  Train(options_);
  EXPECT_EQ(Bytes(options_.out), first);
  options_.seed = 2;
  Train(options_);
  EXPECT_NE(Bytes(options_.out), first);
}

TEST_F(TrainTest, LearnsWithRoundedWeights) {
  options_.width_bits = 9;
  EXPECT_GT(Train(options_).validation_accuracy, 0.9);
  EXPECT_EQ(nn::LoadTensors(options_.out).metadata.at("width_bits"), "9");
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
  nn::TensorFile wrong;
  wrong.tensors["bn1.bias"] = nn::TensorData::FromFloats({7}, std::vector<float>(7));
  options_.initial = folder_ / "wrong.safetensors";
  nn::SaveTensors(wrong, options_.initial);
  EXPECT_THAT(Failure(), AllOf(HasSubstr("wrong.safetensors tensor bn1.bias"), HasSubstr("[7]"),
                               HasSubstr("[8]")));
}

TEST_F(TrainTest, StopsWhenTheLossDivergesAndKeepsTheLastGoodFile) {
  Train(options_);
  const std::string good = Bytes(options_.out);
  options_.lr = 1e30;
  EXPECT_THAT(Failure(), AllOf(HasSubstr("--lr"), HasSubstr("epoch 1"), HasSubstr("1e+30")));
  EXPECT_EQ(Bytes(options_.out), good);
}

TEST_F(TrainTest, DoesNotSaveWeightsThatTheLastStepBroke) {
  options_.epochs = 1;
  Train(options_);
  nn::TensorFile file = nn::LoadTensors(options_.out);
  file.tensors["fc1.weight"] =
      nn::TensorData::FromFloats({4, 72}, std::vector<float>(4 * 72, 1000.0F));
  options_.initial = folder_ / "large.safetensors";
  nn::SaveTensors(file, options_.initial);
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
      {"--label-smoothing", [](TrainOptions& o) { o.label_smoothing = 1; }},
      {"--augment", [](TrainOptions& o) { o.augment = -0.5; }},
      {"--width-bits", [](TrainOptions& o) { o.width_bits = 3; }},
      {"--threads", [](TrainOptions& o) { o.threads = 0; }},
      {"--validation", [](TrainOptions& o) { o.validation = 0; }},
      {"--test-images", [](TrainOptions& o) { o.test_labels.clear(); }},
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

TEST_F(TrainTest, RejectsLabelsOfAnotherLength) {
  Write(folder_ / "labels", BigEndian(0x801) + BigEndian(3) + std::string(3, '\1'));
  EXPECT_THAT(Failure(),
              AllOf(HasSubstr("labels"), HasSubstr("3 labels"), HasSubstr("480 images")));
}

TEST_F(TrainTest, CommandTrainsAndLogs) {
  CLI::App app;
  AddTrainCommand(app);
  const fs::path log = folder_ / "log.json";
  testing::internal::CaptureStdout();
  app.parse(
      fmt::format("train {} --images {} --labels {} --test-images {} --test-labels {} "
                  "--out {} --log {} --epochs 2 --batch-size 32 --validation 96 --lr 0.01 "
                  "--no-augment --seed 3",
                  options_.network.string(), options_.train_images.string(),
                  options_.train_labels.string(), options_.test_images.string(),
                  options_.test_labels.string(), options_.out.string(), log.string()));
  const std::string printed = testing::internal::GetCapturedStdout();
  EXPECT_THAT(printed, AllOf(HasSubstr("epoch 1/2"), HasSubstr("epoch 2/2"), HasSubstr(", test ")));
  const nlohmann::json written = nlohmann::json::parse(Bytes(log));
  EXPECT_EQ(written.at("epochs").size(), 2u);
  EXPECT_EQ(written.at("options").at("seed"), 3);
  EXPECT_EQ(written.at("options").at("augment"), 0);
  EXPECT_TRUE(written.contains("test_accuracy"));
  EXPECT_TRUE(fs::exists(options_.out));
}

TEST_F(TrainTest, CommandRejectsIncompleteArguments) {
  CLI::App app;
  AddTrainCommand(app);
  EXPECT_THROW(app.parse("train net.json --labels l --out o"), CLI::RequiredError);
  EXPECT_THROW(app.parse("train net.json --images i --labels l --out o --test-images t"),
               CLI::RequiresError);
}

}  // namespace
}  // namespace tercet::train
