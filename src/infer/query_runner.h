// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "infer/queries.h"
#include "infer/threads.h"
#include "infer/track.h"

namespace tercet::infer {

/// One runner's queries where material is made, or read from a file, while queries run. Used once;
/// the calls' errors are those of nn and net.
class QueryRunner {
 public:
  /// Runner `number` of queries.Runners(). Material from a file is used from query `first` on. All
  /// that is referred to outlives this.
  QueryRunner(Track& track, const SessionSettings& settings, Queries& queries, std::size_t number,
              std::size_t first);

  void Run(FirstError& error);
  /// Nobody leaves before all who still have a part have everything; of one runner, when all have
  /// run.
  void PartCompany();

 private:
  class Handover;

  /// How many queries are this runner's, and which is the one that it takes `n`-th.
  std::size_t Mine() const;
  std::size_t NumberOf(std::size_t n) const { return number_ + n * queries_.Runners(); }
  bool IsHelper() const { return track_.party->Id() == track_.plan.roles.helper; }
  void PrepareAll(Handover& handover);
  void RunOne(SecureNetwork::Query query, std::size_t number);

  void Tell(int peer, std::uint32_t notice);
  void Await(int peer, std::uint32_t notice, std::size_t times);
  void TellProgress(std::size_t finished);
  void TellIdleHelper(std::uint32_t notice);
  void AwaitProgress(std::size_t finished);
  void Deliver();

  Track& track_;
  const SessionSettings& settings_;
  Queries& queries_;
  const std::size_t number_, first_;
  MaterialFile* const file_;  // null where material is made
  const bool helper_acts_;    // online
  const std::size_t ahead_;
  std::vector<int> online_;  // peers with a part in the online phase
  struct Heard {
    std::size_t finished = 0, delivered = 0, ended = 0;
  };
  std::array<Heard, 3> heard_{};  // notices by peer; read by one thread at a time
};

}  // namespace tercet::infer
