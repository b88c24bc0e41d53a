// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tercet/mpc/suite.h"

namespace tercet::mpc {

using PlanStage = std::function<ActivationPlan(const ActivationSpec&)>;

/// ReLU with max-pool as a tournament (IsTournament) of the ReLUs that `plan` gives. `dealt_output`
/// is that of the suite whose they are.
ActivationPlan PlanTournament(const ActivationSpec& spec, bool dealt_output, const Roles& roles,
                              const PlanStage& plan);

}  // namespace tercet::mpc
