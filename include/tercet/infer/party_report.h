// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tercet/infer/shard.h"

namespace tercet::infer {

/// One layer as one party saw it, summed over the run's batches; hops are those of one batch. Of
/// batches under way at once the times are the largest, see SideBySide.
struct PartyLayer {
  /// `suite` is empty where there is no activation.
  std::string name, type, suite;
  /// Bits of the values that enter the activation.
  unsigned width = 0;
  std::uint32_t offline_hops = 0, online_hops = 0;
  /// Payload sent by this party.
  std::uint64_t offline_bytes = 0, online_bytes = 0;
  double offline_s = 0, online_s = 0;
};

/// The layers of parts that run side by side, parties or groups: bytes add up, times are the
/// largest. A part that has heard of nothing in one layer catches up in the next, so a layer's hops
/// are told from the part that is deepest at its end; they add up to the most of one part.
/// InternalError unless there is a part and all have as many layers. Thread safe.
std::vector<PartyLayer> SideBySide(const std::vector<std::vector<PartyLayer>>& parts);

/// How long a party took part.
inline constexpr const char* kStayed = "stayed to the end";
inline constexpr const char* kHasLeft = "left when all material was delivered";
inline constexpr const char* kNotStarted = "not started";
inline constexpr const char* kWasDone = "had its results already";

/// What is known of one shard after several reports have been joined.
struct JoinedShard {
  Shard shard;
  std::size_t images = 0;
  double setup_s = 0, offline_s = 0, online_s = 0, wall_s = 0;
};

/// Which part of a job a report is of, and what tells jobs apart.
struct JobPart {
  Shard shard;
  std::size_t all_images = 0;  ///< of the whole job
  /// SHA-256 in hex of what is the same in all shards of a job: network, settings, and what stands
  /// for the model and the images.
  std::string job;
  /// Those of a joined report, whose times are the sums of theirs.
  std::vector<JoinedShard> joined;
  bool IsSame(const JobPart& other) const {
    return shard == other.shard && all_images == other.all_images && job == other.job;
  }
};

/// What the reports of a party and of a whole run have in common.
struct SessionReport {
  std::string network, suite, linear, link;
  std::size_t batch = 0, images = 0, classes = 0;
  /// Setup, and of each phase the time in which at least one query was in it.
  double setup_s = 0, offline_s = 0, online_s = 0;
  /// Of all queries, setup apart; the phases may overlap in it.
  double wall_s = 0;
  /// ScheduleText: when material was made.
  std::string material;
  /// Of one batch.
  std::uint32_t offline_hops = 0, online_hops = 0;
  /// The first is the input, the last the output.
  std::vector<PartyLayer> layers;
  /// Image after image; in a party's report at the receiver only.
  std::vector<std::int64_t> logits;
  /// Predictions that are the labels; known to a receiver with labels.
  std::optional<std::size_t> correct;
  std::string kernels;
  /// What the session and the program around it warned of.
  std::vector<std::string> warnings;
  /// Where the session took one shard of a job, or all shards were joined.
  std::optional<JobPart> part;
};

/// What one party's session has computed and measured.
struct PartyReport : SessionReport {
  int party = 0;
  /// kStayed, kHasLeft, kNotStarted or kWasDone.
  std::string presence = kStayed;
  double peak_memory_mb = 0;

  std::uint64_t OfflineBytes() const;
  std::uint64_t OnlineBytes() const;
};

}  // namespace tercet::infer
