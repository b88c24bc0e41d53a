// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/registry.h"

namespace tercet::protocols::local_truncation {
namespace {

using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;

class TruncatedRelu final : public mpc::Activation {
 public:
  TruncatedRelu(ActivationSpec spec, std::unique_ptr<mpc::Activation> relu)
      : spec_(std::move(spec)), relu_(std::move(relu)) {}

  std::unique_ptr<mpc::Correlation> Prepare(mpc::Context& ctx, std::size_t batch) override {
    return relu_->Prepare(ctx, batch);
  }
  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return relu_->NewCorrelation();
  }
  AnyShare Run(mpc::Context& ctx, std::unique_ptr<mpc::Correlation> correlation,
               const AnyMatrix& z) override {
    const unsigned bits = spec_.ring_bits, kept = bits - spec_.shift;
    return ring::DispatchWord(bits, [&]<mpc::Word W>(W) {
      return ring::DispatchWord(kept, [&]<mpc::Word V>(V) {
        auto y = ring::MakeMatrix<V>(z.Rows(), z.Cols());
        for (std::size_t i = 0; i < y.size(); ++i)
          y.data()[i] =
              static_cast<V>((ring::Reduce(z.As<W>().data()[i], bits) >> spec_.shift) + ctx.Is(0));
        return relu_->Run(ctx, std::move(correlation), AnyMatrix(std::move(y), kept));
      });
    });
  }

 private:
  ActivationSpec spec_;
  std::unique_ptr<mpc::Activation> relu_;
};

mpc::ActivationPlan Plan(const mpc::Suite& exact, const ActivationSpec& spec,
                         const mpc::Roles& roles) {
  const bool truncates = spec.kind == mpc::ActivationKind::kRelu && spec.shift > 0;
  if (!truncates || spec.shift >= spec.value_bits)
    return exact.Plan(spec, {exact.Info().name, {}}, roles);
  ActivationSpec relu = spec;
  relu.shift = 0;
  relu.value_bits -= spec.shift - 1;  // one more, since the quotient may be off
  relu.ring_bits -= spec.shift;
  mpc::ActivationPlan plan = exact.Plan(relu, {exact.Info().name, {}}, roles);
  plan.make = [spec, make = std::move(plan.make)](mpc::Party& party) {
    return std::make_unique<TruncatedRelu>(spec, make(party));
  };
  plan.tolerance = 1;
  return plan;
}

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  registry.AddSuite(
      {.name = "local_truncation",
       .summary = "aby3 with shares that are truncated by themselves; an example of a suite that "
                  "is not exact",
       .exact = false,
       .spare_bits = 1},
      [exact = registry.FindSuite("aby3")](const ActivationSpec& spec, const mpc::OptionValues&,
                                           const mpc::Roles& roles) {
        return Plan(exact, spec, roles);
      });
}

}  // namespace tercet::protocols::local_truncation
