// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/plan.h"

#include <algorithm>

#include "infer/plan_layer.h"
#include "mpc/hops.h"
#include "tercet/crypto/certificates.h"
#include "tercet/ring/pack.h"

namespace tercet::infer {
namespace {

// What the class of an image is opened in: 0 and 1, and a sign.
constexpr unsigned kClassBits = 2;

// The ring of what leaves the input and each layer: the widest that is used further on, since a
// share in a ring is one in every narrower ring.
std::vector<unsigned> OutputRings(const Plan& plan) {
  const std::size_t count = plan.layers.size();
  std::vector<unsigned> rings(count + 1, 0);
  for (std::size_t k = 0; k < count; ++k) {
    const unsigned ring = plan.layers[k].activation.ring_bits;
    rings[k] = std::max(rings[k], ring);
    if (const auto& shortcut = plan.layers[k].layer.shortcut)
      rings[shortcut->from] = std::max(rings[shortcut->from], ring);
  }
  const auto& last = plan.layers.back();
  rings.back() = last.Activates() ? kClassBits : last.activation.ring_bits;
  return rings;
}

}  // namespace

mpc::Cost Plan::Total() const {
  mpc::Cost total = input;
  for (const auto& layer : layers) total += layer.cost;
  total += output;
  return total;
}

std::vector<PlanStep> Plan::Steps() const {
  std::vector<PlanStep> steps{{"input", "input", nullptr, &input, network.input.shape, 0}};
  for (const auto& planned : layers)
    steps.push_back({planned.layer.name, planned.layer.type, &planned, &planned.cost,
                     planned.activation.Out(), 0});
  steps.push_back({"output", "output", nullptr, &output, {network.Classes(), 1, 1}, 0});
  mpc::HopCounter counter;
  for (auto& step : steps) {
    const std::uint32_t before = counter.Hops();
    for (const auto& round : step.cost->Rounds(mpc::Phase::kOnline)) counter.Add(round);
    step.hops = counter.Hops() - before;
  }
  return steps;
}

std::vector<std::string> Plan::Warnings(const mpc::Registry& registry) const {
  std::vector<std::string> warnings;
  if (registry.FindLinear(linear).public_weights)
    warnings.push_back(
        fmt::format("the model is PUBLIC: party {}, its owner, tells all parties the weights",
                    roles.model_owner));
  for (const auto& layer : layers) {
    if (!layer.layer.proven) warnings.push_back(NotProvenText(layer.layer));
    if (layer.suite.name.empty()) continue;
    const auto& info = registry.FindSuite(layer.suite.name).Info();
    if (!info.is_private)
      warnings.push_back(fmt::format("layer {} uses suite {}, which is NOT private: {}",
                                     layer.layer.name, info.name, info.leaks));
    if (layer.tolerance > 0)
      warnings.push_back(
          fmt::format("layer {} uses suite {}, which is not exact: its outputs may be off by {}",
                      layer.layer.name, info.name, layer.tolerance));
  }
  return warnings;
}

std::string NotProvenText(const nn::PublicLayer& layer) {
  return fmt::format(
      "layer {}: its width of {} bits was seen on calibration images, with head-room, but is not "
      "proven: an unusual input can give a wrong result",
      layer.name, layer.value_bits);
}

std::array<bool, 3> Plan::KnownResult() const {
  const auto& last = layers.back();
  std::array<bool, 3> known{};
  known.at(static_cast<std::size_t>(roles.helper)) =
      last.Activates() ? last.dealt_output : last.activation.dealt;
  if (const auto& evaluator = last.activation.known_at; evaluator && !last.Activates())
    known.at(static_cast<std::size_t>(*evaluator)) = true;
  return known;
}

std::optional<PartyId> Plan::OnlyTo(std::size_t from) const {
  std::optional<PartyId> only;
  for (std::size_t k = from; k < layers.size(); ++k) {
    const auto& shortcut = layers[k].layer.shortcut;
    if (k != from && !(shortcut && shortcut->from == from)) continue;
    only = layers[k].multiplier;
    if (!only) break;
  }
  return only;
}

bool Plan::HelperActsOnline() const {
  if (roles.data_owner == roles.helper || roles.receiver == roles.helper) return true;
  if (!KnownResult().at(static_cast<std::size_t>(roles.helper))) return true;
  return std::any_of(layers.begin(), layers.end(), [](const auto& planned) {
    return !planned.activation.dealt || !planned.dealt_output;
  });
}

std::string Plan::Digest() const {
  std::string text = nn::PublicNetworkToJson(network);
  text += fmt::format("|roles {} {} {} {}|linear {}|", roles.helper, roles.data_owner,
                      roles.model_owner, roles.receiver, linear);
  for (const auto& layer : layers)
    text += fmt::format("{} {} {} {}{};", layer.layer.name, layer.suite.Text(),
                        layer.activation.ring_bits, layer.activation.out_bits,
                        layer.fused ? " fused" : "");
  return crypto::Sha256Hex(text);
}

PlannedLayer PrepareLayer(const nn::PublicLayer& layer, const mpc::Registry& registry,
                          const mpc::SuiteChoice& suite, const std::string& linear,
                          const mpc::Roles& roles, std::size_t batch) {
  const auto& protocol = registry.FindLinear(linear);
  PlannedLayer planned;
  planned.layer = layer;
  auto& spec = planned.activation;
  spec = layer.Activation(batch);
  spec.out_bits = 0;
  if (planned.Activates()) {
    planned.suite =
        layer.suite.empty() ? suite : mpc::ParseSuiteChoice(layer.suite, "layer " + layer.name);
    const auto& chosen = registry.FindSuite(planned.suite.name);
    spec.ring_bits = chosen.RingBits(spec);
    spec.opened = protocol.public_weights && chosen.Info().takes_opened;
  }
  for (const auto& map : LinearMaps(planned)) {
    const auto plan = protocol.plan(map, roles);
    planned.cost += plan.cost;
    planned.multiplier = plan.multiplier;
  }
  return planned;
}

std::vector<mpc::LinearSpec> LinearMaps(const PlannedLayer& planned) {
  const auto& layer = planned.layer;
  const auto& spec = planned.activation;
  std::vector<mpc::LinearSpec> maps{
      {layer.name, layer.linear, spec.ring_bits, spec.batch, spec.opened}};
  if (!layer.shortcut) return maps;
  const mpc::Shape3 out = layer.linear.Out();
  const auto own = layer.shortcut->linear.value_or(
      mpc::LinearShape{.in = out, .out_channels = out.channels, .groups = out.channels});
  maps.push_back({layer.name + "/shortcut", own, spec.ring_bits, spec.batch, spec.opened});
  return maps;
}

std::optional<mpc::LinearShape> NextMap(const nn::PublicNetwork& network, std::size_t k,
                                        const std::string& linear) {
  // What fusing takes from a linear layer are the products of these protocols.
  if ((linear != mpc::kReplicatedLinear && linear != mpc::kClearLinear) ||
      k + 1 >= network.layers.size())
    return std::nullopt;
  const mpc::LinearShape& next = network.layers[k + 1].linear;
  const bool alone = std::none_of(
      network.layers.begin(), network.layers.end(),
      [&](const auto& layer) { return layer.shortcut && layer.shortcut->from == k + 1; });
  if (!alone || network.layers[k].sum_pool || !next.IsFullyConnected()) return std::nullopt;
  return next;
}

void FinishLayer(PlannedLayer& planned, const mpc::Registry& registry, const std::string& linear,
                 const mpc::Roles& roles, bool dealt, unsigned out_bits,
                 const std::optional<mpc::LinearShape>& next, bool after_fused,
                 std::optional<PartyId> only_to) {
  auto& spec = planned.activation;
  spec.dealt = planned.dealt_output = dealt && registry.FindLinear(linear).local;
  // The evaluators' shares of what leaves a fused layer follow from what they open.
  if (spec.dealt && planned.multiplier && !after_fused)
    spec.known_at = roles.OtherEvaluator(*planned.multiplier);
  if (!planned.Activates()) return;
  spec.only_to = only_to;
  spec.out_bits = out_bits;
  spec.next = next;
  const auto& chosen = registry.FindSuite(planned.suite.name);
  auto plan = chosen.Plan(spec, planned.suite, roles);
  planned.dealt_output = chosen.Info().dealt_output;
  planned.cost += plan.cost;
  planned.make = std::move(plan.make);
  planned.tolerance = plan.tolerance;
  planned.fused = plan.fused;
}

Plan MakePlan(const nn::PublicNetwork& network, const mpc::Registry& registry,
              const mpc::SuiteChoice& suite, const mpc::Roles& roles, std::size_t batch) {
  if (batch == 0) throw ConfigError("batch", "0 images found, at least 1 expected");
  if (!roles.AreForClients() || !IsParty(roles.helper)) mpc::CheckRoles(roles, "roles");
  Plan plan;
  plan.network = network;
  plan.roles = roles;
  plan.batch = batch;
  plan.linear = !network.linear.empty()  ? network.linear
                : roles.ModelEvaluator() ? mpc::kClearLinear
                                         : mpc::kReplicatedLinear;
  const std::size_t count = network.layers.size();
  plan.layers.resize(count);
  for (std::size_t k = 0; k < count; ++k) {
    plan.layers[k] = PrepareLayer(network.layers[k], registry, suite, plan.linear, roles, batch);
  }
  const std::vector<unsigned> rings = OutputRings(plan);
  plan.input_bits = rings.front();
  std::vector<bool> dealt{true};  // of what leaves the input and each layer
  for (std::size_t k = 0; k < count; ++k) {
    const auto& shortcut = network.layers[k].shortcut;
    FinishLayer(plan.layers[k], registry, plan.linear, roles,
                dealt[k] && (!shortcut || dealt[shortcut->from]), rings[k + 1],
                NextMap(network, k, plan.linear), k > 0 && plan.layers[k - 1].fused,
                plan.OnlyTo(k + 1));
    dealt.push_back(plan.layers[k].dealt_output);
  }
  plan.output_bits = rings.back();
  const auto third = ring::PackedBytes(network.input.shape.Size() * batch, plan.input_bits);
  const int e1 = roles.Evaluator1(), e2 = roles.Evaluator2();
  mpc::Round thirds;
  if (roles.AreForClients()) {
    thirds = {{e1, e2, third}, {e2, e1, third}};
  } else {
    const auto only = plan.OnlyTo(0);
    for (const int evaluator : {e1, e2})
      if (evaluator != roles.data_owner && only.value_or(evaluator) == evaluator)
        thirds.push_back({roles.data_owner, evaluator, third});
  }
  plan.input.Add(mpc::Phase::kOnline, std::move(thirds));
  const auto each = ring::PackedBytes(network.Classes() * batch, plan.output_bits);
  const int receiver = roles.AreForClients() ? e1 : roles.receiver;
  const auto known = plan.KnownResult();
  mpc::Round parts;
  for (int p = 0; p < 3; ++p) {
    if (p == receiver || (roles.AreForClients() && p == e2)) continue;
    if (known.at(static_cast<std::size_t>(p))) {
      plan.output.Add(mpc::Phase::kOffline, {{p, receiver, each}});
    } else {
      parts.push_back({p, receiver, each});
    }
  }
  plan.output.Add(mpc::Phase::kOnline, std::move(parts));
  return plan;
}

}  // namespace tercet::infer
