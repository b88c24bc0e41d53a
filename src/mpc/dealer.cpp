// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/dealer.h"

namespace tercet::mpc {

std::unique_ptr<Correlation> PrepareAny(Activation& activation, Context& ctx, std::size_t batch,
                                        const AnyMatrix* z) {
  if (auto* dealer = dynamic_cast<DealerActivation*>(&activation))
    return dealer->Deal(ctx, batch, z);
  return activation.Prepare(ctx, batch);
}

const AnyShare& KnownOf(const Correlation* correlation) {
  static const AnyShare nothing;
  const auto* dealt = dynamic_cast<const DealtCorrelation*>(correlation);
  return dealt != nullptr ? dealt->Known() : nothing;
}

}  // namespace tercet::mpc
