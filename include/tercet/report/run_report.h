// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tercet/infer/party_report.h"

/// What a run has measured, merged from what its parties report. Bytes are payload; the phases are
/// told apart.
namespace tercet::report {

/// The whole run: bytes of all parties together, times of the slowest.
struct RunReport : infer::SessionReport {
  std::string transport, machine;
  std::array<std::string, 3> presence;
  std::array<std::uint64_t, 3> offline_bytes{}, online_bytes{};  ///< sent, by party
  std::array<double, 3> peak_memory_mb{};
  std::vector<std::uint8_t> predictions;
  /// Logits that equal the plain network's, or differ by no more than `tolerance`; empty when not
  /// checked.
  std::optional<std::size_t> equal;
  std::uint64_t tolerance = 0;       ///< not 0 where suites are not exact
  std::optional<bool> matches_plan;  ///< bytes and hops are what the plan says

  /// Whether every logit equals; empty when not checked.
  std::optional<bool> MatchesPlain() const;
  /// Throws Error where logits, or bytes and hops, are known to be other than they must be.
  void RequireRight() const;
};

/// Puts the reports of parties 0, 1 and 2 together: bytes add up, hops and times are the largest of
/// the three, logits come from whoever received them. A party that was not started has nothing but
/// its number and presence. Throws ProtocolError when the three did not run the same (network,
/// suite, batch, images, layers), or when not exactly one of them holds logits.
RunReport Merge(const std::array<infer::PartyReport, 3>& parties);

/// JSON text of a party's report, and back. Reading checks everything: ConfigError with `place` and
/// what is wrong. "shard" is null, or an object with index, count, first_image, all_images, job
/// and, after several were joined, joined.
std::string ToJson(const infer::PartyReport& report);
infer::PartyReport PartyReportFromJson(const std::string& text, const std::string& place);

/// The file that `tercet run --json` writes: keys network, suite, suite_per_layer, link, transport,
/// batch, images, classes, correct, accuracy, equal, matches_plain, tolerance, matches_plan, time,
/// hops, bytes, layers, predictions, logits, warnings, peak_memory_mb, machine, kernels, material,
/// presence, shard. What is unknown is null.
std::string ToJson(const RunReport& report);
/// Back, as PartyReportFromJson.
RunReport RunReportFromJson(const std::string& text, const std::string& place);

/// One of both, as its keys say.
using AnyReport = std::variant<infer::PartyReport, RunReport>;
AnyReport ReportFromJson(const std::string& text, const std::string& place);

/// Joins the reports of all shards of a job, each with the file that it is from, in any order: of
/// one party, or of whole runs. Logits, bytes and counts are those of all; times are sums, hops,
/// batch and memory the largest; what only some shards know is unknown. ConfigError that names the
/// file of a report of no shard, of another kind, party or job, of a shard that is there twice, or
/// without as many logits as it needs, and the shards that are missing.
AnyReport JoinShards(const std::vector<std::pair<std::string, AnyReport>>& reports);

/// A layer of a plain run: its width and the values that entered its activation.
struct PlainLayer {
  std::string name, type;
  unsigned width = 0;
  bool proven = true;
  std::int64_t low = 0, high = 0;
};

/// The integer network in the clear, beside the float network where there are its weights.
struct PlainReport {
  std::string network;
  std::size_t images = 0, classes = 0;
  double total_s = 0;
  std::vector<PlainLayer> layers;
  std::vector<std::int64_t> logits;
  std::vector<std::uint8_t> predictions;
  std::vector<std::string> warnings;
  std::optional<std::size_t> correct, float_correct;  ///< known with labels
  std::optional<std::size_t> same_as_float;           ///< predictions; known with float weights
  std::string machine;
};

/// The file that `tercet plain --json` writes: those keys of `tercet run --json` that a run in the
/// clear has (network, images, correct, accuracy, time with total_s, layers with name, type and
/// width, predictions, logits, warnings, machine), and float_correct, float_accuracy,
/// same_as_float; layers also have proven, low and high. What is unknown is null.
std::string ToJson(const PlainReport& report);

/// The table and the sums that `tercet run` prints.
std::string Describe(const RunReport& report, bool utf8);
/// The same for one party alone.
std::string Describe(const infer::PartyReport& report, bool utf8);

}  // namespace tercet::report
