// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tercet/files/data_options.h"

/// What `tercet bench` measures.
namespace tercet::programs {

inline constexpr const char* kSecretWeights = "secret";

struct BenchNetwork {
  std::filesystem::path file;            ///< architecture
  std::filesystem::path model;           ///< as ModelSource::file
  std::filesystem::path images, labels;  ///< none: random images, no accuracy
};

struct BenchOptions {
  std::string title;
  std::vector<BenchNetwork> networks;
  std::filesystem::path images, labels;  ///< of networks that name none
  files::DataOptions data;               ///< of all images and labels
  std::vector<std::string> suites{"lut"}, links{"none"}, schedules{"in-turn"};
  std::vector<std::size_t> batches{1, 128};
  std::size_t repetitions = 7;
  std::size_t queries = 10;           ///< in a run of batch 1
  std::size_t accuracy_limit = 1000;  ///< images to take the accuracy of
  std::string transport = "tls";
  std::string weights = kSecretWeights;  ///< or mpc::kPublicLinear: known to all parties
  /// What a paper prints: objects as configs/bench/bench.schema.json says.
  nlohmann::ordered_json published = nlohmann::ordered_json::array();

  bool WeightsArePublic() const { return weights != kSecretWeights; }
};

/// Where a folder of the project is ("nets", "scripts"): below the working directory, where
/// `tercet` is installed, or in the source tree that it was built from. Empty when it is nowhere.
std::filesystem::path SharedFolder(const std::string& name);

/// A network by its path or, from the folder nets, its name in any case. Without `model` its own:
/// NAME.compiled.safetensors beside it, or random where there is none. ConfigError (`place`) when
/// there is no such network.
BenchNetwork FindNetwork(const std::string& text, const std::filesystem::path& model,
                         const std::string& place);

/// A run file, which configs/bench/bench.schema.json describes; paths are relative to it, and what
/// it leaves out has its default. ConfigError "FILE POINTER: found, expected".
BenchOptions ReadBenchOptions(const std::filesystem::path& file);

/// The options of `tercet run` that a schedule stands for: "in-turn", "helper-leaves",
/// "rotate-helper", "ahead=K" or "in-flight=K", also as PresentName knows them. ConfigError
/// (--schedules) for others.
std::vector<std::string> ScheduleOptions(const std::string& schedule);
/// How many queries a run of a setting has: enough that the first one's cold caches do not stand
/// for all, and that what runs side by side does so for most of the run.
std::size_t QueriesOf(const BenchOptions& options, const std::string& schedule, std::size_t batch);

}  // namespace tercet::programs
