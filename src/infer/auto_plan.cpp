// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/auto_plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "infer/plan_layer.h"
#include "mpc/activation_function.h"

namespace tercet::infer {
namespace {

constexpr std::size_t kMaxLabels = 256;

std::int64_t Nanoseconds(double ns) { return std::llround(ns); }

// When each party is ready to send, and each direction of a link free.
class Clocks {
 public:
  void Compute(std::int64_t ns) {
    for (auto& at : ready_) at += ns;
  }

  // Messages of a party that has not received anything yet may start to leave `overlap` before all
  // of them are computed.
  void Send(const std::vector<mpc::Round>& rounds, const net::LinkProfile& link,
            std::int64_t overlap) {
    std::array<std::int64_t, 3> early{overlap, overlap, overlap};
    const std::int64_t delay = Nanoseconds(link.rtt_ms * 5e5);
    for (const auto& round : rounds) {
      // What is sent in a round does not depend on what is received in it.
      auto after = ready_;
      auto early_after = early;
      for (const auto& message : round) {
        const auto from = static_cast<std::size_t>(message.from),
                   to = static_cast<std::size_t>(message.to);
        const std::int64_t busy =
            link.mbit > 0 ? Nanoseconds(static_cast<double>(message.bytes) * 8000 / link.mbit) : 0;
        auto& free = free_[3 * from + to];
        free = std::max(free, ready_[from] - early[from]) + busy;
        after[to] = std::max(after[to], std::max(free, ready_[from]) + delay);
        early_after[to] = 0;
      }
      ready_ = after;
      early = early_after;
    }
  }

  std::int64_t End() const { return *std::max_element(ready_.begin(), ready_.end()); }

  // Whether whatever follows ends no later than after `other`.
  bool NoLaterThan(const Clocks& other) const {
    for (std::size_t p = 0; p < 3; ++p)
      if (ready_[p] > other.ready_[p]) return false;
    for (std::size_t i = 0; i < free_.size(); ++i)
      if (Busy(i) > other.Busy(i)) return false;
    return true;
  }

 private:
  std::int64_t Busy(std::size_t i) const { return std::max(free_[i], ready_[i / 3]); }

  std::array<std::int64_t, 3> ready_{};
  std::array<std::int64_t, 9> free_{};
};

struct QueryClocks {
  Clocks offline, online;

  // What is dealt offline goes out in pieces while more is computed; what is sent online is
  // computed whole before.
  void Add(const mpc::Cost& cost, const PredictedTime& compute, const net::LinkProfile& link) {
    offline.Compute(compute.offline_ns);
    online.Compute(compute.online_ns);
    offline.Send(cost.Rounds(mpc::Phase::kOffline), link, compute.offline_ns);
    online.Send(cost.Rounds(mpc::Phase::kOnline), link, 0);
  }
  PredictedTime Time() const { return {offline.End(), online.End()}; }
};

// What is made least, and then what decides between equals.
using Value = std::pair<std::int64_t, std::int64_t>;

// How far a query is by one objective: in time, or where that is of no link, in hops and bytes.
class Progress {
 public:
  Progress(Objective objective, const net::LinkProfile& link)
      : objective_(objective), link_(link) {}

  void Add(const mpc::Cost& cost, const PredictedTime& computation) {
    if (IsTime()) {
      clocks_.Add(cost, computation, link_);
      return;
    }
    clocks_.online.Send(cost.Rounds(mpc::Phase::kOnline), {"hops", 2e-6, 0}, 0);  // 1 ns a hop
    bytes_ += static_cast<std::int64_t>(cost.OfflineTotal() + cost.OnlineTotal());
  }
  Value Reached() const {
    const auto time = clocks_.Time();
    switch (objective_) {
      case Objective::kOnline:
        return {time.online_ns, time.offline_ns};
      case Objective::kTotal:
        return {time.Total(), time.online_ns};
      case Objective::kHops:
        return {time.online_ns, bytes_};
      default:
        return {bytes_, time.online_ns};
    }
  }
  // Whether whatever follows makes this no worse than `other`.
  bool NoLaterThan(const Progress& other) const {
    return bytes_ <= other.bytes_ && clocks_.online.NoLaterThan(other.clocks_.online) &&
           clocks_.offline.NoLaterThan(other.clocks_.offline);
  }

 private:
  bool IsTime() const {
    return objective_ == Objective::kOnline || objective_ == Objective::kTotal;
  }

  Objective objective_;
  net::LinkProfile link_;
  QueryClocks clocks_;
  std::int64_t bytes_ = 0;
};

mpc::ComputeFigures FiguresOf(const PlannedLayer& planned,
                              const std::vector<Candidate>& candidates) {
  const auto text = planned.suite.Text();
  for (const auto& candidate : candidates)
    if (candidate.suite.Text() == text) return candidate.compute;
  return {};
}

PredictedTime ComputationOf(const PlannedLayer& planned, const std::vector<Candidate>& candidates,
                            const MachineModel& machine) {
  const auto figures = FiguresOf(planned, candidates);
  const auto& model =
      mpc::FunctionOf(planned.activation.kind).ScaleFree() ? figures.sign : figures.fixed_point;
  const auto elements = static_cast<double>(planned.activation.Elements());
  const auto products = planned.fused ? static_cast<double>(planned.activation.Outputs() *
                                                            planned.activation.next->out_channels)
                                      : 0;
  const auto macs = static_cast<double>(planned.layer.linear.Macs()) *
                    static_cast<double>(planned.activation.batch);
  return {Nanoseconds(elements * model.offline_ns + products * figures.product.offline_ns +
                      macs * machine.linear.offline_ns),
          Nanoseconds(elements * model.online_ns + products * figures.product.online_ns +
                      macs * machine.linear.online_ns)};
}

// A choice of suites for the layers so far, and when they are done.
struct Label {
  std::size_t last = 0;            // the choice of the last layer, an index into the chain
  std::vector<std::size_t> dealt;  // those outputs that were dealt and that later layers take in
  bool fused = false;              // the last layer, with what follows
  Progress progress;
};

// A layer's choice, and that of the layer before it. Many choices share their beginnings.
struct Link {
  std::size_t before, choice;
};

// Whether `a` may stand for `b`: what follows costs the same after both, and `a` is no later.
bool Dominates(const Label& a, const Label& b) {
  return a.dealt == b.dealt && a.fused == b.fused && a.progress.NoLaterThan(b.progress);
}

// The last layer that takes in each output (0 the input, k + 1 that of layer k). The last layer's
// is opened after all of them.
std::vector<std::size_t> LastUses(const nn::PublicNetwork& network) {
  const std::size_t count = network.layers.size();
  std::vector<std::size_t> last_use(count + 1);
  for (std::size_t k = 0; k < count; ++k) {
    last_use[k] = k;
    if (const auto& shortcut = network.layers[k].shortcut) last_use[shortcut->from] = k;
  }
  last_use[count] = count;
  return last_use;
}

bool IsChosen(const nn::PublicLayer& layer) {
  return layer.activation != mpc::ActivationKind::kNone &&
         (layer.suite.empty() || layer.suite == nn::kAutoSuite);
}

bool Serves(const mpc::Registry& registry, const Candidate& candidate, const nn::PublicLayer& layer,
            std::size_t batch) {
  mpc::ActivationSpec spec = layer.Activation(batch);
  spec.out_bits = spec.OutputBits();
  const auto& suite = registry.FindSuite(candidate.suite.name);
  try {
    spec.ring_bits = suite.RingBits(spec);
    suite.Plan(spec, candidate.suite, {});
  } catch (const UnsupportedError&) {
    return false;
  }
  return true;
}

void Prune(std::vector<Label>& labels) {
  // Stable, so that the first of equal ones stays.
  std::stable_sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) {
    return a.progress.Reached() < b.progress.Reached();
  });
  std::vector<Label> kept;
  for (auto& label : labels) {
    if (kept.size() == kMaxLabels) break;
    if (std::none_of(kept.begin(), kept.end(),
                     [&](const Label& other) { return Dominates(other, label); }))
      kept.push_back(std::move(label));
  }
  labels = std::move(kept);
}

// Goes through the layers, and tries every suite that serves a layer after every choice for those
// before it that is kept.
class SuiteSearch {
 public:
  SuiteSearch(const nn::PublicNetwork& network, const mpc::Registry& registry,
              const AutoSettings& settings, const mpc::Roles& roles, std::size_t batch)
      : network_(network),
        registry_(registry),
        settings_(settings),
        roles_(roles),
        batch_(batch),
        last_use_(LastUses(network)) {
    for (const auto& layer : network.layers) choices_.push_back(ChoicesOf(layer));
    // A layer's first choice stands in while it is not chosen yet.
    std::vector<std::string> fronts;
    for (const auto& names : choices_) fronts.push_back(names.front());
    first_ = PlanWith(fronts);
  }

  nn::PublicNetwork Run() {
    std::vector<Label> labels{{0, {0}, false, {settings_.objective, settings_.link}}};
    labels.front().progress.Add(first_.input, {});
    for (std::size_t k = 0; k < network_.layers.size(); ++k) {
      labels = Extended(labels, k);
      Prune(labels);
    }
    // Rings of outputs follow from all the suites, so the whole plans are what decides.
    std::optional<nn::PublicNetwork> best;
    Value best_value;
    for (const Label& label : labels) {
      auto plan = PlanWith(SuitesOf(label));
      const Value value = ValueOf(plan);
      if (best && best_value <= value) continue;
      best = std::move(plan.network);
      best_value = value;
    }
    return *std::move(best);
  }

 private:
  struct Planned {
    PlannedLayer layer;
    PredictedTime computation;
  };

  std::vector<std::string> ChoicesOf(const nn::PublicLayer& layer) const {
    if (!IsChosen(layer)) return {layer.suite};
    std::vector<std::string> choices;
    for (const auto& candidate : settings_.candidates)
      if (Serves(registry_, candidate, layer, batch_)) choices.push_back(candidate.suite.Text());
    if (choices.empty())
      throw UnsupportedError(fmt::format("layer {}: no private suite serves it", layer.name));
    return choices;
  }

  Value ValueOf(const Plan& plan) const {
    Progress progress(settings_.objective, settings_.link);
    const auto computation = ModelledComputation(plan, settings_.candidates);
    std::size_t k = 0;
    for (const auto& step : plan.Steps()) progress.Add(*step.cost, computation[k++]);
    return progress.Reached();
  }

  Plan PlanWith(const std::vector<std::string>& suites) const {
    nn::PublicNetwork named = network_;
    for (std::size_t k = 0; k < suites.size(); ++k) named.layers[k].suite = suites[k];
    return MakePlan(named, registry_, {}, roles_, batch_);
  }

  Planned PlanLayer(std::size_t k, const std::string& suite, bool dealt, bool after_fused) const {
    nn::PublicLayer named = network_.layers[k];
    named.suite = suite;
    auto layer = PrepareLayer(named, registry_, {}, first_.linear, roles_, batch_);
    FinishLayer(layer, registry_, first_.linear, roles_, dealt,
                first_.layers[k].activation.out_bits, NextMap(network_, k, first_.linear),
                after_fused, first_.OnlyTo(k + 1));
    const auto computation = ComputationOf(layer, settings_.candidates, {});
    return {std::move(layer), computation};
  }

  // Each label with each choice for layer k.
  std::vector<Label> Extended(const std::vector<Label>& labels, std::size_t k) {
    const auto& shortcut = network_.layers[k].shortcut;
    // What a layer costs depends on its suite, on whether what enters was dealt, and on whether the
    // layer before is fused with it.
    std::map<std::tuple<std::size_t, bool, bool>, Planned> planned;
    std::vector<Label> extended;
    for (const auto& label : labels) {
      const auto was_dealt = [&](std::size_t output) {
        return std::binary_search(label.dealt.begin(), label.dealt.end(), output);
      };
      const bool dealt = was_dealt(k) && (!shortcut || was_dealt(shortcut->from));
      for (std::size_t choice = 0; choice < choices_[k].size(); ++choice) {
        auto found = planned.find({choice, dealt, label.fused});
        if (found == planned.end())
          found = planned
                      .emplace(std::tuple(choice, dealt, label.fused),
                               PlanLayer(k, choices_[k][choice], dealt, label.fused))
                      .first;
        Label longer{chain_.size(), label.dealt, found->second.layer.fused, label.progress};
        chain_.push_back({label.last, choice});
        std::erase_if(longer.dealt, [&](std::size_t output) { return last_use_[output] <= k; });
        if (found->second.layer.dealt_output) longer.dealt.push_back(k + 1);
        longer.progress.Add(found->second.layer.cost, found->second.computation);
        extended.push_back(std::move(longer));
      }
    }
    return extended;
  }

  std::vector<std::string> SuitesOf(const Label& label) const {
    std::vector<std::string> suites(choices_.size());
    for (std::size_t k = suites.size(), at = label.last; k-- > 0; at = chain_[at].before)
      suites[k] = choices_[k][chain_[at].choice];
    return suites;
  }

  const nn::PublicNetwork& network_;
  const mpc::Registry& registry_;
  const AutoSettings& settings_;
  const mpc::Roles roles_;
  const std::size_t batch_;
  const std::vector<std::size_t> last_use_;
  std::vector<std::vector<std::string>> choices_;
  Plan first_;
  std::vector<Link> chain_;
};

}  // namespace

std::vector<Candidate> AutoCandidates(const mpc::Registry& registry) {
  std::vector<std::pair<bool, Candidate>> all;  // whether the helper has to stay
  for (const auto& name : registry.SuiteNames()) {
    const auto& suite = registry.FindSuite(name);
    const auto& info = suite.Info();
    if (!info.is_private || !info.exact) continue;
    for (const auto& variant : info.variants)
      if (variant.figures)
        all.push_back({!info.dealt_output, {suite.Choice(variant), *variant.figures}});
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    const auto rank = [](const auto& entry) {
      return std::pair(entry.first, entry.second.compute.sign.online_ns);
    };
    return rank(a) < rank(b);
  });
  std::vector<Candidate> candidates;
  candidates.reserve(all.size());
  for (auto& [stays, candidate] : all) candidates.push_back(std::move(candidate));
  return candidates;
}

const std::vector<std::string>& ObjectiveNames() {
  static const std::vector<std::string> names{"online", "total", "hops", "bytes"};
  return names;
}

Objective ParseObjective(const std::string& text, const std::string& place) {
  const auto& names = ObjectiveNames();
  const auto found = std::find(names.begin(), names.end(), text);
  if (found == names.end())
    throw ConfigError(
        place, fmt::format("\"{}\" found, one of {} expected", text, fmt::join(names, ", ")));
  return static_cast<Objective>(found - names.begin());
}

PredictedTime LinkTime(const mpc::Cost& cost, const net::LinkProfile& link,
                       const PredictedTime& computation) {
  QueryClocks clocks;
  clocks.Add(cost, computation, link);
  return clocks.Time();
}

net::LinkProfile WithMessageTime(net::LinkProfile link, const MachineModel& machine) {
  link.rtt_ms += 2e-6 * machine.hop_ns;
  return link;
}

std::vector<PredictedTime> ModelledComputation(const Plan& plan,
                                               const std::vector<Candidate>& candidates,
                                               const MachineModel& machine) {
  std::vector<PredictedTime> times;
  for (const auto& step : plan.Steps())
    times.push_back(step.layer ? ComputationOf(*step.layer, candidates, machine) : PredictedTime{});
  return times;
}

std::vector<PredictedTime> StepTimes(const Plan& plan,
                                     const std::vector<PredictedTime>& computation,
                                     const net::LinkProfile& link) {
  const auto steps = plan.Steps();
  TERCET_CHECK(computation.size() == steps.size(), "computation of {} steps for a plan of {}",
               computation.size(), steps.size());
  std::vector<PredictedTime> times;
  QueryClocks clocks;
  for (const auto& step : steps) {
    clocks.Add(*step.cost, computation[times.size()], link);
    times.push_back(clocks.Time());
  }
  return times;
}

PredictedTime PlanTime(const Plan& plan, const std::vector<Candidate>& candidates,
                       const net::LinkProfile& link) {
  return StepTimes(plan, ModelledComputation(plan, candidates), link).back();
}

nn::PublicNetwork ChooseSuites(const nn::PublicNetwork& network, const mpc::Registry& registry,
                               const AutoSettings& settings, const mpc::Roles& roles,
                               std::size_t batch) {
  for (const auto& candidate : settings.candidates)
    TERCET_CHECK(registry.FindSuite(candidate.suite.name).Info().is_private,
                 "suite {} is not private, so it is not chosen unasked", candidate.suite.Text());
  return SuiteSearch(network, registry, settings, roles, batch).Run();
}

}  // namespace tercet::infer
