// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <type_traits>

#include "tercet/base/error.h"
#include "tercet/report/run_report.h"

namespace tercet::report {

using infer::PartyReport;
using infer::SessionReport;
using infer::Shard;

namespace {

constexpr std::size_t kMostNamed = 20;  // of missing shards

template <class Report>
struct Named {
  const std::string& file;
  const Report& report;
};

template <class Value>
void RequireSame(const std::string& file, const char* what, const Value& found,
                 const Value& expected, const std::string& first) {
  if (found != expected)
    throw ConfigError(file, fmt::format("{} \"{}\" found, \"{}\" expected as in {}", what, found,
                                        expected, first));
}

void CheckPart(const std::string& file, const SessionReport& report, bool has_logits) {
  if (!report.part || !report.part->joined.empty())
    throw ConfigError(file, "is no report of a shard (--shard)");
  const auto& [shard, all_images, job, joined] = *report.part;
  if (shard.count > infer::kMaxShards || shard.index >= shard.count || all_images < shard.count)
    throw ConfigError(file, fmt::format("is of shard {} of {} images, which there cannot be",
                                        shard.Text(), all_images));
  const std::size_t images = shard.Of(all_images).size;
  if (report.images != images)
    throw ConfigError(file, fmt::format("has {} images, {} expected of shard {} of {}",
                                        report.images, images, shard.Text(), all_images));
  if (has_logits && (report.classes == 0 || report.logits.size() % report.classes != 0 ||
                     report.logits.size() / report.classes != images))
    throw ConfigError(file, fmt::format("is cut off: {} logits found, {} expected for each of {} "
                                        "images",
                                        report.logits.size(), report.classes, images));
}

// Everything by name that can be told by name; the rest is in the job's digest.
void CheckSameJob(const std::string& file, const SessionReport& report, const std::string& first,
                  const SessionReport& expected) {
  RequireSame(file, "network", report.network, expected.network, first);
  RequireSame(file, "suite", report.suite, expected.suite, first);
  RequireSame(file, "linear", report.linear, expected.linear, first);
  RequireSame(file, "link", report.link, expected.link, first);
  RequireSame(file, "material", report.material, expected.material, first);
  RequireSame(file, "classes", report.classes, expected.classes, first);
  RequireSame(file, "number of images", report.part->all_images, expected.part->all_images, first);
  RequireSame(file, "number of shards", report.part->shard.count, expected.part->shard.count,
              first);
  RequireSame(file, "layers", report.layers.size(), expected.layers.size(), first);
  for (std::size_t k = 0; k < report.layers.size(); ++k)
    RequireSame(file, "layer", report.layers[k].name, expected.layers[k].name, first);
  if (report.part->job != expected.part->job)
    throw ConfigError(file, fmt::format("is of another model, other images or other settings than "
                                        "{}: job {:.12} found, {:.12} expected",
                                        first, report.part->job, expected.part->job));
}

// The reports in the order of their shards.
template <class Report>
std::vector<Named<Report>> Sorted(const std::vector<Named<Report>>& reports) {
  std::vector<const Named<Report>*> of_shard(reports.front().report.part->shard.count);
  for (const auto& each : reports) {
    const Shard& shard = each.report.part->shard;
    auto& place = of_shard[shard.index];
    if (place != nullptr)
      throw ConfigError(each.file,
                        fmt::format("has shard {}, which {} has too", shard.Text(), place->file));
    place = &each;
  }
  std::vector<std::string> missing;
  std::vector<Named<Report>> sorted;
  for (std::size_t i = 0; i < of_shard.size(); ++i) {
    if (of_shard[i] == nullptr) {
      missing.push_back(Shard{i, of_shard.size()}.Text());
    } else {
      sorted.push_back(*of_shard[i]);
    }
  }
  if (missing.empty()) return sorted;
  const std::size_t more = missing.size() - std::min(missing.size(), kMostNamed);
  missing.resize(missing.size() - more);
  throw ConfigError("shards", fmt::format("no report of {}{}", fmt::join(missing, ", "),
                                          more > 0 ? fmt::format(" and {} more", more) : ""));
}

void AddNew(std::vector<std::string>& all, const std::string& text) {
  if (std::find(all.begin(), all.end(), text) == all.end()) all.push_back(text);
}

// What only some shards know is unknown.
template <class Number>
void AddKnown(std::optional<Number>& sum, const std::optional<Number>& more) {
  sum = sum && more ? std::optional(*sum + *more) : std::nullopt;
}

void AddLayers(std::vector<infer::PartyLayer>& sum, const std::vector<infer::PartyLayer>& more) {
  for (std::size_t k = 0; k < sum.size(); ++k) {
    sum[k].offline_bytes += more[k].offline_bytes;
    sum[k].online_bytes += more[k].online_bytes;
    sum[k].offline_s += more[k].offline_s;
    sum[k].online_s += more[k].online_s;
    sum[k].offline_hops = std::max(sum[k].offline_hops, more[k].offline_hops);
    sum[k].online_hops = std::max(sum[k].online_hops, more[k].online_hops);
  }
}

void Append(SessionReport& whole, const SessionReport& shard) {
  whole.batch = std::max(whole.batch, shard.batch);
  whole.setup_s += shard.setup_s;
  whole.offline_s += shard.offline_s;
  whole.online_s += shard.online_s;
  whole.wall_s += shard.wall_s;
  whole.offline_hops = std::max(whole.offline_hops, shard.offline_hops);
  whole.online_hops = std::max(whole.online_hops, shard.online_hops);
  AddLayers(whole.layers, shard.layers);
  whole.logits.insert(whole.logits.end(), shard.logits.begin(), shard.logits.end());
  AddKnown(whole.correct, shard.correct);
  for (const auto& warning : shard.warnings) AddNew(whole.warnings, warning);
}

void AppendOwn(PartyReport& whole, const PartyReport& shard) {
  whole.peak_memory_mb = std::max(whole.peak_memory_mb, shard.peak_memory_mb);
}

void AppendOwn(RunReport& whole, const RunReport& shard) {
  for (std::size_t p = 0; p < 3; ++p) {
    whole.offline_bytes[p] += shard.offline_bytes[p];
    whole.online_bytes[p] += shard.online_bytes[p];
    whole.peak_memory_mb[p] = std::max(whole.peak_memory_mb[p], shard.peak_memory_mb[p]);
  }
  whole.predictions.insert(whole.predictions.end(), shard.predictions.begin(),
                           shard.predictions.end());
  AddKnown(whole.equal, shard.equal);
  whole.tolerance = std::max(whole.tolerance, shard.tolerance);
  if (whole.matches_plan)
    whole.matches_plan = shard.matches_plan
                             ? std::optional(*whole.matches_plan && *shard.matches_plan)
                             : std::nullopt;
}

template <class Report>
Report Join(const std::vector<Named<Report>>& reports) {
  const auto& [first_file, first] = reports.front();
  const bool has_logits = !std::is_same_v<Report, PartyReport> || !first.logits.empty();
  for (const auto& [file, report] : reports) {
    CheckPart(file, report, has_logits);
    CheckSameJob(file, report, first_file, first);
    if constexpr (std::is_same_v<Report, PartyReport>)
      RequireSame(file, "party", report.party, first.party, first_file);
    if (!has_logits && !report.logits.empty())
      throw ConfigError(file, fmt::format("has logits, unlike {}", first_file));
  }
  const auto sorted = Sorted(reports);
  Report whole = sorted.front().report;
  whole.part = {{0, 1}, first.part->all_images, first.part->job, {}};
  whole.images = first.part->all_images;
  std::vector<std::string> kernels, machines;
  for (const auto& [file, report] : sorted) {
    if (&report != &sorted.front().report) {
      Append(whole, report);
      AppendOwn(whole, report);
    }
    AddNew(kernels, report.kernels);
    if constexpr (std::is_same_v<Report, RunReport>) AddNew(machines, report.machine);
    whole.part->joined.push_back({report.part->shard, report.images, report.setup_s,
                                  report.offline_s, report.online_s, report.wall_s});
  }
  whole.kernels = fmt::format("{}", fmt::join(kernels, "; "));
  if constexpr (std::is_same_v<Report, RunReport>)
    whole.machine = fmt::format("{}", fmt::join(machines, "; "));
  return whole;
}

template <class Report>
std::vector<Named<Report>> AllOfOneKind(
    const std::vector<std::pair<std::string, AnyReport>>& reports) {
  std::vector<Named<Report>> all;
  for (const auto& [file, report] : reports) {
    const auto* same = std::get_if<Report>(&report);
    if (same == nullptr)
      throw ConfigError(
          file, fmt::format("is a report of {}, unlike {}",
                            std::holds_alternative<RunReport>(report) ? "a whole run" : "one party",
                            reports.front().first));
    all.push_back({file, *same});
  }
  return all;
}

}  // namespace

AnyReport JoinShards(const std::vector<std::pair<std::string, AnyReport>>& reports) {
  TERCET_CHECK(!reports.empty(), "no report to join");
  if (std::holds_alternative<RunReport>(reports.front().second))
    return Join(AllOfOneKind<RunReport>(reports));
  return Join(AllOfOneKind<PartyReport>(reports));
}

}  // namespace tercet::report
