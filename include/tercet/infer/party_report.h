// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tercet::infer {

/// One layer as one party saw it, summed over the run's batches; hops are those of one batch.
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

/// What one party's session has computed and measured. The first layer is the input, the last the
/// output.
struct PartyReport {
  int party = 0;
  std::string network, suite, link;
  std::size_t batch = 0, images = 0, classes = 0;
  double setup_s = 0, offline_s = 0, online_s = 0;
  /// Of all queries, setup apart; the phases may overlap in it.
  double wall_s = 0;
  /// ScheduleText: when material was made.
  std::string material;
  /// kStayed, kHasLeft or kNotStarted.
  std::string presence = kStayed;
  /// Of one batch.
  std::uint32_t offline_hops = 0, online_hops = 0;
  std::vector<PartyLayer> layers;
  /// Image after image; at the receiver only.
  std::vector<std::int64_t> logits;
  double peak_memory_mb = 0;
  std::string kernels;
  /// What the session and the program around it warned of.
  std::vector<std::string> warnings;

  std::uint64_t OfflineBytes() const;
  std::uint64_t OnlineBytes() const;
};

}  // namespace tercet::infer
