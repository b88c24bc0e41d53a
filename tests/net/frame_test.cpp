// SPDX-License-Identifier: Apache-2.0
#include "net/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "net/failure.h"
#include "tercet/base/error.h"

namespace tercet::net {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

Frame DataFrame(std::size_t size, std::uint32_t tag) {
  Frame frame{FrameKind::kData, {Phase::kOnline, tag, 7, Bytes(size)}};
  for (std::size_t i = 0; i < size; ++i)
    frame.message.payload[i] = static_cast<std::uint8_t>(i * 31 + tag);
  return frame;
}

Bytes Encode(const std::vector<Frame>& frames) {
  Bytes out;
  for (const Frame& frame : frames) {
    const auto header = EncodeFrameHeader(frame);
    out.insert(out.end(), header.begin(), header.end());
    out.insert(out.end(), frame.message.payload.begin(), frame.message.payload.end());
  }
  return out;
}

std::vector<Frame> Decode(FrameReader& reader, std::span<const std::uint8_t> in,
                          std::size_t piece) {
  std::vector<Frame> frames;
  while (!in.empty()) {
    const auto space = reader.Space();
    const std::size_t n = std::min({piece, in.size(), space.size()});
    std::copy_n(in.begin(), n, space.begin());
    reader.Advance(n, frames);
    in = in.subspan(n);
  }
  return frames;
}

FrameHeaderBytes Header(std::uint32_t length, std::uint8_t kind, std::uint8_t phase,
                        std::uint8_t tag = 0) {
  FrameHeaderBytes out{};
  for (unsigned i = 0; i < 4; ++i) out[i] = static_cast<std::uint8_t>(length >> (8 * i));
  out[4] = kind;
  out[5] = phase;
  out[6] = tag;
  return out;
}

TEST(FrameTest, SurvivesAnyCutting) {
  std::vector<Frame> frames;
  std::uint32_t tag = 1;
  for (const std::size_t size : {0U, 1U, 13U, 16'383U, 70'000U, 3'000'000U, 5U}) {
    frames.push_back(DataFrame(size, tag += 0x01010101U));
  }
  frames.push_back({FrameKind::kAbort, {.payload = Bytes(20, 'x')}});
  frames.push_back({FrameKind::kGoodbye, {}});
  frames.push_back({FrameKind::kDismissal, {.payload = Bytes{1}}});
  const Bytes wire = Encode(frames);
  for (const std::size_t piece : {std::size_t{97}, std::size_t{16'384}, wire.size()}) {
    FrameReader reader;
    const auto got = Decode(reader, wire, piece);
    ASSERT_EQ(got.size(), frames.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].kind, frames[i].kind);
      EXPECT_EQ(got[i].message.phase, frames[i].message.phase);
      EXPECT_EQ(got[i].message.tag, frames[i].message.tag);
      EXPECT_EQ(got[i].message.depth, frames[i].message.depth);
      EXPECT_EQ(got[i].message.payload, frames[i].message.payload);
    }
  }
}

TEST(FrameTest, ChecksEveryField) {
  EXPECT_NO_THROW(ParseFrameHeader(Header(kMaxMessageBytes, 0, 2, 9)));
  EXPECT_THAT([] { ParseFrameHeader(Header(0, 5, 0)); },
              ThrowsMessage<ProtocolError>(HasSubstr("kind 5")));
  EXPECT_THAT([] { ParseFrameHeader(Header(0, 0, 3)); },
              ThrowsMessage<ProtocolError>(HasSubstr("phase 3")));
  EXPECT_THROW(ParseFrameHeader(Header(kMaxMessageBytes + 1, 0, 0)), ProtocolError);
  EXPECT_NO_THROW(ParseFrameHeader(Header(9, 1, 0)));
  EXPECT_THROW(ParseFrameHeader(Header(0, 1, 0)), ProtocolError);
  EXPECT_THROW(ParseFrameHeader(Header(10, 1, 0)), ProtocolError);
  EXPECT_THROW(ParseFrameHeader(Header(kMaxReasonBytes + 1, 2, 0)), ProtocolError);
  EXPECT_THROW(ParseFrameHeader(Header(0, 3, 1)), ProtocolError);
  EXPECT_THROW(ParseFrameHeader(Header(0, 3, 0, 1)), ProtocolError);
}

TEST(FrameTest, HeartbeatsSayWhoIsThere) {
  const Frame frame = EncodeHeartbeat({0x21, 0x01020304, 0xfffefdfc});
  EXPECT_EQ(kFrameHeaderBytes + frame.message.payload.size(), kHeartbeatFrameBytes);
  const Heartbeat got = ParseHeartbeat(frame.message.payload);
  EXPECT_EQ(got.waits, 0x21);
  EXPECT_EQ(got.sender, 0x01020304U);
  EXPECT_EQ(got.third, 0xfffefdfcU);
}

TEST(FrameTest, MemoryGrowsWithWhatArrives) {
  FrameReader reader;
  const auto header = Header(kMaxMessageBytes, 0, 1);
  EXPECT_TRUE(Decode(reader, header, header.size()).empty());
  EXPECT_LE(reader.Space().size(), std::size_t{1} << 20);
}

TEST(HelloTest, RoundTripsAndIsBounded) {
  const Agreement agreement{{"protocol version", "1"}, {"network digest", "ab12"}, {"", ""}};
  const Bytes wire = EncodeHello(2, agreement);
  const auto head =
      ParseHelloHead(std::span<const std::uint8_t, kHelloHeadBytes>(wire.data(), kHelloHeadBytes));
  EXPECT_EQ(head.party, 2);
  EXPECT_FALSE(head.refusal);
  const auto body = std::span(wire).subspan(kHelloHeadBytes);
  EXPECT_EQ(head.length, body.size());
  EXPECT_EQ(ParseHelloBody(head, body), agreement);
  for (std::size_t cut = 0; cut < body.size(); ++cut) {
    EXPECT_THROW(ParseHelloBody(head, body.first(cut)), ProtocolError) << cut;
  }
  Bytes longer(body.begin(), body.end());
  longer.push_back(0);
  EXPECT_THROW(ParseHelloBody(head, longer), ProtocolError);
  EXPECT_THROW(EncodeHello(0, Agreement(kMaxHelloPairs + 1)), InternalError);
  EXPECT_THROW(EncodeHello(0, {{"a", std::string(kMaxHelloBytes, 'x')}}), InternalError);
}

TEST(HelloTest, RefusesOddHeads) {
  std::array<std::uint8_t, kHelloHeadBytes> head{'T', 'E', 'R', 'C', 'E', 'T', 2, 64, 0, 0, 1, 0};
  EXPECT_NO_THROW(ParseHelloHead(head));
  for (const auto& [at, value] : {std::pair{0, 'X'}, {6, 3}, {7, 65}, {8, 1}, {11, 1}}) {
    auto odd = head;
    odd[static_cast<std::size_t>(at)] = static_cast<std::uint8_t>(value);
    EXPECT_THROW(ParseHelloHead(odd), ProtocolError) << at;
  }
}

TEST(HelloTest, NamesDifferences) {
  EXPECT_EQ(Differences({{"a", "1"}, {"b", "2"}}, {{"b", "2"}, {"a", "1"}}), "");
  EXPECT_EQ(Differences({{"network digest", "ab12"}}, {{"network digest", "cd34"}}),
            "network digest: here ab12, there cd34");
  EXPECT_EQ(Differences({{"a", "1"}}, {{"b", "x\x1b[2J"}}),
            "a: here 1, there nothing; b: here nothing, there x?[2J");
  Agreement many;
  for (int i = 0; i < 30; ++i) many.emplace_back(fmt::format("item {:02}", i), "1");
  EXPECT_THAT(Differences({}, many),
              testing::AllOf(testing::HasSubstr("item 07: "), testing::EndsWith("; and 22 more")));
}

TEST(CleanTextTest, CutsAndReplaces) {
  EXPECT_EQ(CleanText("a\nb\x7f\xff", 10), "a?b??");
  EXPECT_EQ(CleanText("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace tercet::net
