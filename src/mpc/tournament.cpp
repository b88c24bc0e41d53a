// SPDX-License-Identifier: Apache-2.0
#include "mpc/tournament.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "tercet/mpc/dealer.h"
#include "tercet/mpc/windows.h"

namespace tercet::mpc {
namespace {

// A tournament: members of windows stand below each other, member m of output o in row
// m * outputs + o. In each round the first half meets the second, and an odd one out is passed on.
struct Tournament {
  std::vector<std::size_t> pairs;     // of members, by round
  std::vector<ActivationSpec> specs;  // of the ReLU of each round, then of the last one
};

Tournament MakeTournament(const ActivationSpec& spec, bool dealt_output, const Roles& roles) {
  Tournament all;
  const bool dealt_after = spec.dealt && dealt_output;
  std::size_t members = spec.pool->kernel.Area();
  ActivationSpec stage = spec;
  stage.pool.reset();
  stage.in = spec.Out();
  // Where only one evaluator's share is not known, it alone goes on with the rounds' outputs.
  std::optional<PartyId> rounds_to;
  if (spec.known_at) rounds_to = roles.OtherEvaluator(*spec.known_at);
  const auto after = [&](ActivationSpec& next) {
    next.dealt = dealt_after;
    if (!dealt_output) next.known_at.reset();
  };
  for (; members > 1; members -= all.pairs.back()) {
    all.pairs.push_back(members / 2);
    ActivationSpec round = stage;
    round.layer = fmt::format("{}/round{}", spec.layer, all.pairs.size());
    round.in.channels *= all.pairs.back();
    round.shift = 0;
    round.value_bits = spec.value_bits + 1;
    round.out_bits = spec.ring_bits;
    round.only_to = rounds_to;
    if (all.pairs.size() > 1) after(round);
    all.specs.push_back(std::move(round));
  }
  stage.layer = spec.layer + "/relu";
  if (!all.pairs.empty()) after(stage);
  all.specs.push_back(std::move(stage));
  return all;
}

AnyMatrix GatherMembers(const ActivationSpec& spec, const AnyMatrix& z) {
  const std::size_t outputs = spec.Out().Size(), batch = z.Cols();
  return ring::DispatchWord(z.Bits(), [&]<Word W>(W) {
    const W* from = z.As<W>().data();
    auto members = ring::MakeMatrix<W>(spec.pool->kernel.Area() * outputs, batch);
    PoolWindows(spec).ForEach([&](std::size_t output, std::size_t member, std::size_t input) {
      std::copy_n(from + input * batch, batch,
                  members.data() + (member * outputs + output) * batch);
    });
    return AnyMatrix(std::move(members), z.Bits());
  });
}

// x - y of the first `rows` rows and as many that follow.
AnyMatrix Differences(const AnyMatrix& members, std::size_t rows) {
  return ring::DispatchWord(members.Bits(), [&]<Word W>(W) {
    auto d = ring::MakeMatrix<W>(rows, members.Cols());
    const W *x = members.As<W>().data(), *y = x + d.size();
    for (std::size_t i = 0; i < d.size(); ++i) d.data()[i] = static_cast<W>(x[i] - y[i]);
    return AnyMatrix(std::move(d), members.Bits());
  });
}

// Both halves of a share.
AnyMatrix BothOf(const AnyShare& x) {
  return ring::DispatchWord(x.mine.Bits(), [&]<Word W>(W) {
    return AnyMatrix(Matrix<W>(x.mine.As<W>() + x.next.As<W>()), x.mine.Bits());
  });
}

// y + ReLU(x - y) of as many rows as Differences took, and whoever is left.
AnyMatrix Winners(const AnyMatrix& members, std::size_t rows, const AnyMatrix& relu) {
  return ring::DispatchWord(members.Bits(), [&]<Word W>(W) {
    auto winners = ring::MakeMatrix<W>(members.Rows() - rows, members.Cols());
    std::copy_n(members.As<W>().data() + rows * members.Cols(), winners.size(), winners.data());
    if (relu.IsZero()) return AnyMatrix(std::move(winners), members.Bits());
    const auto& r = relu.As<W>();
    for (std::size_t i = 0; i < r.size(); ++i)
      winners.data()[i] = static_cast<W>(winners.data()[i] + r.data()[i]);
    return AnyMatrix(std::move(winners), members.Bits());
  });
}

class TournamentActivation final : public DealerActivation {
 public:
  // Which of a share's halves are this party's part of a round's output.
  enum class Takes { kMine, kNext, kBoth };

  TournamentActivation(ActivationSpec spec, Tournament tournament, bool away, Takes takes,
                       std::vector<std::unique_ptr<Activation>> stages)
      : spec_(std::move(spec)),
        tournament_(std::move(tournament)),
        away_(away),
        takes_(takes),
        stages_(std::move(stages)) {}

  std::unique_ptr<DealtCorrelation> Deal(Context& ctx, std::size_t batch,
                                         const AnyMatrix* z) override {
    auto material = std::make_unique<Material>();
    AnyMatrix members;  // empty where they are not known
    if (z != nullptr) members = GatherMembers(spec_, *z);
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      const bool last = k == tournament_.pairs.size();
      AnyMatrix d = members;
      if (!last && !members.Empty()) d = Differences(members, Pairs(k));
      material->stages.push_back(PrepareAny(*stages_[k], ctx, batch, d.Empty() ? nullptr : &d));
      if (last) break;
      const AnyMatrix relu = Part(KnownOf(material->stages.back().get()));
      members = members.Empty() || relu.Empty() ? AnyMatrix() : Winners(members, Pairs(k), relu);
    }
    return material;
  }

  std::unique_ptr<Correlation> NewCorrelation() const override {
    auto material = std::make_unique<Material>();
    for (const auto& stage : stages_) material->stages.push_back(stage->NewCorrelation());
    return material;
  }

  AnyShare Run(Context& ctx, std::unique_ptr<Correlation> correlation,
               const AnyMatrix& z) override {
    auto* material = dynamic_cast<Material*>(correlation.get());
    TERCET_CHECK(material != nullptr && material->stages.size() == stages_.size(),
                 "layer {}: not prepared by this tournament", spec_.layer);
    AnyMatrix members;
    if (!away_) members = GatherMembers(spec_, z);
    for (std::size_t k = 0; k < tournament_.pairs.size(); ++k) {
      const AnyMatrix d = away_ ? AnyMatrix() : Differences(members, Pairs(k));
      const AnyShare relu = stages_[k]->Run(ctx, std::move(material->stages[k]), d);
      if (!away_) members = Winners(members, Pairs(k), Part(relu));
    }
    return stages_.back()->Run(ctx, std::move(material->stages.back()), members);
  }

 private:
  struct Material final : DealtCorrelation {
    std::vector<std::unique_ptr<Correlation>> stages;  // null where the suite makes none
    const AnyShare& Known() const override { return KnownOf(stages.back().get()); }
    void Visit(Archive& archive) override {
      for (auto& stage : stages)
        if (stage) stage->Visit(archive);
    }
  };

  // Empty where it is not known.
  AnyMatrix Part(const AnyShare& x) const {
    if (takes_ != Takes::kBoth) return takes_ == Takes::kNext ? x.next : x.mine;
    return x.mine.Empty() || x.next.Empty() ? AnyMatrix() : BothOf(x);
  }
  std::size_t Pairs(std::size_t round) const {  // rows
    return tournament_.pairs[round] * spec_.Out().Size();
  }

  ActivationSpec spec_;
  Tournament tournament_;
  bool away_;  // this is the helper, all of whose shares are known offline: it need not follow
  Takes takes_;
  std::vector<std::unique_ptr<Activation>> stages_;
};

}  // namespace

ActivationPlan PlanTournament(const ActivationSpec& spec, bool dealt_output, const Roles& roles,
                              const PlanStage& plan) {
  ActivationPlan whole;
  Tournament tournament = MakeTournament(spec, dealt_output, roles);
  std::vector<ActivationFactory> stages;
  std::uint64_t tolerance = 0;  // of the winners so far: a maximum adds nothing to its members'
  for (const auto& stage : tournament.specs) {
    ActivationPlan planned = plan(stage);
    whole.cost += planned.cost;
    stages.push_back(std::move(planned.make));
    const std::uint64_t divisor = std::uint64_t{1} << stage.shift;
    tolerance = (tolerance + divisor - 1) / divisor;
    tolerance += planned.tolerance;
  }
  whole.tolerance = tolerance;
  const bool away_if_helper = spec.dealt && dealt_output;
  // Of (x_i, x_{i+1}) all take x_i, or where evaluator 2's share is known offline x_{i+1}:
  // evaluator 1 or 2 then takes the half that it has in common with the helper, which is known too.
  // Where it is opened, the evaluators take the half that the helper lacks.
  const auto takes_at = [known_at = spec.known_at, opened = spec.opened, roles](PartyId party) {
    using Takes = TournamentActivation::Takes;
    if (opened && party == roles.helper) return Takes::kBoth;
    const bool next = opened ? party == roles.Evaluator1() : known_at == roles.Evaluator2();
    return next ? Takes::kNext : Takes::kMine;
  };
  whole.make = [=, tournament = std::move(tournament), stages = std::move(stages)](Party& party) {
    std::vector<std::unique_ptr<Activation>> made;
    for (const auto& stage : stages) made.push_back(stage(party));
    return std::make_unique<TournamentActivation>(spec, tournament,
                                                  away_if_helper && party.Id() == roles.helper,
                                                  takes_at(party.Id()), std::move(made));
  };
  return whole;
}

}  // namespace tercet::mpc
