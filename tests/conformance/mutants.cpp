// SPDX-License-Identifier: Apache-2.0
#include "conformance/mutants.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "conformance/pinned.h"
#include "suites/lut/layout.h"
#include "tercet/base/error.h"
#include "tercet/mpc/dealer.h"

namespace tercet::conformance {
namespace {

using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::Party;
using mpc::Roles;

/// One layer at one party.
struct Layer {
  ActivationSpec spec;
  mpc::OptionValues options;  // of lut
  Roles roles;
  int party;
};

/// What is drawn, in this order from each key for each query of a layer.
enum Step : std::size_t { kOpenMask, kFlagsMask, kTables, kCoefficients, kIndexMask };

struct Place {
  const Layer& layer;
  int key;
  std::size_t step;
};

/// Changes draws of one party's activation.
using Change = std::function<void(const Place&, std::span<std::uint8_t>)>;

class Tamper final : public crypto::DrawObserver {
 public:
  Tamper(Layer layer, Change change) : layer_(std::move(layer)), change_(std::move(change)) {}

  void Follow(crypto::DrawObserver* before) { before_ = before; }
  void BeginQuery() { steps_.clear(); }
  void OnDraw(crypto::PrfUse use, std::span<std::uint8_t> drawn) override {
    const int key = use.key;
    const bool masks = key < 3 && use.purpose == layer_.spec.layer + "/lut";
    if (before_ != nullptr) before_->OnDraw(std::move(use), drawn);
    if (masks) change_({layer_, key, steps_[key]++}, drawn);
  }

 private:
  Layer layer_;
  Change change_;
  crypto::DrawObserver* before_ = nullptr;
  std::map<int, std::size_t> steps_;
};

/// Changes what is known of the output, once it is drawn.
using ChangeKnown = void (*)(const Layer&, mpc::AnyShare& known);

class MutantActivation final : public mpc::DealerActivation {
 public:
  MutantActivation(Layer layer, std::unique_ptr<Tamper> tamper,
                   std::unique_ptr<mpc::Activation> inner, ChangeKnown change_known)
      : layer_(std::move(layer)),
        tamper_(std::move(tamper)),
        inner_(std::move(inner)),
        change_known_(change_known) {}

  std::unique_ptr<mpc::DealtCorrelation> Deal(mpc::Context& ctx, std::size_t batch,
                                              const AnyMatrix* z) override {
    tamper_->BeginQuery();
    auto dealt = dynamic_cast<mpc::DealerActivation&>(*inner_).Deal(ctx, batch, z);
    // It keeps what it has dealt, whose owner may change it.
    if (change_known_ != nullptr) change_known_(layer_, const_cast<mpc::AnyShare&>(dealt->Known()));
    return dealt;
  }
  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return inner_->NewCorrelation();
  }
  mpc::AnyShare Run(mpc::Context& ctx, std::unique_ptr<mpc::Correlation> correlation,
                    const AnyMatrix& z) override {
    return inner_->Run(ctx, std::move(correlation), z);
  }

 private:
  Layer layer_;
  std::unique_ptr<Tamper> tamper_;  // outlives what it watches
  std::unique_ptr<mpc::Activation> inner_;
  ChangeKnown change_known_;
};

/// Gives a party's changes, and may open streams of its keys.
using MakeChange = Change (*)(Party&, const Layer&);

void Zero(std::span<std::uint8_t> drawn) { std::fill(drawn.begin(), drawn.end(), std::uint8_t{0}); }

void ExpectBytes(const Place& place, std::size_t found, std::size_t expected) {
  TERCET_CHECK(found == expected,
               "draw {} from key {} at party {} has {} bytes, not {}: the order of lut's draws has "
               "changed, and the mutants with it",
               place.step, place.key, place.layer.party, found, expected);
}

template <class F>
void ForWords(const Place& place, std::span<std::uint8_t> drawn, F&& f) {
  const unsigned bits = place.layer.spec.ring_bits;
  ExpectBytes(place, drawn.size(), place.layer.spec.Elements() * ring::WordBytes(bits));
  ring::DispatchWord(bits, [&]<mpc::Word W>(W) {
    for (std::size_t at = 0; at < drawn.size(); at += sizeof(W)) {
      W word;
      std::memcpy(&word, drawn.data() + at, sizeof(W));
      word = static_cast<W>(f(word));
      std::memcpy(drawn.data() + at, &word, sizeof(W));
    }
  });
}

// The masks cancel each other, so that D has nothing to subtract.
Change OwnKey(Party& party, const Layer& layer) {
  std::shared_ptr<crypto::PrfStream> between;
  if (party.Id() != layer.roles.helper)
    between = std::make_shared<crypto::PrfStream>(
        party.Keys().Open(layer.roles.Evaluator2(), layer.spec.layer + "/own key"));
  return [between](const Place& place, std::span<std::uint8_t> drawn) {
    if (place.step > kFlagsMask) return;
    if (place.layer.party == place.layer.roles.helper) {
      Zero(drawn);
      return;
    }
    between->Fill(drawn);
    if (place.step == kOpenMask && place.layer.party == place.layer.roles.Evaluator2())
      ForWords(place, drawn, [](auto word) { return ~word + 1; });
  };
}

bool IsWithE1(const Place& place, Step step) {
  return place.key == place.layer.roles.Evaluator1() && place.step == step;
}

Change BareBits(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (IsWithE1(place, kFlagsMask)) Zero(drawn);
  };
}

Change BareIndex(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (place.layer.spec.kind != mpc::ActivationKind::kTable || !IsWithE1(place, kIndexMask))
      return;
    ExpectBytes(place, drawn.size(), place.layer.spec.Elements());
    Zero(drawn);
  };
}

Change MaskTwice(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!IsWithE1(place, kTables)) return;
    // The rows of the first two chunks of each element, one after the other.
    const auto layout = protocols::lut::MakeLayout(place.layer.spec, place.layer.options);
    TERCET_CHECK(layout.chunks.size() > 1, "layer {} has one chunk", place.layer.spec.layer);
    const std::size_t count = std::min(place.layer.spec.Elements(), protocols::lut::kBlock);
    ExpectBytes(place, drawn.size(), count * layout.ElementBytes());
    const std::size_t first = protocols::lut::RowBytes(layout.chunks[0]),
                      second = protocols::lut::RowBytes(layout.chunks[1]);
    TERCET_CHECK(first == second, "rows of {} and {} bytes", first, second);
    std::copy_n(drawn.begin(), count * first,
                drawn.begin() + static_cast<std::ptrdiff_t>(count * first));
  };
}

Change BareTop(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!IsWithE1(place, kOpenMask)) return;
    const std::uint64_t low = ring::LowMask<std::uint64_t>(place.layer.spec.value_bits - 1);
    ForWords(place, drawn, [low](auto word) { return word & low; });
  };
}

Change Nothing(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place&, std::span<std::uint8_t>) {};
}

void BareShare(const Layer& layer, mpc::AnyShare& known) {
  if (layer.party == layer.roles.Evaluator2()) return;
  AnyMatrix& x = layer.party == layer.roles.helper ? known.next : known.mine;
  ring::DispatchWord(x.Bits(), [&]<mpc::Word W>(W) {
    for (auto& v : x.As<W>()) v = 0;
  });
}

struct Mutant {
  const char* name;
  MakeChange make;
  ChangeKnown change_known;
};
constexpr std::array<Mutant, 6> kMutants{{{"own_key", OwnKey, nullptr},
                                          {"bare_bits", BareBits, nullptr},
                                          {"bare_share", Nothing, BareShare},
                                          {"mask_twice", MaskTwice, nullptr},
                                          {"bare_top", BareTop, nullptr},
                                          {"bare_index", BareIndex, nullptr}}};

}  // namespace

std::vector<std::string> MutantNames() {
  std::vector<std::string> names;
  for (const auto& mutant : kMutants) names.emplace_back(mutant.name);
  return names;
}

void RegisterMutants(mpc::Registry& registry, const mpc::Suite& lut) {
  for (const auto& [name, make, change_known] : kMutants) {
    mpc::SuiteInfo info = lut.Info();
    info.name = name;
    info.summary = "lut with a faulty mask";
    registry.AddSuite(info, [&lut, make = make, change_known = change_known](
                                const ActivationSpec& spec, const mpc::OptionValues& options,
                                const Roles& roles) {
      mpc::ActivationPlan plan = lut.Plan(spec, {"lut", options}, roles);
      plan.make = [=, make_lut = plan.make](Party& party) {
        const Layer layer{spec, options, roles, party.Id()};
        auto tamper = std::make_unique<Tamper>(layer, make(party, layer));
        crypto::DrawObserver* before = TestAccess::Observe(party.Keys(), tamper.get());
        tamper->Follow(before);
        auto inner = make_lut(party);
        TestAccess::Observe(party.Keys(), before);
        return std::make_unique<MutantActivation>(layer, std::move(tamper), std::move(inner),
                                                  change_known);
      };
      return plan;
    });
  }
}

}  // namespace tercet::conformance
