#include "suites/fss/comparison.h"

// Activations by distributed comparison functions whose point the dealer knows; the message flow,
// the symbols and who learns what are in README.md.
namespace tercet::protocols::fss {
namespace {

using mpc::ActivationSpec;
using mpc::Party;
using mpc::Roles;
using mpc::SuiteChoice;

class FssSuite final : public mpc::Suite {
 public:
  const mpc::SuiteInfo& Info() const override {
    static const mpc::SuiteInfo info{
        .name = "fss",
        .summary =
            "distributed comparison functions with a point known to the dealer; 2 hops per "
            "activation, the fewest, or 3 with truncation, for more bytes offline",
        .is_private = true,
        .leaks = "",
        .dealt_output = true,
        .options = {"form: arith (2 hops), bit (3 hops, fewer bytes) or auto; layers with max-pool "
                    "or truncation always use bit"}};
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
        party, spec, Comparison(MakeLayout(spec, choice), spec.out_bits), "fss", roles);
  }
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) { registry.AddSuite(std::make_unique<FssSuite>()); }

}  // namespace tercet::protocols::fss
