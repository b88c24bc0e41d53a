// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/split_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "tercet/base/error.h"
#include "tercet/net/memory_link.h"
#include "tercet/net/wrappers.h"

namespace tercet::net {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Parts = std::vector<std::unique_ptr<Link>>;

Message Make(Phase phase, std::uint32_t tag) { return {phase, tag, 7, Bytes(3, 5)}; }

std::pair<Parts, Parts> MakeParts(std::size_t count, std::chrono::milliseconds timeout = 60s) {
  auto [a, b] = MakeMemoryPair(0, 2, timeout);
  return {SplitLink(std::move(a), count), SplitLink(std::move(b), count)};
}

TEST(SplitLinkTest, PartsAreOrderedAndApart) {
  auto [a, b] = MakeParts(3);
  for (std::uint32_t round = 0; round < 2; ++round)
    for (std::uint32_t part = 0; part < 3; ++part)
      for (const Phase phase : {Phase::kSetup, Phase::kOffline, Phase::kOnline})
        a[part]->Send(Make(phase, 100 * part + 10 * static_cast<std::uint32_t>(phase) + round));
  for (const std::uint32_t part : {2U, 0U, 1U}) {
    EXPECT_EQ(a[part]->Peer(), 2);
    EXPECT_EQ(b[part]->Peer(), 0);
    for (const Phase phase : {Phase::kOnline, Phase::kSetup, Phase::kOffline}) {
      for (std::uint32_t round = 0; round < 2; ++round) {
        const Message m = b[part]->Receive(phase);
        EXPECT_EQ(m.phase, phase);
        EXPECT_EQ(m.tag, 100 * part + 10 * static_cast<std::uint32_t>(phase) + round);
        EXPECT_EQ(m.depth, 7U);  // the part's number does not show
        EXPECT_EQ(m.payload, Bytes(3, 5));
      }
    }
  }
}

// Every part plays ping-pong at its own pace, in a thread at each end, over a shaped link.
TEST(SplitLinkTest, PartsRunSideBySide) {
  auto [whole_a, whole_b] = MakeMemoryPair(0, 1, 60s);
  constexpr std::size_t kParts = 24;
  Parts a = SplitLink(MakeShapedLink(std::move(whole_a), ParseLinkProfile("rtt_ms=0.2")), kParts);
  Parts b = SplitLink(std::move(whole_b), kParts);
  std::vector<std::future<void>> ends;
  for (std::size_t part = 0; part < kParts; ++part) {
    ends.push_back(std::async(std::launch::async, [&link = *a[part], part] {
      for (std::uint32_t i = 0; i < 50 * (part + 1); ++i) {
        link.Send(Make(Phase::kOnline, i));
        ASSERT_EQ(link.Receive(Phase::kOnline).tag, 2 * i);
      }
    }));
    ends.push_back(std::async(std::launch::async, [&link = *b[part], part] {
      for (std::uint32_t i = 0; i < 50 * (part + 1); ++i) {
        const Message m = link.Receive(Phase::kOnline);
        ASSERT_EQ(m.tag, i);
        link.Send(Make(Phase::kOnline, 2 * m.tag));
      }
    }));
  }
  for (auto& end : ends) end.get();
}

// As many as there can be: each number fits beside the depth.
TEST(SplitLinkTest, AllPartsHaveNumbers) {
  auto [a, b] = MakeParts(kMaxLinkParts);
  for (std::uint32_t part = 0; part < kMaxLinkParts; ++part)
    a[part]->Send({Phase::kOnline, part, (1U << 24) - 1, {}});
  for (std::uint32_t part = kMaxLinkParts; part-- > 0;) {
    const Message m = b[part]->Receive(Phase::kOnline);
    EXPECT_EQ(m.tag, part);
    EXPECT_EQ(m.depth, (1U << 24) - 1);
  }
}

TEST(SplitLinkTest, AbortEndsAllParts) {
  auto [a, b] = MakeParts(3);
  std::vector<std::future<void>> waiting;
  for (auto& part : b)
    waiting.push_back(std::async(std::launch::async, [&part] { part->Receive(Phase::kOffline); }));
  a[1]->Abort("out of memory");
  for (auto& part : waiting)
    EXPECT_THAT([&] { part.get(); }, ThrowsMessage<AbortError>("party 0 stopped: out of memory"));
  EXPECT_THROW(b[0]->Send(Make(Phase::kOnline, 1)), AbortError);
}

TEST(SplitLinkTest, TheLastPartClosesTheLink) {
  auto [a, b] = MakeParts(2);
  a[0]->Close();
  a[0]->Close();  // counts once
  EXPECT_THAT([&a = a] { a[0]->Send(Make(Phase::kOnline, 1)); },
              ThrowsMessage<NetworkError>(HasSubstr("closed here")));
  EXPECT_THROW(a[0]->Receive(Phase::kOnline), NetworkError);
  a[1]->Send(Make(Phase::kOnline, 4));
  EXPECT_EQ(b[1]->Receive(Phase::kOnline).tag, 4U);
  b[0]->Send(Make(Phase::kOnline, 5));  // nobody will read it, which disturbs nobody
  a[1]->Close();
  EXPECT_THAT([&b = b] { b[1]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>("party 0 closed the link"));
}

TEST(SplitLinkTest, TheLinkLivesAsLongAsAPart) {
  auto [a, b] = MakeParts(2);
  a[0].reset();
  a[1]->Send(Make(Phase::kOnline, 4));
  EXPECT_EQ(b[1]->Receive(Phase::kOnline).tag, 4U);
  a[1].reset();
  EXPECT_THAT([&b = b] { b[1]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>("party 0 closed the link"));
}

TEST(SplitLinkTest, RefusesPartsThatThereAreNot) {
  auto [whole_a, whole_b] = MakeMemoryPair(0, 2, 60s);
  Parts a = SplitLink(std::move(whole_a), 3), b = SplitLink(std::move(whole_b), 2);
  a[2]->Send(Make(Phase::kOffline, 1));
  EXPECT_THAT(
      [&] { b[0]->Receive(Phase::kOffline); },
      ThrowsMessage<ProtocolError>("party 0 sent a message (offline) for part 2 of a link with 2"));
  Message deep = Make(Phase::kOnline, 1);
  deep.depth = 1U << 24;
  EXPECT_THROW(a[0]->Send(std::move(deep)), InternalError);
  EXPECT_THROW(SplitLink(nullptr, 1), InternalError);
  for (const std::size_t count : {std::size_t{0}, kMaxLinkParts + 1})
    EXPECT_THROW(SplitLink(std::move(MakeMemoryPair(0, 1, 1s).first), count), InternalError);
}

// A slow part makes the others wait, but not for ever, and what waits for it is bounded.
TEST(SplitLinkTest, ASlowPartDoesNotGrow) {
  auto [whole_a, whole_b] = MakeMemoryPair(0, 2, 60s);
  Parts a = SplitLink(std::move(whole_a), 2);
  Parts b = SplitLink(std::move(whole_b), 2, {.queue = {1 << 20, 5}, .patience = 50ms});
  for (std::uint32_t i = 0; i < 20; ++i) a[0]->Send({Phase::kOnline, i, 0, {}});
  a[1]->Send(Make(Phase::kOnline, 100));
  EXPECT_THAT([&] { b[1]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>(
                  HasSubstr("online messages from party 0 wait unread for part 0 of the link")));
  EXPECT_EQ(b[0]->Receive(Phase::kOnline).tag, 0U);  // what waited is still there
}

TEST(SplitLinkTest, APartThatCatchesUpLetsTheOthersGoOn) {
  auto [whole_a, whole_b] = MakeMemoryPair(0, 2, 60s);
  Parts a = SplitLink(std::move(whole_a), 2);
  Parts b = SplitLink(std::move(whole_b), 2, {.queue = {1 << 20, 5}, .patience = 60s});
  for (std::uint32_t i = 0; i < 50; ++i) a[0]->Send({Phase::kOnline, i, 0, {}});
  a[1]->Send(Make(Phase::kOnline, 100));
  auto other = std::async(std::launch::async, [&] { return b[1]->Receive(Phase::kOnline).tag; });
  for (std::uint32_t i = 0; i < 50; ++i) EXPECT_EQ(b[0]->Receive(Phase::kOnline).tag, i);
  EXPECT_EQ(other.get(), 100U);
}

TEST(SplitLinkTest, SilenceIsNoticed) {
  auto [a, b] = MakeParts(2, 20ms);
  a[0]->Send(Make(Phase::kOnline, 1));
  EXPECT_THAT([&b = b] { b[1]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>(HasSubstr("party 0 sent no online message")));
  EXPECT_EQ(b[0]->Receive(Phase::kOnline).tag, 1U);  // read while the other part waited
}

}  // namespace
}  // namespace tercet::net
