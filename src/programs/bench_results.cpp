// SPDX-License-Identifier: Apache-2.0
#include "programs/bench_results.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "base/json.h"
#include "programs/inputs.h"
#include "tercet/base/error.h"

namespace tercet::programs {
namespace {

using nlohmann::ordered_json;

constexpr FileKind kResultsFile{"results of `tercet bench`", 256 << 20};

double Sum(const std::array<std::uint64_t, 3>& bytes) {
  return static_cast<double>(std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0}));
}

Spread Milliseconds(const BenchRow& row, const std::function<double(const BenchRun&)>& seconds) {
  std::vector<double> values;
  for (const auto& run : row.runs)
    values.push_back(1000 * seconds(run) / static_cast<double>(row.images));
  return SpreadOf(std::move(values));
}

ordered_json ToJson(const Spread& spread) {
  return {{"min", spread.least}, {"median", spread.median}, {"max", spread.most}};
}

ordered_json ToJson(const std::optional<double>& value) {
  return value ? ordered_json(*value) : ordered_json();
}

// Fields that are written and read alike.
void Visit(auto& run, auto&& visit) requires requires { run.wall_s; }
{
  visit("offline_s", run.offline_s);
  visit("online_s", run.online_s);
  visit("wall_s", run.wall_s);
}
void Visit(auto& row, auto&& visit) requires requires { row.suite; }
{
  visit("network", row.network);
  visit("model", row.model);
  visit("model_digest", row.model_digest);
  visit("suite", row.suite);
  visit("link", row.link);
  visit("schedule", row.schedule);
  visit("batch", row.batch);
  visit("images", row.images);
  visit("failed", row.failed);
  visit("hops", row.hops);
  visit("offline_bytes", row.offline_bytes);
  visit("online_bytes", row.online_bytes);
  visit("peak_memory_mb", row.peak_memory_mb);
  visit("kernels", row.kernels);
}
void Visit(auto& accuracy, auto&& visit) requires requires { accuracy.percent; }
{
  visit("network", accuracy.network);
  visit("model_digest", accuracy.model_digest);
  visit("accuracy", accuracy.percent);
  visit("images", accuracy.images);
}
void Visit(auto& results, auto&& visit) requires requires { results.accuracies; }
{
  visit("title", results.title);
  visit("version", results.version);
  visit("commit", results.commit);
  visit("build", results.build);
  visit("machine", results.machine);
  visit("transport", results.transport);
  visit("weights", results.weights);
  visit("date", results.date);
  visit("repetitions", results.repetitions);
  visit("options", results.options);
  visit("published", results.published);
}

ordered_json Fields(const auto& from) {
  ordered_json document = ordered_json::object();
  Visit(from, [&](const char* key, const auto& value) { document[key] = value; });
  return document;
}
void ReadFields(const nlohmann::json& document, auto& to) {
  Visit(to, [&](const char* key, auto& value) { document.at(key).get_to(value); });
}

std::string Cell(const Spread& s) {
  return fmt::format("{:.3f} ({:.3f}-{:.3f})", s.median, s.least, s.most);
}

std::string Predicted(const std::optional<double>& ms) {
  return ms ? fmt::format("{:.3f}", *ms) : "";
}

std::string Quoted(std::string text) {
  for (std::size_t at = 0; (at = text.find('"', at)) != std::string::npos; at += 2)
    text.insert(at, 1, '"');
  return "\"" + text + "\"";
}

// A cell ends at a bar and at the line's end.
std::string Escaped(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2)
    text.insert(at, 1, '\\');
  return text;
}

bool IsRandom(const BenchRow& row) { return RandomSeed(row.model).has_value(); }

std::string NameOf(const BenchRow& row) {
  return row.network + (IsRandom(row) ? " (random weights)" : "");
}

std::string StateOf(const BenchResults& results, const BenchRow& row) {
  if (!row.failed.empty()) return "failed: " + row.failed;
  if (row.runs.size() >= results.repetitions) return "done";
  return fmt::format("unfinished: {} of {} runs", row.runs.size(), results.repetitions);
}

// The figures that others print, and ours of single images beside them.
struct Line {
  std::string network, framework;
  ordered_json figures;
};

std::vector<Line> Comparison(const BenchResults& results) {
  std::vector<Line> lines;
  for (const auto& row : results.rows) {
    if (row.runs.empty()) continue;
    const auto framework = fmt::format("Tercet, `{}`{}{}", row.suite,
                                       row.batch > 1 ? fmt::format(", batch {}", row.batch) : "",
                                       row.schedule == "in-turn" ? "" : ", " + row.schedule);
    auto line = std::find_if(lines.begin(), lines.end(), [&](const Line& other) {
      return other.network == row.network && other.framework == framework;
    });
    if (line == lines.end()) {
      line = lines.insert(lines.end(), {row.network, framework, ordered_json::object()});
      line->figures["mb"] = (row.OfflineKb() + row.OnlineKb()) / 1000;
      if (const auto* accuracy = results.AccuracyOf(row))
        line->figures["accuracy"] = accuracy->percent;
      if (IsRandom(row)) line->figures["note"] = "random weights";
    }
    if (row.link == "none") {
      line->figures["online_s"] = row.OnlineMs().median / 1000;
      line->figures["total_s"] = row.TotalMs().median / 1000;
    } else if (row.link == "lan" || row.link == "wan") {
      line->figures[row.link + "_s"] = row.TotalMs().median / 1000;
    }
  }
  for (const auto& published : results.published)
    lines.push_back({published.at("network").get<std::string>(),
                     published.at("framework").get<std::string>(), published});
  std::stable_sort(lines.begin(), lines.end(), [&](const Line& a, const Line& b) {
    const auto place = [&](const std::string& network) {
      return std::find_if(results.rows.begin(), results.rows.end(),
                          [&](const BenchRow& row) { return row.network == network; });
    };
    return place(a.network) < place(b.network);
  });
  return lines;
}

std::string ComparisonToMarkdown(const BenchResults& results) {
  constexpr std::array<std::pair<const char*, const char*>, 7> kColumns{
      {{"lan_s", "LAN s"},
       {"wan_s", "WAN s"},
       {"online_s", "no link: online s"},
       {"total_s", "no link: all s"},
       {"mb", "MB"},
       {"accuracy", "accuracy %"},
       {"note", "what differs"}}};
  const auto lines = Comparison(results);
  std::string head("| network | framework |"), rule("\n|---|---|");
  std::string text;
  const auto used = [&](const char* key) {
    return std::any_of(lines.begin(), lines.end(),
                       [&](const Line& line) { return line.figures.contains(key); });
  };
  for (const auto& [key, title] : kColumns) {
    if (!used(key)) continue;
    head += fmt::format(" {} |", title);
    rule += "---|";
  }
  for (const auto& line : lines) {
    text += fmt::format("| {} | {} |", line.network, line.framework);
    for (const auto& column : kColumns) {
      if (!used(column.first)) continue;
      const auto value = line.figures.value(column.first, ordered_json());
      if (value.is_string()) {
        text += fmt::format(" {} |", Escaped(value.get<std::string>()));
      } else {
        text += value.is_null() ? " |" : fmt::format(" {:.4g} |", value.get<double>());
      }
    }
    text += "\n";
  }
  return "\nBeside what others print; our times are an image's, offline and online together:\n\n" +
         head + rule + "\n" + text;
}

}  // namespace

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return {values.front(), n % 2 != 0 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2,
          values.back()};
}

Spread BenchRow::OfflineMs() const {
  return Milliseconds(*this, [](const BenchRun& run) { return run.offline_s; });
}
Spread BenchRow::OnlineMs() const {
  return Milliseconds(*this, [](const BenchRun& run) { return run.online_s; });
}
Spread BenchRow::TotalMs() const {
  return Milliseconds(*this, [&](const BenchRun& run) {
    return schedule == "in-turn" ? run.offline_s + run.online_s : run.wall_s;
  });
}
double BenchRow::OfflineKb() const {
  return Sum(offline_bytes) / static_cast<double>(images) / 1000;
}
double BenchRow::OnlineKb() const { return Sum(online_bytes) / static_cast<double>(images) / 1000; }

bool BenchRow::SameSetting(const BenchRow& other) const {
  return network == other.network && model == other.model && suite == other.suite &&
         link == other.link && schedule == other.schedule && batch == other.batch &&
         images == other.images;
}

std::string BenchRow::Text() const {
  return fmt::format("{}, {}, link {}, batch {}{}", NameOf(*this), suite, link, batch,
                     schedule == "in-turn" ? "" : ", " + schedule);
}

const NetworkAccuracy* BenchResults::AccuracyOf(const BenchRow& row) const {
  for (const auto& accuracy : accuracies)
    if (accuracy.model_digest == row.model_digest) return &accuracy;
  return nullptr;
}

std::string ToJson(const BenchResults& results) {
  auto document = Fields(results);
  document["accuracies"] = ordered_json::array();
  for (const auto& accuracy : results.accuracies)
    document["accuracies"].push_back(Fields(accuracy));
  document["rows"] = ordered_json::array();
  for (const auto& row : results.rows) {
    auto entry = Fields(row);
    entry["state"] = StateOf(results, row);
    entry["offline_kb"] = row.OfflineKb();
    entry["online_kb"] = row.OnlineKb();
    entry["offline_ms"] = ToJson(row.OfflineMs());
    entry["online_ms"] = ToJson(row.OnlineMs());
    entry["total_ms"] = ToJson(row.TotalMs());
    entry["predicted_offline_ms"] = ToJson(row.predicted_offline_ms);
    entry["predicted_online_ms"] = ToJson(row.predicted_online_ms);
    const auto* accuracy = results.AccuracyOf(row);
    entry["accuracy"] = accuracy != nullptr ? ordered_json(accuracy->percent) : ordered_json();
    entry["runs"] = ordered_json::array();
    for (const auto& run : row.runs) entry["runs"].push_back(Fields(run));
    document["rows"].push_back(std::move(entry));
  }
  return document.dump(1) + "\n";
}

BenchResults ReadBenchResults(const std::filesystem::path& file) {
  const auto text = ReadTextFile(file, kResultsFile);
  const auto document = ReadJson(text, file.string(), JsonLimits::UpTo(text.size()));
  try {
    BenchResults results;
    ReadFields(document, results);
    for (const auto& entry : document.at("accuracies"))
      ReadFields(entry, results.accuracies.emplace_back());
    for (const auto& entry : document.at("rows")) {
      auto& row = results.rows.emplace_back();
      ReadFields(entry, row);
      for (const auto& run : entry.at("runs")) ReadFields(run, row.runs.emplace_back());
    }
    return results;
  } catch (const nlohmann::json::exception& e) {
    throw ConfigError(file.string(), fmt::format("no results of `tercet bench`: {}", e.what()));
  }
}

std::string ToCsv(const BenchResults& results) {
  std::string text(
      "network,model,suite,link,batch,schedule,state,hops,offline_kb,online_kb,offline_ms,"
      "offline_min_ms,offline_max_ms,online_ms,online_min_ms,online_max_ms,total_ms,total_min_ms,"
      "total_max_ms,predicted_offline_ms,predicted_online_ms,peak_memory_mb,accuracy\n");
  const auto spread = [](const Spread& s) {
    return fmt::format("{:.6f},{:.6f},{:.6f}", s.median, s.least, s.most);
  };
  for (const auto& row : results.rows) {
    text += fmt::format("{},{},{},{},{},{},{},", Quoted(row.network), Quoted(row.model),
                        Quoted(row.suite), Quoted(row.link), row.batch, Quoted(row.schedule),
                        Quoted(StateOf(results, row)));
    if (row.runs.empty()) {
      text += ",,,,,,,,,,,,,,,\n";
      continue;
    }
    const auto* accuracy = results.AccuracyOf(row);
    text += fmt::format("{},{:.3f},{:.3f},{},{},{},{},{},{:.1f},{}\n", row.hops, row.OfflineKb(),
                        row.OnlineKb(), spread(row.OfflineMs()), spread(row.OnlineMs()),
                        spread(row.TotalMs()), Predicted(row.predicted_offline_ms),
                        Predicted(row.predicted_online_ms), row.peak_memory_mb,
                        accuracy != nullptr ? fmt::format("{:.2f}", accuracy->percent) : "");
  }
  return text;
}

std::string ToMarkdown(const BenchResults& results) {
  std::string text = results.title.empty() ? std::string() : "# " + results.title + "\n\n";
  text +=
      "| network | suite | link | batch | hops | offline kB | online kB | offline ms | predicted "
      "| online ms | predicted | total ms | peak MB |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const auto& row : results.rows) {
    const auto batch =
        fmt::format("{}{}", row.batch, row.schedule == "in-turn" ? "" : ", " + row.schedule);
    text += fmt::format("| {} | `{}` | {} | {} |", NameOf(row), row.suite, row.link, batch);
    if (row.runs.empty()) {
      text += fmt::format(" | | | {} | | | | | |\n", Escaped(StateOf(results, row)));
      continue;
    }
    text += fmt::format(
        " {} | {:.1f} | {:.1f} | {} | {} | {} | {} | {}{} | {:.0f} |\n", row.hops, row.OfflineKb(),
        row.OnlineKb(), Cell(row.OfflineMs()), Predicted(row.predicted_offline_ms),
        Cell(row.OnlineMs()), Predicted(row.predicted_online_ms), Cell(row.TotalMs()),
        row.runs.size() < results.repetitions ? "; " + Escaped(StateOf(results, row)) : "",
        row.peak_memory_mb);
  }
  std::set<std::string> kernels;
  for (const auto& row : results.rows)
    if (!row.kernels.empty()) kernels.insert(row.kernels);
  text += fmt::format(
      "\nPer image; {} counted runs of each setting after a warm-up, interleaved, median "
      "(least-most), at the slowest party. {}, kernels {}, {}, transport {}, weights {}, tercet {} "
      "({}), "
      "{}.\n",
      results.repetitions, results.machine, fmt::join(kernels, ", "), results.build,
      results.transport, results.weights, results.version, results.commit, results.date);
  for (const auto& accuracy : results.accuracies)
    text += fmt::format("\nAccuracy of {}: {:.2f} % of {} images.\n", accuracy.network,
                        accuracy.percent, accuracy.images);
  if (!results.published.empty()) text += ComparisonToMarkdown(results);
  return text;
}

}  // namespace tercet::programs
