// SPDX-License-Identifier: Apache-2.0
#include "infer/track.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace tercet::infer {
namespace {

// Features x images, row-major, with the last image repeated up to `batch` images: material is for
// whole batches.
std::vector<std::int64_t> Padded(const std::vector<std::int64_t>& input, std::size_t count,
                                 std::size_t batch) {
  std::vector<std::int64_t> padded;
  padded.reserve(input.size() / count * batch);
  for (std::size_t row = 0; row < input.size(); row += count)
    for (std::size_t b = 0; b < batch; ++b) padded.push_back(input[row + std::min(b, count - 1)]);
  return padded;
}

// Whether the party receives nothing offline.
bool DealsAlone(const Plan& plan, int party) {
  const mpc::Cost cost = plan.Total();
  for (const auto& round : cost.Rounds(mpc::Phase::kOffline))
    for (const auto& message : round)
      if (message.to == party) return false;
  return party == plan.roles.helper;
}

}  // namespace

Track::Track(const Plan& its_plan, std::unique_ptr<mpc::Party> its_party,
             const mpc::Registry& registry)
    : plan(its_plan),
      party(std::move(its_party)),
      secure(*party, plan, registry),
      deals_alone_(DealsAlone(plan, party->Id())) {}

SecureNetwork::Query Track::Prepare(Queries& queries, std::size_t images) {
  std::unique_lock lock(queries.dealing, std::defer_lock);
  if (deals_alone_) lock.lock();
  const BusyTime::Span span(queries.offline);
  return secure.Prepare(images);
}

std::vector<std::int64_t> Track::Input(const SessionSettings& settings, std::size_t first,
                                       std::size_t count, std::size_t batch) const {
  if (settings.images == nullptr) return {};
  auto input = nn::QuantiseInput(plan.network.input, *settings.images, first, count);
  return count < batch ? Padded(input, count, batch) : input;
}

std::vector<std::int64_t> Track::Run(SecureNetwork::Query query, const SessionSettings& settings,
                                     const std::vector<std::int64_t>& input, std::size_t count) {
  auto logits = secure.Run(std::move(query), settings.images != nullptr ? &input : nullptr);
  online_hops_ = std::max(online_hops_, secure.OnlineHops());
  logits.resize(std::min(logits.size(), count * plan.network.Classes()));
  return logits;
}

}  // namespace tercet::infer
