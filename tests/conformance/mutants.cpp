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

namespace tercet::conformance {
namespace {

using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::Party;
using mpc::Roles;

/// One layer at one party.
struct Layer {
  ActivationSpec spec;
  mpc::SuiteChoice choice;  // of lut
  Roles roles;
  int party;
};

/// What is drawn, in this order from each key for each query of a layer.
enum Step : std::size_t { kOpenMask, kFlagsMask, kTables };

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

class MutantActivation final : public mpc::Activation {
 public:
  MutantActivation(Layer layer, std::unique_ptr<Tamper> tamper,
                   std::unique_ptr<mpc::Activation> inner, ChangeKnown change_known)
      : layer_(std::move(layer)),
        tamper_(std::move(tamper)),
        inner_(std::move(inner)),
        change_known_(change_known) {}

  mpc::Prepared Prepare(mpc::Context& ctx, std::size_t batch, const AnyMatrix* z) override {
    tamper_->BeginQuery();
    auto prepared = inner_->Prepare(ctx, batch, z);
    if (change_known_ != nullptr) change_known_(layer_, prepared.known);
    return prepared;
  }
  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return inner_->NewCorrelation();
  }
  mpc::AnyShare Run(mpc::Context& ctx, mpc::Prepared prepared, const AnyMatrix& z) override {
    return inner_->Run(ctx, std::move(prepared), z);
  }

 private:
  Layer layer_;
  std::unique_ptr<Tamper> tamper_;  // outlives what it watches
  std::unique_ptr<mpc::Activation> inner_;
  ChangeKnown change_known_;
};

class MutantSuite final : public mpc::Suite {
 public:
  /// `make` gives a party's changes, and may open streams of its keys.
  using Make = Change (*)(Party&, const Layer&);
  MutantSuite(std::string name, const mpc::Suite& lut, Make make, ChangeKnown change_known)
      : lut_(lut), info_(lut.Info()), make_(make), change_known_(change_known) {
    info_.name = std::move(name);
    info_.summary = "lut with a faulty mask";
  }

  const mpc::SuiteInfo& Info() const override { return info_; }
  unsigned RingBits(unsigned value_bits) const override { return lut_.RingBits(value_bits); }
  void Check(const ActivationSpec& spec, const mpc::SuiteChoice& choice) const override {
    lut_.Check(spec, choice);
  }
  mpc::Cost Costs(const ActivationSpec& spec, const mpc::SuiteChoice& choice,
                  const Roles& roles) const override {
    return lut_.Costs(spec, choice, roles);
  }
  std::unique_ptr<mpc::Activation> Create(Party& party, const ActivationSpec& spec,
                                          const mpc::SuiteChoice& choice,
                                          const Roles& roles) const override {
    const Layer layer{spec, {"lut", choice.options}, roles, party.Id()};
    auto tamper = std::make_unique<Tamper>(layer, make_(party, layer));
    crypto::DrawObserver* before = TestAccess::Observe(party.Keys(), tamper.get());
    tamper->Follow(before);
    auto inner = lut_.Create(party, spec, choice, roles);
    TestAccess::Observe(party.Keys(), before);
    return std::make_unique<MutantActivation>(layer, std::move(tamper), std::move(inner),
                                              change_known_);
  }

 private:
  const mpc::Suite& lut_;
  mpc::SuiteInfo info_;
  Make make_;
  ChangeKnown change_known_;
};

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

Change MaskTwice(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!IsWithE1(place, kTables)) return;
    // The rows of the first two chunks of each element, one after the other.
    const auto layout = protocols::lut::MakeLayout(place.layer.spec, place.layer.choice);
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
  MutantSuite::Make make;
  ChangeKnown change_known;
};
constexpr std::array<Mutant, 5> kMutants{{{"own_key", OwnKey, nullptr},
                                          {"bare_bits", BareBits, nullptr},
                                          {"bare_share", Nothing, BareShare},
                                          {"mask_twice", MaskTwice, nullptr},
                                          {"bare_top", BareTop, nullptr}}};

}  // namespace

std::vector<std::string> MutantNames() {
  std::vector<std::string> names;
  for (const auto& mutant : kMutants) names.emplace_back(mutant.name);
  return names;
}

void RegisterMutants(mpc::Registry& registry, const mpc::Suite& lut) {
  for (const auto& [name, make, change_known] : kMutants)
    registry.AddSuite(std::make_unique<MutantSuite>(name, lut, make, change_known));
}

}  // namespace tercet::conformance
