// SPDX-License-Identifier: Apache-2.0
#include "train/config.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "base/json.h"
#include "files/data_options.h"
#include "files/schema_check.h"
#include "tercet/base/error.h"
#include "tercet/files/images.h"
#include "train/train_schema.h"

namespace tercet::train {
namespace {

using nlohmann::json;

json ReadDocument(const std::filesystem::path& file) {
  return ReadJsonFile(file, {"a training configuration's JSON", 1 << 20}, JsonLimits{});
}

/// Reads a checked document into options, keys that are missing left as they are.
class Reader {
 public:
  Reader(const std::filesystem::path& file, const json& document)
      : name_(file.string()),
        folder_(std::filesystem::absolute(file).parent_path()),
        document_(document) {}

  template <class T>
  void Read(const char* pointer, T& value) const {
    const json::json_pointer at(pointer);
    if (document_.contains(at)) value = document_.at(at).get<T>();
  }
  void ReadFileName(const char* pointer, std::filesystem::path& value) const {
    const json::json_pointer at(pointer);
    if (document_.contains(at)) value = Resolve(document_.at(at).get<std::string>());
  }
  /// An argument of files::LoadImages.
  void ReadDataFiles(const char* pointer, std::filesystem::path& value) const {
    const json::json_pointer at(pointer);
    if (!document_.contains(at)) return;
    const std::string text = document_.at(at).get<std::string>();
    if (std::filesystem::exists(Resolve(text))) {
      value = Resolve(text);
      return;
    }
    files::DataFiles data;
    try {
      data = files::ParseDataFiles(text);
    } catch (const ConfigError& error) {
      throw ConfigError(name_ + " " + pointer, error.what());
    }
    std::string resolved;
    for (const std::filesystem::path& file : data.files) {
      if (!resolved.empty()) resolved += ',';
      resolved += Resolve(file).string();
    }
    if (data.subset) {
      resolved += fmt::format("@{}:{}:{}", data.subset->test ? "test" : "train",
                              data.subset->test_part, data.subset->seed);
    }
    value = resolved;
  }
  template <class T>
  void ReadName(const char* pointer, T& value, const std::vector<T>& choices) const {
    const json::json_pointer at(pointer);
    if (!document_.contains(at)) return;
    const std::string name = document_.at(at).get<std::string>();
    for (const T choice : choices)
      if (name == Name(choice)) value = choice;
  }
  /// "binary" for all layers, or a choice for each.
  void ReadWeights(const char* pointer, std::vector<std::string>& binary) const {
    const json::json_pointer at(pointer);
    if (!document_.contains(at)) return;
    const json& weights = document_.at(at);
    if (weights == "binary") binary = {"all"};
    if (!weights.is_object()) return;
    for (const auto& [layer, choice] : weights.items())
      if (choice == "binary") binary.push_back(layer);
  }
  /// A key that the choice at `name_pointer` would ignore is a mistake.
  void Refuse(bool refused, const char* pointer, const char* name_pointer) const {
    if (!refused || !document_.contains(json::json_pointer(pointer))) return;
    throw ConfigError(
        name_ + " " + pointer,
        fmt::format("has no use with \"{}\"; expected no such key",
                    document_.at(json::json_pointer(name_pointer)).get<std::string>()));
  }

 private:
  std::filesystem::path Resolve(const std::filesystem::path& path) const {
    return (folder_ / path).lexically_normal();
  }

  std::string name_;
  std::filesystem::path folder_;
  const json& document_;
};

}  // namespace

TrainConfig LoadTrainConfig(const std::filesystem::path& file) {
  const json document = ReadDocument(file);
  static const files::Schema schema(kTrainSchema);
  schema.Check(document, file.string());
  const Reader reader(file, document);
  TrainConfig config;
  TrainOptions& o = config.options;
  reader.ReadFileName("/network", o.network);
  reader.ReadDataFiles("/data/train_images", o.train_images);
  reader.ReadDataFiles("/data/train_labels", o.train_labels);
  reader.ReadDataFiles("/data/test_images", o.test_images);
  reader.ReadDataFiles("/data/test_labels", o.test_labels);
  reader.Read("/data/validation", o.validation);
  if (document.contains("data")) files::ReadDataOptions(document.at("data"), o.data);
  reader.ReadName("/optimizer/name", o.optimizer, {Optimizer::kAdamW, Optimizer::kSgd});
  reader.Read("/optimizer/lr", o.lr);
  reader.Read("/optimizer/momentum", o.momentum);
  reader.Read("/optimizer/weight_decay", o.weight_decay);
  reader.Refuse(o.optimizer != Optimizer::kSgd, "/optimizer/momentum", "/optimizer/name");
  reader.ReadName("/schedule/name", o.schedule, {Schedule::kCosine, Schedule::kStep});
  reader.Read("/schedule/warmup_epochs", o.warmup_epochs);
  reader.Read("/schedule/step_epochs", o.step_epochs);
  reader.Read("/schedule/factor", o.step_factor);
  reader.Refuse(o.schedule != Schedule::kStep, "/schedule/step_epochs", "/schedule/name");
  reader.Refuse(o.schedule != Schedule::kStep, "/schedule/factor", "/schedule/name");
  reader.Read("/epochs", o.epochs);
  reader.Read("/batch", o.batch);
  reader.ReadName("/augmentation/name", o.augmentation,
                  {Augmentation::kNone, Augmentation::kDistort, Augmentation::kFlipCrop});
  reader.Read("/augmentation/strength", o.augment);
  reader.Refuse(o.augmentation == Augmentation::kNone, "/augmentation/strength",
                "/augmentation/name");
  reader.Read("/average", o.average);
  reader.Read("/label_smoothing", o.label_smoothing);
  reader.Read("/width_bits", o.width_bits);
  reader.ReadWeights("/weights", o.binary_weights);
  reader.ReadFileName("/teacher/network", o.teacher);
  reader.ReadFileName("/teacher/weights", o.teacher_weights);
  reader.ReadName("/teacher/images", o.teacher_images,
                  {TeacherImages::kAugmented, TeacherImages::kOriginal});
  reader.Read("/teacher/temperature", o.temperature);
  reader.Read("/teacher/lambda", o.distillation_weight);
  reader.Read("/seed", o.seed);
  reader.Read("/threads", o.threads);
  reader.ReadName("/device", o.device, {Device::kCpu, Device::kCuda, Device::kAuto});
  reader.ReadName("/precision", o.precision, {Precision::kFloat32, Precision::kBfloat16});
  reader.ReadFileName("/initial", o.initial);
  reader.ReadFileName("/out", o.out);
  reader.ReadFileName("/checkpoint", o.checkpoint);
  reader.ReadFileName("/log", config.log);
  return config;
}

void CheckInputsExist(const TrainConfig& config, const std::filesystem::path& file,
                      const TrainOptions& used) {
  using O = TrainOptions;
  const auto check = [&](const std::string& pointer, std::filesystem::path O::*member) {
    const std::filesystem::path& named = config.options.*member;
    if (named.empty() || named != used.*member || std::filesystem::exists(named)) return;
    const bool is_list = pointer.starts_with("/data/");
    for (const auto& each : is_list ? files::ParseDataFiles(named.string()).files
                                    : std::vector<std::filesystem::path>{named})
      if (!std::filesystem::exists(each))
        throw ConfigError(
            fmt::format("{} {}", file.string(), pointer),
            fmt::format("names {}, which does not exist; expected a file", each.string()));
  };
  check("/network", &O::network);
  check("/data/train_images", &O::train_images);
  check("/data/train_labels", &O::train_labels);
  check("/data/test_images", &O::test_images);
  check("/data/test_labels", &O::test_labels);
  check("/teacher/network", &O::teacher);
  check("/teacher/weights", &O::teacher_weights);
  check("/initial", &O::initial);
}

nlohmann::ordered_json DescribeRun(const TrainOptions& o) {
  nlohmann::ordered_json run = {{"epochs", o.epochs},
                                {"batch_size", o.batch},
                                {"optimizer", Name(o.optimizer)},
                                {"lr", o.lr},
                                {"weight_decay", o.weight_decay},
                                {"schedule", Name(o.schedule)},
                                {"warmup_epochs", o.warmup_epochs},
                                {"label_smoothing", o.label_smoothing},
                                {"augmentation", Name(o.augmentation)},
                                {"augment", o.augment},
                                {"width_bits", o.width_bits},
                                {"validation", o.validation},
                                {"seed", o.seed},
                                {"threads", o.threads},
                                {"device", Name(o.device)},
                                {"precision", Name(o.precision)}};
  if (auto data = files::DescribeDataOptions(o.data); !data.empty()) run["data"] = std::move(data);
  if (o.average > 0) run["average"] = o.average;
  if (!o.binary_weights.empty()) run["binary_weights"] = o.binary_weights;
  if (o.optimizer == Optimizer::kSgd) run["momentum"] = o.momentum;
  if (o.schedule == Schedule::kStep) {
    run["step_epochs"] = o.step_epochs;
    run["step_factor"] = o.step_factor;
  }
  if (!o.teacher.empty()) {
    run["teacher_images"] = Name(o.teacher_images);
    run["temperature"] = o.temperature;
    run["distillation_weight"] = o.distillation_weight;
  }
  return run;
}

bool IsTrainConfig(const std::filesystem::path& file) {
  try {
    const json document = ReadDocument(file);
    return document.is_object() && !document.contains("layers");
  } catch (const ConfigError&) {
    return false;
  }
}

}  // namespace tercet::train
