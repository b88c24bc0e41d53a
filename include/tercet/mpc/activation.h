#pragma once

#include <memory>

#include "tercet/mpc/suite.h"

/// Activation layers of every kind, made of what a suite has: its own Sign (with max-pool), ReLU
/// and square, and the max-pool of ReLU values as a tournament of its ReLU. What plans and
/// executors call; a suite's own functions know only what the suite itself implements. All
/// functions are thread safe and throw as those of Suite do.
namespace tercet::mpc {

/// Whether the layer is a tournament: max(x, y) = y + ReLU(x - y) in log2(window) rounds on
/// additive shares, then one ReLU with the layer's truncation on what is left. The function is that
/// of ReLU followed by max-pool, since ReLU is monotone.
bool IsTournament(const ActivationSpec& spec);

/// Width of the ring that the layer's input must be shared in: the suite's for its values, or for
/// differences of two of them in a tournament.
unsigned ActivationRingBits(const Suite& suite, const ActivationSpec& spec);

/// As Suite::Check.
void CheckActivation(const Suite& suite, const ActivationSpec& spec, const SuiteChoice& choice);

/// As Suite::Costs. A tournament costs what its rounds cost; hops add up.
Cost ActivationCosts(const Suite& suite, const ActivationSpec& spec, const SuiteChoice& choice,
                     const Roles& roles);

/// As Suite::Create.
std::unique_ptr<Activation> MakeActivation(const Suite& suite, Party& party,
                                           const ActivationSpec& spec, const SuiteChoice& choice,
                                           const Roles& roles);

}  // namespace tercet::mpc
