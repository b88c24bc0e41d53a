// SPDX-License-Identifier: Apache-2.0
#include "import/schedule.h"

#include <algorithm>

namespace tercet::importer {
namespace {

constexpr int kNone = -1;

class Scheduler {
 public:
  explicit Scheduler(const std::vector<GraphLayer>& layers)
      : layers_(layers),
        follower_(layers.size() + 1, kNone),
        follows_(layers.size(), false),
        placed_(layers.size() + 1, false) {}

  Schedule Run() {
    if (!FindFollowers()) return schedule_;
    placed_[Slot(kNetworkInput)] = true;
    if (const int first = Follower(kNetworkInput); first != kNone) {
      if (!IsReady(first)) return Misfit(first);
      Place(first);
    }
    while (schedule_.order.size() < layers_.size()) {
      const int next = Next();
      if (next == kNone) return Misfit(FirstUnplaced());
      Place(next);
    }
    return schedule_;
  }

 private:
  // Index of a layer or of the network's input in follower_ and placed_.
  static std::size_t Slot(int layer) { return static_cast<std::size_t>(layer) + 1; }
  const GraphLayer& At(int layer) const { return layers_[static_cast<std::size_t>(layer)]; }
  int Follower(int layer) const { return follower_[Slot(layer)]; }
  bool IsSum(int layer) const { return At(layer).inputs.size() == 2; }

  Schedule Misfit(int layer, int rival = kNetworkInput) {
    schedule_ = {};
    schedule_.misfit = layer;
    schedule_.rival = rival;
    return schedule_;
  }

  void SetFollower(int layer, int follower) {
    follower_[Slot(layer)] = follower;
    follows_[static_cast<std::size_t>(follower)] = true;
  }

  /// Which layer has to come directly after each: its one reader that can read from nowhere else.
  /// A sum has to where something else comes directly after its other input.
  bool FindFollowers() {
    const int count = static_cast<int>(layers_.size());
    for (int l = 0; l < count; ++l) {
      if (At(l).from_anywhere || IsSum(l)) continue;
      if (const int rival = Follower(At(l).inputs[0]); rival != kNone) {
        Misfit(l, rival);
        return false;
      }
      SetFollower(At(l).inputs[0], l);
    }
    for (bool changed = true; changed;) {
      changed = false;
      for (int l = 0; l < count; ++l) {
        if (!IsSum(l) || follows_[static_cast<std::size_t>(l)]) continue;
        const int a = At(l).inputs[0], b = At(l).inputs[1];
        const bool a_taken = Follower(a) != kNone, b_taken = Follower(b) != kNone;
        if (a_taken && b_taken) {
          Misfit(l);
          return false;
        }
        if (!a_taken && !b_taken) continue;
        SetFollower(a_taken ? b : a, l);
        changed = true;
      }
    }
    return true;
  }

  /// Whether everything that `first` and those behind it read is placed by then.
  bool IsReady(int first) {
    std::vector<int> run;
    bool ready = true;
    for (int l = first; l != kNone && ready; l = Follower(l)) {
      for (const int input : At(l).inputs) ready = ready && placed_[Slot(input)];
      if (ready) run.push_back(l);
      placed_[Slot(l)] = ready;
    }
    for (const int l : run) placed_[Slot(l)] = false;
    return ready;
  }

  void Place(int first) {
    for (int l = first; l != kNone; l = Follower(l)) {
      schedule_.order.push_back(l);
      placed_[Slot(l)] = true;
    }
  }

  /// What can come next: a sum that ends here, else a convolution of what comes before, else any.
  int Next() {
    const int last = schedule_.order.empty() ? kNetworkInput : schedule_.order.back();
    int best = kNone, best_rank = 0;
    for (int l = 0; l < static_cast<int>(layers_.size()); ++l) {
      if (placed_[Slot(l)] || follows_[static_cast<std::size_t>(l)]) continue;
      const std::vector<int>& inputs = At(l).inputs;
      const bool here = std::find(inputs.begin(), inputs.end(), last) != inputs.end();
      if (IsSum(l) && !here) continue;
      const int rank = IsSum(l) ? 3 : here ? 2 : 1;
      if (rank > best_rank && IsReady(l)) {
        best = l;
        best_rank = rank;
      }
    }
    return best;
  }

  int FirstUnplaced() const {
    int l = 0;
    while (placed_[Slot(l)]) ++l;
    return l;
  }

  const std::vector<GraphLayer>& layers_;
  std::vector<int> follower_;
  std::vector<bool> follows_;  // has to come directly after some layer
  std::vector<bool> placed_;
  Schedule schedule_;
};

}  // namespace

Schedule MakeSchedule(const std::vector<GraphLayer>& layers) { return Scheduler(layers).Run(); }

}  // namespace tercet::importer
