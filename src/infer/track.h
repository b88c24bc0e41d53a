// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "infer/queries.h"
#include "tercet/infer/secure_network.h"
#include "tercet/infer/session.h"

namespace tercet::infer {

/// One of the tracks on which a party runs queries side by side: a session in small, with keys and
/// meter of its own over its part of the links. At most one query is online on a track.
class Track {
 public:
  /// `its_plan` and `registry` outlive this.
  Track(const Plan& its_plan, std::unique_ptr<mpc::Party> its_party, const mpc::Registry& registry);

  /// Material for a query of `images` images. A helper that waits for nobody deals one query of all
  /// tracks after the other, so that the first ones can go on as soon as possible.
  SecureNetwork::Query Prepare(Queries& queries, std::size_t images);

  /// What images [first, first + count) are as the input of a query of `batch`, at their owner;
  /// elsewhere empty. The last image is repeated where there are fewer than `batch`.
  std::vector<std::int64_t> Input(const SessionSettings& settings, std::size_t first,
                                  std::size_t count, std::size_t batch) const;
  /// Runs a query; the logits of its first `count` images at the receiver. `input` as Input gives
  /// it.
  std::vector<std::int64_t> Run(SecureNetwork::Query query, const SessionSettings& settings,
                                const std::vector<std::int64_t>& input, std::size_t count);
  /// The most of a query so far.
  std::uint32_t OnlineHops() const { return online_hops_; }

  const Plan& plan;
  const std::unique_ptr<mpc::Party> party;
  SecureNetwork secure;

 private:
  const bool deals_alone_;
  std::uint32_t online_hops_ = 0;
};

}  // namespace tercet::infer
