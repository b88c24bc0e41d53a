// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>

#include "tercet/infer/party_report.h"
#include "tercet/infer/session.h"
#include "tercet/mpc/registry.h"

namespace tercet::programs {

/// Three parties as threads of this process, over memory.
struct MemoryRun {
  /// What a party brings. Called once for each party, in its thread; what it throws is that party's
  /// failure.
  std::function<infer::SessionSettings(int id)> settings;
  std::optional<int> absent;  ///< a party that is not started
  /// Why the run is to stop, if it is. Called now and then in the caller's thread; may be empty.
  std::function<std::optional<std::string>()> stop_asked;
};

/// Their reports; of one that is not started just that. When one fails, the failure that is most
/// likely the cause is thrown, with the party's number (ThrowFailure). `registry` is used by all at
/// once. No thread is left when this returns or throws.
std::array<infer::PartyReport, 3> RunInMemory(const MemoryRun& run, const mpc::Registry& registry);

}  // namespace tercet::programs
