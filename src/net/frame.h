// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tercet/net/link.h"

/// What TCP links write. All numbers are little endian.
///
///   frame: length u32 | kind u8 | phase u8 | tag u32 | depth u32 | payload of `length` bytes
///          heartbeat: waits u8 | sender u32 | third u32; bit p of `waits` says that the sender
///          waits for data of party p, and bit 3 + p that party p has still to connect to it;
///          `sender` is a random number of the sending process, `third` that of the third party's
///          process that it has met, 0 while it has met none; the first frame on a link is one
///          abort, goodbye, dismissal: the reason, which may be empty
///   hello: "TERCET" | party u8 | pairs u8 | length u32 | body of `length` bytes
///          body: for each pair: length u32, name, length u32, value
///          with pairs = 255 the hello is a refusal and its body the reason
namespace tercet::net {

inline constexpr std::size_t kFrameHeaderBytes = 14;
inline constexpr std::size_t kHeartbeatFrameBytes = kFrameHeaderBytes + 9;
inline constexpr std::size_t kMaxReasonBytes = 512;

enum class FrameKind : std::uint8_t {
  kData = 0,
  kHeartbeat = 1,
  kAbort = 2,      ///< the sender has failed, and so has the receiver
  kGoodbye = 3,    ///< the sender is done, or leaves
  kDismissal = 4,  ///< the sender goes on with a newer process of the receiver's party
};

struct Heartbeat {
  std::uint8_t waits = 0;
  std::uint32_t sender = 0, third = 0;
};

struct FrameHeader {
  std::uint32_t length = 0;
  FrameKind kind = FrameKind::kData;
  Phase phase = Phase::kSetup;
  std::uint32_t tag = 0;
  std::uint32_t depth = 0;
};

struct Frame {
  FrameKind kind = FrameKind::kData;
  Message message;  ///< of an end the payload is the reason
};

using FrameHeaderBytes = std::array<std::uint8_t, kFrameHeaderBytes>;

FrameHeaderBytes EncodeFrameHeader(const Frame& frame);

/// Throws ProtocolError when a field has no meaning: unknown kind or phase, a length above the
/// kind's limit, fields set that the kind does not use.
FrameHeader ParseFrameHeader(std::span<const std::uint8_t, kFrameHeaderBytes> bytes);

Frame EncodeHeartbeat(const Heartbeat& heartbeat);
/// The payload of a heartbeat, whose length its header has been checked for.
Heartbeat ParseHeartbeat(std::span<const std::uint8_t> payload);

/// Cuts a byte stream into frames. Memory grows with what has arrived, not with what a header
/// announces. After an exception the reader is of no further use. Not thread safe.
///
///   auto space = reader.Space();
///   reader.Advance(read(fd, space.data(), space.size()), frames);
class FrameReader {
 public:
  FrameReader();
  /// Where the next bytes of the stream go; never empty, valid until the next call. Large payloads
  /// are read in place.
  std::span<std::uint8_t> Space();
  /// `count` bytes of Space() have been filled; appends the frames that are complete. Throws
  /// ProtocolError as ParseFrameHeader does.
  void Advance(std::size_t count, std::vector<Frame>& frames);

 private:
  void BeginPayload();
  void Grow();
  void Emit(std::vector<Frame>& frames);

  Bytes buffer_;
  FrameHeaderBytes header_bytes_{};
  std::size_t header_size_ = 0;
  FrameHeader header_;
  Bytes payload_;
  std::size_t payload_size_ = 0;  ///< how much of payload_ has arrived
  bool direct_ = false;           ///< whether Space() gave out room in payload_
};

inline constexpr std::size_t kHelloHeadBytes = 12;
inline constexpr std::size_t kMaxHelloPairs = 64;
inline constexpr std::size_t kMaxHelloBytes = std::size_t{64} << 10;

using Agreement = std::vector<std::pair<std::string, std::string>>;

struct HelloHead {
  int party = 0;
  bool refusal = false;
  std::size_t pairs = 0;
  std::size_t length = 0;
};

/// Throws InternalError when the agreement exceeds the limits above.
Bytes EncodeHello(int party, const Agreement& agreement);
Bytes EncodeRefusal(int party, std::string_view reason);

/// Throws ProtocolError when the bytes are not the head of a hello.
HelloHead ParseHelloHead(std::span<const std::uint8_t, kHelloHeadBytes> bytes);

/// Throws ProtocolError when the body is not exactly `head.pairs` pairs.
Agreement ParseHelloBody(const HelloHead& head, std::span<const std::uint8_t> body);

/// Empty when both hold the same names and values; else the differences: "network digest: here
/// ab12, there cd34".
std::string Differences(const Agreement& here, const Agreement& there);

}  // namespace tercet::net
