// SPDX-License-Identifier: Apache-2.0
#include "infer/rotated_runner.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "infer/rotation.h"
#include "tercet/net/split_link.h"

namespace tercet::infer {

static_assert(kGroups <= net::kMaxLinkParts);

RotatedRunner::Group::Group(const Plan& its_plan, std::unique_ptr<mpc::Party> its_party,
                            const SessionSettings& settings, const mpc::Registry& registry)
    : plan(its_plan), party(std::move(its_party)), secure(*party, plan, registry) {
  secure.ShareModel(settings.model);
}

std::unique_ptr<mpc::Party> RotatedRunner::AgreeKeys(std::size_t /*group*/, int id,
                                                     net::Links links, std::size_t layers) {
  return std::make_unique<mpc::Party>(id, std::move(links), layers);
}

RotatedRunner::RotatedRunner(net::Links links, const std::vector<Plan>& plans,
                             const mpc::Registry& registry, const SessionSettings& settings,
                             std::function<void(const std::string& reason)> abort,
                             const MakeParty& make_party)
    : settings_(settings), abort_(std::move(abort)) {
  std::vector<net::Links> parts(plans.size());
  for (std::size_t p = 0; p < links.size(); ++p) {
    if (!links[p]) continue;
    auto split =
        net::SplitLink(std::move(links[p]), plans.size(), {.patience = settings.stall_timeout});
    for (std::size_t g = 0; g < plans.size(); ++g) parts[g][p] = std::move(split[g]);
  }
  for (std::size_t g = 0; g < plans.size(); ++g)
    groups_.push_back(std::make_unique<Group>(
        plans[g], make_party(g, settings.id, std::move(parts[g]), plans[g].layers.size()), settings,
        registry));
}

QueryRunner::Outcome RotatedRunner::Run(std::size_t images, std::size_t batch) {
  QueryRunner::Outcome outcome;
  mpc::Party& meeting = *groups_.front()->party;  // the others have nothing to do meanwhile
  mpc::Meet(meeting);
  const auto start = Clock::now();
  for (std::size_t first = 0; first < images; first += batch) {
    const std::size_t count = std::min(batch, images - first);
    if (first > 0) mpc::Meet(meeting);
    const auto offline = Clock::now();
    InEachGroup(count, [&](std::size_t g) {
      Group& group = *groups_[g];
      group.query = group.secure.Prepare(GroupOf(count, g).count);
    });
    outcome.offline_s += SecondsSince(offline);
    mpc::Meet(meeting);
    const auto online = Clock::now();
    InEachGroup(count, [&](std::size_t g) { RunGroup(g, first, count); });
    outcome.online_s += SecondsSince(online);
    for (auto& group : groups_) {
      outcome.online_hops = std::max(outcome.online_hops, group->secure.OnlineHops());
      outcome.logits.insert(outcome.logits.end(), group->logits.begin(), group->logits.end());
      group->logits.clear();
    }
    if (settings_.on_progress) settings_.on_progress(first + count, images);
  }
  outcome.wall_s = SecondsSince(start);
  mpc::Meet(meeting);  // nobody leaves before all have everything
  for (auto& group : groups_) group->party->Close();
  return outcome;
}

void RotatedRunner::RunGroup(std::size_t g, std::size_t first, std::size_t images) {
  Group& group = *groups_[g];
  const GroupRange range = GroupOf(images, g);
  std::vector<std::int64_t> input;
  if (settings_.images != nullptr)
    input = nn::QuantiseInput(group.plan.network.input, *settings_.images, first + range.first,
                              range.count);
  auto query = std::move(*group.query);
  group.query.reset();
  group.logits = group.secure.Run(std::move(query), settings_.images != nullptr ? &input : nullptr);
}

// `work` for each group with an image among `images`, in a thread of its own.
void RotatedRunner::InEachGroup(std::size_t images,
                                const std::function<void(std::size_t group)>& work) {
  std::mutex mutex;
  std::exception_ptr cause;  // the first error; those after it follow from it
  const auto guarded = [&](const std::function<void()>& body) {
    try {
      body();
    } catch (const std::exception& e) {
      {
        const std::lock_guard lock(mutex);
        if (cause) return;
        cause = std::current_exception();
      }
      abort_(ErrorText(e));
    }
  };
  std::vector<std::jthread> threads;
  guarded([&] {
    for (std::size_t g = 1; g < groups_.size() && GroupOf(images, g).count > 0; ++g)
      threads.emplace_back([&, g] { guarded([&, g] { work(g); }); });
    work(0);
  });
  threads.clear();  // waits for them
  if (cause) std::rethrow_exception(cause);
}

}  // namespace tercet::infer
