// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tercet/infer/secure_network.h"
#include "tercet/infer/session.h"

namespace tercet::infer {

/// All queries of one party in one session, once keys and model are there: offline and online in
/// turn, material made while queries run, material to a file or from one. Used once; the calls'
/// errors are those of nn and net.
class QueryRunner {
 public:
  struct Outcome {
    double offline_s = 0;  ///< making material, or reading it
    double online_s = 0;   ///< running queries that have their material
    double wall_s = 0;  ///< from the first to the last; less than both together where they overlap
    std::uint32_t online_hops = 0;
    std::vector<std::int64_t> logits;  ///< at the receiver
  };
  /// `abort` closes all links, so that whatever waits for a message stops; from any thread.
  QueryRunner(mpc::Party& party, SecureNetwork& secure, const Plan& plan,
              const SessionSettings& settings,
              std::function<void(const std::string& reason)> abort);

  /// Classifies `images` images in batches of plan.batch. Material from a file is used from query
  /// `first` on.
  Outcome Run(std::size_t images, std::size_t first);
  /// Makes material as settings.schedule, a MakeMaterial, says; a helper without a part online
  /// writes nothing. Unless all parties have finished theirs, no file is left.
  Outcome MakeFile(const SecureNetwork::ModelShares& model, const std::string& session);

 private:
  class Handover;

  std::size_t Queries() const { return plan_.Queries(images_); }
  std::size_t ImagesOf(std::size_t query) const;
  bool IsHelper() const { return party_.Id() == plan_.roles.helper; }
  void RunInTurn();
  void RunOverlapped(std::size_t first);
  void PrepareAll(Handover& handover, std::size_t first);
  void RunOne(SecureNetwork::Query query, std::size_t number);

  void Tell(int peer, std::uint32_t notice);
  void Await(int peer, std::uint32_t notice, std::size_t times);
  void TellProgress(std::size_t finished);
  void TellIdleHelper(std::uint32_t notice);
  void AwaitProgress(std::size_t finished);
  void Deliver();
  void PartCompany();

  mpc::Party& party_;
  SecureNetwork& secure_;
  const Plan& plan_;
  const SessionSettings& settings_;
  std::function<void(const std::string&)> abort_;
  MaterialFile* const file_;  // null where material is made
  const bool helper_acts_;    // online
  std::size_t images_ = 0;
  std::size_t ahead_ = 0;
  std::vector<int> online_;  // peers with a part in the online phase
  struct Heard {
    std::size_t finished = 0, delivered = 0, ended = 0;
  };
  std::array<Heard, 3> heard_{};  // notices by peer; read by one thread at a time
  Outcome outcome_;
};

}  // namespace tercet::infer
