// SPDX-License-Identifier: Apache-2.0
#include "serve/lane_keeper.h"

#include <chrono>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/net/tcp_link.h"
#include "tercet/net/wrappers.h"

namespace tercet::serve {
namespace {

constexpr std::chrono::seconds kConnect{30};
// Whoever says nothing for so long is gone; heartbeats come more often.
constexpr std::chrono::seconds kSilence{5};
// An idle E1 says so all the time, so nobody who lives is silent for longer.
constexpr std::chrono::seconds kStall{30};
constexpr std::chrono::milliseconds kPause{100};  // before the next attempt
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

LaneKeeper::LaneKeeper(const LaneContext& context, const service::LaneSettings& settings)
    : context_(context),
      settings_(settings),
      queries_(kBatchesWaiting * settings.max_batch),
      thread_([this] { Keep(); }) {}

LaneKeeper::~LaneKeeper() { Drain(); }

bool LaneKeeper::Serves(const crypto::Digest& model) const {
  const std::lock_guard lock(mutex_);
  return up_ && models_.contains(model);
}

LaneState LaneKeeper::State() const {
  const std::lock_guard lock(mutex_);
  return {settings_.lane, up_, session_ ? session_->Material() : 0, sent_, received_};
}

void LaneKeeper::Renew() {
  const std::lock_guard lock(mutex_);
  if (session_) session_->Changed();
}

void LaneKeeper::Drain() {
  stopping_ = true;
  queries_.Close();
  {
    const std::lock_guard lock(mutex_);
    if (session_) session_->Stop("the server stops");
  }
  if (thread_.joinable()) thread_.join();
}

void LaneKeeper::Keep() {
  while (!stopping_) {
    try {
      RunOnce();
    } catch (const std::exception& e) {
      if (!stopping_) context_.log(fmt::format("lane {}: {}", settings_.lane, ErrorText(e)));
      queries_.FailAll();
    }
    up_ = false;
    {
      const std::lock_guard lock(mutex_);
      session_.reset();
      models_.clear();
    }
    if (!stopping_) std::this_thread::sleep_for(kPause);
  }
  queries_.FailAll();
}

void LaneKeeper::RunOnce() {
  const auto& deployment = context_.deployment;
  net::TcpOptions tcp;
  tcp.party = settings_.id;
  for (std::size_t p = 0; p < 3; ++p) {
    tcp.endpoints[p] = deployment.servers[p].party;
    tcp.endpoints[p].port = static_cast<std::uint16_t>(tcp.endpoints[p].port + settings_.lane);
  }
  tcp.listen = deployment.servers[static_cast<std::size_t>(settings_.id)].listen;
  const std::string own = fmt::format("party{}", settings_.id);
  tcp.tls = net::TlsFiles{"", context_.store / (own + ".pem"), context_.store / (own + "-key.pem"),
                          deployment.pins};
  tcp.connect_timeout = kConnect;
  tcp.timeout = kSilence;
  tcp.stall_timeout = kStall;
  tcp.agreement = {{"service protocol version", "1"},
                   {"deployment", crypto::HexText(deployment.Id())},
                   {"lanes", std::to_string(deployment.lanes)},
                   {"lane", std::to_string(settings_.lane)},
                   {"max batch", std::to_string(settings_.max_batch)}};
  tcp.interrupted = [this]() -> std::optional<std::string> {
    if (!stopping_) return std::nullopt;
    return "the server stops";
  };
  auto links = net::ConnectTcp(tcp);
  for (auto& link : links)
    if (link) link = std::make_unique<CountingLink>(std::move(link), sent_, received_);
  const auto session = std::make_shared<service::LaneSession>(
      settings_, context_.models, context_.registry, context_.gate, queries_);
  session->on_models = [this](const std::vector<crypto::Digest>& models) {
    const std::lock_guard lock(mutex_);
    models_ = {models.begin(), models.end()};
    up_ = true;
    context_.log(fmt::format("lane {} is up with {} models", settings_.lane, models.size()));
  };
  session->on_batch = context_.on_batch;
  {
    const std::lock_guard lock(mutex_);
    session_ = session;
  }
  if (stopping_) session->Stop("the server stops");
  session->Run(std::move(links));
}

}  // namespace tercet::serve
