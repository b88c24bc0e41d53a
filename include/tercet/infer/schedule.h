// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <variant>

namespace tercet::infer {

class MaterialFile;

/// Each query's offline phase, then its online phase, with a meeting of all parties before each, so
/// that they are timed apart; with several queries in flight, before the offline phase alone.
struct InTurn {};

/// The material of the next queries is made while a query runs.
struct Ahead {
  /// How many queries may have their material and wait; at least 1.
  std::size_t queries = 1;
};

/// The material of all queries is made as fast as it goes, and the helper's session ends when the
/// others have it. ConfigError where the helper has a part in the online phase.
struct HelperLeaves {};

/// Each batch is split into three groups, and the helper's role goes round over them, so that all
/// parties carry equal load. Within a group the phases are in turn.
struct HelperRotates {};

/// Only the offline phase: material is made and written to a file, and no query is run. A helper
/// without a part in the online phase writes none.
struct MakeMaterial {
  /// This party's file. It must not be there yet.
  std::filesystem::path file;
  /// How many queries to make material for.
  std::size_t queries = 1;
};

/// Only the online phase, with material that was made before for the same network, suite, roles and
/// batch. A helper without a part in the online phase is not there: its link is null.
struct UseMaterial {
  /// This party's, which outlives the session. Null only where costs are asked for.
  MaterialFile* file = nullptr;
  /// How many queries may be read from the file before they are run.
  std::size_t ahead = 0;
};

/// How the offline and online phases of a session's queries lie in time; the same at all parties.
using Schedule =
    std::variant<InTurn, Ahead, HelperLeaves, HelperRotates, MakeMaterial, UseMaterial>;

/// "in turn", "2 ahead", "from a file", ...: for reports, and for parties to compare.
std::string ScheduleText(const Schedule& schedule);

/// At most so many queries of a session are under way at once.
inline constexpr std::size_t kMaxInFlight = 64;

/// How many queries under way at once there can be, of `queries` in all: no runner is without one.
std::size_t Runners(std::size_t in_flight, std::size_t queries);

/// How many of its queries runner `runner` of `runners`, which take turns with all `queries`
/// queries, may have with their material while one runs: the schedule's are spread over them.
std::size_t QueriesAhead(const Schedule& schedule, std::size_t queries, std::size_t runner = 0,
                         std::size_t runners = 1);

/// Of how many queries the material is in memory at once, of `queries` in all.
std::size_t QueriesHeld(const Schedule& schedule, std::size_t queries, std::size_t in_flight = 1);

}  // namespace tercet::infer
