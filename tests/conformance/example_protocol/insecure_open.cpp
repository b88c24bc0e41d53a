// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/registry.h"

namespace tercet::protocols::insecure_open {
namespace {

using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;

class InsecureActivation final : public mpc::Activation {
 public:
  explicit InsecureActivation(ActivationSpec spec) : spec_(std::move(spec)) {}

  AnyShare Run(mpc::Context& ctx, std::unique_ptr<mpc::Correlation> /*correlation*/,
               const AnyMatrix& z) override {
    const unsigned bits = spec_.ring_bits, out_bits = spec_.out_bits;
    return ring::DispatchWord(bits, [&]<mpc::Word W>(W) {
      mpc::Matrix<W> sum = z.As<W>();
      for (int peer : {ctx.Next(), ctx.Prev()}) ctx.Send(peer, z.As<W>(), bits);  // 1 hop, l bits
      for (int peer : {ctx.Next(), ctx.Prev()})
        sum += ctx.Receive<W>(peer, z.Rows(), z.Cols(), bits);
      return ring::DispatchWord(out_bits, [&]<mpc::Word V>(V) {
        auto s = ring::MakeMatrix<V>(z.Rows(), z.Cols());
        for (std::size_t i = 0; i < sum.size(); ++i) {
          const std::int64_t value = ring::Decode(sum.data()[i], bits);
          const std::int64_t positive = spec_.kind == ActivationKind::kSign ? 1 : value;
          s.data()[i] = ring::Encode<V>(value >= 0 ? positive : 0, out_bits);
        }
        const auto share = mpc::PublicShare(ctx.Id(), s, out_bits);
        return AnyShare{AnyMatrix(share.mine, out_bits), AnyMatrix(share.next, out_bits)};
      });
    });
  }

 private:
  ActivationSpec spec_;
};

mpc::ActivationPlan Plan(const ActivationSpec& spec, const mpc::OptionValues& /*options*/,
                         const mpc::Roles& /*roles*/) {
  const bool has = spec.kind == ActivationKind::kSign || spec.kind == ActivationKind::kRelu;
  if (!has || spec.pool || spec.shift > 0)
    throw mpc::Refusal(
        spec, "insecure_open",
        fmt::format("has no {}{}; supported: sign, relu without truncation",
                    mpc::ActivationName(spec.kind), spec.pool ? " with max-pool" : ""));
  mpc::Cost cost;
  cost.Add(mpc::Phase::kOnline, mpc::OpenRound(ring::PackedBytes(spec.Elements(), spec.ring_bits)));
  return {cost, [=](mpc::Party&) { return std::make_unique<InsecureActivation>(spec); }};
}

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  registry.AddSuite({.name = "insecure_open",
                     .summary = "opens everything; an example of a protocol folder",
                     .is_private = false,
                     .leaks = "all parties see every value that enters an activation"},
                    Plan);
}

}  // namespace tercet::protocols::insecure_open
