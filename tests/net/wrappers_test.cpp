// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/wrappers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/clock.h"
#include "tercet/base/error.h"
#include "tercet/net/memory_link.h"

namespace tercet::net {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(LinkProfileTest, Parses) {
  EXPECT_FALSE(ParseLinkProfile("none").Shaped());
  EXPECT_EQ(ParseLinkProfile("lan").mbit, 5000);
  EXPECT_EQ(ParseLinkProfile("wan").rtt_ms, 80);
  const auto custom = ParseLinkProfile("mbit=100,rtt_ms=1.5");
  EXPECT_EQ(custom.rtt_ms, 1.5);
  EXPECT_EQ(custom.mbit, 100);
  EXPECT_EQ(ParseLinkProfile("rtt_ms=10").mbit, 0);
  for (const char* bad : {"", "LAN", "rtt_ms=", "rtt_ms=-1", "rtt_ms=1,", "mbit=1,mbit=2",
                          "rtt_ms=nan", "mbit=inf", "rtt_ms=1e9", "rtt_ms=1x", "speed=1"}) {
    EXPECT_THAT([&] { ParseLinkProfile(bad); },
                ThrowsMessage<ConfigError>(HasSubstr("rtt_ms=10,mbit=100")))
        << bad;
  }
}

TEST(ShapedLinkTest, NeverHandsOverEarlyAndKeepsOrder) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  auto shaped =
      MakeShapedLink(std::move(a), {"test", 20, 8});  // 10 ms one way, 1 byte per microsecond
  EXPECT_EQ(shaped->Peer(), 1);
  const auto start = Clock::now();
  for (std::uint32_t i = 0; i < 3; ++i) shaped->Send({Phase::kOnline, i, 0, Bytes(5000)});
  for (std::uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(b->Receive(Phase::kOnline).tag, i);
    EXPECT_GE(Clock::now() - start, 10ms + (i + 1) * 5ms);
  }
  b->Send({Phase::kOnline, 9, 0, {}});
  EXPECT_EQ(shaped->Receive(Phase::kOnline).tag, 9U);
}

TEST(ShapedLinkTest, ShortDelays) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  auto there = MakeShapedLink(std::move(a), ParseLinkProfile("lan"));
  auto back = MakeShapedLink(std::move(b), ParseLinkProfile("lan"));
  std::jthread echo([&] {
    for (int i = 0; i < 20; ++i) back->Send(back->Receive(Phase::kOnline));
  });
  const auto start = Clock::now();
  for (std::uint32_t i = 0; i < 20; ++i) {
    there->Send({Phase::kOnline, i, 0, Bytes(16)});
    EXPECT_EQ(there->Receive(Phase::kOnline).tag, i);
  }
  EXPECT_GE(Clock::now() - start, 20 * 200us);
}

TEST(ShapedLinkTest, FlushAndCloseDrain) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  auto shaped = MakeShapedLink(std::move(a), {"test", 10, 0});
  shaped->Send({Phase::kOnline, 1, 0, {}});
  shaped->Flush();
  EXPECT_EQ(b->Receive(Phase::kOnline).tag, 1U);
  shaped->Send({Phase::kOnline, 2, 0, {}});
  shaped->Close();
  EXPECT_THROW(shaped->Send({Phase::kOnline, 3, 0, {}}), NetworkError);
  EXPECT_EQ(b->Receive(Phase::kOnline).tag, 2U);
  EXPECT_THAT([&b = b] { b->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>("party 0 closed the link"));
}

TEST(ShapedLinkTest, AbortDoesNotWait) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  auto shaped = MakeShapedLink(std::move(a), {"test", 60'000, 0});
  shaped->Send({Phase::kOnline, 1, 0, {}});
  shaped->Abort("no time");
  EXPECT_THAT([&b = b] { b->Receive(Phase::kOnline); },
              ThrowsMessage<AbortError>("party 0 stopped: no time"));
  EXPECT_THROW(shaped->Flush(), NetworkError);
}

TEST(ShapedLinkTest, PassesFailuresOn) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  auto shaped = MakeShapedLink(std::move(a), {"test", 1, 0});
  b->Abort("gone");
  shaped->Send({Phase::kOnline, 1, 0, {}});
  EXPECT_THAT([&] { shaped->Flush(); }, ThrowsMessage<AbortError>("party 1 stopped: gone"));
  EXPECT_THROW(shaped->Send({Phase::kOnline, 1, 0, {}}), AbortError);
}

TEST(RecordingLinkTest, RecordsBothDirections) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  auto recorder = std::make_shared<Recorder>();
  auto recording = MakeRecordingLink(std::move(a), recorder);
  recording->Send({Phase::kOnline, 1, 2, Bytes(3, 4)});
  b->Send(b->Receive(Phase::kOnline));
  recording->Receive(Phase::kOnline);
  const auto seen = recorder->Take();
  ASSERT_EQ(seen.size(), 2U);
  for (const Recorded& r : seen) {
    EXPECT_EQ(r.peer, 1);
    EXPECT_EQ(r.message.tag, 1U);
    EXPECT_EQ(r.message.payload, Bytes(3, 4));
  }
  EXPECT_TRUE(seen[0].sent);
  EXPECT_FALSE(seen[1].sent);
  EXPECT_TRUE(recorder->Take().empty());
}

TEST(FaultyLinkTest, AltersDropsAndThrows) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  auto faulty = MakeFaultyLink(std::move(a), [](Message& m) {
    if (m.tag == 2) throw NetworkError("made up");
    if (m.tag == 0) m.payload[0] ^= 1;
    return m.tag != 1;
  });
  faulty->Send({Phase::kOnline, 0, 0, Bytes(1, 6)});
  faulty->Send({Phase::kOnline, 1, 0, {}});
  EXPECT_THROW(faulty->Send({Phase::kOnline, 2, 0, {}}), NetworkError);
  faulty->Send({Phase::kOnline, 3, 0, {}});
  EXPECT_EQ(b->Receive(Phase::kOnline).payload, Bytes(1, 7));
  EXPECT_EQ(b->Receive(Phase::kOnline).tag, 3U);
}

}  // namespace
}  // namespace tercet::net
