// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/party_report.h"

namespace tercet::infer {

std::uint64_t PartyReport::OfflineBytes() const {
  std::uint64_t sum = 0;
  for (const auto& layer : layers) sum += layer.offline_bytes;
  return sum;
}

std::uint64_t PartyReport::OnlineBytes() const {
  std::uint64_t sum = 0;
  for (const auto& layer : layers) sum += layer.online_bytes;
  return sum;
}

}  // namespace tercet::infer
