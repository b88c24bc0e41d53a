#include "tercet/mpc/suite.h"

namespace tercet::protocols::insecure_open {

namespace {

using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;

class InsecureActivation final : public mpc::Activation {
 public:
  explicit InsecureActivation(ActivationSpec spec) : spec_(std::move(spec)) {}

  mpc::Prepared Prepare(mpc::Context& /*ctx*/, std::size_t /*batch*/,
                        const AnyMatrix* /*z*/) override {
    return {};
  }

  AnyShare Run(mpc::Context& ctx, mpc::Prepared /*prepared*/, const AnyMatrix& z) override {
    return ring::DispatchWord(spec_.ring_bits, [&]<mpc::Word W>(W) {
      mpc::Matrix<W> sum = z.As<W>();
      ctx.Send(ctx.Next(), z.As<W>(), spec_.ring_bits);  // 1 hop, l bits
      ctx.Send(ctx.Prev(), z.As<W>(), spec_.ring_bits);  // the same hop, l bits
      for (int peer : {ctx.Next(), ctx.Prev()})
        sum += ctx.Receive<W>(peer, z.Rows(), z.Cols(), spec_.ring_bits);
      return ring::DispatchWord(spec_.out_bits, [&]<mpc::Word V>(V) {
        auto s = ring::MakeMatrix<V>(z.Rows(), z.Cols());
        for (std::size_t i = 0; i < sum.size(); ++i) {
          const std::int64_t value = ring::Decode(sum.data()[i], spec_.ring_bits);
          const std::int64_t positive = spec_.kind == ActivationKind::kSign ? 1 : value;
          s.data()[i] = ring::Encode<V>(value >= 0 ? positive : 0, spec_.out_bits);
        }
        const auto share = mpc::PublicShare(ctx.Id(), s, spec_.out_bits);
        return AnyShare{AnyMatrix(share.mine, spec_.out_bits),
                        AnyMatrix(share.next, spec_.out_bits)};
      });
    });
  }

 private:
  ActivationSpec spec_;
};

class InsecureSuite final : public mpc::Suite {
 public:
  const mpc::SuiteInfo& Info() const override {
    static const mpc::SuiteInfo info{
        .name = "insecure_open",
        .summary = "opens everything; an example of a protocol folder",
        .is_private = false,
        .leaks = "all parties see every value that enters an activation",
        .dealt_output = false,
        .options = {}};
    return info;
  }
  void Check(const ActivationSpec& spec, const mpc::SuiteChoice& /*choice*/) const override {
    const bool has = spec.kind == ActivationKind::kSign || spec.kind == ActivationKind::kRelu;
    if (!has || spec.pool || spec.shift > 0)
      throw UnsupportedError(
          fmt::format("layer {}: insecure_open has no {}{}; supported: sign, relu", spec.layer,
                      mpc::ActivationName(spec.kind), spec.pool ? " with max-pool" : ""));
  }
  mpc::Cost Costs(const ActivationSpec& spec, const mpc::SuiteChoice& /*choice*/,
                  const mpc::Roles& /*roles*/) const override {
    mpc::Cost cost;
    const auto bytes = ring::PackedBytes(spec.Elements(), spec.ring_bits);
    mpc::Round round;  // everyone to everyone
    for (int from = 0; from < 3; ++from)
      for (int step : {1, 2}) round.push_back({from, (from + step) % 3, bytes});
    cost.Add(mpc::Phase::kOnline, std::move(round));
    return cost;
  }
  std::unique_ptr<mpc::Activation> Create(mpc::Party& /*party*/, const ActivationSpec& spec,
                                          const mpc::SuiteChoice& choice,
                                          const mpc::Roles& /*roles*/) const override {
    Check(spec, choice);
    return std::make_unique<InsecureActivation>(spec);
  }
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) { registry.AddSuite(std::make_unique<InsecureSuite>()); }

}  // namespace tercet::protocols::insecure_open
