// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/party_report.h"

#include <algorithm>

#include "tercet/base/error.h"

namespace tercet::infer {

std::vector<PartyLayer> SideBySide(const std::vector<std::vector<PartyLayer>>& parts) {
  TERCET_CHECK(!parts.empty(), "no part has layers");
  std::vector<PartyLayer> whole = parts.front();
  std::vector<std::uint32_t> offline(whole.size()), online(whole.size());  // depths
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const auto& part = parts[p];
    TERCET_CHECK(part.size() == whole.size(), "{} layers beside {}", part.size(), whole.size());
    std::uint32_t offline_depth = 0, online_depth = 0;
    for (std::size_t k = 0; k < whole.size(); ++k) {
      offline[k] = std::max(offline[k], offline_depth += part[k].offline_hops);
      online[k] = std::max(online[k], online_depth += part[k].online_hops);
      if (p == 0) continue;
      whole[k].offline_bytes += part[k].offline_bytes;
      whole[k].online_bytes += part[k].online_bytes;
      whole[k].offline_s = std::max(whole[k].offline_s, part[k].offline_s);
      whole[k].online_s = std::max(whole[k].online_s, part[k].online_s);
    }
  }
  for (std::size_t k = 0; k < whole.size(); ++k) {
    whole[k].offline_hops = offline[k] - (k > 0 ? offline[k - 1] : 0);
    whole[k].online_hops = online[k] - (k > 0 ? online[k - 1] : 0);
  }
  return whole;
}

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
