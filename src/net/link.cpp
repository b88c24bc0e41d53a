// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/link.h"

namespace tercet::net {

const char* PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kSetup:
      return "setup";
    case Phase::kOffline:
      return "offline";
    case Phase::kOnline:
      return "online";
  }
  return "unknown";
}

}  // namespace tercet::net
