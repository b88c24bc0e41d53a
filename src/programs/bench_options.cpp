// SPDX-License-Identifier: Apache-2.0
#include "programs/bench_options.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/json.h"
#include "files/data_options.h"
#include "files/schema_check.h"
#include "programs/bench_schema.h"
#include "programs/inputs.h"
#include "programs/launcher.h"
#include "programs/options.h"
#include "tercet/base/error.h"

namespace tercet::programs {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kQueriesOfBatches = 2, kRoundsSideBySide = 4;

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// The K of "NAME=K"; 0 for other texts.
std::size_t NumberOf(const std::string& schedule, const std::string& name) {
  if (!schedule.starts_with(name + "=")) return 0;
  std::size_t number = 0;
  const char* const end = schedule.data() + schedule.size();
  const auto [read, error] = std::from_chars(schedule.data() + name.size() + 1, end, number);
  return error == std::errc() && read == end ? number : 0;
}

}  // namespace

fs::path SharedFolder(const std::string& name) {
  std::error_code none;
  for (const fs::path& folder : {fs::path(name), ProgramFolder() / "../share/tercet" / name,
                                 fs::path(TERCET_SOURCE_DIR) / name})
    if (fs::is_directory(folder, none)) return folder;
  return {};
}

BenchNetwork FindNetwork(const std::string& text, const fs::path& model, const std::string& place) {
  BenchNetwork network{text, model, {}, {}};
  std::error_code none;
  if (text.find('/') == std::string::npos && !text.ends_with(".json")) {
    const auto nets = SharedFolder("nets");
    network.file = nets / (Lower(text) + ".json");
    if (nets.empty() || !fs::exists(network.file, none)) {
      throw ConfigError(place,
                        fmt::format("found {}, expected the path of an architecture or a name in "
                                    "the folder nets, such as mnistnet1",
                                    Printable(text)));
    }
  } else if (!fs::exists(network.file, none)) {
    throw ConfigError(place, fmt::format("there is no {}", text));
  }
  if (!model.empty()) return network;
  network.model = fs::path(network.file).replace_extension(".compiled.safetensors");
  if (!fs::exists(network.model, none)) network.model = "random";
  return network;
}

BenchOptions ReadBenchOptions(const fs::path& file) {
  static const files::Schema schema(kBenchSchema);
  const auto document = ReadJsonFile(file, {"a benchmark's JSON", 1 << 20}, JsonLimits{});
  schema.Check(document, file.string());
  const auto folder = fs::absolute(file).parent_path();
  // What is a name or "random" stays one.
  const auto resolve = [&](const nlohmann::json& from, const char* key) -> fs::path {
    const auto text = from.value(key, std::string());
    return text.empty() || RandomSeed(text) ? fs::path(text) : folder / text;
  };
  BenchOptions options;
  const auto read = [&](const char* key, auto& value) { ReadIfPresent(document, key, value); };
  read("title", options.title);
  read("suites", options.suites);
  read("links", options.links);
  read("schedules", options.schedules);
  read("batches", options.batches);
  read("repetitions", options.repetitions);
  read("queries", options.queries);
  read("accuracy_limit", options.accuracy_limit);
  read("transport", options.transport);
  read("weights", options.weights);
  if (document.contains("published")) options.published = document.at("published");
  options.images = resolve(document, "images");
  options.labels = resolve(document, "labels");
  if (document.contains("data")) files::ReadDataOptions(document.at("data"), options.data);
  const auto& networks = document.at("networks");
  for (std::size_t i = 0; i < networks.size(); ++i) {
    const nlohmann::json entry =
        networks[i].is_string() ? nlohmann::json{{"network", networks[i]}} : networks[i];
    auto text = entry.at("network").get<std::string>();
    if (text.find('/') != std::string::npos || text.ends_with(".json")) text = folder / text;
    options.networks.push_back(FindNetwork(text, resolve(entry, "model"),
                                           fmt::format("{} /networks/{}", file.string(), i)));
    options.networks.back().images = resolve(entry, "images");
    options.networks.back().labels = resolve(entry, "labels");
  }
  return options;
}

std::vector<std::string> ScheduleOptions(const std::string& schedule) {
  if (schedule == "in-turn") return {};
  const std::string flag = PresentName("--" + schedule);
  if (flag == "--helper-leaves" || flag == "--rotate-helper") return {flag};
  for (const char* name : {"ahead", "in-flight"})
    if (const auto number = NumberOf(schedule, name); number > 0)
      return {fmt::format("--{}", name), std::to_string(number)};
  throw ConfigError("--schedules",
                    fmt::format("found {}, expected in-turn, helper-leaves, rotate-helper, ahead=K "
                                "or in-flight=K",
                                Printable(schedule)));
}

std::size_t QueriesOf(const BenchOptions& options, const std::string& schedule, std::size_t batch) {
  const std::size_t side_by_side =
      std::max(NumberOf(schedule, "ahead"), NumberOf(schedule, "in-flight"));
  return std::max(batch == 1 ? options.queries : kQueriesOfBatches,
                  kRoundsSideBySide * side_by_side);
}

}  // namespace tercet::programs
