#include "tercet/mpc/activation.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace tercet::mpc {
namespace {

// A tournament: members of windows stand below each other, member m of output o in row
// m * outputs + o. In each round the first half meets the second, and an odd one out is passed on.
struct Tournament {
  std::vector<std::size_t> pairs;     // of members, by round
  std::vector<ActivationSpec> specs;  // of the ReLU of each round, then of the last one
};

Tournament MakeTournament(const Suite& suite, const ActivationSpec& spec) {
  const auto [kernel, stride] = *spec.pool;
  if (kernel < 1 || stride < 1 || kernel > spec.in.height || kernel > spec.in.width)
    throw UnsupportedError(fmt::format(
        "layer {}: cannot pool {} x {} windows with stride {} over maps of {} x {}; the "
        "window must fit and the stride be at least 1",
        spec.layer, kernel, kernel, stride, spec.in.height, spec.in.width));
  Tournament all;
  const bool dealt_after = spec.dealt && suite.Info().dealt_output;
  std::size_t members = kernel * kernel;
  ActivationSpec stage = spec;
  stage.pool.reset();
  stage.in = spec.Out();
  for (; members > 1; members -= all.pairs.back()) {
    all.pairs.push_back(members / 2);
    ActivationSpec round = stage;
    round.layer = fmt::format("{}/round{}", spec.layer, all.pairs.size());
    round.in.channels *= all.pairs.back();
    round.shift = 0;
    round.value_bits = spec.value_bits + 1;
    round.out_bits = spec.ring_bits;
    round.dealt = all.pairs.size() == 1 ? spec.dealt : dealt_after;
    all.specs.push_back(std::move(round));
  }
  stage.layer = spec.layer + "/relu";
  stage.dealt = all.pairs.empty() ? spec.dealt : dealt_after;
  all.specs.push_back(std::move(stage));
  return all;
}

AnyMatrix GatherMembers(const ActivationSpec& spec, const AnyMatrix& z) {
  const Shape3 in = spec.in, out = spec.Out();
  const std::size_t kernel = spec.pool->kernel, stride = spec.pool->stride, batch = z.Cols();
  return ring::DispatchWord(z.Bits(), [&]<Word W>(W) {
    const W* from = z.As<W>().data();
    auto members = ring::MakeMatrix<W>(kernel * kernel * out.Size(), batch);
    W* to = members.data();
    for (std::size_t dy = 0; dy < kernel; ++dy)
      for (std::size_t dx = 0; dx < kernel; ++dx)
        for (std::size_t c = 0; c < out.channels; ++c)
          for (std::size_t y = 0; y < out.height; ++y)
            for (std::size_t x = 0; x < out.width; ++x, to += batch)
              std::copy_n(
                  from + ((c * in.height + y * stride + dy) * in.width + x * stride + dx) * batch,
                  batch, to);
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

// y + ReLU(x - y), and whoever is left.
AnyMatrix Winners(const AnyMatrix& members, const AnyMatrix& relu) {
  return ring::DispatchWord(members.Bits(), [&]<Word W>(W) {
    const auto& r = relu.As<W>();
    auto winners = ring::MakeMatrix<W>(members.Rows() - relu.Rows(), members.Cols());
    std::copy_n(members.As<W>().data() + r.size(), winners.size(), winners.data());
    for (std::size_t i = 0; i < r.size(); ++i)
      winners.data()[i] = static_cast<W>(winners.data()[i] + r.data()[i]);
    return AnyMatrix(std::move(winners), members.Bits());
  });
}

class TournamentActivation final : public Activation {
 public:
  TournamentActivation(const Suite& suite, Party& party, const ActivationSpec& spec,
                       const SuiteChoice& choice, const Roles& roles)
      : spec_(spec),
        tournament_(MakeTournament(suite, spec)),
        away_(party.Id() == roles.helper && spec.dealt && suite.Info().dealt_output) {
    for (const auto& stage : tournament_.specs)
      stages_.push_back(suite.Create(party, stage, choice, roles));
  }

  Prepared Prepare(Context& ctx, std::size_t batch, const AnyMatrix* z) override {
    auto material = std::make_unique<Material>();
    AnyMatrix members;  // empty where they are not known
    if (z != nullptr) members = GatherMembers(spec_, *z);
    Prepared prepared;
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      const bool last = k == tournament_.pairs.size();
      AnyMatrix d = members;
      if (!last && !members.Empty()) d = Differences(members, Pairs(k));
      prepared = stages_[k]->Prepare(ctx, batch, d.Empty() ? nullptr : &d);
      material->stages.push_back({std::move(prepared.correlation), {}});
      if (last) break;
      const AnyMatrix& relu = prepared.known.mine;
      members = members.Empty() || relu.Empty() ? AnyMatrix() : Winners(members, relu);
      material->stages.back().known = std::move(prepared.known);
    }
    prepared.correlation = std::move(material);
    return prepared;
  }

  std::unique_ptr<Correlation> NewCorrelation() const override {
    auto material = std::make_unique<Material>();
    for (const auto& stage : stages_) material->stages.push_back({stage->NewCorrelation(), {}});
    return material;
  }

  AnyShare Run(Context& ctx, Prepared prepared, const AnyMatrix& z) override {
    auto* material = dynamic_cast<Material*>(prepared.correlation.get());
    TERCET_CHECK(material != nullptr && material->stages.size() == stages_.size(),
                 "layer {}: not prepared by this tournament", spec_.layer);
    AnyMatrix members;
    if (!away_) members = GatherMembers(spec_, z);
    for (std::size_t k = 0; k < tournament_.pairs.size(); ++k) {
      auto& [correlation, known] = material->stages[k];
      const AnyMatrix d = away_ ? AnyMatrix() : Differences(members, Pairs(k));
      const AnyShare relu = stages_[k]->Run(ctx, {std::move(correlation), std::move(known)}, d);
      if (!away_) members = Winners(members, relu.mine);
    }
    return stages_.back()->Run(
        ctx, {std::move(material->stages.back().correlation), std::move(prepared.known)}, members);
  }

 private:
  struct Material final : Correlation {
    struct Stage {
      std::unique_ptr<Correlation> correlation;  // null where the suite makes none
      AnyShare known;                            // but of the last, which is the layer's
    };
    std::vector<Stage> stages;
    void Visit(Archive& archive) override {
      for (auto& stage : stages) {
        if (stage.correlation) stage.correlation->Visit(archive);
        archive(stage.known);
      }
    }
  };

  std::size_t Pairs(std::size_t round) const {  // rows
    return tournament_.pairs[round] * spec_.Out().Size();
  }

  ActivationSpec spec_;
  Tournament tournament_;
  bool away_;  // this is the helper, all of whose shares are known offline: it need not follow
  std::vector<std::unique_ptr<Activation>> stages_;
};

}  // namespace

bool IsTournament(const ActivationSpec& spec) {
  return spec.kind == ActivationKind::kRelu && spec.pool.has_value();
}

unsigned ActivationRingBits(const Suite& suite, const ActivationSpec& spec) {
  return suite.RingBits(spec.value_bits + (IsTournament(spec) ? 1 : 0));
}

void CheckActivation(const Suite& suite, const ActivationSpec& spec, const SuiteChoice& choice) {
  if (!IsTournament(spec)) return suite.Check(spec, choice);
  for (const auto& stage : MakeTournament(suite, spec).specs) suite.Check(stage, choice);
}

Cost ActivationCosts(const Suite& suite, const ActivationSpec& spec, const SuiteChoice& choice,
                     const Roles& roles) {
  if (!IsTournament(spec)) return suite.Costs(spec, choice, roles);
  Cost cost;
  for (const auto& stage : MakeTournament(suite, spec).specs)
    cost += suite.Costs(stage, choice, roles);
  return cost;
}

std::unique_ptr<Activation> MakeActivation(const Suite& suite, Party& party,
                                           const ActivationSpec& spec, const SuiteChoice& choice,
                                           const Roles& roles) {
  if (!IsTournament(spec)) return suite.Create(party, spec, choice, roles);
  return std::make_unique<TournamentActivation>(suite, party, spec, choice, roles);
}

}  // namespace tercet::mpc
