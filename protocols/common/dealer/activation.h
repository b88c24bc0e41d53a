// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/dealer/expansion.h"
#include "common/dealer/steps.h"
#include "tercet/mpc/dealer.h"
#include "tercet/mpc/registry.h"

namespace tercet::protocols::dealer {

/// The ring of what a layer's formula gives: of a table the index, else the output.
inline unsigned FormulaBits(const mpc::ActivationSpec& spec) {
  return spec.kind == mpc::ActivationKind::kTable ? spec.TableBits() : spec.out_bits;
}

/// An activation with a dealer but for the comparison, which is what such suites differ in:
///
///   1. open_masked, unless it is opened already: z = a + b, a at D, b at E1 and E2;
///   2. Comparison: shares of the formula's bits, or at once of D's elements;
///   3. selection of D's elements by the opened bits; with max-pool OR steps, which give elements,
///      or bits for a selection;
///   4. the formula, of a table the lookup of what it gives, and reshare_evaluators; of a fused
///      layer products with the map that follows instead.
///
/// A Comparison has
///
///     static constexpr unsigned kMaxCompared;  // bits of the numbers that it compares
///     static constexpr bool kPoints;
///     Comparison(const ActivationSpec&, const OptionValues&);  // may throw UnsupportedError
///     struct Material { void Visit(mpc::Archive&); };          // what an evaluator keeps
///     bool GivesElements() const;  // else bits; bits where there is a pool
///     bool GivesProduct() const;   // the second bit is s * carry, of the settled s
///     template <Word W> Bits Deal(Context&, Ends&, std::span<const W> a, const Columns&) const;
///     Material Take(Context&, Ends&, std::size_t count) const;
///     template <Word W> Bits CompareBits(Context&, const Ends&, const Material&,
///                                        std::span<const W> b) const;  // s, not settled, then
///                                        carry
///     template <Word W, Word V> Buffer<V> CompareElements(...the same...) const;
///     template <Word W, Word V> void CompareFused(...the same..., const Bits& flips,
///                                                 FusedSum<V>&) const;  // adds up flips ^ s
///     void AddCost(Cost&, const ActivationSpec&, const Roles&) const;  // of its own messages
///
/// and where kPoints is true, of a fused layer's OR steps, where the last step's lookup is done in
/// another way (GivesPoints()), DealPoints, TakePoints, AddPoints and AddPointCost.
///
/// CompareBits gives shares of bits that differ from s and carry by offsets that D knows and Deal
/// returns. Deal runs at D and Take at an evaluator, both offline, with draws in the same order;
/// the other two online at the evaluators. Every share that D holds is drawn from the keys it has
/// with E1 and E2.
template <class Comparison>
class Activation final : public mpc::DealerActivation {
 public:
  /// `suite` names the streams, "<layer>/<suite>". A table that divides nothing needs no
  /// comparison. `pool`: PoolSteps where there is a pool.
  Activation(mpc::Party& party, const mpc::ActivationSpec& spec,
             std::optional<Comparison> comparison, std::vector<OrStep> pool,
             const std::string& suite, const mpc::Roles& roles)
      : spec_(spec),
        formula_(spec),
        comparison_(std::move(comparison)),
        pool_(std::move(pool)),
        ends_(party, spec, suite, roles) {
    if (comparison_ && Selects())
      selection_.emplace(SelectionExpansion(formula_, FormulaBits(spec), GivesProduct()));
  }

  std::unique_ptr<mpc::DealtCorrelation> Deal(Context& ctx, std::size_t batch,
                                              const AnyMatrix* z) override {
    auto material = std::make_unique<Material>();
    const std::size_t count = spec_.in.Size() * batch;
    if (ends_.IsDealer()) {
      ring::DispatchWord(spec_.ring_bits, [&]<ring::Word W>(W) {
        const auto masked = DealMasked<W>(ends_, spec_, batch, z, material->open_mask);
        const std::span<const W> a(masked.data(), masked.size());
        if (comparison_) {
          const Bits offsets = comparison_->template Deal<W>(ctx, ends_, a, columns_);
          const Bits rho =
              DealOrSteps(ctx, ends_, pool_, offsets, spec_, batch, columns_, !GivesPoints());
          if (Selects() && !spec_.pool)
            DealSelection<W>(ctx, ends_, formula_, *selection_, a, offsets, columns_);
          if (Selects() && spec_.pool) {  // of ORs, which a sign's element does not know from a
            const Buffer<W> none(rho.size(), 0);
            DealSelection<W>(ctx, ends_, formula_, *selection_, none, Bits(rho.size(), 0),
                             columns_);
          }
          if constexpr (Comparison::kPoints)
            if (GivesPoints()) comparison_->DealPoints(ctx, ends_, rho, columns_);
        }
        if (IsTable()) DealTable<W>(ctx, ends_, spec_, a);
      });
    } else {
      material->open_mask = PrepareOpenMask(ctx, ends_, spec_, batch, z);
      if (comparison_) {
        material->comparison = comparison_->Take(ctx, ends_, count);
        material->lookups = TakeOrSteps(ctx, ends_, pool_, spec_, batch, !GivesPoints());
        if (Selects())
          material->selection =
              TakeSelection(ctx, ends_, formula_, *selection_, spec_.Out().Size() * batch);
        if constexpr (Comparison::kPoints)
          if (GivesPoints())
            comparison_->TakePoints(ctx, ends_, spec_.Out().Size() * batch, material->comparison);
      }
      if (IsTable()) material->lookups.push_back(TakeTable(ctx, ends_, spec_, count));
    }
    if (!spec_.next) {
      material->known = DrawOutput(ends_, spec_, batch);
    } else if (ends_.IsDealer()) {  // who has no part in the output
      material->known = {AnyMatrix::Zero(spec_.out_bits), AnyMatrix::Zero(spec_.out_bits)};
    }
    return material;
  }

  void Fuse(std::shared_ptr<const AnyMatrix> columns) override {
    if (ends_.IsDealer()) columns_ = Columns(std::move(columns));
  }

  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return std::make_unique<Material>();
  }

  AnyShare Run(Context& ctx, std::unique_ptr<mpc::Correlation> correlation,
               const AnyMatrix& z) override {
    return RunParty(ctx, static_cast<Material&>(*correlation), z, nullptr);
  }

  AnyShare RunFused(Context& ctx, std::unique_ptr<mpc::Correlation> correlation, const AnyMatrix& z,
                    AnyMatrix& next) override {
    return RunParty(ctx, static_cast<Material&>(*correlation), z, &next);
  }

 private:
  struct Material final : mpc::DealtCorrelation {
    AnyShare known;       // of the output: both halves at D, one at an evaluator
    AnyMatrix open_mask;  // of PrepareOpenMask; at D, where its share is not known: the share to be
    typename Comparison::Material comparison;
    Selection selection;
    std::vector<LookupMaterial> lookups;  // OR steps, or that of a table
    const AnyShare& Known() const override { return known; }
    void Visit(mpc::Archive& archive) override {
      archive(known)(open_mask)(comparison)(selection)(lookups);
    }
  };

  // Where one evaluator alone multiplies, whether this one does.
  std::optional<bool> Multiplies() const {
    if (!spec_.only_to) return std::nullopt;
    return spec_.only_to == ends_.Me();
  }
  bool IsTable() const { return spec_.kind == mpc::ActivationKind::kTable; }
  bool GivesPoints() const {
    if constexpr (Comparison::kPoints) return !Selects() && comparison_->GivesPoints();
    return false;
  }
  bool Selects() const {
    return spec_.pool ? !pool_.back().elements : !comparison_->GivesElements();
  }

  bool GivesProduct() const { return !spec_.pool && comparison_->GivesProduct(); }

  // At an evaluator: shares of the bits, of which s is settled by b's top bit.
  template <ring::Word W>
  Bits CompareBits(Context& ctx, const Material& material, std::span<const W> b) const {
    Bits bits = comparison_->template CompareBits<W>(ctx, ends_, material.comparison, b);
    for (std::size_t i = 0; ends_.IsE1() && i < bits.size(); ++i)
      bits[i] ^= formula_.SignFlip(b[i]);
    return bits;
  }

  // `next` where the layer is fused.
  AnyShare RunParty(Context& ctx, Material& material, const AnyMatrix& z, AnyMatrix* next) {
    TERCET_CHECK((next != nullptr) == spec_.next.has_value(),
                 "layer {}: fused and not fused at once", spec_.layer);
    if (ends_.IsDealer()) {
      if (!spec_.dealt) SendDifference(ctx, ends_, spec_, material.open_mask, z);
      return std::move(material.known);
    }
    return ring::DispatchWord(spec_.ring_bits, [&]<ring::Word W>(W) {
      return ring::DispatchWord(spec_.out_bits, [&]<ring::Word V>(V) {
        return RunEvaluator<W, V>(ctx, material, z.As<W>(), next);
      });
    });
  }

  // Steps 2 to 4 at an evaluator where the layer is fused.
  template <ring::Word W, ring::Word V>
  AnyShare EvaluateFused(Context& ctx, const Material& material, std::span<const W> b,
                         std::size_t batch, AnyMatrix& next) const {
    FusedSum<V> sum(spec_.Out().Size(), batch, formula_.FanOut());
    if (!spec_.pool && comparison_->GivesElements()) {
      Bits flips(b.size());
      for (std::size_t i = 0; i < b.size(); ++i) flips[i] = formula_.SignFlip(b[i]);
      comparison_->template CompareFused<W, V>(ctx, ends_, material.comparison, b, flips, sum);
      return std::move(sum).Finish(ends_.IsE1(), Multiplies(), spec_.out_bits, next);
    }
    Bits bits = CompareBits(ctx, material, b);
    if (spec_.pool) {
      Bits windows = OpenWindows(ctx, ends_, pool_, material.lookups, std::move(bits),
                                 batch);  // 1 hop a step
      if (Selects()) {
        RunFusedSelection<V>(ctx, ends_, *selection_, material.selection, std::move(windows),
                             sum);  // 1 hop, 1 bit
      } else if (!GivesPoints()) {
        AddFusedOrs<V>(pool_.back(), material.lookups.back(), windows, spec_, sum);
      } else {
        if constexpr (Comparison::kPoints)
          comparison_->template AddPoints<V>(ends_, material.comparison, windows, sum);
      }
    } else {
      RunFusedSelection<V>(ctx, ends_, *selection_, material.selection, std::move(bits),
                           sum);  // 1 hop, 1 bit
    }
    return std::move(sum).Finish(ends_.IsE1(), Multiplies(), spec_.out_bits, next);
  }

  // Steps 2 to 4 at an evaluator, without max-pool: its additive shares of the formula.
  template <ring::Word W, ring::Word V>
  void Evaluate(Context& ctx, const Material& material, std::span<const W> b,
                std::span<V> out) const {
    Buffer<V> elements;
    if (comparison_->GivesElements()) {
      elements = comparison_->template CompareElements<W, V>(ctx, ends_, material.comparison, b);
    } else {
      elements = RunSelection<V>(ctx, ends_, formula_, *selection_, material.selection,
                                 CompareBits(ctx, material, b));  // 1 hop, 1 or 2 bits
    }
    formula_.Finish<W, V>(ends_.IsE1(), !comparison_->GivesElements(), b, elements, out);
  }

  template <ring::Word W, ring::Word V>
  AnyShare RunEvaluator(Context& ctx, Material& material, const Matrix<W>& z,
                        AnyMatrix* next) const {
    const std::size_t batch = z.shape()[1];

    // Step 1, open_masked: z = a + b.
    const auto masked =
        OpenMasked<W>(ctx, ends_, spec_, std::move(material.open_mask), z);  // 1 hop, n bits
    const std::span<const W> b(masked.data(), masked.size());

    if (next != nullptr) return EvaluateFused<W, V>(ctx, material, b, batch, *next);
    Matrix<V> out;
    if (spec_.pool) {
      Bits bits = CompareBits(ctx, material, b);
      if (Selects()) {
        bits = OpenWindows(ctx, ends_, pool_, material.lookups, std::move(bits),
                           batch);  // 1 hop a step
        const auto ors = RunSelection<V>(ctx, ends_, formula_, *selection_, material.selection,
                                         std::move(bits));  // 1 hop, 1 bit
        out = ring::MakeMatrix<V>(spec_.Out().Size(), batch);
        std::copy(ors.begin(), ors.end(), out.begin());
      } else {
        out = RunOrSteps<V>(ctx, ends_, pool_, material.lookups, std::move(bits), spec_,
                            batch);  // 1 hop a step
      }
    } else {
      out = ring::MakeMatrix<V>(z.shape()[0], batch);
      const std::span<V> values(out.data(), out.size());
      if (IsTable()) {
        Bits index(b.size());
        if (comparison_)
          Evaluate<W, std::uint8_t>(ctx, material, b, index);
        else
          std::transform(b.begin(), b.end(), index.begin(),
                         [](W opened) { return static_cast<std::uint8_t>(opened); });
        CheckSize("lookups", material.lookups.size(), 1);
        RunTable<V>(ctx, ends_, spec_, material.lookups[0], std::move(index),
                    values);  // 1 hop where it divides
      } else {
        Evaluate<W, V>(ctx, material, b, values);
      }
    }
    return ReshareEvaluators<V>(ctx, ends_, spec_, std::move(material.known),
                                std::move(out));  // 1 hop, l' bits
  }

  mpc::ActivationSpec spec_;
  Formula formula_;
  std::optional<Comparison> comparison_;
  std::vector<OrStep> pool_;
  std::optional<Expansion> selection_;  // where there is a selection
  Ends ends_;
  Columns columns_;  // at D where the layer is fused
};

/// What a layer of such an activation costs. `pool`: PoolSteps where there is a pool; without a
/// comparison where nothing is compared.
template <class Comparison>
mpc::Cost CostOf(const mpc::ActivationSpec& spec, const std::optional<Comparison>& comparison,
                 const std::vector<OrStep>& pool, const mpc::Roles& roles) {
  mpc::ActivationSpec compared = spec;
  compared.out_bits = FormulaBits(spec);
  const Formula formula(spec);
  mpc::Cost cost;
  AddOpenMasked(cost, spec, roles);
  if (comparison) {
    comparison->AddCost(cost, compared, roles);
    const bool selects = spec.pool ? !pool.back().elements : !comparison->GivesElements();
    bool points = false;
    if constexpr (Comparison::kPoints) points = spec.pool && !selects && comparison->GivesPoints();
    AddOrSteps(cost, pool, spec, roles, !points);
    if constexpr (Comparison::kPoints)
      if (points) comparison->AddPointCost(cost, spec, roles);
    if (selects) {
      const bool product = !spec.pool && comparison->GivesProduct();
      AddSelection(cost, formula, SelectionExpansion(formula, compared.out_bits, product),
                   spec.Outputs(), roles);
    }
  }
  if (spec.kind == mpc::ActivationKind::kTable) AddTable(cost, spec, roles);
  if (!spec.next) AddReshare(cost, spec, roles);
  return cost;
}

/// Registers the suite that `info` describes: Activation with this Comparison.
template <class Comparison>
void AddSuite(mpc::Registry& registry, mpc::SuiteInfo info) {
  info.dealt_output = info.takes_opened = true;
  info.options.push_back({.name = "fuse",
                          .values = {"no", "yes"},
                          .meaning = "yes: a sign's output is not shared again where a fully "
                                     "connected layer follows, one hop less; bytes offline grow "
                                     "with that layer's outputs"});
  const auto plan = [name = info.name](const mpc::ActivationSpec& layer,
                                       const mpc::OptionValues& options,
                                       const mpc::Roles& roles) -> mpc::ActivationPlan {
    CheckSpec(layer, name, Comparison::kMaxCompared);
    mpc::ActivationSpec spec = layer;
    if (spec.kind != mpc::ActivationKind::kSign || options.at("fuse") != "yes") spec.next.reset();
    mpc::ActivationSpec compared = spec;
    compared.out_bits = FormulaBits(spec);
    std::optional<Comparison> comparison;
    if (Formula(spec).ComparedBits() > 0) comparison.emplace(compared, options);
    std::vector<OrStep> pool;
    const std::string& form = options.at("form");
    if (spec.pool) pool = PoolSteps(spec, form != "bit" && form != "tree");
    mpc::Cost cost = CostOf(spec, comparison, pool, roles);
    if (spec.pool && form == "auto") {  // bits, where that is no hop more
      auto bits = PoolSteps(spec, false);
      auto other = CostOf(spec, comparison, bits, roles);
      const auto bytes = [](const mpc::Cost& of) { return of.OfflineTotal() + of.OnlineTotal(); };
      if (other.OnlineHops() <= cost.OnlineHops() && bytes(other) < bytes(cost)) {
        pool = std::move(bits);
        cost = std::move(other);
      }
    }
    return {.cost = std::move(cost),
            .make =
                [=](mpc::Party& party) {
                  return std::make_unique<Activation<Comparison>>(party, spec, comparison, pool,
                                                                  name, roles);
                },
            .fused = spec.next.has_value()};
  };
  registry.AddSuite(std::move(info), plan);
}

}  // namespace tercet::protocols::dealer
