// SPDX-License-Identifier: Apache-2.0
#include "query_report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>

namespace tercet::benchmarks {
namespace {

std::string Cell(const Spread& s) {
  return fmt::format("{:.3f} ({:.3f}-{:.3f})", s.median, s.least, s.most);
}

std::string Predicted(const std::optional<double>& ms) {
  return ms ? fmt::format("{:.3f}", *ms) : "";
}

nlohmann::json Numbers(const Spread& s) {
  return {{"min", s.least}, {"median", s.median}, {"max", s.most}};
}

}  // namespace

std::string Conditions(const RunOptions& options, const std::vector<Row>& rows) {
  return fmt::format(
      "Per image; {} counted runs of each setting after a warm-up, median (least-most), at the "
      "slowest party. {}, kernels {}, {}, transport {}, {:%Y-%m-%d}.",
      options.repetitions, rows.front().machine, rows.front().kernels, TERCET_BUILD,
      options.transport, fmt::localtime(std::time(nullptr)));
}

std::string ToMarkdown(const std::vector<Row>& rows) {
  std::string text =
      "| network | suite | link | batch | hops | offline kB | online kB | offline ms | predicted "
      "| online ms | predicted | total ms | peak MB "
      "|\n|---|---|---|---|---|---|---|---|---|---|---|"
      "---|---|\n";
  for (const auto& row : rows)
    text += fmt::format(
        "| {} | `{}` | {} | {} | {} | {:.1f} | {:.1f} | {} | {} | {} | {} | {} | {:.0f} |\n",
        row.setting.network, row.setting.suite, row.setting.link, row.setting.batch, row.hops,
        row.offline_kb, row.online_kb, Cell(row.offline_ms), Predicted(row.predicted_offline_ms),
        Cell(row.online_ms), Predicted(row.predicted_online_ms), Cell(row.total_ms),
        row.peak_memory_mb);
  return text;
}

std::string ToCsv(const std::vector<Row>& rows) {
  std::string text =
      "network,suite,link,batch,hops,offline_kb,online_kb,offline_ms,offline_min_ms,offline_max_ms,"
      "online_ms,online_min_ms,online_max_ms,total_ms,total_min_ms,total_max_ms,"
      "predicted_offline_ms,predicted_online_ms,peak_memory_mb\n";
  const auto spread = [](const Spread& s) {
    return fmt::format("{:.6f},{:.6f},{:.6f}", s.median, s.least, s.most);
  };
  for (const auto& row : rows)
    text += fmt::format("{},\"{}\",\"{}\",{},{},{:.3f},{:.3f},{},{},{},{},{},{:.1f}\n",
                        row.setting.network, row.setting.suite, row.setting.link, row.setting.batch,
                        row.hops, row.offline_kb, row.online_kb, spread(row.offline_ms),
                        spread(row.online_ms), spread(row.total_ms),
                        Predicted(row.predicted_offline_ms), Predicted(row.predicted_online_ms),
                        row.peak_memory_mb);
  return text;
}

std::string ToJson(const std::vector<Row>& rows) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& row : rows) {
    list.push_back({{"network", row.setting.network},
                    {"suite", row.setting.suite},
                    {"link", row.setting.link},
                    {"batch", row.setting.batch},
                    {"hops", row.hops},
                    {"offline_kb", row.offline_kb},
                    {"online_kb", row.online_kb},
                    {"offline_ms", Numbers(row.offline_ms)},
                    {"online_ms", Numbers(row.online_ms)},
                    {"total_ms", Numbers(row.total_ms)},
                    {"peak_memory_mb", row.peak_memory_mb},
                    {"kernels", row.kernels},
                    {"machine", row.machine}});
    if (!row.predicted_online_ms) continue;
    list.back()["predicted_offline_ms"] = *row.predicted_offline_ms;
    list.back()["predicted_online_ms"] = *row.predicted_online_ms;
  }
  return list.dump(1) + "\n";
}

}  // namespace tercet::benchmarks
