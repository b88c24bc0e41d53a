// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "tercet/mpc/cost.h"
#include "tercet/mpc/party.h"
#include "tercet/mpc/spec.h"

/// What a protocol of linear layers is: a name and a function that plans a layer, as those of
/// suites (suite.h) do.
namespace tercet::mpc {

/// Halves of a share that are known offline.
struct KnownHalves {
  explicit KnownHalves(const AnyShare& share)
      : mine(!share.mine.Empty()), next(!share.next.Empty()) {}
  bool mine, next;
};

/// One linear layer at one party. Prepare and Run may be in different threads, one of each at a
/// time; of a local protocol any number, with contexts of several sessions.
class Linear {
 public:
  virtual ~Linear() = default;
  /// Offline. What the known halves of x give of this party's additive share of W x + b.
  virtual AnyMatrix Prepare(Context& ctx, std::size_t batch, const AnyShare& known) = 0;
  /// Online. Adds the rest, now that x is complete: `known` says which halves Prepare has used. The
  /// half that the helper does not have is looked at by the plan's `multiplier` alone, if there is
  /// one.
  virtual AnyMatrix Run(Context& ctx, AnyMatrix partial, KnownHalves known, const AnyShare& x) = 0;
};

struct LinearSpec {
  std::string layer;  ///< unique name within the network
  LinearShape shape;
  unsigned ring_bits = 0;
  std::size_t batch = 1;
  /// What follows takes an opened result (ActivationSpec::opened). Only of protocols whose weights
  /// are public.
  bool opened = false;
};

/// Makes one party's part from its shares of weights (rows = out_channels, columns = depth) and
/// bias (rows = BiasCount, one column). `clear` has the weights themselves, at their owner where
/// the plan has a `multiplier`; else it is empty. Of public weights all parties have `clear`, and
/// the bias itself as the half `mine`; the rest is empty.
using LinearFactory = std::function<std::unique_ptr<Linear>(
    Party&, const AnyShare& weight, const AnyShare& bias, const AnyMatrix& clear)>;

struct LinearPlan {
  Cost cost;  ///< exact, of one query of spec.batch images
  LinearFactory make;
  /// The evaluator that alone multiplies what comes online: where all halves of x that the helper
  /// has are known offline, so is the other evaluator's share of the result. None where both
  /// evaluators multiply.
  std::optional<PartyId> multiplier{};
};

/// Thread safe.
struct LinearProtocol {
  std::string name;
  std::string summary;  ///< one line: protocol and source
  /// Sends nothing, so that what is known of an output follows from what is known of the input, and
  /// draws nothing, so that queries side by side may use one part of it.
  bool local = true;
  /// The model's owner tells the weights to all parties. Used only where all ask for it by name.
  bool public_weights = false;
  /// Throws UnsupportedError where it does not serve these roles.
  std::function<LinearPlan(const LinearSpec& spec, const Roles& roles)> plan;
};

}  // namespace tercet::mpc
