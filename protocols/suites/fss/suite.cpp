// SPDX-License-Identifier: Apache-2.0
#include "suites/fss/comparison.h"
#include "tercet/mpc/registry.h"

// Activations by distributed comparison functions whose point the dealer knows; the message flow,
// the symbols and who learns what are in README.md.
namespace tercet::protocols::fss {
namespace {

mpc::ActivationPlan Plan(const mpc::ActivationSpec& spec, const mpc::OptionValues& options,
                         const mpc::Roles& roles) {
  const Layout layout = MakeLayout(spec, options);
  return {LayoutCost(layout, spec, roles), [=](mpc::Party& party) {
            return std::make_unique<dealer::Activation<Comparison>>(
                party, spec, Comparison(layout, spec.out_bits), "fss", roles);
          }};
}

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  registry.AddSuite(
      {.name = "fss",
       .summary = "distributed comparison functions with a point known to the dealer; 2 hops per "
                  "activation, the fewest, or 3 with truncation, for more bytes offline",
       .dealt_output = true,
       .options = {{.name = "form",
                    .values = {"auto", "arith", "bit"},
                    .meaning = "arith (2 hops) or bit (3 hops, fewer bytes); layers with max-pool "
                               "or truncation always use bit"}},
       .variants = {{"", {{{157, 51}, {420, 154}}}}, {"form=bit", {{{157, 51}, {420, 154}}}}}},
      Plan);
}

}  // namespace tercet::protocols::fss
