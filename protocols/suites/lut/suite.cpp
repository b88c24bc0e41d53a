// SPDX-License-Identifier: Apache-2.0
#include "suites/lut/comparison.h"
#include "tercet/mpc/registry.h"

// Activations by three-party 1-out-of-N oblivious transfer with shared output; the message flow,
// the symbols and who learns what are in README.md.
namespace tercet::protocols::lut {
namespace {

mpc::ActivationPlan Plan(const mpc::ActivationSpec& spec, const mpc::OptionValues& options,
                         const mpc::Roles& roles) {
  const Layout layout = MakeLayout(spec, options);
  return {LayoutCost(layout, spec, roles), [=](mpc::Party& party) {
            return std::make_unique<dealer::Activation<Comparison>>(
                party, spec, Comparison(layout, Formula(spec), spec.out_bits), "lut", roles);
          }};
}

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  registry.AddSuite(
      {.name = "lut",
       .summary = "shared rows by three-party 1-out-of-N oblivious transfer with shared output; 3 "
                  "hops per activation where values are narrow, else 4",
       .dealt_output = true,
       .options = {{.name = "chunks",
                    .values = {"auto", "1", "2", "3", "4", "5"},
                    .meaning = "pieces that values are compared in; auto: fewest bytes"},
                   {.name = "form",
                    .values = {"auto", "arith", "bit"},
                    .meaning = "arith (3 hops) or bit (4 hops, fewer bytes); layers with max-pool "
                               "always use bit"}},
       .variants = {{"", {{{25, 8}, {145, 34}}}},
                    {"form=bit", {{{28, 8}, {160, 34}}}},
                    {"form=arith", {}},
                    {"chunks=2", {}},
                    {"chunks=3,form=bit", {}}}},
      Plan);
}

}  // namespace tercet::protocols::lut
