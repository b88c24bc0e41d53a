// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "infer/queries.h"
#include "infer/threads.h"
#include "infer/track.h"

namespace tercet::infer {

/// All queries of one party in one session, up to settings.in_flight of them under way at once: as
/// many runners, each in a thread of its own, take every so-many-th query, so that one computes
/// while others wait for the network. A runner has a track; where the helper's role rotates
/// (rotation.h) one for each group of images, and the groups' offline phases run side by side, then
/// their online phases. Used once; the calls' errors are those of nn and net, the first one where
/// several queries fail.
class Flight {
 public:
  /// Makes the party of a track, with that track's part of the links.
  using MakeParty = std::function<std::unique_ptr<mpc::Party>(
      std::size_t track, int id, net::Links links, std::size_t layers)>;
  static std::unique_ptr<mpc::Party> AgreeKeys(std::size_t track, int id, net::Links links,
                                               std::size_t layers);

  /// Agrees the keys of all tracks (1 hop) and shares the model, or takes it from the material:
  /// once for all runners, and once for each group (1 hop and the model's bytes each). `plans`: see
  /// PlansOf; they outlive this. `runners`: at most settings.in_flight and the number of queries.
  /// `abort` closes all links, so that whatever waits for a message stops; from any thread.
  Flight(net::Links links, const std::vector<Plan>& plans, std::size_t runners,
         const mpc::Registry& registry, const SessionSettings& settings,
         std::function<void(const std::string& reason)> abort,
         const MakeParty& make_party = AgreeKeys);

  /// Classifies `images` images in batches of plan.batch, and closes the links. The logits are in
  /// the images' order; hops are the largest of one query. Material from a file is used from query
  /// `first` on. `batch`: images of a query, of all groups.
  Outcome Run(std::size_t images, std::size_t first);
  /// Makes material as settings.schedule, a MakeMaterial, says, and closes the links; a helper
  /// without a part online writes nothing. Unless all parties have finished theirs, no file is
  /// left.
  Outcome MakeFile(const std::string& session);

  /// As measured: bytes add up over the tracks, times are the largest of one.
  std::vector<PartyLayer> Layers() const;

 private:
  Track& At(std::size_t runner, std::size_t group) const {
    return *tracks_[runner * plans_.size() + group];
  }
  mpc::Party& First() const { return *tracks_.front()->party; }
  FirstError NewError(Queries& queries) const;
  void LoadModel();
  void RunInTurn(std::size_t runner, Queries& queries, FirstError& error);
  Outcome End(Queries& queries, double wall_s);

  const SessionSettings& settings_;
  const std::vector<Plan>& plans_;
  const std::size_t runners_;
  const std::function<void(const std::string&)> abort_;
  std::vector<std::unique_ptr<Track>> tracks_;  // of each runner its groups'
  SecureNetwork::ModelShares model_;            // where they go to a file
};

}  // namespace tercet::infer
