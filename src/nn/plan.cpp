#include "tercet/nn/plan.h"

#include "tercet/crypto/certificates.h"
#include "tercet/ring/pack.h"

namespace tercet::nn {

mpc::Cost Plan::Total() const {
  mpc::Cost total = input;
  for (const auto& layer : layers) total += layer.cost;
  total += output;
  return total;
}

std::vector<std::uint32_t> Plan::OnlineHops() const {
  mpc::Cost so_far = input;
  std::vector<std::uint32_t> hops{so_far.OnlineHops()};
  std::uint32_t before = hops.front();
  const auto add = [&](const mpc::Cost& cost) {
    so_far += cost;
    hops.push_back(so_far.OnlineHops() - before);
    before = so_far.OnlineHops();
  };
  for (const auto& layer : layers) add(layer.cost);
  add(output);
  return hops;
}

std::vector<std::string> Plan::Warnings(const mpc::Registry& registry) const {
  std::vector<std::string> warnings;
  for (const auto& layer : layers) {
    if (layer.suite.name.empty()) continue;
    const auto& info = registry.FindSuite(layer.suite.name).Info();
    if (!info.is_private)
      warnings.push_back(fmt::format("layer {} uses suite {}, which is NOT private: {}",
                                     layer.layer.name, info.name, info.leaks));
  }
  return warnings;
}

std::string Plan::Digest() const {
  std::string text = PublicNetworkToJson(network);
  text += fmt::format("|roles {} {} {} {}|", roles.helper, roles.data_owner, roles.model_owner,
                      roles.receiver);
  for (const auto& layer : layers)
    text += fmt::format("{} {} {} {};", layer.layer.name, layer.suite.Text(),
                        layer.activation.ring_bits, layer.activation.out_bits);
  return crypto::Sha256Hex(text);
}

Plan MakePlan(const PublicNetwork& network, const mpc::Registry& registry,
              const mpc::SuiteChoice& suite, const mpc::Roles& roles, std::size_t batch) {
  if (batch == 0) throw ConfigError("batch", "0 images found, at least 1 expected");
  if (roles.data_owner == roles.helper || roles.receiver == roles.helper)
    throw ConfigError(
        "roles",
        fmt::format(
            "party {} is the helper, so it can neither own the input nor receive the result",
            roles.helper));
  Plan plan;
  plan.network = network;
  plan.roles = roles;
  plan.batch = batch;
  const std::size_t count = network.layers.size();
  plan.layers.resize(count);
  for (std::size_t k = 0; k < count; ++k) {
    auto& planned = plan.layers[k];
    planned.layer = network.layers[k];
    auto& spec = planned.activation;
    spec.layer = planned.layer.name;
    spec.kind = planned.layer.activation;
    spec.in = planned.layer.linear.Out();
    spec.pool = planned.layer.pool;
    spec.value_bits = spec.ring_bits = planned.layer.value_bits;
    spec.batch = batch;
    if (k + 1 == count) continue;
    planned.suite = planned.layer.suite.empty()
                        ? suite
                        : mpc::ParseSuiteChoice(planned.layer.suite, "layer " + planned.layer.name);
    spec.ring_bits = registry.FindSuite(planned.suite.name).RingBits(spec.value_bits);
  }
  for (std::size_t k = 0; k < count; ++k) {
    auto& planned = plan.layers[k];
    planned.activation.dealt = k == 0 || plan.layers[k - 1].dealt_output;
    planned.dealt_output = planned.activation.dealt;
    if (k + 1 == count) break;
    planned.activation.out_bits = plan.layers[k + 1].activation.ring_bits;
    const auto& chosen = registry.FindSuite(planned.suite.name);
    chosen.Check(planned.activation, planned.suite);
    planned.dealt_output = chosen.Info().dealt_output;
    planned.cost = chosen.Costs(planned.activation, planned.suite, roles);
  }
  plan.input.Add(mpc::Phase::kOnline,
                 {{roles.data_owner, 3 - roles.helper - roles.data_owner,
                   ring::PackedBytes(network.input.shape.Size() * batch,
                                     plan.layers.front().activation.ring_bits)}});
  const auto& last = plan.layers.back().activation;
  const auto each = ring::PackedBytes(network.Classes() * batch, last.ring_bits);
  mpc::Round parts;
  for (int p = 0; p < 3; ++p) {
    if (p == roles.receiver) continue;
    if (p == roles.helper && last.dealt) {
      plan.output.Add(mpc::Phase::kOffline, {{p, roles.receiver, each}});
    } else {
      parts.push_back({p, roles.receiver, each});
    }
  }
  plan.output.Add(mpc::Phase::kOnline, std::move(parts));
  return plan;
}

}  // namespace tercet::nn
