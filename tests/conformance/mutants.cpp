// SPDX-License-Identifier: Apache-2.0
#include "conformance/mutants.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <utility>

#include "conformance/pinned.h"
#include "suites/aby3/layout.h"
#include "suites/fss/layout.h"
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
  std::string suite;  // of which it is a mutant
  ActivationSpec spec;
  mpc::OptionValues options;
  Roles roles;
  int party;
};

/// What a draw is for.
enum class Use {
  kOther,
  kOpenMask,   ///< masks of the value in open_masked
  kFlagsMask,  ///< of the evaluators' masks of what they open: D has their XOR
  kOpenedBit,  ///< shares of a random bit that masks an opened one
  kRows,       ///< masks of rows, or the roots they come from
  kReshare,    ///< shares, or shares of 0, in a reshare
  kIndexMask,  ///< of a table's index
  kSelection,  ///< of a selection's bits
  kPartsMask,  ///< of flags that follow from those of groups
  kOrMask,     ///< of the OR of a window, where that is a bit
  kDealt       ///< masks of D's elements, and of their products in a fused layer
};

/// The `draw`-th from a stream of a query of a layer.
struct Place {
  const Layer& layer;
  int key;
  std::string stream;  ///< what follows the layer's name
  std::size_t draw;
  std::size_t bytes;

  Use Means() const;
  bool IsWithE1(Use use) const { return key == layer.roles.Evaluator1() && Means() == use; }
};

/// The suites' draws in their order.
Use Place::Means() const {
  // Nothing is drawn to open what is opened already.
  const bool opened = layer.spec.opened && (layer.spec.dealt || layer.suite == "aby3");
  const std::size_t step = draw + (opened ? 1 : 0);
  if (layer.suite == "aby3") {
    if (stream == "aby3/open" && step == 0) return Use::kOpenMask;
    if (stream == "aby3/open" && step == 1) return Use::kRows;
    if (stream == "aby3/r") return Use::kOpenedBit;
    for (const char* reshare :
         {"aby3/adder/leaves", "aby3/adder/zero", "aby3/zero_masks", "aby3/zero_bits", "aby3/zero"})
      if (stream == reshare) return Use::kReshare;
    return Use::kOther;
  }
  if (stream != layer.suite) return Use::kOther;
  if (step == 0) return Use::kOpenMask;
  if (layer.suite == "lut" && layer.options.at("form") == "tree" &&
      layer.spec.kind != mpc::ActivationKind::kTable) {
    // The planes that are opened, then rows, then what a selection opens.
    const auto sizes = protocols::lut::MakeLayout(layer.spec, layer.options).Sizes();
    const auto planes = static_cast<std::size_t>(std::count_if(
        sizes.begin(), sizes.end(), [](const auto& plane) { return plane.opened > 0; }));
    if (step <= planes) return step == planes ? Use::kPartsMask : Use::kFlagsMask;
    if (step == planes + 1) return Use::kRows;
    return step == planes + 2 && !layer.spec.pool ? Use::kSelection : Use::kOther;
  }
  if (layer.suite == "lut") {
    if (layer.spec.next) {
      // Of a selection after a mask of the bit; one piece of one block.
      const auto layout = protocols::lut::MakeLayout(layer.spec, layer.options);
      if (step == (layout.arithmetic ? 3U : 4U)) return Use::kDealt;
    }
    if (layer.spec.pool && step == 5) return Use::kOrMask;  // after one OR step
    if (step == 3 && !layer.spec.pool && layer.spec.kind != mpc::ActivationKind::kTable &&
        !protocols::lut::MakeLayout(layer.spec, layer.options).arithmetic)
      return Use::kSelection;
    constexpr std::array<Use, 4> kLut{Use::kFlagsMask, Use::kRows, Use::kOther, Use::kIndexMask};
    return step <= kLut.size() ? kLut[step - 1] : Use::kOther;
  }
  const auto layout = protocols::fss::MakeLayout(layer.spec, layer.options);
  if (step <= layout.shapes.size()) return Use::kRows;
  // Selection, or the first OR step.
  return step == layout.shapes.size() + 1 && !layout.arithmetic ? Use::kFlagsMask : Use::kOther;
}

/// Changes draws of one party's activation.
using Change = std::function<void(const Place&, std::span<std::uint8_t>)>;

class Tamper final : public crypto::DrawObserver {
 public:
  Tamper(Layer layer, Change change) : layer_(std::move(layer)), change_(std::move(change)) {}

  void Follow(crypto::DrawObserver* before) { before_ = before; }
  void BeginPhase() { steps_.clear(); }
  void OnDraw(crypto::PrfUse use, std::span<std::uint8_t> drawn) override {
    const int key = use.key;
    const std::string prefix = layer_.spec.layer + "/";
    const bool masks = key < 3 && use.purpose.starts_with(prefix);
    std::string stream = masks ? use.purpose.substr(prefix.size()) : "";
    if (before_ != nullptr) before_->OnDraw(std::move(use), drawn);
    if (!masks) return;
    const std::size_t step = steps_[{key, stream}]++;
    change_({layer_, key, std::move(stream), step, drawn.size()}, drawn);
  }

 private:
  Layer layer_;
  Change change_;
  crypto::DrawObserver* before_ = nullptr;
  std::map<std::pair<int, std::string>, std::size_t> steps_;
};

/// Changes what is known of the output, once it is drawn.
using ChangeKnown = void (*)(const Layer&, mpc::AnyShare& known);

/// A suite whose draws are changed; `Base` is mpc::DealerActivation where it has a dealer.
template <class Base>
class MutantActivation : public Base {
 public:
  MutantActivation(std::unique_ptr<Tamper> tamper, std::unique_ptr<mpc::Activation> inner)
      : tamper_(std::move(tamper)), inner_(std::move(inner)) {}

  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return inner_->NewCorrelation();
  }
  mpc::AnyShare Run(mpc::Context& ctx, std::unique_ptr<mpc::Correlation> correlation,
                    const AnyMatrix& z) override {
    tamper_->BeginPhase();
    return inner_->Run(ctx, std::move(correlation), z);
  }

 protected:
  std::unique_ptr<Tamper> tamper_;  // outlives what it watches
  std::unique_ptr<mpc::Activation> inner_;
};

class WithDealer final : public MutantActivation<mpc::DealerActivation> {
 public:
  WithDealer(Layer layer, std::unique_ptr<Tamper> tamper, std::unique_ptr<mpc::Activation> inner,
             ChangeKnown change_known)
      : MutantActivation(std::move(tamper), std::move(inner)),
        layer_(std::move(layer)),
        change_known_(change_known) {}

  std::unique_ptr<mpc::DealtCorrelation> Deal(mpc::Context& ctx, std::size_t batch,
                                              const AnyMatrix* z) override {
    tamper_->BeginPhase();
    auto dealt = dynamic_cast<mpc::DealerActivation&>(*inner_).Deal(ctx, batch, z);
    // It keeps what it has dealt, whose owner may change it.
    if (change_known_ != nullptr) change_known_(layer_, const_cast<mpc::AnyShare&>(dealt->Known()));
    return dealt;
  }
  void Fuse(std::shared_ptr<const AnyMatrix> columns) override {
    mpc::FusedOf(*inner_).Fuse(std::move(columns));
  }
  mpc::AnyShare RunFused(mpc::Context& ctx, std::unique_ptr<mpc::Correlation> correlation,
                         const AnyMatrix& z, AnyMatrix& next) override {
    tamper_->BeginPhase();
    return mpc::FusedOf(*inner_).RunFused(ctx, std::move(correlation), z, next);
  }

 private:
  Layer layer_;
  ChangeKnown change_known_;
};

class WithoutDealer final : public MutantActivation<mpc::Activation> {
 public:
  using MutantActivation::MutantActivation;
  std::unique_ptr<mpc::Correlation> Prepare(mpc::Context& ctx, std::size_t batch) override {
    tamper_->BeginPhase();
    return inner_->Prepare(ctx, batch);
  }
};

/// Gives a party's changes, and may open streams of its keys.
using MakeChange = Change (*)(Party&, const Layer&);

void Zero(std::span<std::uint8_t> drawn) { std::fill(drawn.begin(), drawn.end(), std::uint8_t{0}); }

void ExpectBytes(const Place& place, std::size_t expected) {
  TERCET_CHECK(
      place.bytes == expected,
      "draw {} of {} from key {} at party {} has {} bytes, not {}: the order of {}'s draws "
      "has changed, and the mutants with it",
      place.draw, place.stream, place.key, place.layer.party, place.bytes, expected,
      place.layer.suite);
}

template <class F>
void ForWords(const Place& place, std::span<std::uint8_t> drawn, F&& f) {
  const unsigned bits = place.layer.spec.ring_bits;
  ExpectBytes(place, place.layer.spec.Elements() * ring::WordBytes(bits));
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
    const Use use = place.Means();
    if (use != Use::kOpenMask && use != Use::kFlagsMask) return;
    if (place.layer.party == place.layer.roles.helper) {
      Zero(drawn);
      return;
    }
    between->Fill(drawn);
    if (use == Use::kOpenMask && place.layer.party == place.layer.roles.Evaluator2())
      ForWords(place, drawn, [](auto word) { return ~word + 1; });
  };
}

Change BareBits(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (place.IsWithE1(Use::kFlagsMask) || place.IsWithE1(Use::kOpenedBit)) Zero(drawn);
  };
}

Change BareIndex(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (place.layer.spec.kind != mpc::ActivationKind::kTable || !place.IsWithE1(Use::kIndexMask))
      return;
    ExpectBytes(place, place.layer.spec.Elements());
    Zero(drawn);
  };
}

Change BareProduct(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!place.IsWithE1(Use::kSelection)) return;
    ExpectBytes(place, place.layer.spec.Elements());
    for (auto& mask : drawn) mask &= 1;
  };
}

Change BareParts(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!place.IsWithE1(Use::kPartsMask)) return;
    ExpectBytes(place, place.layer.spec.Elements());
    Zero(drawn);
  };
}

Change BareOr(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!place.layer.spec.pool || !place.IsWithE1(Use::kOrMask)) return;
    ExpectBytes(place, place.layer.spec.Outputs());
    Zero(drawn);
  };
}

// How many bytes mask the first row, or the rows of the first chunks of all elements: as many
// follow for the second.
std::size_t BytesOfRows(const Place& place) {
  const Layer& layer = place.layer;
  if (layer.suite == "fss") {
    ExpectBytes(place, layer.spec.Elements() * 16);
    return 16;  // a root
  }
  if (layer.suite == "aby3") {
    const protocols::aby3::Layout layout(layer.spec);
    const auto rows = layout.carries.front().SharedRows();
    TERCET_CHECK(rows > 1 && place.bytes % (8 * rows) == 0, "{} bytes of {} rows", place.bytes,
                 rows);
    return place.bytes / rows;
  }
  const auto layout = protocols::lut::MakeLayout(layer.spec, layer.options);
  TERCET_CHECK(layout.chunks.size() > 1, "layer {} has one chunk", layer.spec.layer);
  const std::size_t count = std::min(layer.spec.Elements(), protocols::lut::kBlock);
  ExpectBytes(place, count * layout.ElementBytes());
  const std::size_t first = protocols::lut::RowBytes(layout.chunks[0]),
                    second = protocols::lut::RowBytes(layout.chunks[1]);
  TERCET_CHECK(first == second, "rows of {} and {} bytes", first, second);
  return count * first;
}

Change MaskTwice(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!place.IsWithE1(Use::kRows)) return;
    const std::size_t bytes = BytesOfRows(place);
    std::copy_n(drawn.begin(), bytes, drawn.begin() + static_cast<std::ptrdiff_t>(bytes));
  };
}

// `change` gets the masks of one element of D's and of its products, by words.
template <class F>
void ForDealt(const Place& place, std::span<std::uint8_t> drawn, F&& change) {
  const auto& spec = place.layer.spec;
  const std::size_t word = ring::WordBytes(spec.out_bits);
  const std::size_t group = (1 + spec.next->out_channels) * word;
  TERCET_CHECK(!drawn.empty() && drawn.size() % group == 0, "{} bytes of {} each", drawn.size(),
               group);
  for (std::size_t at = 0; at < drawn.size(); at += group) change(drawn.subspan(at, group), word);
}

Change BareProducts(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!place.IsWithE1(Use::kDealt)) return;
    ForDealt(place, drawn, [](auto masks, std::size_t word) { Zero(masks.subspan(word)); });
  };
}

Change ProductsTwice(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!place.IsWithE1(Use::kDealt)) return;
    ForDealt(place, drawn, [](auto masks, std::size_t word) {
      std::copy_n(masks.begin() + static_cast<std::ptrdiff_t>(word), word,
                  masks.begin() + static_cast<std::ptrdiff_t>(2 * word));
    });
  };
}

Change BareTop(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (!place.IsWithE1(Use::kOpenMask)) return;
    const std::uint64_t low = ring::LowMask<std::uint64_t>(place.layer.spec.value_bits - 1);
    ForWords(place, drawn, [low](auto word) { return word & low; });
  };
}

// Where nothing is dealt. See BareKnown.
Change BareShare(Party& /*party*/, const Layer& /*layer*/) {
  return [](const Place& place, std::span<std::uint8_t> drawn) {
    if (place.IsWithE1(Use::kReshare)) Zero(drawn);
  };
}

void BareKnown(const Layer& layer, mpc::AnyShare& known) {
  if (layer.party == layer.roles.Evaluator2()) return;
  AnyMatrix& x = layer.party == layer.roles.helper ? known.next : known.mine;
  if (x.Empty() || x.IsZero()) return;  // nothing is shared again in a fused layer
  ring::DispatchWord(x.Bits(), [&]<mpc::Word W>(W) {
    for (auto& v : x.As<W>()) v = 0;
  });
}

struct Mutant {
  const char* name;
  MakeChange make;
  ChangeKnown change_known;
};
constexpr std::array<Mutant, 11> kMutants{{{"own_key", OwnKey, nullptr},
                                           {"bare_bits", BareBits, nullptr},
                                           {"bare_share", BareShare, BareKnown},
                                           {"mask_twice", MaskTwice, nullptr},
                                           {"bare_top", BareTop, nullptr},
                                           {"bare_index", BareIndex, nullptr},
                                           {"bare_or", BareOr, nullptr},
                                           {"bare_product", BareProduct, nullptr},
                                           {"bare_parts", BareParts, nullptr},
                                           {"bare_products", BareProducts, nullptr},
                                           {"products_twice", ProductsTwice, nullptr}}};

bool Has(const std::string& suite, const Mutant& mutant) {
  return suite == "lut" ||
         (mutant.make != BareIndex && mutant.make != BareOr && mutant.make != BareProduct &&
          mutant.make != BareParts && mutant.make != BareProducts && mutant.make != ProductsTwice);
}

}  // namespace

std::vector<std::string> MutantNames(const std::string& suite) {
  std::vector<std::string> names;
  for (const auto& mutant : kMutants)
    if (Has(suite, mutant)) names.push_back(fmt::format("{}_{}", suite, mutant.name));
  return names;
}

void RegisterMutants(mpc::Registry& registry, const mpc::Suite& suite) {
  const std::string base = suite.Info().name;
  for (const auto& mutant : kMutants) {
    if (!Has(base, mutant)) continue;
    mpc::SuiteInfo info = suite.Info();
    info.name = fmt::format("{}_{}", base, mutant.name);
    info.summary = base + " with a faulty mask";
    registry.AddSuite(info, [&suite, base, mutant](const ActivationSpec& spec,
                                                   const mpc::OptionValues& options,
                                                   const Roles& roles) {
      mpc::ActivationPlan plan = suite.Plan(spec, {base, options}, roles);
      ActivationSpec done = spec;
      if (!plan.fused) done.next.reset();
      plan.make = [=, make_inner = plan.make](Party& party) -> std::unique_ptr<mpc::Activation> {
        const Layer layer{base, done, options, roles, party.Id()};
        auto tamper = std::make_unique<Tamper>(layer, mutant.make(party, layer));
        crypto::DrawObserver* before = TestAccess::Observe(party.Keys(), tamper.get());
        tamper->Follow(before);
        auto inner = make_inner(party);
        TestAccess::Observe(party.Keys(), before);
        if (dynamic_cast<mpc::DealerActivation*>(inner.get()) != nullptr)
          return std::make_unique<WithDealer>(layer, std::move(tamper), std::move(inner),
                                              mutant.change_known);
        return std::make_unique<WithoutDealer>(std::move(tamper), std::move(inner));
      };
      return plan;
    });
  }
}

}  // namespace tercet::conformance
