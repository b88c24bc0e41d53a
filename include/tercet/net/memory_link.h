// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <utility>

#include "tercet/net/link.h"

namespace tercet::net {

/// The links of one party: [0] unused by the party itself, indexed by peer number; links[self] is
/// null.
using Links = std::array<std::unique_ptr<Link>, 3>;

/// A connected pair of in-process links: first is party `a`'s end, second party `b`'s. Receive
/// throws NetworkError after `timeout` without a message, Send after `timeout` without room: a lane
/// holds at most 512 MiB and 65536 messages.
std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> MakeMemoryPair(
    int a, int b, std::chrono::milliseconds timeout);

/// All three parties' links over memory: result[i][j] is party i's link to party j.
std::array<Links, 3> MakeMemoryLinks(std::chrono::milliseconds timeout = std::chrono::seconds(60));

}  // namespace tercet::net
