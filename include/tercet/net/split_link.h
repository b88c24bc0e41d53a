// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "tercet/net/link.h"

namespace tercet::net {

/// At most so many parts share a link.
inline constexpr std::size_t kMaxLinkParts = 256;

/// What each lane of a part holds for a thread that is slower than the others, and how long one of
/// the others waits for it.
struct PartLimit {
  QueueLimit queue{std::size_t{1} << 30, std::size_t{1} << 18};
  std::chrono::milliseconds patience{600'000};
};

/// Splits a link into `count` links that several sessions use side by side, each from threads of
/// its own: every part has all lanes of its own, and messages of one part never wait for those of
/// another. Both ends split alike, once nobody receives from the link itself any more. Works over
/// any link, with wrappers below or above it.
///
/// On the wire a message of part k carries k in the top eight bits of its depth; a chain of
/// dependent messages is never that long (Send throws InternalError). Nothing is added to the
/// payload. Receive of any part throws ProtocolError that names the peer when a message is for a
/// part that there is not. Whoever waits reads for all, so what a slow part has not yet received is
/// kept here, up to the limit; then the link is not read until that part has received some of it,
/// and NetworkError ends a wait of more than the limit's patience.
///
/// Flush and Abort are those of the whole link: an Abort ends all parts. Close ends its part only,
/// and the link is closed with the last one; the link lives as long as a part does.
std::vector<std::unique_ptr<Link>> SplitLink(std::unique_ptr<Link> link, std::size_t count,
                                             const PartLimit& limit = {});

}  // namespace tercet::net
