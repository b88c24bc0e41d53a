// SPDX-License-Identifier: Apache-2.0
#include "train/checkpoint.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"

namespace tercet::train {
namespace {

using nlohmann::json;

constexpr int kVersion = 2;

at::Generator& CpuGenerator() {
  static at::Generator generator = at::detail::getDefaultCPUGenerator();
  return generator;
}

std::string Text(const std::mt19937_64& generator) {
  std::ostringstream text;
  text << generator;
  return text.str();
}

using Tensors = std::map<std::string, torch::Tensor>;

json Names(const Tensors& tensors) {
  json names = json::array();
  for (const auto& [name, tensor] : tensors) names.push_back(name);
  return names;
}

// Names of tensors have dots, which an archive does not take.
void Write(const Tensors& tensors, const char* name, torch::serialize::OutputArchive& archive) {
  torch::serialize::OutputArchive part;
  std::size_t index = 0;
  for (const auto& [unused, tensor] : tensors)
    part.write(std::to_string(index++), tensor.to(torch::kCPU), /*is_buffer=*/true);
  archive.write(name, part);
}

Tensors Read(torch::serialize::InputArchive& archive, const char* name, const json& names) {
  Tensors tensors;
  torch::serialize::InputArchive part;
  archive.read(name, part);
  std::size_t index = 0;
  for (const json& tensor : names)
    part.read(std::to_string(index++), tensors[tensor.get<std::string>()], /*is_buffer=*/true);
  return tensors;
}

json ToJson(const Checkpoint& c) {
  json history = json::array();
  for (const EpochRecord& e : c.history) {
    history.push_back(
        {e.loss, e.accuracy, e.validation_accuracy, e.seconds, e.images_per_s, e.saved});
  }
  return {{"version", kVersion},
          {"settings", json::parse(c.settings)},
          {"best_epoch", c.best_epoch},
          {"validation_accuracy", c.validation_accuracy},
          {"seconds", c.seconds},
          {"history", history},
          {"shuffle", Text(c.shuffle)},
          {"tensors", Names(c.model)},
          {"averaged_tensors", Names(c.average)},
          {"averaged_steps", c.averaged_steps}};
}

void CheckSettings(const json& found, const json& expected, const std::filesystem::path& file) {
  for (const auto& [key, value] : expected.items()) {
    const json other = found.value(key, json());
    if (other == value) continue;
    throw ConfigError(
        file.string(),
        fmt::format("this checkpoint is of a run with {} = {}, expected {} as in this "
                    "run; a run can go on with equal settings only",
                    key, other.dump(), value.dump()));
  }
}

}  // namespace

void SaveCheckpoint(const Checkpoint& checkpoint, const torch::optim::Optimizer& optimizer,
                    const std::filesystem::path& file) {
  torch::serialize::OutputArchive archive;
  archive.write("state", c10::IValue(ToJson(checkpoint).dump()));
  archive.write("random", CpuGenerator().get_state(), /*is_buffer=*/true);
  Write(checkpoint.model, "model", archive);
  Write(checkpoint.average, "average", archive);
  torch::serialize::OutputArchive steps;
  optimizer.save(steps);
  archive.write("optimizer", steps);

  std::ostringstream text;
  archive.save_to(text);
  WriteFile(file, text.view(), FileRights::kOwner);
}

Checkpoint LoadCheckpoint(const std::filesystem::path& file, const std::string& settings,
                          torch::optim::Optimizer& optimizer, const torch::Device& device) {
  const auto bytes = ReadFile(file, {"a checkpoint to resume from", std::uint64_t{1} << 33});
  Checkpoint checkpoint;
  checkpoint.settings = settings;
  try {
    torch::serialize::InputArchive archive;
    archive.load_from(reinterpret_cast<const char*>(bytes.data()), bytes.size(), device);
    c10::IValue text;
    archive.read("state", text);
    const std::string& document = text.toStringRef();
    const json state =
        ReadJson(document, file.string() + " state", JsonLimits::UpTo(document.size()));
    if (state.at("version") != kVersion) {
      throw ConfigError(file.string(), fmt::format("found checkpoint version {}, expected {}",
                                                   state.at("version").dump(), kVersion));
    }
    CheckSettings(state.at("settings"), json::parse(settings), file);
    checkpoint.best_epoch = state.at("best_epoch").get<int>();
    checkpoint.validation_accuracy = state.at("validation_accuracy").get<double>();
    checkpoint.seconds = state.at("seconds").get<double>();
    for (const json& e : state.at("history")) {
      checkpoint.history.push_back({e.at(0).get<double>(), e.at(1).get<double>(),
                                    e.at(2).get<double>(), e.at(3).get<double>(),
                                    e.at(4).get<double>(), e.at(5).get<bool>()});
    }
    std::istringstream(state.at("shuffle").get<std::string>()) >> checkpoint.shuffle;
    checkpoint.averaged_steps = state.at("averaged_steps").get<std::int64_t>();
    checkpoint.model = Read(archive, "model", state.at("tensors"));
    checkpoint.average = Read(archive, "average", state.at("averaged_tensors"));
    torch::serialize::InputArchive steps;
    archive.read("optimizer", steps);
    optimizer.load(steps);
    torch::Tensor random;
    archive.read("random", random, /*is_buffer=*/true);
    CpuGenerator().set_state(random.to(torch::kCPU));
  } catch (const c10::Error& error) {
    throw ConfigError(file.string(), fmt::format("is no whole checkpoint of Tercet: {}",
                                                 error.what_without_backtrace()));
  } catch (const json::exception& error) {
    throw ConfigError(file.string(),
                      fmt::format("is no whole checkpoint of Tercet: {}", error.what()));
  }
  return checkpoint;
}

}  // namespace tercet::train
