// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "infer/query_runner.h"

namespace tercet::infer {

/// All queries of one party while the helper's role rotates (rotation.h). Each group of images is a
/// session of its own, with its own keys, shares of the model and meter, over its part of the
/// links; the groups' offline phases run side by side, then their online phases. Used once; the
/// calls' errors are those of nn and net, the first one where several groups fail.
class RotatedRunner {
 public:
  /// Agrees the keys and shares the model, once for each group: group after group, 2 hops and the
  /// model's bytes each. `plans`: see PlansOf. `abort` closes all links, so that whatever
  /// waits for a message stops; from any thread.
  RotatedRunner(net::Links links, const std::vector<Plan>& plans, const mpc::Registry& registry,
                const SessionSettings& settings,
                std::function<void(const std::string& reason)> abort)
      : RotatedRunner(std::move(links), plans, registry, settings, std::move(abort), AgreeKeys) {}

  /// Makes the party of a group, with that group's part of the links.
  using MakeParty = std::function<std::unique_ptr<mpc::Party>(
      std::size_t group, int id, net::Links links, std::size_t layers)>;
  RotatedRunner(net::Links links, const std::vector<Plan>& plans, const mpc::Registry& registry,
                const SessionSettings& settings,
                std::function<void(const std::string& reason)> abort, const MakeParty& make_party);

  /// Classifies `images` images in batches of `batch`, and closes the links. A group without an
  /// image in the last batch waits for the others. The logits are in the images' order; hops are
  /// the largest of one group.
  QueryRunner::Outcome Run(std::size_t images, std::size_t batch);

  std::size_t Groups() const { return groups_.size(); }
  const Plan& PlanOf(std::size_t group) const { return groups_[group]->plan; }
  const net::Meter& MeterOf(std::size_t group) const { return groups_[group]->party->Meter(); }

 private:
  struct Group {
    Group(const Plan& its_plan, std::unique_ptr<mpc::Party> its_party,
          const SessionSettings& settings, const mpc::Registry& registry);

    Plan plan;
    std::unique_ptr<mpc::Party> party;
    SecureNetwork secure;
    std::optional<SecureNetwork::Query> query;  // prepared, not yet run
    std::vector<std::int64_t> logits;           // of one batch
  };

  static std::unique_ptr<mpc::Party> AgreeKeys(std::size_t group, int id, net::Links links,
                                               std::size_t layers);
  void InEachGroup(std::size_t images, const std::function<void(std::size_t group)>& work);
  void RunGroup(std::size_t group, std::size_t first, std::size_t images);

  const SessionSettings& settings_;
  std::function<void(const std::string&)> abort_;
  std::vector<std::unique_ptr<Group>> groups_;
};

}  // namespace tercet::infer
