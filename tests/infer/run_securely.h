// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

#include "tercet/infer/secure_network.h"
#include "tercet/mpc/local.h"

namespace tercet::infer {

/// The logits of all images as one query of three parties in memory, at the receiver; `hops` (may
/// be null) takes the most online hops of a party.
inline std::vector<std::int64_t> RunSecurely(const nn::IntegerNetwork& network, const Plan& plan,
                                             const mpc::Registry& registry,
                                             const files::Images& images,
                                             std::uint32_t* hops = nullptr) {
  std::vector<std::int64_t> logits;
  std::mutex mutex;
  mpc::LocalOptions options;
  options.layers = plan.layers.size();
  mpc::RunParties(
      [&](mpc::Party& party) {
        SecureNetwork net(party, plan, registry);
        net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
        auto query = net.Prepare(images.count);
        const auto input = nn::QuantiseInput(plan.network.input, images, 0, images.count);
        auto result =
            net.Run(std::move(query), party.Id() == plan.roles.data_owner ? &input : nullptr);
        const std::lock_guard lock(mutex);
        if (party.Id() == plan.roles.receiver) logits = std::move(result);
        if (hops != nullptr) *hops = std::max(*hops, net.OnlineHops());
      },
      options);
  return logits;
}

}  // namespace tercet::infer
