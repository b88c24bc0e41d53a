// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "tercet/mpc/suite.h"

/// What suites that deal need beyond suite.h, and whoever runs any suite. The helper deals
/// offline. For that it needs its share of the layer's input offline, which it has where all shares
/// that it holds are drawn from its keys (ActivationSpec::dealt); a suite whose output is such a
/// share (SuiteInfo::dealt_output) makes it known here.
namespace tercet::mpc {

class DealtCorrelation : public Correlation {
 public:
  /// The halves of the layer's output that this party knows already; others are empty.
  virtual const AnyShare& Known() const = 0;
};

class DealerActivation : public Activation {
 public:
  /// Offline. `z` is this party's additive share of the layer's input where it is known already,
  /// else null: the helper has it when the spec says `dealt`, and the evaluator `known_at` that the
  /// spec names, which is given it in Run as well.
  virtual std::unique_ptr<DealtCorrelation> Deal(Context& ctx, std::size_t batch,
                                                 const AnyMatrix* z) = 0;
  std::unique_ptr<Correlation> Prepare(Context& ctx, std::size_t batch) final {
    return Deal(ctx, batch, nullptr);
  }

  /// Where the plan is fused, before all queries: FusedColumns of the helper's share of the weights
  /// of spec.next, in the ring of the output. It deals products with them; others ignore theirs.
  virtual void Fuse(std::shared_ptr<const AnyMatrix> columns);
  /// Online, in place of Run where the plan is fused: adds those products to `next`, this party's
  /// part of the next map's output. The rest of it is what the next linear layer gives for the
  /// halves that are returned, which are no share of the output.
  virtual AnyShare RunFused(Context& ctx, std::unique_ptr<Correlation> correlation,
                            const AnyMatrix& z, AnyMatrix& next);
};

/// Prepares any activation: deals where its suite deals.
std::unique_ptr<Correlation> PrepareAny(Activation& activation, Context& ctx, std::size_t batch,
                                        const AnyMatrix* z);
/// What a party knows of a map, the sum of both halves of its weights: inputs x outputs.
std::shared_ptr<const AnyMatrix> FusedColumns(const AnyShare& weight);
/// A fused layer's activation.
DealerActivation& FusedOf(Activation& activation);
/// What is known offline of the output; nothing where its suite does not deal. `correlation` may be
/// null.
const AnyShare& KnownOf(const Correlation* correlation);

}  // namespace tercet::mpc
