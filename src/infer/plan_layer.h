// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tercet/infer/plan.h"

/// The steps in which MakePlan plans each layer, for ChooseSuites, which tries many suites. All
/// functions are thread safe and throw as MakePlan.
namespace tercet::infer {

/// All of a planned layer but what FinishLayer adds: its rings and linear maps. Uses `suite` where
/// the layer names none.
PlannedLayer PrepareLayer(const nn::PublicLayer& layer, const mpc::Registry& registry,
                          const mpc::SuiteChoice& suite, const std::string& linear,
                          const mpc::Roles& roles, std::size_t batch);

/// The map that layer k may be fused with: the next layer's, where that is fully connected and
/// nothing else takes in what leaves layer k.
std::optional<mpc::LinearShape> NextMap(const nn::PublicNetwork& network, std::size_t k,
                                        const std::string& linear);

/// Adds the activation: `dealt` says whether all that enters was dealt, `out_bits` the ring of what
/// leaves, `next` is the NextMap, `after_fused` that the layer before is fused with this one,
/// `only_to` Plan::OnlyTo of what leaves.
void FinishLayer(PlannedLayer& planned, const mpc::Registry& registry, const std::string& linear,
                 const mpc::Roles& roles, bool dealt, unsigned out_bits,
                 const std::optional<mpc::LinearShape>& next, bool after_fused,
                 std::optional<PartyId> only_to);

/// The layer's linear map and, where it has a shortcut, that one's: its own, or of each channel by
/// itself.
std::vector<mpc::LinearSpec> LinearMaps(const PlannedLayer& planned);

}  // namespace tercet::infer
