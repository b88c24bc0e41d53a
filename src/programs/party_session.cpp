#include "programs/party_session.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "programs/failure.h"
#include "programs/memory_check.h"
#include "programs/options.h"
#include "programs/query_runner.h"
#include "programs/rotated_runner.h"
#include "programs/rotation.h"
#include "tercet/compile/announcement.h"
#include "tercet/infer/secure_network.h"
#include "tercet/ring/kernels.h"

namespace tercet::programs {
namespace {

using Clock = std::chrono::steady_clock;
using net::Phase;

// Steps of the setup before there are keys; apart from the tags of mpc.
constexpr std::uint32_t kNetworkTag = 0xfffe'0000;
constexpr std::uint32_t kImagesTag = 0xfffe'0001;
constexpr std::uint32_t kPlanTag = 0xfffe'0002;
constexpr std::uint32_t kSessionTag = 0xfffe'0003;
constexpr std::uint32_t kNextQueryTag = 0xfffe'0004;
constexpr std::size_t kMaxAnnouncementBytes = std::size_t{1} << 20;  // of 1000 layers
constexpr std::size_t kSessionDigits = 32;
constexpr const char* kProtocolVersion = "2";

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double PeakMemoryMb() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<double>(usage.ru_maxrss) / 1e6;  // bytes there, KiB elsewhere
#else
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
#endif
}

// Leaves the link alive in the session, which may have to tell the peer why it stops after the
// Party is gone.
class HeldLink final : public net::Link {
 public:
  explicit HeldLink(std::shared_ptr<net::Link> inner) : inner_(std::move(inner)) {}
  void Send(net::Message message) override { inner_->Send(std::move(message)); }
  net::Message Receive(Phase phase) override { return inner_->Receive(phase); }
  void Flush() override { inner_->Flush(); }
  void Abort(const std::string& reason) noexcept override { inner_->Abort(reason); }
  void Close() noexcept override { inner_->Close(); }
  int Peer() const override { return inner_->Peer(); }

 private:
  std::shared_ptr<net::Link> inner_;
};

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

// What is computed: this party's own architecture with the widths that the model's owner announces,
// and this party's own choice of suites, or where it leaves that the announced one.
infer::Plan ReceivePlan(net::Links& links, const PartySettings& settings,
                        const mpc::Registry& registry, std::size_t batch) {
  const int owner = settings.roles.model_owner;
  const auto plan_of = [&](const compile::Announcement& announced) {
    const auto network =
        compile::NetworkOf(settings.spec, announced, registry, settings.suite, "model");
    return infer::MakePlan(network, registry, settings.suite, settings.roles, batch);
  };
  if (settings.model != nullptr) {
    const auto mine = compile::AnnouncementOf(settings.model->net, settings.spec, settings.suite);
    auto plan = plan_of(mine);  // whatever the others would refuse is refused here
    Announce(links, owner, kNetworkTag, compile::AnnouncementToJson(mine), kMaxAnnouncementBytes,
             "");
    return plan;
  }
  const std::string text =
      Announce(links, owner, kNetworkTag, "", kMaxAnnouncementBytes, "the model's widths");
  // What is wrong in it is no fault of this party's user.
  const auto refusal = [&](const Error& e) {
    return ProtocolError(
        fmt::format("party {} announced a model that this party refuses: {}", owner, e.what()));
  };
  try {
    return plan_of(compile::AnnouncementFromJson(text, "model"));
  } catch (const ConfigError& e) {
    throw refusal(e);
  } catch (const UnsupportedError& e) {
    throw refusal(e);
  }
}

void ComparePlans(net::Links& links, const std::string& digest) {
  for (auto& link : links)
    if (link) link->Send({Phase::kSetup, kPlanTag, 1, Bytes(digest.begin(), digest.end())});
  for (auto& link : links) {
    if (!link) continue;
    const auto message = link->Receive(Phase::kSetup);
    if (message.tag != kPlanTag)
      throw ProtocolError(
          fmt::format("party {} sent tag {:#x} where its plan's digest was expected", link->Peer(),
                      message.tag));
    if (!std::equal(message.payload.begin(), message.payload.end(), digest.begin(), digest.end()))
      throw ProtocolError(
          fmt::format("party {} made another plan than this party; do both run the same version, "
                      "and were both told the same by the owners of model and images?",
                      link->Peer()));
  }
}

bool IsSession(const std::string& text) {
  return text.size() == kSessionDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// The query from which on all parties' material is unused. A party that stopped in the middle may
// be ahead of the others, whose queries up to there are of no use without its.
std::size_t AgreeOnQueries(net::Links& links, infer::MaterialFile& material, std::size_t needed) {
  const auto& header = material.Header();
  const auto text = fmt::format("{} {}", header.session, material.Next());
  for (auto& link : links)
    if (link) link->Send({Phase::kSetup, kNextQueryTag, 1, Bytes(text.begin(), text.end())});
  std::optional<std::string> shortage;
  if (material.Next() >= header.queries) {
    shortage = fmt::format("all of its {} queries are used up", header.queries);
  } else if (header.queries - material.Next() < needed) {
    shortage = fmt::format("holds {} unused queries of {} images, {} are needed",
                           header.queries - material.Next(), header.batch, needed);
  }
  std::size_t first = material.Next();
  for (auto& link : links) {
    if (!link) continue;
    const auto message = link->Receive(Phase::kSetup);
    const auto& payload = message.payload;
    const bool fits = message.tag == kNextQueryTag && payload.size() > kSessionDigits + 1 &&
                      payload.size() <= kSessionDigits + 11;
    const std::string theirs = fits ? std::string(payload.begin(), payload.end()) : "";
    const std::string session = theirs.substr(0, kSessionDigits);
    const std::string number = fits ? theirs.substr(kSessionDigits + 1) : "";
    if (!fits || !IsSession(session) || payload[kSessionDigits] != ' ' ||
        number.find_first_not_of("0123456789") != std::string::npos)
      throw ProtocolError(
          fmt::format("party {} sent tag {:#x} with {} bytes where its next query was expected",
                      link->Peer(), message.tag, message.payload.size()));
    if (session != header.session)
      throw ProtocolError(fmt::format("party {} has material of session {}, {} is of session {}",
                                      link->Peer(), session, material.File().string(),
                                      header.session));
    const std::size_t next = std::stoul(number);
    // Also where this run comes to nothing: a message of such a query may be known somewhere.
    if (next <= header.queries) material.Skip(next);
    if (shortage) {
      // Ending this run at once could overtake what the peer must hear to erase as much.
      try {
        if (next <= header.queries && header.queries - next >= needed) link->Receive(Phase::kSetup);
      } catch (const Error&) {
        // It has ended, for the same reason.
      }
      continue;
    }
    if (next > header.queries || header.queries - next < needed)
      throw ProtocolError(
          fmt::format("party {} has used {} queries of the {} of session {}, {} more are needed",
                      link->Peer(), next, header.queries, session, needed));
    first = std::max(first, next);
  }
  if (shortage) throw ConfigError(material.File().string(), *shortage);
  return first;
}

void RequireIdleHelper(const infer::Plan& plan) {
  if (!plan.HelperActsOnline()) return;
  std::string suites;
  for (const auto& layer : plan.layers)
    if (layer.Activates() && !(layer.activation.dealt && layer.dealt_output))
      suites += fmt::format("{}{} ({})", suites.empty() ? "" : ", ", layer.layer.name,
                            layer.suite.Text());
  if (suites.empty()) suites = "input and output: it owns the images or receives the result";
  throw ConfigError("--dealer-leaves",
                    fmt::format("party {}, the helper, has a part in the online phase of {}",
                                plan.roles.helper, suites));
}

std::string MaterialText(const PartySettings& settings) {
  if (settings.material != nullptr) return "from a file";
  if (!settings.material_out.empty()) return "to a file";
  if (settings.dealer_leaves) return "all ahead";
  if (settings.rotate_dealer) return "in turn, the dealer's role rotates";
  return settings.ahead == 0 ? "in turn" : fmt::format("{} ahead", settings.ahead);
}

std::uint64_t Sent(const net::Meter::Cell& cell) {
  return cell.sent_bytes[0] + cell.sent_bytes[1] + cell.sent_bytes[2];
}

std::vector<report::PartyLayer> MeasuredLayers(const infer::Plan& plan, const net::Meter& meter) {
  const auto offline = meter.Layers(Phase::kOffline), online = meter.Layers(Phase::kOnline);
  std::vector<report::PartyLayer> layers;
  for (std::size_t k = 0; k < online.size(); ++k) {
    report::PartyLayer layer;
    if (k == 0 || k + 1 == online.size()) {
      layer.name = layer.type = k == 0 ? "input" : "output";
    } else {
      const auto& planned = plan.layers[k - 1];
      layer.name = planned.layer.name;
      layer.type = planned.layer.type;
      layer.suite = planned.suite.Text();
      layer.width = planned.layer.value_bits;
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

// Groups run side by side: bytes add up, times are the largest. A layer's hops are told from the
// group that is deepest at its end, so that they add up to the largest of one group.
std::vector<report::PartyLayer> MeasuredLayers(const RotatedRunner& runner) {
  auto layers = MeasuredLayers(runner.PlanOf(0), runner.MeterOf(0));
  std::vector<std::uint32_t> offline(layers.size()), online(layers.size());  // depths
  for (std::size_t g = 0; g < runner.Groups(); ++g) {
    const auto more = MeasuredLayers(runner.PlanOf(g), runner.MeterOf(g));
    std::uint32_t offline_depth = 0, online_depth = 0;
    for (std::size_t k = 0; k < layers.size(); ++k) {
      offline[k] = std::max(offline[k], offline_depth += more[k].offline_hops);
      online[k] = std::max(online[k], online_depth += more[k].online_hops);
      if (g == 0) continue;
      layers[k].offline_bytes += more[k].offline_bytes;
      layers[k].online_bytes += more[k].online_bytes;
      layers[k].offline_s = std::max(layers[k].offline_s, more[k].offline_s);
      layers[k].online_s = std::max(layers[k].online_s, more[k].online_s);
    }
  }
  for (std::size_t k = 0; k < layers.size(); ++k) {
    layers[k].offline_hops = offline[k] - (k > 0 ? offline[k - 1] : 0);
    layers[k].online_hops = online[k] - (k > 0 ? online[k - 1] : 0);
  }
  return layers;
}

// All but what a meter tells.
report::PartyReport MakeReport(const PartySettings& settings, const infer::Plan& plan,
                               std::size_t images, QueryRunner::Outcome outcome) {
  report::PartyReport report;
  report.party = settings.id;
  report.network = plan.network.name;
  report.suite = settings.suite.Text();
  report.link = settings.link.name;
  report.batch = plan.batch;
  report.images = images;
  report.classes = plan.network.Classes();
  report.offline_s = outcome.offline_s;
  report.online_s = outcome.online_s;
  report.wall_s = outcome.wall_s;
  report.logits = std::move(outcome.logits);
  report.online_hops = outcome.online_hops;
  report.material = MaterialText(settings);
  if (settings.dealer_leaves && settings.id == settings.roles.helper)
    report.presence = report::kHasLeft;
  report.peak_memory_mb = PeakMemoryMb();
  report.kernels = ring::ActiveKernels().name;
  return report;
}

}  // namespace

void CheckMaterial(const PartySettings& settings) {
  const auto& header = settings.material->Header();
  const std::string file = settings.material->File().string();
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
  check("roles", RolesText(header.roles), RolesText(settings.roles));
  check("batch", std::to_string(header.batch), std::to_string(settings.batch));
}

std::vector<std::pair<std::string, std::string>> Agreement(const PartySettings& settings) {
  std::string material = MaterialText(settings);
  if (settings.material != nullptr)
    material += " of session " + settings.material->Header().session;
  if (!settings.material_out.empty()) material += fmt::format(", {} queries", settings.queries);
  return {{"material", material},
          {"protocol version", kProtocolVersion},
          {"network digest", settings.spec.Digest()},
          {"suite", settings.suite.Text()},
          {"roles", RolesText(settings.roles)},
          {"rotation of the dealer", settings.rotate_dealer ? "yes" : "no"},
          {"batch", std::to_string(settings.batch)},
          {"link", fmt::format("rtt_ms={},mbit={}", settings.link.rtt_ms, settings.link.mbit)}};
}

PartySession::PartySession(PartySettings settings, const mpc::Registry& registry)
    : settings_(std::move(settings)), registry_(registry) {
  const bool from_file = settings_.material != nullptr, to_file = !settings_.material_out.empty();
  mpc::CheckRoles(settings_.roles, "roles");
  TERCET_CHECK(IsParty(settings_.id), "party number {} is not 0, 1 or 2", settings_.id);
  TERCET_CHECK(!from_file || !to_file, "material is made or used, not both");
  TERCET_CHECK(!settings_.rotate_dealer ||
                   (!from_file && !to_file && settings_.ahead == 0 && !settings_.dealer_leaves),
               "while the dealer's role rotates, offline and online are in turn");
  TERCET_CHECK(
      (settings_.model != nullptr) == (settings_.id == settings_.roles.model_owner && !from_file),
      "the model's owner, and it alone, has the model");
  TERCET_CHECK(
      (settings_.images != nullptr) == (settings_.id == settings_.roles.data_owner && !to_file),
      "the images' owner, and it alone, has the images");
}

net::Links PartySession::Hold(net::Links links) {
  net::Links outer;
  const std::lock_guard lock(mutex_);
  for (std::size_t p = 0; p < 3; ++p) {
    if (!links[p]) continue;
    if (settings_.link.Shaped())
      links[p] = net::MakeShapedLink(std::move(links[p]), settings_.link);
    held_[p] = std::move(links[p]);
    outer[p] = std::make_unique<HeldLink>(held_[p]);
  }
  return outer;
}

void PartySession::AbortAll(const std::string& reason) noexcept {
  std::array<std::shared_ptr<net::Link>, 3> links;
  {
    const std::lock_guard lock(mutex_);
    links = held_;
  }
  // Side by side: a peer that does not listen any more must not keep the other from being told.
  std::vector<std::jthread> threads;
  for (const auto& link : links) {
    if (!link) continue;
    try {
      threads.emplace_back([&link, &reason] { link->Abort(reason); });
    } catch (const std::exception&) {  // no thread to be had
      link->Abort(reason);
    }
  }
}

void PartySession::Stop(const std::string& reason) noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = reason;
  }
  AbortAll(reason);
}

std::optional<std::string> PartySession::Stopped() {
  const std::lock_guard lock(mutex_);
  if (stopped_.empty()) return std::nullopt;
  return stopped_;
}

report::PartyReport PartySession::Run(const std::function<net::Links()>& connect) {
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
    AbortAll(Classify(e).text);
    const std::lock_guard lock(mutex_);
    if (!stopped_.empty()) throw NetworkError(stopped_);
    throw;
  }
}

// What the parties have agreed to do.
struct PartySession::Task {
  infer::Plan plan;
  std::vector<infer::Plan> groups;  // where the dealer's role rotates
  std::size_t images = 0, queries = 0;
  std::size_t first = 0;  // of the queries in the material's file
  std::string session;    // for the files that are made
};

PartySession::Task PartySession::Agree(net::Links& links) const {
  Task task;
  const bool from_file = settings_.material != nullptr, to_file = !settings_.material_out.empty();
  if (!to_file) {
    const std::string announced =
        Announce(links, settings_.roles.data_owner, kImagesTag,
                 settings_.images != nullptr ? std::to_string(settings_.images->count) : "", 16,
                 "the number of images");
    task.images = ParseImageCount(announced, settings_.roles.data_owner);
    if (settings_.labels && *settings_.labels != task.images)
      throw ConfigError("--labels",
                        fmt::format("{} labels found, {} expected, one for each image of party {}",
                                    *settings_.labels, task.images, settings_.roles.data_owner));
  }
  std::size_t batch = settings_.batch;
  if (from_file) {
    CheckMaterial(settings_);
    task.plan = settings_.material->MakePlan(settings_.spec, registry_);
  } else {
    if (!to_file) batch = std::min(batch, task.images);
    task.plan = ReceivePlan(links, settings_, registry_, batch);
  }
  task.queries = to_file ? settings_.queries : (task.images + batch - 1) / batch;
  auto digest = fmt::format("{} {} {} {}", task.plan.Digest(), batch, task.images, task.queries);
  if (settings_.rotate_dealer) {
    task.groups = RotatedPlans(task.plan, registry_, settings_.suite);
    for (const auto& group : task.groups) digest += " " + group.Digest();
  }
  if (to_file) {
    const int owner = settings_.roles.model_owner;
    task.session = Announce(links, owner, kSessionTag, infer::NewMaterialSession(), kSessionDigits,
                            "the session's number");
    if (!IsSession(task.session))
      throw ProtocolError(
          fmt::format("party {} announced no session of {} hex digits", owner, kSessionDigits));
  }
  ComparePlans(links, digest + " " + task.session);
  if (from_file) task.first = AgreeOnQueries(links, *settings_.material, task.queries);
  if (settings_.dealer_leaves) RequireIdleHelper(task.plan);
  return task;
}

// Too little memory is an error before anything is shared.
void PartySession::CheckMemory(const Task& task) const {
  const MaterialHeld held{task.queries, settings_.ahead, settings_.dealer_leaves};
  const auto needed =
      RunMemory(task.groups.empty() ? std::vector{task.plan} : task.groups, held, task.images);
  const auto warning =
      programs::CheckMemory(needed[static_cast<std::size_t>(settings_.id)], task.plan.batch, held);
  if (warning && settings_.on_warning) settings_.on_warning(*warning);
}

report::PartyReport PartySession::RunOver(net::Links links, double connect_s) {
  const auto start = Clock::now();
  const Task task = Agree(links);
  CheckMemory(task);
  if (settings_.rotate_dealer) return RunRotated(std::move(links), task, connect_s, start);
  const infer::Plan& plan = task.plan;
  const bool from_file = settings_.material != nullptr, to_file = !settings_.material_out.empty();
  const std::size_t images = to_file ? plan.batch * task.queries : task.images;
  if (settings_.on_plan) settings_.on_plan(plan, images);

  mpc::Party party(settings_.id, std::move(links), plan.layers.size());
  infer::SecureNetwork secure(party, plan, registry_);
  infer::SecureNetwork::ModelShares model;
  if (from_file) {
    const Bytes bytes = settings_.material->Model();
    const std::string place = settings_.material->File().string() + " model";
    mpc::Archive archive(bytes, place);
    archive(model);
    archive.Finish();
    secure.UseModel(model, place);
  } else {
    model = secure.ShareModel(settings_.model);
  }

  const double setup_s = connect_s + SecondsSince(start);
  QueryRunner runner(party, secure, plan, settings_,
                     [this](const std::string& reason) { AbortAll(reason); });
  auto outcome =
      to_file ? runner.MakeMaterial(model, task.session) : runner.Run(task.images, task.first);
  party.Close();

  auto report = MakeReport(settings_, plan, images, std::move(outcome));
  report.setup_s = setup_s;
  report.offline_hops = party.Meter().Total(Phase::kOffline).hops;
  report.layers = MeasuredLayers(plan, party.Meter());
  return report;
}

report::PartyReport PartySession::RunRotated(net::Links links, const Task& task, double connect_s,
                                             Clock::time_point start) {
  if (settings_.on_plan)
    for (const auto& plan : task.groups) settings_.on_plan(plan, task.images);
  RotatedRunner runner(std::move(links), task.groups, registry_, settings_,
                       [this](const std::string& reason) { AbortAll(reason); });
  const double setup_s = connect_s + SecondsSince(start);
  auto report =
      MakeReport(settings_, task.plan, task.images, runner.Run(task.images, task.plan.batch));
  report.setup_s = setup_s;
  report.layers = MeasuredLayers(runner);
  for (const auto& layer : report.layers) report.offline_hops += layer.offline_hops;
  return report;
}

}  // namespace tercet::programs
