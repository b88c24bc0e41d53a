// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

/// What `tercet bench` has measured so far: one file, results.json, of which the tables are made.
/// One thread at a time.
namespace tercet::programs {

/// Over the repetitions.
struct Spread {
  double least = 0, median = 0, most = 0;
};
Spread SpreadOf(std::vector<double> values);

/// Seconds of one run, at the slowest party.
struct BenchRun {
  double offline_s = 0, online_s = 0, wall_s = 0;
};

/// One setting.
struct BenchRow {
  std::string network, model, suite, link, schedule;
  std::string model_digest;  ///< of architecture, weights and widths
  std::size_t batch = 1, images = 0;
  std::vector<BenchRun> runs;  ///< those that count, so far
  std::string failed;          ///< why there are no more; empty where nothing failed
  std::uint32_t hops = 0;      ///< of one query, online
  std::array<std::uint64_t, 3> offline_bytes{}, online_bytes{};  ///< of all queries, by party
  double peak_memory_mb = 0;
  std::string kernels;
  /// Milliseconds an image, from the times on link none and the plan's messages.
  std::optional<double> predicted_offline_ms, predicted_online_ms;

  /// Milliseconds an image. What runs side by side takes the wall clock's time.
  Spread OfflineMs() const;
  Spread OnlineMs() const;
  Spread TotalMs() const;
  /// Kilobytes an image, of all parties together.
  double OfflineKb() const;
  double OnlineKb() const;
  /// But for the model, which may have been another one.
  bool SameSetting(const BenchRow& other) const;
  /// "MnistNet1, lut, link lan, batch 1".
  std::string Text() const;
};

struct NetworkAccuracy {
  std::string network, model_digest;
  double percent = 0;
  std::size_t images = 0;
};

struct BenchResults {
  std::string title;
  /// What must be the same for figures to stand in one table.
  std::string version, commit, build, machine, transport, weights;
  std::string date;                  ///< of the first run
  nlohmann::ordered_json options;    ///< as they were given, for the reader
  nlohmann::ordered_json published;  ///< BenchOptions
  std::size_t repetitions = 0;
  std::vector<BenchRow> rows;
  std::vector<NetworkAccuracy> accuracies;

  const NetworkAccuracy* AccuracyOf(const BenchRow& row) const;
};

/// All of it as JSON, and back: ConfigError with `file` for what is no such file.
std::string ToJson(const BenchResults& results);
BenchResults ReadBenchResults(const std::filesystem::path& file);

/// All rows: as CSV with a head, and as Markdown with how it was measured, and beside it what
/// others print.
std::string ToCsv(const BenchResults& results);
std::string ToMarkdown(const BenchResults& results);

}  // namespace tercet::programs
