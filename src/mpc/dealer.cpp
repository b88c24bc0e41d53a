// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/dealer.h"

namespace tercet::mpc {

void DealerActivation::Fuse(std::shared_ptr<const AnyMatrix> /*columns*/) {
  throw InternalError("this activation is not fused with the map that follows");
}

AnyShare DealerActivation::RunFused(Context& /*ctx*/, std::unique_ptr<Correlation> /*correlation*/,
                                    const AnyMatrix& /*z*/, AnyMatrix& /*next*/) {
  throw InternalError("this activation is not fused with the map that follows");
}

std::unique_ptr<Correlation> PrepareAny(Activation& activation, Context& ctx, std::size_t batch,
                                        const AnyMatrix* z) {
  if (auto* dealer = dynamic_cast<DealerActivation*>(&activation))
    return dealer->Deal(ctx, batch, z);
  return activation.Prepare(ctx, batch);
}

std::shared_ptr<const AnyMatrix> FusedColumns(const AnyShare& weight) {
  const unsigned bits = weight.mine.Bits();
  return ring::DispatchWord(bits, [&]<Word V>(V) {
    const auto &mine = weight.mine.As<V>(), &next = weight.next.As<V>();
    const std::size_t outputs = mine.shape()[0], inputs = mine.shape()[1];
    auto columns = ring::MakeMatrix<V>(inputs, outputs);
    for (std::size_t j = 0; j < outputs; ++j)
      for (std::size_t i = 0; i < inputs; ++i)
        columns(i, j) = static_cast<V>(mine(j, i) + next(j, i));
    return std::make_shared<const AnyMatrix>(std::move(columns), bits);
  });
}

DealerActivation& FusedOf(Activation& activation) {
  return dynamic_cast<DealerActivation&>(activation);
}

const AnyShare& KnownOf(const Correlation* correlation) {
  static const AnyShare nothing;
  const auto* dealt = dynamic_cast<const DealtCorrelation*>(correlation);
  return dealt != nullptr ? dealt->Known() : nothing;
}

}  // namespace tercet::mpc
