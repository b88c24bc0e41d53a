// SPDX-License-Identifier: Apache-2.0
#include "infer/flight.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "infer/query_runner.h"
#include "infer/rotation.h"
#include "tercet/compile/announcement.h"
#include "tercet/infer/material.h"
#include "tercet/net/split_link.h"

namespace tercet::infer {
namespace {

using net::Phase;

static_assert(kMaxInFlight * kGroups <= net::kMaxLinkParts);

std::vector<net::Links> Split(net::Links links, std::size_t count,
                              std::chrono::milliseconds patience) {
  std::vector<net::Links> parts(count);
  if (count == 1) {
    parts.front() = std::move(links);
    return parts;
  }
  for (std::size_t p = 0; p < links.size(); ++p) {
    if (!links[p]) continue;
    auto split = net::SplitLink(std::move(links[p]), count, {.patience = patience});
    for (std::size_t k = 0; k < count; ++k) parts[k][p] = std::move(split[k]);
  }
  return parts;
}

std::uint64_t Sent(const net::Meter::Cell& cell) {
  return cell.sent_bytes[0] + cell.sent_bytes[1] + cell.sent_bytes[2];
}

std::vector<PartyLayer> MeasuredLayers(const Plan& plan, const net::Meter& meter) {
  const auto offline = meter.Layers(Phase::kOffline), online = meter.Layers(Phase::kOnline);
  std::vector<PartyLayer> layers;
  for (const auto& step : plan.Steps()) {
    const std::size_t k = layers.size();
    PartyLayer layer;
    layer.name = step.name;
    layer.type = step.type;
    if (step.layer) {
      layer.suite = step.layer->suite.Text();
      layer.width = step.layer->layer.value_bits;
    }
    layer.offline_hops = offline[k].hops;
    layer.online_hops = online[k].hops;
    layer.offline_bytes = Sent(offline[k]);
    layer.online_bytes = Sent(online[k]);
    layer.offline_s = offline[k].seconds;
    layer.online_s = online[k].seconds;
    layers.push_back(std::move(layer));
  }
  return layers;
}

bool IsInTurn(const Schedule& schedule) {
  return std::holds_alternative<InTurn>(schedule) ||
         std::holds_alternative<HelperRotates>(schedule);
}

}  // namespace

std::unique_ptr<mpc::Party> Flight::AgreeKeys(std::size_t /*track*/, int id, net::Links links,
                                              std::size_t layers) {
  return std::make_unique<mpc::Party>(id, std::move(links), layers);
}

Flight::Flight(net::Links links, const std::vector<Plan>& plans, std::size_t runners,
               const mpc::Registry& registry, const SessionSettings& settings,
               std::function<void(const std::string& reason)> abort, const MakeParty& make_party)
    : settings_(settings),
      plans_(plans),
      runners_(runners),
      abort_(std::move(abort)),
      tracks_(runners * plans.size()) {
  auto parts = Split(std::move(links), tracks_.size(), settings.stall_timeout);
  FirstError error(abort_);
  InThreads(tracks_.size(), error, [&](std::size_t t) {
    const Plan& plan = plans[t % plans.size()];
    tracks_[t] = std::make_unique<Track>(
        plan, make_party(t, settings.id, std::move(parts[t]), plan.layers.size()), registry);
  });
  LoadModel();
}

void Flight::LoadModel() {
  const auto* use = std::get_if<UseMaterial>(&settings_.schedule);
  for (std::size_t g = 0; g < plans_.size(); ++g) {
    SecureNetwork& first = At(0, g).secure;
    if (use != nullptr) {
      const Bytes bytes = use->file->Model();
      const std::string place = use->file->File().string() + " model";
      mpc::Archive archive(bytes, place);
      SecureNetwork::ModelShares shares;
      archive(shares);
      archive.Finish();
      first.UseModel(shares, place);
    } else {
      auto shares = first.ShareModel(settings_.model);
      if (std::holds_alternative<MakeMaterial>(settings_.schedule)) model_ = std::move(shares);
    }
    for (std::size_t r = 1; r < runners_; ++r) At(r, g).secure.UseModelOf(first);
  }
}

FirstError Flight::NewError(Queries& queries) const {
  return FirstError([this, &queries](const std::string& reason) {
    queries.Stop();
    abort_(reason);
  });
}

Outcome Flight::Run(std::size_t images, std::size_t first) {
  Queries queries(settings_, plans_, images, runners_);
  FirstError error = NewError(queries);
  // All have their shares of the model.
  if (!std::holds_alternative<UseMaterial>(settings_.schedule)) mpc::Meet(First());
  const auto start = Clock::now();
  if (IsInTurn(settings_.schedule)) {
    InThreads(runners_, error, [&](std::size_t r) { RunInTurn(r, queries, error); });
    const double wall_s = SecondsSince(start);
    mpc::Meet(First());  // nobody leaves before all have everything
    return End(queries, wall_s);
  }
  std::vector<std::unique_ptr<QueryRunner>> all;
  for (std::size_t r = 0; r < runners_; ++r)
    all.push_back(std::make_unique<QueryRunner>(At(r, 0), settings_, queries, r, first));
  InThreads(runners_, error, [&](std::size_t r) { all[r]->Run(error); });
  const double wall_s = SecondsSince(start);
  all.front()->PartCompany();
  return End(queries, wall_s);
}

void Flight::RunInTurn(std::size_t runner, Queries& queries, FirstError& error) {
  mpc::Party& meeting = *At(runner, 0).party;
  for (std::size_t q = runner; q < queries.Count(); q += runners_) {
    if (q > runner) mpc::Meet(meeting);
    const std::size_t images = queries.Images(q), groups = std::min(plans_.size(), images);
    const auto range = [&](std::size_t group) {
      return plans_.size() == 1 ? GroupRange{0, images} : GroupOf(images, group);
    };
    std::vector<SecureNetwork::Query> prepared(groups);
    InThreads(groups, error,
              [&](std::size_t g) { prepared[g] = At(runner, g).Prepare(queries, range(g).count); });
    std::vector<std::vector<std::int64_t>> inputs(groups), logits(groups);
    for (std::size_t g = 0; g < groups; ++g)
      inputs[g] = At(runner, g).Input(settings_, queries.FirstImage(q) + range(g).first,
                                      range(g).count, range(g).count);
    // Phases are timed apart, but not where queries overlap: there a party's word would wait behind
    // the material of all queries that the helper has dealt since.
    if (runners_ == 1) mpc::Meet(meeting);
    {
      const BusyTime::Span span(queries.online);
      InThreads(groups, error, [&](std::size_t g) {
        logits[g] = At(runner, g).Run(std::move(prepared[g]), settings_, inputs[g], range(g).count);
      });
    }
    for (std::size_t g = 1; g < groups; ++g)
      logits[0].insert(logits[0].end(), logits[g].begin(), logits[g].end());
    queries.Finish(q, logits[0]);
  }
}

// A helper without a part online has no use for its part of a query, but it would tell the input to
// whoever has it and a message of that query: it keeps nothing, and has no file.
Outcome Flight::MakeFile(const std::string& session) {
  const auto& make = std::get<MakeMaterial>(settings_.schedule);
  const Plan& plan = plans_.front();
  MaterialHeader header;
  header.network = compile::AnnouncementToJson(
      compile::AnnouncementOf(plan.network, settings_.spec, settings_.suite));
  header.suite = settings_.suite.Text();
  header.linear = plan.linear;
  header.roles = plan.roles;
  header.batch = plan.batch;
  header.queries = make.queries;
  header.party = settings_.id;
  header.plan_digest = plan.Digest();
  header.session = session;
  std::optional<MaterialWriter> writer;
  if (plan.HelperActsOnline() || settings_.id != plan.roles.helper) {
    writer.emplace(make.file, header);
    mpc::Archive archive;
    archive(model_);
    writer->AddModel(archive.Written());
  }
  Queries queries(settings_, plans_, make.queries * plan.batch, runners_);
  FirstError error = NewError(queries);
  mpc::Meet(First());
  const auto start = Clock::now();
  InThreads(runners_, error, [&](std::size_t r) {
    Track& track = At(r, 0);
    for (std::size_t q = r; q < make.queries; q += runners_) {
      auto query = track.Prepare(queries, plan.batch);
      mpc::Archive archive;
      if (writer) track.secure.Visit(archive, query);
      queries.InOrder(q, [&] {
        if (writer) writer->AddQuery(archive.Written());
      });
      queries.Finish(q, {});
    }
  });
  // No file is finished before all are on the disks, and none is kept before all are finished.
  if (writer) writer->Flush();
  mpc::Meet(First());
  if (writer) writer->Finish();
  const double wall_s = SecondsSince(start);
  mpc::Meet(First());
  if (writer) writer->Keep();
  return End(queries, wall_s);
}

Outcome Flight::End(Queries& queries, double wall_s) {
  Outcome outcome = queries.TakeOutcome();
  outcome.wall_s = wall_s;
  for (const auto& track : tracks_) {
    outcome.online_hops = std::max(outcome.online_hops, track->OnlineHops());
    track->party->Close();
  }
  return outcome;
}

std::vector<PartyLayer> Flight::Layers() const {
  std::vector<std::vector<PartyLayer>> layers;
  for (const auto& track : tracks_)
    layers.push_back(MeasuredLayers(track->plan, track->party->Meter()));
  return SideBySide(layers);
}

}  // namespace tercet::infer
