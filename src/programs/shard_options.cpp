// SPDX-License-Identifier: Apache-2.0
#include "programs/shard_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "tercet/base/error.h"
#include "tercet/crypto/certificates.h"
#include "tercet/nn/run_plain.h"

namespace tercet::programs {
namespace {

constexpr std::string_view kAuto = "auto";
constexpr const char* kOption = "--shard";

std::optional<std::size_t> Number(std::string_view text) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// `count`: 0 where it is not given.
infer::Shard FromEnvironment(std::size_t count, const Environment& environment) {
  const auto rank = RankByEngine(environment);
  if (!rank)
    throw ConfigError(kOption,
                      fmt::format("auto found, but none of {} is set, which mpirun, srun and "
                                  "indexed jobs of Kubernetes do; I/N expected",
                                  EngineVariables()));
  if (rank->count_variable == nullptr && count == 0)
    throw ConfigError(kOption, fmt::format("auto found, but {} does not come with a number of "
                                           "shards; auto/N expected",
                                           rank->index_variable));
  if (rank->count_variable != nullptr && !rank->count)
    throw ConfigError(kOption, fmt::format("auto found, but {} is not set", rank->count_variable));
  if (count != 0 && rank->count.value_or(count) != count)
    throw ConfigError(kOption, fmt::format("auto/{} found, but {} is {}", count,
                                           rank->count_variable, *rank->count));
  return {rank->index, rank->count.value_or(count)};
}

}  // namespace

std::filesystem::path ShardOptions::ReportOf(const std::filesystem::path& file) const {
  if (!shard) return file;
  auto own = infer::ForShard(file.string(), shard->index);
  if (by_environment && shard->count > 1 && !file.empty() && own == file.string())
    throw ConfigError("--json", fmt::format("{} found, a name with {{shard}} expected, which "
                                            "becomes each shard's number",
                                            file.string()));
  return own;
}

ShardOptions ParseShard(const std::string& text, const Environment& environment) {
  const std::string_view view(text);
  const std::size_t slash = view.find('/');
  const bool counted = slash != std::string_view::npos;
  const auto index = Number(view.substr(0, slash));
  const std::size_t count = counted ? Number(view.substr(slash + 1)).value_or(0) : 0;
  ShardOptions options;
  options.by_environment = view.substr(0, slash) == kAuto;
  if (options.by_environment && counted == (count > 0)) {
    options.shard = FromEnvironment(count, environment);
  } else if (index && count > 0) {
    options.shard = {*index, count};
  }
  if (!options.shard || options.shard->count > infer::kMaxShards ||
      options.shard->index >= options.shard->count)
    throw ConfigError(
        kOption,
        fmt::format("\"{}\" found, I/N with I from 0 to N - 1 and N up to {}, auto or auto/N "
                    "expected",
                    options.shard ? options.shard->Text() : text, infer::kMaxShards));
  return options;
}

void AddShard(CLI::App& app, ShardOptions& options, CLI::Option* json) {
  constexpr const char* kGroup = "Batch jobs";
  auto* shard =
      app.add_option_function<std::string>(
             kOption,
             [&options](const std::string& text) {
               const bool resume = options.resume;
               options = ParseShard(text, [](const char* name) { return std::getenv(name); });
               options.resume = resume;
             },
             "Run one of N parts of the images, I from 0 to N - 1, the same at all parties; auto "
             "takes both from mpirun or srun, auto/N the first from an indexed job of Kubernetes. "
             "{shard} in --json becomes I; tercet join makes one of all reports")
          ->type_name("I/N")
          ->group(kGroup)
          ->excludes(app.get_option("--material"))
          ->excludes(app.get_option("--material-out"));
  app.add_flag("--resume", options.resume,
               "Do nothing where the report (--json) of this shard, of the same job, is there "
               "already; the same at all parties")
      ->needs(shard)
      ->needs(json)
      ->group(kGroup);
}

void TakeShard(LabelledImages& data, const infer::Shard& shard) {
  // A receiver may have labels alone.
  const std::size_t all = std::max(data.images.count, data.labels.size());
  if (all < shard.count)
    throw ConfigError(kOption, fmt::format("{} shards found, at most one for each of {} images "
                                           "expected",
                                           shard.count, all));
  const infer::Shard::Range range = shard.Of(all);
  const auto keep = [&](std::vector<std::uint8_t>& values, std::size_t each) {
    if (values.empty()) return;
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(range.first * each);
    values = {begin, begin + static_cast<std::ptrdiff_t>(range.size * each)};
  };
  keep(data.images.pixels, data.images.shape.Size());
  keep(data.labels, 1);
  if (data.images.count > 0) data.images.count = range.size;
}

std::string ImagesDigest(const files::Images& images) {
  const std::string_view pixels(reinterpret_cast<const char*>(images.pixels.data()),
                                images.pixels.size());
  return crypto::Sha256Hex(fmt::format("{} {} {}", images.count, mpc::ShapeText(images.shape),
                                       crypto::Sha256Hex(pixels)));
}

std::string ShardText(const infer::Shard& shard, std::size_t all_images) {
  const auto [first, size] = shard.Of(all_images);
  return fmt::format("shard {}: images {} to {} of {}", shard.Text(), first, first + size - 1,
                     all_images);
}

bool IsDone(const infer::SessionReport& report, const infer::JobPart& part, bool has_logits,
            const std::vector<std::uint8_t>& labels) {
  if (!report.part || !report.part->IsSame(part)) return false;
  if (report.images != part.shard.Of(part.all_images).size) return false;
  if (has_logits && (report.classes == 0 || report.logits.size() / report.classes != report.images))
    return false;
  if (labels.empty()) return true;
  const auto predictions = nn::Predictions(report.logits, report.classes);
  return predictions.size() == labels.size() && report.correct == CountCorrect(predictions, labels);
}

}  // namespace tercet::programs
