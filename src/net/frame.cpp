// SPDX-License-Identifier: Apache-2.0
#include "net/frame.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "base/endian.h"
#include "net/failure.h"
#include "tercet/base/error.h"

namespace tercet::net {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{64} << 10;
constexpr std::size_t kFirstGrant = std::size_t{1}
                                    << 20;  // room made for a payload before any of it has arrived
constexpr std::size_t kDirectFrom = std::size_t{16} << 10;  // smaller rests go through the buffer
constexpr std::string_view kMagic = "TERCET";
constexpr std::string_view kNothing = "nothing";  // shown for an item that a side lacks
constexpr std::uint8_t kRefusal = 255;
constexpr std::size_t kShownBytes = 80;  // of a peer's name or value in a message
constexpr int kShownDifferences = 8;

void PutU32(std::uint8_t* out, std::uint32_t value) { ToLittleEndian(value, {out, 4}); }

std::uint32_t GetU32(const std::uint8_t* in) {
  return static_cast<std::uint32_t>(FromLittleEndian({in, 4}));
}

std::size_t LengthLimit(FrameKind kind) {
  switch (kind) {
    case FrameKind::kData:
      return kMaxMessageBytes;
    case FrameKind::kHeartbeat:
      return kHeartbeatFrameBytes - kFrameHeaderBytes;
    default:
      return kMaxReasonBytes;
  }
}

// With room for `length` bytes behind it.
Bytes EncodeHelloHead(int party, std::uint8_t pairs, std::size_t length) {
  Bytes out(kHelloHeadBytes + length);
  std::copy(kMagic.begin(), kMagic.end(), out.begin());
  out[6] = static_cast<std::uint8_t>(party);
  out[7] = pairs;
  PutU32(&out[8], static_cast<std::uint32_t>(length));
  return out;
}

void AppendText(Bytes& out, std::string_view text) {
  const std::size_t at = out.size();
  out.resize(at + 4);
  PutU32(&out[at], static_cast<std::uint32_t>(text.size()));
  out.insert(out.end(), text.begin(), text.end());
}

std::string TakeText(std::span<const std::uint8_t>& in) {
  if (in.size() < 4) throw ProtocolError("the hello ends within a length");
  const std::size_t length = GetU32(in.data());
  in = in.subspan(4);
  if (length > in.size()) {
    throw ProtocolError(
        fmt::format("the hello announces a text of {} bytes, {} are left", length, in.size()));
  }
  std::string text(reinterpret_cast<const char*>(in.data()), length);
  in = in.subspan(length);
  return text;
}

}  // namespace

FrameHeaderBytes EncodeFrameHeader(const Frame& frame) {
  FrameHeaderBytes out{};
  PutU32(&out[0], static_cast<std::uint32_t>(frame.message.payload.size()));
  out[4] = static_cast<std::uint8_t>(frame.kind);
  out[5] = static_cast<std::uint8_t>(frame.message.phase);
  PutU32(&out[6], frame.message.tag);
  PutU32(&out[10], frame.message.depth);
  return out;
}

FrameHeader ParseFrameHeader(std::span<const std::uint8_t, kFrameHeaderBytes> bytes) {
  if (bytes[4] > static_cast<std::uint8_t>(FrameKind::kDismissal)) {
    throw ProtocolError(fmt::format("frame kind {} is not in 0..4", bytes[4]));
  }
  if (bytes[5] >= kPhases)
    throw ProtocolError(fmt::format("frame phase {} is not in 0..2", bytes[5]));
  const FrameHeader header{GetU32(&bytes[0]), static_cast<FrameKind>(bytes[4]),
                           static_cast<Phase>(bytes[5]), GetU32(&bytes[6]), GetU32(&bytes[10])};
  if (header.length > LengthLimit(header.kind)) {
    throw ProtocolError(fmt::format("a frame of kind {} may carry {} bytes, this one announces {}",
                                    bytes[4], LengthLimit(header.kind), header.length));
  }
  if (header.kind == FrameKind::kHeartbeat && header.length != LengthLimit(header.kind))
    throw ProtocolError(fmt::format("a heartbeat of {} bytes", header.length));
  if (header.kind != FrameKind::kData && (bytes[5] != 0 || header.tag != 0 || header.depth != 0)) {
    throw ProtocolError(fmt::format("a frame of kind {} has no phase, tag or depth", bytes[4]));
  }
  return header;
}

Frame EncodeHeartbeat(const Heartbeat& heartbeat) {
  Frame frame{FrameKind::kHeartbeat, {.payload = Bytes(kHeartbeatFrameBytes - kFrameHeaderBytes)}};
  Bytes& out = frame.message.payload;
  out[0] = heartbeat.waits;
  PutU32(&out[1], heartbeat.sender);
  PutU32(&out[5], heartbeat.third);
  return frame;
}

Heartbeat ParseHeartbeat(std::span<const std::uint8_t> payload) {
  TERCET_CHECK(payload.size() == LengthLimit(FrameKind::kHeartbeat), "a heartbeat of {} bytes",
               payload.size());
  return {payload[0], GetU32(&payload[1]), GetU32(&payload[5])};
}

FrameReader::FrameReader() : buffer_(kBufferBytes) {}

void FrameReader::Grow() {
  if (payload_size_ < payload_.size() || payload_.size() == header_.length) return;
  payload_.resize(
      std::min<std::size_t>(header_.length, std::max(kFirstGrant, 2 * payload_.size())));
}

std::span<std::uint8_t> FrameReader::Space() {
  direct_ = header_size_ == kFrameHeaderBytes && header_.length - payload_size_ >= kDirectFrom;
  if (!direct_) return buffer_;
  Grow();
  return std::span(payload_).subspan(payload_size_);
}

void FrameReader::BeginPayload() {
  header_ = ParseFrameHeader(header_bytes_);
  payload_ = Bytes();
  payload_size_ = 0;
}

void FrameReader::Emit(std::vector<Frame>& frames) {
  frames.push_back(
      {header_.kind, {header_.phase, header_.tag, header_.depth, std::move(payload_)}});
  payload_ = Bytes();
  payload_size_ = 0;
  header_size_ = 0;
}

void FrameReader::Advance(std::size_t count, std::vector<Frame>& frames) {
  if (direct_) {
    payload_size_ += count;
    if (payload_size_ == header_.length) Emit(frames);
    return;
  }
  std::span<const std::uint8_t> in = std::span(buffer_).first(count);
  while (!in.empty()) {
    if (header_size_ < kFrameHeaderBytes) {
      const std::size_t take = std::min(kFrameHeaderBytes - header_size_, in.size());
      std::memcpy(header_bytes_.data() + header_size_, in.data(), take);
      header_size_ += take;
      in = in.subspan(take);
      if (header_size_ < kFrameHeaderBytes) return;
      BeginPayload();
    }
    while (payload_size_ < header_.length && !in.empty()) {
      Grow();
      const std::size_t take = std::min(payload_.size() - payload_size_, in.size());
      std::memcpy(payload_.data() + payload_size_, in.data(), take);
      payload_size_ += take;
      in = in.subspan(take);
    }
    if (payload_size_ == header_.length) Emit(frames);
  }
}

Bytes EncodeHello(int party, const Agreement& agreement) {
  TERCET_CHECK(agreement.size() <= kMaxHelloPairs, "an agreement has at most {} items, got {}",
               kMaxHelloPairs, agreement.size());
  Bytes body;
  for (const auto& [name, value] : agreement) {
    AppendText(body, name);
    AppendText(body, value);
  }
  TERCET_CHECK(body.size() <= kMaxHelloBytes, "an agreement takes at most {} bytes, got {}",
               kMaxHelloBytes, body.size());
  Bytes out = EncodeHelloHead(party, static_cast<std::uint8_t>(agreement.size()), body.size());
  std::copy(body.begin(), body.end(), out.begin() + kHelloHeadBytes);
  return out;
}

Bytes EncodeRefusal(int party, std::string_view reason) {
  reason = reason.substr(0, kMaxReasonBytes);
  Bytes out = EncodeHelloHead(party, kRefusal, reason.size());
  std::copy(reason.begin(), reason.end(), out.begin() + kHelloHeadBytes);
  return out;
}

HelloHead ParseHelloHead(std::span<const std::uint8_t, kHelloHeadBytes> bytes) {
  if (!std::equal(kMagic.begin(), kMagic.end(), bytes.begin()))
    throw ProtocolError("this is no hello of a party");
  HelloHead head{bytes[6], bytes[7] == kRefusal, bytes[7], GetU32(&bytes[8])};
  if (head.refusal) head.pairs = 0;
  if (head.party > 2)
    throw ProtocolError(fmt::format("the hello's party {} is not in 0..2", head.party));
  if (head.pairs > kMaxHelloPairs) {
    throw ProtocolError(
        fmt::format("the hello has {} items, at most {} are allowed", head.pairs, kMaxHelloPairs));
  }
  const std::size_t limit = head.refusal ? kMaxReasonBytes : kMaxHelloBytes;
  if (head.length > limit) {
    throw ProtocolError(
        fmt::format("the hello announces {} bytes, at most {} are allowed", head.length, limit));
  }
  return head;
}

Agreement ParseHelloBody(const HelloHead& head, std::span<const std::uint8_t> body) {
  Agreement agreement;
  for (std::size_t i = 0; i < head.pairs; ++i) {
    std::string name = TakeText(body);
    agreement.emplace_back(std::move(name), TakeText(body));
  }
  if (!body.empty())
    throw ProtocolError(fmt::format("the hello has {} bytes too many", body.size()));
  return agreement;
}

std::string Differences(const Agreement& here, const Agreement& there) {
  std::map<std::string, std::pair<std::string_view, std::string_view>> items;
  for (const auto& [name, value] : here)
    items.try_emplace(name, kNothing, kNothing).first->second.first = value;
  for (const auto& [name, value] : there)
    items.try_emplace(name, kNothing, kNothing).first->second.second = value;
  std::string text;
  int count = 0;
  for (const auto& [name, values] : items) {
    if (values.first == values.second || ++count > kShownDifferences) continue;
    if (!text.empty()) text += "; ";
    text +=
        fmt::format("{}: here {}, there {}", CleanText(name, kShownBytes),
                    CleanText(values.first, kShownBytes), CleanText(values.second, kShownBytes));
  }
  if (count > kShownDifferences) text += fmt::format("; and {} more", count - kShownDifferences);
  return text;
}

}  // namespace tercet::net
