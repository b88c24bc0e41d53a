#include "suites/lut/comparison.h"

// Activations by three-party 1-out-of-N oblivious transfer with shared output; the message flow,
// the symbols and who learns what are in README.md.
namespace tercet::protocols::lut {
namespace {

using mpc::ActivationSpec;
using mpc::Party;
using mpc::Roles;
using mpc::SuiteChoice;

class LutSuite final : public mpc::Suite {
 public:
  const mpc::SuiteInfo& Info() const override {
    static const mpc::SuiteInfo info{
        .name = "lut",
        .summary =
            "shared rows by three-party 1-out-of-N oblivious transfer with shared output; 3 hops "
            "per activation where values are narrow, else 4",
        .is_private = true,
        .leaks = "",
        .dealt_output = true,
        .options = {"chunks: pieces that values are compared in, 1..5 or auto (fewest bytes)",
                    "form: arith (3 hops), bit (4 hops, fewer bytes) or "
                    "auto; layers with max-pool always use bit"}};
    return info;
  }
  void Check(const ActivationSpec& spec, const SuiteChoice& choice) const override {
    MakeLayout(spec, choice);
  }
  mpc::Cost Costs(const ActivationSpec& spec, const SuiteChoice& choice,
                  const Roles& roles) const override {
    return LayoutCost(MakeLayout(spec, choice), spec, roles);
  }
  std::unique_ptr<mpc::Activation> Create(Party& party, const ActivationSpec& spec,
                                          const SuiteChoice& choice,
                                          const Roles& roles) const override {
    return std::make_unique<dealer::Activation<Comparison>>(
        party, spec, Comparison(MakeLayout(spec, choice), Formula(spec), spec.out_bits), "lut",
        roles);
  }
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) { registry.AddSuite(std::make_unique<LutSuite>()); }

}  // namespace tercet::protocols::lut
