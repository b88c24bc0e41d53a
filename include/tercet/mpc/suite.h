// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tercet/mpc/archive.h"
#include "tercet/mpc/cost.h"
#include "tercet/mpc/party.h"
#include "tercet/mpc/spec.h"

/// What a suite is: one way to do the non-linear layers. Its author describes it (SuiteInfo),
/// writes a function that plans a layer (PlanFunction), which says what the layer sends and makes
/// its Activation at each party, and registers both (registry.h). Suites that deal find more in
/// dealer.h.
namespace tercet::mpc {

/// A suite's name with its options, written "lut" or "lut:chunks=3,form=bit".
struct SuiteChoice {
  std::string name;
  std::map<std::string, std::string> options;
  std::string Text() const;
};
/// Throws ConfigError (place `place`) on bad syntax.
SuiteChoice ParseSuiteChoice(std::string_view text, const std::string& place);

/// What a party keeps between Prepare and Run of one layer of one query; used once.
class Correlation {
 public:
  virtual ~Correlation() = default;
  /// Names every field to the archive, which writes or fills it.
  virtual void Visit(Archive& archive) = 0;
};

/// One activation layer at one party for the length of a run. Lives through many queries; Prepare
/// calls come in query order, and so do Run calls; the two may run in different threads, one of
/// each at a time.
class Activation {
 public:
  virtual ~Activation() = default;
  /// Offline. What Run will need; null where that is nothing.
  virtual std::unique_ptr<Correlation> Prepare(Context& /*ctx*/, std::size_t /*batch*/) {
    return nullptr;
  }
  /// An empty correlation of the kind that Prepare makes, to be filled from an archive; null where
  /// Prepare makes none.
  virtual std::unique_ptr<Correlation> NewCorrelation() const { return nullptr; }
  /// Online. `z` is this party's additive share (rows = spec.in.Size()); returns its replicated
  /// share of the output.
  virtual AnyShare Run(Context& ctx, std::unique_ptr<Correlation> correlation,
                       const AnyMatrix& z) = 0;
};

/// Makes one party's part of a layer.
using ActivationFactory = std::function<std::unique_ptr<Activation>(Party&)>;

/// How one layer is done; public, the same at all parties.
struct ActivationPlan {
  Cost cost;  ///< exact, of one query of spec.batch images
  ActivationFactory make;
  /// By how much a value of the output may differ from the oracle's; 0 of an exact suite.
  std::uint64_t tolerance = 0;
  /// The output is not shared again: the map spec.next is computed on what the evaluators have
  /// opened (DealerActivation::RunFused).
  bool fused = false;
};

/// The value of each of a suite's options, the default of those that were not chosen.
using OptionValues = std::map<std::string, std::string>;

/// Plans one layer. Throws UnsupportedError (see Refusal) where the suite cannot do it. It need not
/// check what Suite::Plan has checked, and sees no ReLU with max-pool, which is made of its ReLU.
/// Stateless; thread safe.
using PlanFunction = std::function<ActivationPlan(const ActivationSpec& spec,
                                                  const OptionValues& options, const Roles& roles)>;

/// "layer L: suite S PROBLEM", for suites to throw.
UnsupportedError Refusal(const ActivationSpec& spec, const std::string& suite,
                         const std::string& problem);

/// An option, written "name=value".
struct SuiteOption {
  std::string name;
  std::vector<std::string> values;  ///< all that it may be; the first is the default
  std::string meaning;
};

/// Nanoseconds that something takes a processor, at the slowest party.
struct ComputeModel {
  double offline_ns = 0, online_ns = 0;
};
/// What a suite asks of a processor for each element that enters the activation. What counts is how
/// suites compare, so other processors need no others than those of the built-in suites: from
/// MnistNet3 and LeNet in batches of 128 on two cores of a Xeon with AVX-512, TLS over loopback,
/// without the share of the linear layers.
struct ComputeFigures {
  ComputeModel sign;
  ComputeModel fixed_point;  ///< of all others
  ComputeModel product{};    ///< of a fused layer: an element times a weight of the next one
};

/// A choice of options that conformance tests try; suite `auto` tries those with figures.
struct SuiteVariant {
  std::string options;  ///< as after the colon of a SuiteChoice; empty for the defaults
  std::optional<ComputeFigures> figures;
};

struct SuiteInfo {
  std::string name;
  std::string summary;  ///< one line: protocol and source
  /// No party learns anything; otherwise `leaks` says what, and the suite must be asked for by
  /// name.
  bool is_private = true;
  std::string leaks;
  /// Every output is the oracle's; otherwise plans state a tolerance.
  bool exact = true;
  /// Every share that the helper holds of the output is drawn from its keys (dealer.h).
  bool dealt_output = false;
  /// Plans layers whose input is opened (ActivationSpec::opened), as it is where weights are
  /// public.
  bool takes_opened = false;
  /// Bits that the ring of a layer's input must have beyond those of its values, and the widths
  /// that it may have, narrowest first; none stand for all.
  unsigned spare_bits = 0;
  std::vector<unsigned> rings;
  std::vector<SuiteOption> options;
  std::vector<SuiteVariant> variants{{}};
};

/// Whether the layer is a tournament of the suite's ReLU: max(x, y) = y + ReLU(x - y) in
/// log2(window) rounds on additive shares, then one ReLU with the layer's truncation on what is
/// left. The function is that of ReLU followed by max-pool, since ReLU is monotone.
bool IsTournament(const ActivationSpec& spec);

/// A registered suite. Thread safe.
class Suite {
 public:
  Suite(SuiteInfo info, PlanFunction plan) : info_(std::move(info)), plan_(std::move(plan)) {}

  const SuiteInfo& Info() const { return info_; }
  /// The width of the ring that the layer's input has to be shared in: it holds the values, or the
  /// differences of two of them in a tournament. Throws UnsupportedError if none serves.
  unsigned RingBits(const ActivationSpec& spec) const;
  /// Throws ConfigError unless all that is chosen is an option of the suite, and one of its values.
  OptionValues Options(const SuiteChoice& choice) const;
  SuiteChoice Choice(const SuiteVariant& variant) const;
  /// Throws UnsupportedError (naming layer and what is supported) or ConfigError (options). A
  /// tournament costs what its rounds cost; hops add up.
  ActivationPlan Plan(const ActivationSpec& spec, const SuiteChoice& choice,
                      const Roles& roles) const;

 private:
  unsigned NeededBits(const ActivationSpec& spec) const;

  SuiteInfo info_;
  PlanFunction plan_;
};

}  // namespace tercet::mpc
