// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/party.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "tercet/mpc/spec.h"

namespace tercet::mpc {
namespace {

// A tag names the step: the layer in the upper half, the number of the message within layer and
// direction below.
std::uint32_t Tag(std::size_t layer, std::uint32_t step) {
  return static_cast<std::uint32_t>(layer) << 16 | (step & 0xffff);
}

constexpr std::uint32_t kKeyTag = 0xffff'0000;
constexpr std::uint32_t kMeetTag = 0xffff'0001;
// What a sender fills each part with but the last: whole groups of eight values of up to 64 bits.
constexpr std::size_t kLeastPart = Context::kPartBytes - 64;

}  // namespace

Party::Party(int id, net::Links links, std::size_t layers, std::unique_ptr<crypto::KeyRing> keys)
    : id_(id), links_(std::move(links)), keys_(std::move(keys)), meter_(layers + 2) {
  TERCET_CHECK(id >= 0 && id < 3, "party number {} is not 0, 1 or 2", id);
}

Party::Party(int id, net::Links links, std::size_t layers, crypto::DrawObserver* observer)
    : Party(id, std::move(links), layers, std::unique_ptr<crypto::KeyRing>()) {
  auto mine = crypto::PrfKey::Random();
  const auto data = mine.Data();
  if (links_[Prev()])
    links_[Prev()]->Send({Phase::kSetup, kKeyTag, 1, Bytes(data.begin(), data.end())});
  if (!links_[Next()]) {
    keys_ =
        std::make_unique<crypto::KeyRing>(id, std::move(mine), crypto::PrfKey::Random(), observer);
    return;
  }
  auto message = links_[Next()]->Receive(Phase::kSetup);
  if (message.tag != kKeyTag || message.payload.size() != crypto::PrfKey::kBytes)
    throw ProtocolError(
        fmt::format("party {} sent {} bytes with tag {:#x} where its PRF key was expected", Next(),
                    message.payload.size(), message.tag));
  keys_ = std::make_unique<crypto::KeyRing>(id, std::move(mine), crypto::PrfKey(message.payload),
                                            observer);
}

net::Link& Party::LinkTo(int peer) {
  TERCET_CHECK(peer >= 0 && peer < 3 && peer != id_ && links_[peer],
               "party {} has no link to party {}", id_, peer);
  return *links_[peer];
}

void Party::EnterLayer(Phase phase, const std::string& layer) {
  const std::lock_guard lock(mutex_);
  layers_[static_cast<std::size_t>(phase)] = layer;
}

std::string Party::LayerOf(Phase phase) const {
  const std::lock_guard lock(mutex_);
  return layers_[static_cast<std::size_t>(phase)];
}

void Party::Abort(const std::string& reason) noexcept {
  for (auto& link : links_)
    if (link) link->Abort(reason);
}

void Party::Close() noexcept {
  for (auto& link : links_)
    if (link) link->Close();
}

std::string Context::Where() const {
  return fmt::format("{} phase, layer {}", net::PhaseName(phase_), layer_name_);
}

void Context::Enter(std::size_t layer, std::string name) {
  layer_ = layer;
  layer_name_ = std::move(name);
  party_.EnterLayer(phase_, layer_name_);
  depth_at_enter_ = depth_;
  sent_ = received_ = {};
  entered_ = Clock::now();
}

void Context::Leave() {
  party_.Meter().AddLayer(phase_, layer_, depth_ - depth_at_enter_, SecondsSince(entered_));
}

// The reason may come from a party that has named a place already, or through one.
void Context::ThrowWithPlace(const NetworkError& error) const {
  std::string text = error.what();
  if (text.find(" phase, layer ") == std::string::npos)
    text += text.ends_with(')') ? ", " + Where() : " (" + Where() + ")";
  if (dynamic_cast<const AbortError*>(&error) != nullptr) throw AbortError(text);
  throw NetworkError(text);
}

Context::Outgoing Context::Begin(int to, std::size_t bytes, bool continues) {
  party_.Meter().AddSent(phase_, layer_, to, bytes);
  return {to, Tag(layer_, sent_[to]++), continues};
}

void Context::SendPart(Outgoing& message, Bytes part) {
  try {
    party_.LinkTo(message.to)
        .Send(
            {phase_, message.tag, depth_ + 1, std::move(part), std::exchange(message.begun, true)});
  } catch (const NetworkError& e) {
    ThrowWithPlace(e);
  }
}

void Context::SendBytes(int to, Bytes payload) {
  Outgoing message = Begin(to, payload.size());
  if (payload.size() <= kPartBytes) {
    SendPart(message, std::move(payload));
    return;
  }
  for (std::size_t first = 0; first < payload.size(); first += kPartBytes) {
    const auto part =
        ByteSpan(payload).subspan(first, std::min(kPartBytes, payload.size() - first));
    SendPart(message, Bytes(part.begin(), part.end()));
  }
}

// All that a sender has received has been compared with the same plan, so it is the sender itself
// that counts otherwise.
void Context::CheckDepth(int from, std::uint32_t step, std::uint32_t depth) const {
  if (planned_ == nullptr) {
    if (depth <= kMaxHops) return;
    throw ProtocolError(fmt::format(
        "party {} sent a message that ends a chain of {} hops, expected at most {} ({})", from,
        depth, kMaxHops, Where()));
  }
  const auto& expected = planned_->at(layer_)[static_cast<std::size_t>(from)];
  if (step >= expected.size())
    throw ProtocolError(
        fmt::format("party {} sent a message that the plan does not have ({})", from, Where()));
  if (depth != expected[step])
    throw ProtocolError(
        fmt::format("party {} sent a message that ends a chain of {} hops, expected {} ({})", from,
                    depth, expected[step], Where()));
}

net::Message Context::ReceivePart(int from, std::uint32_t step) {
  const std::uint32_t expected = Tag(layer_, step);
  net::Message message;
  try {
    message = party_.LinkTo(from).Receive(phase_);
  } catch (const NetworkError& e) {
    ThrowWithPlace(e);
  }
  if (message.tag != expected)
    throw ProtocolError(fmt::format(
        "party {} sent step {} of layer {}, expected step {} of layer {} ({})", from,
        message.tag & 0xffff, message.tag >> 16, expected & 0xffff, expected >> 16, Where()));
  CheckDepth(from, step, message.depth);
  depth_ = std::max(depth_, message.depth);
  return message;
}

Bytes Context::ReceiveBytes(int from, std::size_t expected_bytes) {
  const std::uint32_t step = received_[static_cast<std::size_t>(from)]++;
  Bytes payload;
  while (true) {
    auto part = ReceivePart(from, step).payload;
    const std::size_t rest = expected_bytes - payload.size();
    if (part.size() > rest || part.size() < std::min(rest, kLeastPart))
      throw ProtocolError(fmt::format("party {} sent {} bytes, expected {} ({})", from,
                                      payload.size() + part.size(), expected_bytes, Where()));
    if (part.size() == rest && payload.empty()) return part;
    payload.reserve(expected_bytes);
    payload.insert(payload.end(), part.begin(), part.end());
    if (part.size() == rest) return payload;
  }
}

// The last to come hears at once that the others are here, and they hear of it only when its
// message has arrived; after a second round all have heard of all.
void Meet(Party& party) {
  for (int round = 0; round < 2; ++round) {
    for (int peer : {party.Next(), party.Prev()})
      party.LinkTo(peer).Send({Phase::kSetup, kMeetTag, 0, {}});
    for (int peer : {party.Next(), party.Prev()}) {
      const auto message = party.LinkTo(peer).Receive(Phase::kSetup);
      if (message.tag != kMeetTag || !message.payload.empty())
        throw ProtocolError(fmt::format(
            "party {} sent tag {:#x} where the parties meet before a phase", peer, message.tag));
    }
  }
}

BitShare RandomSharing::DrawBits(std::size_t count) {
  BitShare x{Buffer<std::uint8_t>(count), Buffer<std::uint8_t>(count)};
  mine_.Fill(x.mine);
  next_.Fill(x.next);
  for (auto* half : {&x.mine, &x.next})
    for (auto& b : *half) b &= 1;
  return x;
}

}  // namespace tercet::mpc
