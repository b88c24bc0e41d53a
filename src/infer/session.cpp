// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/session.h"

#include <sys/resource.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "infer/flight.h"
#include "tercet/compile/announcement.h"
#include "tercet/crypto/certificates.h"
#include "tercet/infer/material.h"
#include "tercet/infer/run_cost.h"
#include "tercet/ring/kernels.h"

namespace tercet::infer {
namespace {

using net::Phase;

// Steps of the setup before there are keys; apart from the tags of mpc.
constexpr std::uint32_t kNetworkTag = 0xfffe'0000;
constexpr std::uint32_t kImagesTag = 0xfffe'0001;
constexpr std::uint32_t kPlanTag = 0xfffe'0002;
constexpr std::uint32_t kSessionTag = 0xfffe'0003;
constexpr std::uint32_t kNextQueryTag = 0xfffe'0004;
constexpr std::uint32_t kFirstQueryTag = 0xfffe'0005;
constexpr std::uint32_t kModelTagTag = 0xfffe'0006;
constexpr std::uint32_t kImagesTagTag = 0xfffe'0007;
constexpr std::uint32_t kDoneTag = 0xfffe'0008;
constexpr std::size_t kMaxPlanSlack = 256;  // by which numbers of other parties may be longer
constexpr std::size_t kSessionDigits = 32;
constexpr std::size_t kTagDigits = 64;
constexpr const char* kProtocolVersion = "9";
constexpr const char* kShardName = "shard";
constexpr const char* kResumeName = "resume";

double PeakMemoryMb() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<double>(usage.ru_maxrss) / 1e6;  // bytes there, KiB elsewhere
#else
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
#endif
}

// A value that one party announces to the other two, in the clear.
std::string Announce(net::Links& links, int from, std::uint32_t tag, const std::string& mine,
                     std::size_t max_bytes, const char* what) {
  if (!links[static_cast<std::size_t>(from)]) {
    for (auto& link : links)
      if (link) link->Send({Phase::kSetup, tag, 1, Bytes(mine.begin(), mine.end())});
    return mine;
  }
  const auto message = links[static_cast<std::size_t>(from)]->Receive(Phase::kSetup);
  if (message.tag != tag)
    throw ProtocolError(
        fmt::format("party {} sent tag {:#x} where {} was expected", from, message.tag, what));
  if (message.payload.size() > max_bytes)
    throw ProtocolError(
        fmt::format("party {} sent {} bytes where {} of at most {} bytes was expected", from,
                    message.payload.size(), what, max_bytes));
  return {message.payload.begin(), message.payload.end()};
}

std::size_t ParseImageCount(const std::string& text, int from) {
  std::size_t count = 0;
  const bool digits =
      !text.empty() && text.size() <= 10 &&
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (digits) count = std::stoul(text);
  if (count == 0 || count > kMaxImages)
    throw ProtocolError(
        fmt::format("party {} announced no number of images from 1 to {}", from, kMaxImages));
  return count;
}

// Something that the parties must agree on, and who told this party; -1: it found out by itself.
struct Told {
  const char* what;
  std::string value;  // without line breaks; compared as it is
  int by = -1;
};

// What is computed: this party's own architecture with the widths that the model's owner announces,
// and this party's own choice of suites, or where it leaves that the announced one.
std::pair<Plan, Told> ReceivePlan(net::Links& links, const SessionSettings& settings,
                                  const mpc::Registry& registry, std::size_t batch) {
  const int owner = settings.roles.model_owner;
  const auto plan_of = [&](const compile::Announcement& announced) {
    auto network = compile::NetworkOf(settings.spec, announced, registry, settings.suite, "model");
    network.linear = settings.linear;
    return MakePlan(network, registry, settings.suite, settings.roles, batch);
  };
  const auto told = [&](const std::string& text) {
    return Told{"widths of the model", crypto::Sha256Hex(text), owner};
  };
  if (settings.model != nullptr) {
    const auto mine = compile::AnnouncementOf(settings.model->net, settings.spec, settings.suite);
    auto plan = plan_of(mine);  // whatever the others would refuse is refused here
    const std::string text = compile::AnnouncementToJson(mine);
    Announce(links, owner, kNetworkTag, text, text.size(), "");
    return {std::move(plan), told(text)};
  }
  const std::string text =
      Announce(links, owner, kNetworkTag, "", compile::MostAnnouncementBytes(settings.spec),
               "the model's widths");
  // What is wrong in it is no fault of this party's user.
  const auto refusal = [&](const Error& e) {
    return ProtocolError(
        fmt::format("party {} announced a model that this party refuses: {}", owner, e.what()));
  };
  try {
    return {plan_of(compile::AnnouncementFromJson(text, "model")), told(text)};
  } catch (const ConfigError& e) {
    throw refusal(e);
  } catch (const UnsupportedError& e) {
    throw refusal(e);
  }
}

std::string Difference(const Told& told, int self, int peer) {
  if (told.by < 0)
    return fmt::format("party {} made another plan than this party; do both run the same version?",
                       peer);
  if (told.by == peer)
    return fmt::format("party {} uses {} other than it announced to this party", peer, told.what);
  if (told.by == self)
    return fmt::format("party {} says that it was told {} other than this party announced", peer,
                       told.what);
  return fmt::format(
      "party {0} says that party {1} announced to it {2} other than to this party: either party "
      "{1} "
      "told them different things, or party {0} does not say what it was told",
      peer, told.by, told.what);
}

// Ends the session where the others were told something else than this party was.
void CompareWhatWasTold(net::Links& links, int self, const std::vector<Told>& all) {
  std::string mine;
  for (const auto& told : all) mine += told.value + '\n';
  for (auto& link : links)
    if (link) link->Send({Phase::kSetup, kPlanTag, 1, Bytes(mine.begin(), mine.end())});
  for (auto& link : links) {
    if (!link) continue;
    const auto message = link->Receive(Phase::kSetup);
    if (message.tag != kPlanTag || message.payload.size() > mine.size() + kMaxPlanSlack)
      throw ProtocolError(fmt::format(
          "party {} sent tag {:#x} with {} bytes where its plan's digest of at most {} bytes was "
          "expected",
          link->Peer(), message.tag, message.payload.size(), mine.size() + kMaxPlanSlack));
    const std::string_view text(reinterpret_cast<const char*>(message.payload.data()),
                                message.payload.size());
    std::size_t at = 0;
    for (const auto& told : all) {
      const std::size_t end = text.find('\n', at);
      if (end == std::string_view::npos || text.substr(at, end - at) != told.value)
        throw ProtocolError(Difference(told, self, link->Peer()));
      at = end + 1;
    }
    if (at != text.size())
      throw ProtocolError(fmt::format("party {} sent {} bytes where its plan's digest was expected",
                                      link->Peer(), text.size()));
  }
}

bool IsHex(const std::string& text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// Random or keyed digits that their owner announces and that all compare.
Told AnnounceHex(net::Links& links, int owner, std::uint32_t tag, const std::string& mine,
                 std::size_t digits, const char* what) {
  auto text = Announce(links, owner, tag, mine, digits, what);
  if (!IsHex(text, digits))
    throw ProtocolError(
        fmt::format("party {} announced {} that is not {} hex digits", owner, what, digits));
  return {what, std::move(text), owner};
}

// Whether all three parties have their results already.
bool AllAreDone(net::Links& links, bool mine) {
  const std::string text(mine ? "yes" : "no");
  bool all = mine;
  for (auto& link : links)
    if (link) link->Send({Phase::kSetup, kDoneTag, 1, Bytes(text.begin(), text.end())});
  for (auto& link : links) {
    if (!link) continue;
    const auto message = link->Receive(Phase::kSetup);
    const std::string_view theirs(reinterpret_cast<const char*>(message.payload.data()),
                                  message.payload.size());
    if (message.tag != kDoneTag || (theirs != "yes" && theirs != "no"))
      throw ProtocolError(
          fmt::format("party {} did not say whether it has its results already", link->Peer()));
    all &= theirs == "yes";
  }
  return all;
}

// Why this party's material does not do, if it does not.
std::optional<std::string> ShortageOf(const MaterialHeader& header, std::size_t unused,
                                      std::size_t needed) {
  if (unused == 0) return fmt::format("all of its {} queries are used up", header.queries);
  if (unused < needed)
    return fmt::format("holds {} unused queries of {} images, {} are needed", unused, header.batch,
                       needed);
  return std::nullopt;
}

// The first query that a peer has not used, which it tells with its session.
std::size_t PeersNextQuery(net::Link& link, const MaterialFile& material) {
  const auto message = link.Receive(Phase::kSetup);
  const auto& payload = message.payload;
  const bool fits = message.tag == kNextQueryTag && payload.size() > kSessionDigits + 1 &&
                    payload.size() <= kSessionDigits + 11;
  const std::string theirs = fits ? std::string(payload.begin(), payload.end()) : "";
  const std::string session = theirs.substr(0, kSessionDigits);
  const std::string number = fits ? theirs.substr(kSessionDigits + 1) : "";
  if (!fits || !IsHex(session, kSessionDigits) || payload[kSessionDigits] != ' ' ||
      number.find_first_not_of("0123456789") != std::string::npos)
    throw ProtocolError(
        fmt::format("party {} sent tag {:#x} with {} bytes where its next query was expected",
                    link.Peer(), message.tag, message.payload.size()));
  const std::string& own = material.Header().session;
  if (session != own)
    throw ProtocolError(fmt::format("party {} has material of session {}, {} is of session {}",
                                    link.Peer(), session, material.File().string(), own));
  return std::stoul(number);
}

// A party that told the others different numbers would have them use material of different queries
// together, with a wrong result.
void CompareFirstQuery(net::Links& links, std::size_t first) {
  const auto chosen = std::to_string(first);
  for (auto& link : links)
    if (link) link->Send({Phase::kSetup, kFirstQueryTag, 1, Bytes(chosen.begin(), chosen.end())});
  for (auto& link : links) {
    if (!link) continue;
    const auto message = link->Receive(Phase::kSetup);
    if (message.tag != kFirstQueryTag ||
        !std::equal(message.payload.begin(), message.payload.end(), chosen.begin(), chosen.end()))
      throw ProtocolError(fmt::format(
          "party {} begins with another query of the material than query {}, with which "
          "this party begins: the parties were told different numbers by one of them",
          link->Peer(), first));
  }
}

// The query from which on all parties' material is unused. A party that stopped in the middle may
// be ahead of the others, whose queries up to there are of no use without its.
std::size_t AgreeOnQueries(net::Links& links, const SessionSettings& settings,
                           MaterialFile& material, std::size_t needed) {
  const auto& header = material.Header();
  const int owner = settings.roles.data_owner;
  const auto text = fmt::format("{} {}", header.session, material.Next());
  for (auto& link : links)
    if (link) link->Send({Phase::kSetup, kNextQueryTag, 1, Bytes(text.begin(), text.end())});
  const std::size_t unused = header.queries - material.Next();
  const std::optional<std::string> shortage = ShortageOf(header, unused, needed);
  bool owner_is_short = false;
  std::size_t first = material.Next();
  for (auto& link : links) {
    if (!link) continue;
    const std::size_t next = PeersNextQuery(*link, material);
    // Also where this run comes to nothing: a message of such a query may be known somewhere.
    if (next <= header.queries) material.Skip(next);
    const bool is_short = next > header.queries || header.queries - next < needed;
    if (link->Peer() == owner) owner_is_short = is_short;
    if (shortage) {
      // Ending this run at once could overtake what the peer must hear to erase as much.
      try {
        if (!is_short) link->Receive(Phase::kSetup);
      } catch (const Error&) {
        // It has ended, for the same reason.
      }
      continue;
    }
    if (is_short)
      throw ProtocolError(
          fmt::format("party {} has used {} queries of the {} of session {}, {} more are needed",
                      link->Peer(), next, header.queries, header.session, needed));
    first = std::max(first, next);
  }
  if (shortage) {
    const std::string file = material.File().string();
    if (unused == 0 || settings.id == owner) throw ConfigError(file, *shortage);
    // That there are too many images is the fault of their owner, who may say so itself.
    if (owner_is_short) links[static_cast<std::size_t>(owner)]->Receive(Phase::kSetup);
    throw ProtocolError(
        fmt::format("party {} announced too many images: {} {}", owner, file, *shortage));
  }
  CompareFirstQuery(links, first);
  return first;
}

void RequireIdleHelper(const Plan& plan) {
  if (!plan.HelperActsOnline()) return;
  std::string suites;
  for (const auto& layer : plan.layers)
    if (layer.Activates() && !(layer.activation.dealt && layer.dealt_output))
      suites += fmt::format("{}{} ({})", suites.empty() ? "" : ", ", layer.layer.name,
                            layer.suite.Text());
  if (suites.empty()) suites = "input and output: it owns the images or receives the result";
  throw ConfigError("--helper-leaves",
                    fmt::format("party {}, the helper, has a part in the online phase of {}",
                                plan.roles.helper, suites));
}

// The settings that the shards of a job share, and what was told: number of images, widths, tags.
std::string JobDigest(const SessionSettings& settings, const std::vector<Told>& told) {
  std::string text = fmt::format("{} shards\n", settings.shard->shard.count);
  for (const auto& [name, value] : Agreement(settings))
    if (name != kShardName && name != kResumeName) text += fmt::format("{}: {}\n", name, value);
  for (const auto& each : told) text += fmt::format("{}: {}\n", each.what, each.value);
  return crypto::Sha256Hex(text);
}

// All but what a meter tells.
PartyReport MakeReport(const SessionSettings& settings, const Plan& plan, std::size_t images,
                       const std::optional<JobPart>& part, Outcome outcome) {
  PartyReport report;
  report.party = settings.id;
  report.network = plan.network.name;
  report.suite = settings.suite.Text();
  report.linear = plan.linear;
  report.link = settings.link.name;
  report.batch = plan.batch;
  report.images = images;
  report.part = part;
  report.classes = plan.network.Classes();
  report.offline_s = outcome.offline_s;
  report.online_s = outcome.online_s;
  report.wall_s = outcome.wall_s;
  report.logits = std::move(outcome.logits);
  report.online_hops = outcome.online_hops;
  report.material = ScheduleText(settings.schedule);
  if (settings.in_flight > 1) report.material += fmt::format(", {} in flight", settings.in_flight);
  if (std::holds_alternative<HelperLeaves>(settings.schedule) &&
      settings.id == settings.roles.helper)
    report.presence = kHasLeft;
  report.peak_memory_mb = PeakMemoryMb();
  report.kernels = ring::ActiveKernels().name;
  return report;
}

}  // namespace

void CheckMaterial(const MaterialFile& material, const SessionSettings& settings) {
  const auto& header = material.Header();
  const std::string file = material.File().string();
  const auto check = [&](const char* what, const std::string& found, const std::string& expected) {
    if (found != expected)
      throw ConfigError(file,
                        fmt::format("was made for {} {}, this run has {}", what, found, expected));
  };
  check("party", std::to_string(header.party), std::to_string(settings.id));
  const auto made_for = compile::AnnouncementFromJson(header.network, file + " /network");
  check("network", fmt::format("\"{}\" with digest {:.12}", made_for.network, made_for.spec_digest),
        fmt::format("\"{}\" with digest {:.12}", settings.spec.name, settings.spec.Digest()));
  check("suite", header.suite, settings.suite.Text());
  if (!settings.linear.empty()) check("linear layers", header.linear, settings.linear);
  check("roles", mpc::RolesText(header.roles), mpc::RolesText(settings.roles));
  check("batch", std::to_string(header.batch), std::to_string(settings.batch));
}

std::vector<std::pair<std::string, std::string>> Agreement(const SessionSettings& settings) {
  std::string material = ScheduleText(settings.schedule);
  if (const auto* use = std::get_if<UseMaterial>(&settings.schedule))
    material += " of session " + use->file->Header().session;
  if (const auto* make = std::get_if<MakeMaterial>(&settings.schedule))
    material += fmt::format(", {} queries", make->queries);
  const bool rotates = std::holds_alternative<HelperRotates>(settings.schedule);
  return {{"material", material},
          {"protocol version", kProtocolVersion},
          {"network digest", settings.spec.Digest()},
          {"suite", settings.suite.Text()},
          {"linear layers", settings.linear.empty() ? "by the roles" : settings.linear},
          {"roles", mpc::RolesText(settings.roles)},
          {"rotation of the helper", rotates ? "yes" : "no"},
          {"batch", std::to_string(settings.batch)},
          {"batches in flight", std::to_string(settings.in_flight)},
          {kShardName, settings.shard ? settings.shard->shard.Text() : "none"},
          {kResumeName, settings.shard && settings.shard->is_done ? "yes" : "no"},
          {"link", fmt::format("rtt_ms={},mbit={}", settings.link.rtt_ms, settings.link.mbit)}};
}

Session::Session(SessionSettings settings, const mpc::Registry& registry)
    : settings_(std::move(settings)), registry_(registry) {
  const bool from_file = std::holds_alternative<UseMaterial>(settings_.schedule);
  const bool to_file = std::holds_alternative<MakeMaterial>(settings_.schedule);
  mpc::CheckRoles(settings_.roles, "roles");
  TERCET_CHECK(IsParty(settings_.id), "party number {} is not 0, 1 or 2", settings_.id);
  TERCET_CHECK(
      (settings_.model != nullptr) == (settings_.id == settings_.roles.model_owner && !from_file),
      "the model's owner, and it alone, has the model");
  TERCET_CHECK(
      (settings_.images != nullptr) == (settings_.id == settings_.roles.data_owner && !to_file),
      "the images' owner, and it alone, has the images");
  TERCET_CHECK(settings_.in_flight >= 1 && settings_.in_flight <= kMaxInFlight,
               "{} queries in flight are not 1 to {}", settings_.in_flight, kMaxInFlight);
  if (!settings_.shard) return;
  const auto& [shard, all_images, model_tag, images_tag, is_done] = *settings_.shard;
  TERCET_CHECK(!from_file && !to_file, "shards do without material in files");
  TERCET_CHECK(shard.index < shard.count, "there is no shard {}", shard.Text());
  TERCET_CHECK(settings_.images == nullptr || settings_.images->count == shard.Of(all_images).size,
               "{} images are not shard {} of {}", settings_.images->count, shard.Text(),
               all_images);
}

net::Links Session::Hold(net::Links links) {
  net::Links outer;
  const std::lock_guard lock(mutex_);
  for (std::size_t p = 0; p < 3; ++p) {
    if (!links[p]) continue;
    if (settings_.link.Shaped())
      links[p] = net::MakeShapedLink(std::move(links[p]), settings_.link);
    held_[p] = std::move(links[p]);
    // The session may have to tell the peer why it stops after the Party is gone.
    outer[p] = net::MakeSharedLink(held_[p]);
  }
  return outer;
}

void Session::AbortAll(const std::string& reason) noexcept {
  std::array<std::shared_ptr<net::Link>, 3> links;
  const std::string* why = &reason;
  {
    const std::lock_guard lock(mutex_);
    links = held_;
    // What fails because links end when this party is to stop is not the reason.
    if (!stopped_.empty()) why = &stopped_;
  }
  // Side by side: a peer that does not listen any more must not keep the other from being told.
  std::vector<std::jthread> threads;
  for (const auto& link : links) {
    if (!link) continue;
    try {
      threads.emplace_back([&link, why] { link->Abort(*why); });
    } catch (const std::exception&) {  // no thread to be had
      link->Abort(*why);
    }
  }
}

void Session::Stop(const std::string& reason) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_.empty()) stopped_ = reason;  // once and for all: AbortAll refers to it
  }
  AbortAll(reason);
}

std::optional<std::string> Session::Stopped() {
  const std::lock_guard lock(mutex_);
  if (stopped_.empty()) return std::nullopt;
  return stopped_;
}

PartyReport Session::Run(const std::function<net::Links()>& connect) {
  const auto start = Clock::now();
  net::Links links = Hold(connect());
  const double connect_s = SecondsSince(start);
  try {
    {
      const std::lock_guard lock(mutex_);
      if (!stopped_.empty()) throw NetworkError(stopped_);
    }
    return RunOver(std::move(links), connect_s);
  } catch (const std::exception& e) {
    AbortAll(ErrorText(e));
    const std::lock_guard lock(mutex_);
    if (!stopped_.empty()) throw NetworkError(stopped_);
    throw;
  }
}

// What the parties have agreed to do.
struct Session::Task {
  Plan plan;
  std::vector<Plan> side_by_side;  // PlansOf
  std::size_t images = 0, queries = 0;
  std::size_t first = 0;  // of the queries in the material's file
  std::string session;    // for the files that are made
  std::optional<JobPart> part;
  bool was_done = false;  // by all three parties
};

Session::Task Session::Agree(net::Links& links) const {
  const auto* use = std::get_if<UseMaterial>(&settings_.schedule);
  const auto* make = std::get_if<MakeMaterial>(&settings_.schedule);
  Task task;
  std::vector<Told> told;
  if (make == nullptr) {
    const int owner = settings_.roles.data_owner;
    std::string mine;
    if (settings_.images != nullptr)
      mine =
          std::to_string(settings_.shard ? settings_.shard->all_images : settings_.images->count);
    const std::size_t all = ParseImageCount(
        Announce(links, owner, kImagesTag, mine, 16, "the number of images"), owner);
    told.push_back({"a number of images", std::to_string(all), owner});
    if (settings_.on_images) settings_.on_images(all);
    task.images = all;
    if (settings_.shard) {
      const Shard& shard = settings_.shard->shard;
      if (all < shard.count)
        throw ProtocolError(
            fmt::format("party {} has {} images, too few for {} shards", owner, all, shard.count));
      task.images = shard.Of(all).size;
      task.part = {shard, all, {}, {}};
    }
  }
  std::size_t batch = settings_.batch;
  if (use != nullptr) {
    CheckMaterial(*use->file, settings_);
    task.plan = use->file->MakePlan(settings_.spec, registry_);
  } else {
    if (make == nullptr) batch = std::min(batch, task.images);
    auto [plan, widths] = ReceivePlan(links, settings_, registry_, batch);
    task.plan = std::move(plan);
    told.push_back(std::move(widths));
  }
  if (task.part) {
    const auto& of_job = *settings_.shard;
    told.push_back(AnnounceHex(links, settings_.roles.model_owner, kModelTagTag, of_job.model_tag,
                               kTagDigits, "a tag of the model"));
    told.push_back(AnnounceHex(links, settings_.roles.data_owner, kImagesTagTag, of_job.images_tag,
                               kTagDigits, "a tag of the images"));
    task.part->job = JobDigest(settings_, told);
  }
  task.queries = make != nullptr ? make->queries : task.plan.Queries(task.images);
  task.side_by_side =
      PlansOf(task.plan, registry_, settings_.suite, task.plan.batch, settings_.schedule);
  auto digest = fmt::format("{} {} {} {}", task.plan.Digest(), batch, task.images, task.queries);
  if (std::holds_alternative<HelperRotates>(settings_.schedule))
    for (const auto& group : task.side_by_side) digest += " " + group.Digest();
  if (make != nullptr) {
    const int owner = settings_.roles.model_owner;
    told.push_back(AnnounceHex(links, owner, kSessionTag, NewMaterialSession(), kSessionDigits,
                               "a session's number"));
    task.session = told.back().value;
  }
  told.push_back({"", std::move(digest)});
  CompareWhatWasTold(links, settings_.id, told);
  if (use != nullptr) task.first = AgreeOnQueries(links, settings_, *use->file, task.queries);
  if (std::holds_alternative<HelperLeaves>(settings_.schedule)) RequireIdleHelper(task.plan);
  if (task.part && settings_.shard->is_done)
    task.was_done = AllAreDone(links, settings_.shard->is_done(task.part->job));
  return task;
}

// Too little memory is an error before anything is shared.
void Session::CheckMemory(const Task& task) const {
  const std::size_t held = QueriesHeld(settings_.schedule, task.queries, settings_.in_flight);
  const auto need =
      RunMemory(task.side_by_side, held, task.images, Runners(settings_.in_flight, task.queries));
  const auto warning =
      infer::CheckMemory(need[static_cast<std::size_t>(settings_.id)], task.plan.batch, held);
  if (warning && settings_.on_warning) settings_.on_warning(*warning);
}

PartyReport Session::RunOver(net::Links links, double connect_s) {
  const auto start = Clock::now();
  const Task task = Agree(links);
  if (task.was_done) {
    for (auto& link : links)
      if (link) link->Close();
    auto report = MakeReport(settings_, task.plan, task.images, task.part, {});
    report.presence = kWasDone;
    return report;
  }
  CheckMemory(task);
  const bool to_file = std::holds_alternative<MakeMaterial>(settings_.schedule);
  const std::size_t images = to_file ? task.plan.batch * task.queries : task.images;
  if (settings_.on_plan)
    for (const auto& plan : task.side_by_side) settings_.on_plan(plan, images);
  Flight flight(std::move(links), task.side_by_side, Runners(settings_.in_flight, task.queries),
                registry_, settings_, [this](const std::string& reason) { AbortAll(reason); });
  const double setup_s = connect_s + SecondsSince(start);
  auto outcome = to_file ? flight.MakeFile(task.session) : flight.Run(images, task.first);
  auto report = MakeReport(settings_, task.plan, images, task.part, std::move(outcome));
  report.setup_s = setup_s;
  report.layers = flight.Layers();
  for (const auto& layer : report.layers) report.offline_hops += layer.offline_hops;
  return report;
}

}  // namespace tercet::infer
