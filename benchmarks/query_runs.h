// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// Whole queries as a user runs them: `tercet run` with three processes, repeated.
namespace tercet::benchmarks {

/// What to run; one setting a table row.
struct Setting {
  std::string network, suite, link;
  std::size_t batch = 1;
};

struct RunOptions {
  std::string tercet, images, labels, nets_dir;  ///< program, data, folder of the networks
  std::string transport = "tls";
  std::size_t repetitions = 7;  ///< counted runs, after one that warms up
  std::size_t queries = 10;     ///< in a run of batch 1; 2 in others
};

/// Over the repetitions.
struct Spread {
  double least = 0, median = 0, most = 0;
};
Spread SpreadOf(std::vector<double> values);

/// Per image; times in milliseconds at the slowest party, kilobytes of all parties together.
struct Row {
  Setting setting;
  std::uint32_t hops = 0;
  double offline_kb = 0, online_kb = 0;
  Spread offline_ms, online_ms, total_ms;
  /// From the times on link none and the plan's messages (infer::LinkTime).
  std::optional<double> predicted_offline_ms, predicted_online_ms;
  double peak_memory_mb = 0;
  std::string kernels, machine;
};

/// Runs one setting. Bytes and hops are the same in every repetition. Throws std::runtime_error
/// when a run fails or a logit differs from the plain network's.
Row Measure(const RunOptions& options, const Setting& setting);

/// Milliseconds per image.
struct PredictedMilliseconds {
  double offline = 0, online = 0;
};
/// On the setting's link, from what was measured on link none.
PredictedMilliseconds PredictTime(const RunOptions& options, const Setting& setting,
                                  const PredictedMilliseconds& unshaped);

/// Fills the predictions of rows on shaped links from the row of the same setting on link none,
/// where there is one.
void Predict(const RunOptions& options, std::vector<Row>& rows);

}  // namespace tercet::benchmarks
