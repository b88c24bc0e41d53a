// SPDX-License-Identifier: Apache-2.0
#include "serve/lane_keeper.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "tercet/base/error.h"
#include "tercet/net/tcp_link.h"

namespace tercet::serve {
namespace {

constexpr std::chrono::seconds kConnect{30};
// Whoever says nothing for so long is gone; heartbeats come more often.
constexpr std::chrono::seconds kSilence{5};
// An idle E1 says so all the time, so nobody who lives is silent for longer.
constexpr std::chrono::seconds kStall{30};
// Before the next attempt; doubled after each that fails, up to the longest.
constexpr std::chrono::milliseconds kPause{100}, kLongestPause{1000};
// Nothing is said again sooner.
constexpr std::chrono::seconds kQuiet{60};
constexpr std::size_t kBatchesWaiting = 64;

// Counts the bytes that pass.
class CountingLink : public net::LinkWrapper {
 public:
  CountingLink(std::unique_ptr<net::Link> inner, std::atomic<std::uint64_t>& sent,
               std::atomic<std::uint64_t>& received)
      : LinkWrapper(std::move(inner)), sent_(sent), received_(received) {}
  void Send(net::Message message) override {
    sent_ += message.payload.size();
    LinkWrapper::Send(std::move(message));
  }
  net::Message Receive(net::Phase phase) override {
    auto message = LinkWrapper::Receive(phase);
    received_ += message.payload.size();
    return message;
  }

 private:
  std::atomic<std::uint64_t>&sent_, &received_;
};

}  // namespace

LaneKeeper::LaneKeeper(const LaneContext& context, const service::LaneSettings& settings,
                       std::size_t in_flight)
    : context_(context),
      settings_(settings),
      queries_(kBatchesWaiting * settings.max_batch, in_flight) {
  for (std::size_t n = 0; n < in_flight; ++n) {
    streams_.push_back(std::make_unique<Stream>());
    streams_.back()->number = n;
  }
  for (auto& stream : streams_)
    stream->thread = std::thread([this, &stream = *stream] { Keep(stream); });
}

LaneKeeper::~LaneKeeper() { Drain(); }

bool LaneKeeper::Up() const {
  const std::lock_guard lock(mutex_);
  return std::all_of(streams_.begin(), streams_.end(), [](const auto& s) { return s->up; });
}

bool LaneKeeper::Serves(const crypto::Digest& model) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(streams_.begin(), streams_.end(), [](const auto& s) { return s->up; }) &&
         std::all_of(streams_.begin(), streams_.end(),
                     [&](const auto& s) { return !s->up || s->models.contains(model); });
}

LaneState LaneKeeper::State() const {
  LaneState state;
  state.lane = settings_.lane;
  state.up = Up();
  state.sent = sent_;
  state.received = received_;
  const std::lock_guard lock(mutex_);
  for (const auto& stream : streams_)
    if (stream->session) {
      state.material += stream->session->Material().batches;
      state.material_bytes += stream->session->Material().bytes;
    }
  return state;
}

void LaneKeeper::Renew() {
  const std::lock_guard lock(mutex_);
  for (const auto& stream : streams_)
    if (stream->session) stream->session->Changed();
}

void LaneKeeper::Drain() {
  stopping_ = true;
  queries_.Close();
  {
    const std::lock_guard lock(mutex_);
    for (const auto& stream : streams_)
      if (stream->session) stream->session->Stop("the server stops");
  }
  for (const auto& stream : streams_)
    if (stream->thread.joinable()) stream->thread.join();
  queries_.FailAll();
}

// Those that wait go on as long as a session is there to take them.
void LaneKeeper::FailIfDown() {
  {
    const std::lock_guard lock(mutex_);
    if (std::any_of(streams_.begin(), streams_.end(), [](const auto& s) { return s->up; })) return;
  }
  queries_.FailAll();
}

// Its sessions often meet the same.
void LaneKeeper::Log(const std::string& text) {
  {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    std::erase_if(said_, [now](const auto& said) { return now - said.second > kQuiet; });
    if (!said_.emplace(text, now).second) return;
  }
  context_.log(fmt::format("lane {}: {}", settings_.lane, text));
}

void LaneKeeper::Keep(Stream& stream) {
  auto pause = kPause;
  while (!stopping_) {
    try {
      RunOnce(stream);
    } catch (const std::exception& e) {
      if (!stopping_) Log(ErrorText(e));
    }
    {
      const std::lock_guard lock(mutex_);
      pause = stream.up ? kPause : std::min(2 * pause, kLongestPause);
      stream.up = false;
      stream.session.reset();
      stream.models.clear();
    }
    FailIfDown();
    for (auto slept = kPause; !stopping_ && slept <= pause; slept += kPause)
      std::this_thread::sleep_for(kPause);
  }
}

void LaneKeeper::RunOnce(Stream& stream) {
  const auto& deployment = context_.deployment;
  net::TcpOptions tcp;
  tcp.party = settings_.id;
  const std::size_t worker = deployment.WorkerOf(settings_.lane);
  for (std::size_t p = 0; p < 3; ++p) {
    tcp.endpoints[p] = deployment.servers[p].workers[worker].party;
    tcp.endpoints[p].port = static_cast<std::uint16_t>(tcp.endpoints[p].port + settings_.lane +
                                                       deployment.lanes * stream.number);
  }
  tcp.listen = deployment.servers[static_cast<std::size_t>(settings_.id)].workers[worker].listen;
  const std::string own = fmt::format("party{}", settings_.id);
  tcp.tls = net::TlsFiles{"", context_.store / (own + ".pem"), context_.store / (own + "-key.pem"),
                          deployment.pins};
  tcp.connect_timeout = kConnect;
  tcp.timeout = kSilence;
  tcp.stall_timeout = kStall;
  tcp.agreement = {{"service protocol version", "4"},
                   {"deployment", crypto::HexText(deployment.Id())},
                   {"lanes", std::to_string(deployment.lanes)},
                   {"lane", std::to_string(settings_.lane)},
                   {"batches in flight", std::to_string(streams_.size())},
                   {"batch in flight", std::to_string(stream.number)},
                   {"max batch", std::to_string(settings_.max_batch)},
                   {"bytes of material", std::to_string(settings_.stock)}};
  tcp.interrupted = [this]() -> std::optional<std::string> {
    if (!stopping_) return std::nullopt;
    return "the server stops";
  };
  auto links = net::ConnectTcp(tcp);
  for (auto& link : links) {
    if (!link) continue;
    if (context_.link.Shaped()) link = net::MakeShapedLink(std::move(link), context_.link);
    link = std::make_unique<CountingLink>(std::move(link), sent_, received_);
  }
  const auto session = std::make_shared<service::LaneSession>(
      settings_, context_.models, context_.registry, context_.gate, queries_);
  session->on_models = [this, &stream](const std::vector<crypto::Digest>& models) {
    const std::lock_guard lock(mutex_);
    stream.models = {models.begin(), models.end()};
    stream.up = true;
    context_.log(fmt::format("lane {} is up with {} models", settings_.lane, models.size()));
  };
  session->on_batch = context_.on_batch;
  {
    const std::lock_guard lock(mutex_);
    stream.session = session;
  }
  if (stopping_) session->Stop("the server stops");
  session->Run(std::move(links));
}

}  // namespace tercet::serve
