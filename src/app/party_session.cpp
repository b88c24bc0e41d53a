#include "app/party_session.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>

#include "app/options.h"
#include "tercet/nn/secure_network.h"
#include "tercet/ring/kernels.h"

namespace tercet::app {
namespace {

using Clock = std::chrono::steady_clock;
using net::Phase;

// Steps of the setup before there are keys; apart from the tags of mpc.
constexpr std::uint32_t kNetworkTag = 0xfffe'0000;
constexpr std::uint32_t kImagesTag = 0xfffe'0001;
constexpr std::uint32_t kPlanTag = 0xfffe'0002;
constexpr std::size_t kMaxNetworkBytes = std::size_t{16} << 20;
constexpr const char* kProtocolVersion = "1";

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

nn::PublicNetwork ReceiveNetwork(net::Links& links, const PartySettings& settings) {
  const int owner = settings.roles.model_owner;
  const std::string mine =
      settings.model != nullptr ? nn::PublicNetworkToJson(settings.model->net) : "";
  const std::string text =
      Announce(links, owner, kNetworkTag, mine, kMaxNetworkBytes, "the public network");
  auto network =
      nn::PublicNetworkFromJson(text, fmt::format("network announced by party {}", owner));
  const std::string digest = settings.spec.Digest();
  if (network.spec_digest != digest || network.input != settings.spec.input)
    throw ProtocolError(fmt::format(
        "party {} owns a model of network \"{}\" with digest {:.12}; this party's network \"{}\" "
        "has digest {:.12}",
        owner, network.name, network.spec_digest, settings.spec.name, digest));
  return network;
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
          fmt::format("party {} made another plan than this party; do both run the same version?",
                      link->Peer()));
  }
}

std::uint64_t Sent(const net::Meter::Cell& cell) {
  return cell.sent_bytes[0] + cell.sent_bytes[1] + cell.sent_bytes[2];
}

std::vector<report::PartyLayer> MeasuredLayers(const nn::Plan& plan, const net::Meter& meter) {
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

}  // namespace

std::vector<std::pair<std::string, std::string>> Agreement(const PartySettings& settings) {
  return {{"protocol version", kProtocolVersion},
          {"network digest", settings.spec.Digest()},
          {"suite", settings.suite.Text()},
          {"roles", RolesText(settings.roles)},
          {"batch", std::to_string(settings.batch)},
          {"link", fmt::format("rtt_ms={},mbit={}", settings.link.rtt_ms, settings.link.mbit)}};
}

PartySession::PartySession(PartySettings settings, const mpc::Registry& registry)
    : settings_(std::move(settings)), registry_(registry) {
  TERCET_CHECK((settings_.model != nullptr) == (settings_.id == settings_.roles.model_owner),
               "the model's owner, and it alone, has the model");
  TERCET_CHECK((settings_.images != nullptr) == (settings_.id == settings_.roles.data_owner),
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
  for (const auto& link : links)
    if (link) link->Abort(reason);
}

void PartySession::Stop(const std::string& reason) noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = reason;
  }
  AbortAll(reason);
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
    AbortAll(e.what());
    const std::lock_guard lock(mutex_);
    if (!stopped_.empty()) throw NetworkError(stopped_);
    throw;
  }
}

report::PartyReport PartySession::RunOver(net::Links links, double connect_s) {
  const auto start = Clock::now();
  const bool owns_images = settings_.images != nullptr;
  const auto network = ReceiveNetwork(links, settings_);
  const std::string announced = Announce(links, settings_.roles.data_owner, kImagesTag,
                                         owns_images ? std::to_string(settings_.images->count) : "",
                                         16, "the number of images");
  const std::size_t images = ParseImageCount(announced, settings_.roles.data_owner);
  const std::size_t batch = std::min(settings_.batch, images);
  const auto plan = nn::MakePlan(network, registry_, settings_.suite, settings_.roles, batch);
  ComparePlans(links, fmt::format("{} {} {}", plan.Digest(), batch, images));
  if (settings_.on_plan) settings_.on_plan(plan, images);

  mpc::Party party(settings_.id, std::move(links), plan.layers.size());
  nn::SecureNetwork secure(party, plan, registry_);
  secure.ShareModel(settings_.model);

  report::PartyReport report;
  report.setup_s = connect_s + SecondsSince(start);
  for (std::size_t first = 0; first < images; first += batch) {
    const std::size_t count = std::min(batch, images - first);
    std::vector<std::int64_t> input;
    if (owns_images) input = nn::QuantiseInput(network.input, *settings_.images, first, count);
    mpc::Meet(party);
    const auto offline = Clock::now();
    auto query = secure.Prepare(count);
    report.offline_s += SecondsSince(offline);
    mpc::Meet(party);
    const auto online = Clock::now();
    const auto logits = secure.Run(std::move(query), owns_images ? &input : nullptr);
    report.online_s += SecondsSince(online);
    report.online_hops = std::max(report.online_hops, secure.OnlineHops());
    report.logits.insert(report.logits.end(), logits.begin(), logits.end());
    if (settings_.on_progress) settings_.on_progress(first + count, images);
  }
  // Nobody leaves before all have everything.
  mpc::Meet(party);
  party.Close();

  report.party = settings_.id;
  report.network = network.name;
  report.suite = settings_.suite.Text();
  report.link = settings_.link.name;
  report.batch = batch;
  report.images = images;
  report.classes = network.Classes();
  report.offline_hops = party.Meter().Total(Phase::kOffline).hops;
  report.layers = MeasuredLayers(plan, party.Meter());
  report.peak_memory_mb = PeakMemoryMb();
  report.kernels = ring::ActiveKernels().name;
  return report;
}

}  // namespace tercet::app
