// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "tercet/mpc/registry.h"
#include "tercet/nn/integer_network.h"

namespace tercet::infer {

inline constexpr std::size_t kMaxBatch = 4096;  ///< images a query, in the programs and in files

/// How one layer is computed securely, and what that costs for one query (one batch).
struct PlannedLayer {
  nn::PublicLayer layer;
  mpc::SuiteChoice suite;  ///< empty name for a last layer without activation
  mpc::ActivationSpec activation;
  bool dealt_output = true;
  /// The evaluator that alone multiplies online (mpc::LinearPlan), if one does.
  std::optional<PartyId> multiplier;
  mpc::Cost cost;
  mpc::ActivationFactory make;  ///< null without activation
  std::uint64_t tolerance = 0;  ///< see mpc::ActivationPlan
  bool fused = false;           ///< with the linear map of the next layer; likewise

  /// Whether an activation follows the linear map.
  bool Activates() const { return activation.kind != mpc::ActivationKind::kNone; }
};

/// One step of a query.
struct PlanStep {
  /// "input", of the layer, or "output".
  std::string name, type;
  /// Null for input and output. Both pointers are into the plan.
  const PlannedLayer* layer = nullptr;
  const mpc::Cost* cost = nullptr;
  /// What leaves it, before a sum_pool.
  mpc::Shape3 out;
  /// By how much it lengthens the longest chain of dependent online messages.
  std::uint32_t hops = 0;
};

/// The whole query: input, layers, output. The measured bytes and hops equal these figures exactly.
struct Plan {
  nn::PublicNetwork network;
  mpc::Roles roles;
  std::size_t batch = 1;
  std::string linear;  ///< the linear layers' protocol
  std::vector<PlannedLayer> layers;
  mpc::Cost input, output;
  unsigned input_bits = 0;   ///< ring that the input is shared in
  unsigned output_bits = 0;  ///< ring that the result is opened in

  mpc::Cost Total() const;
  /// How many queries classify that many images.
  std::size_t Queries(std::size_t images) const { return (images + batch - 1) / batch; }
  /// Input, layers, output; their hops add up to Total().OnlineHops().
  std::vector<PlanStep> Steps() const;
  /// Whose parts of what the receiver opens are known offline, and sent then: the helper's where
  /// the result is dealt, and that of an evaluator that does not multiply.
  std::array<bool, 3> KnownResult() const;
  /// The evaluator that alone needs what leaves the input (0) or a layer (1, 2, ...): the
  /// multiplier of all that take it in. None where both evaluators need it, and of the last layer.
  std::optional<PartyId> OnlyTo(std::size_t from) const;
  /// Whether the helper sends or receives anything online. Where not, its part of a query ends with
  /// the query's material, and it may leave.
  bool HelperActsOnline() const;
  /// Public weights, suites in use that are not private, with what they leak, or not exact, and
  /// layers whose width is not proven; empty when everything is private and exact.
  std::vector<std::string> Warnings(const mpc::Registry& registry) const;
  /// SHA-256 of all that the parties must agree on: protocols, widths, roles.
  std::string Digest() const;
};

/// What Plan::Warnings says of a layer whose width is not proven.
std::string NotProvenText(const nn::PublicLayer& layer);

/// Uses `suite` for every layer that does not name its own, and for all linear maps the protocol
/// that `network` names; where it names none "clear" if the model's owner is an evaluator, since it
/// takes no more bytes, hops online or products of any party than "replicated", used elsewhere.
/// Throws UnsupportedError / ConfigError naming the layer, and ConfigError for a batch of 0 or a
/// role that is no party.
Plan MakePlan(const nn::PublicNetwork& network, const mpc::Registry& registry,
              const mpc::SuiteChoice& suite, const mpc::Roles& roles, std::size_t batch);

}  // namespace tercet::infer
