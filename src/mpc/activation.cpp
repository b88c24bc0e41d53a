#include "tercet/mpc/activation.h"

namespace tercet::mpc {

bool IsTournament(const ActivationSpec& spec) {
  return spec.kind == ActivationKind::kRelu && spec.pool.has_value();
}

unsigned ActivationRingBits(const Suite& suite, const ActivationSpec& spec) {
  return suite.RingBits(spec.value_bits + (IsTournament(spec) ? 1 : 0));
}

void CheckActivation(const Suite& suite, const ActivationSpec& spec, const SuiteChoice& choice) {
  suite.Check(spec, choice);
}

Cost ActivationCosts(const Suite& suite, const ActivationSpec& spec, const SuiteChoice& choice,
                     const Roles& roles) {
  return suite.Costs(spec, choice, roles);
}

std::unique_ptr<Activation> MakeActivation(const Suite& suite, Party& party,
                                           const ActivationSpec& spec, const SuiteChoice& choice,
                                           const Roles& roles) {
  return suite.Create(party, spec, choice, roles);
}

}  // namespace tercet::mpc
