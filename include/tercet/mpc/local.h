// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "tercet/mpc/party.h"

namespace tercet::mpc {

struct LocalOptions {
  std::size_t layers = 1;
  crypto::DrawObserver* ledger = nullptr;  ///< of all draws; where `make` is null
  /// Wraps each link before use, e.g. to record: (link, owner of this end).
  std::function<std::unique_ptr<net::Link>(std::unique_ptr<net::Link>, int)> wrap;
  /// Makes a party from its links; null for Party's constructor.
  std::function<std::unique_ptr<Party>(int, net::Links)> make;
  std::chrono::milliseconds timeout{60'000};
};

/// Runs `body` for three parties in three threads over in-memory links. When one throws, the others
/// are aborted, and its error is rethrown here once all have stopped.
void RunParties(const std::function<void(Party&)>& body, const LocalOptions& options = {});

}  // namespace tercet::mpc
