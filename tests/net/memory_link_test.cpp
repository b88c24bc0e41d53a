// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/memory_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "tercet/base/error.h"

namespace tercet::net {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::ThrowsMessage;

Message Make(Phase phase, std::uint32_t tag, std::size_t size = 3) {
  return {phase, tag, tag + 1, Bytes(size, 5)};
}

TEST(MemoryLinkTest, LanesAreOrderedAndApart) {
  auto [a, b] = MakeMemoryPair(0, 2, 10s);
  EXPECT_EQ(a->Peer(), 2);
  EXPECT_EQ(b->Peer(), 0);
  a->Send(Make(Phase::kOffline, 1));
  a->Send(Make(Phase::kOnline, 2));
  a->Send(Make(Phase::kOffline, 3));
  EXPECT_EQ(b->Receive(Phase::kOnline).tag, 2U);
  EXPECT_EQ(b->Receive(Phase::kOffline).tag, 1U);
  const Message last = b->Receive(Phase::kOffline);
  EXPECT_EQ(last.tag, 3U);
  EXPECT_EQ(last.depth, 4U);
  EXPECT_EQ(last.payload, Bytes(3, 5));
}

TEST(MemoryLinkTest, TimesOut) {
  auto [a, b] = MakeMemoryPair(0, 1, 20ms);
  EXPECT_THAT([&b = b] { b->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>(HasSubstr("party 0 sent no online message")));
}

TEST(MemoryLinkTest, EmptyMessagesDoNotGrow) {
  auto [a, b] = MakeMemoryPair(0, 1, 20ms);
  std::size_t sent = 0;
  const auto flood = [&, &a = a] {
    for (; sent < 10'000'000; ++sent) a->Send(Make(Phase::kOffline, 1, 0));
  };
  EXPECT_THAT(flood, ThrowsMessage<NetworkError>(HasSubstr("party 1 took no offline message")));
  EXPECT_LE(sent, 70'000U);
  a->Send(Make(Phase::kOnline, 2));  // another lane
  Message rest = Make(Phase::kOffline, 1);
  rest.continues = true;
  a->Send(std::move(rest));  // what has been begun
  EXPECT_EQ(b->Receive(Phase::kOnline).tag, 2U);
  for (std::size_t i = 0; i < 100; ++i) b->Receive(Phase::kOffline);
  a->Send(Make(Phase::kOffline, 3));
}

TEST(MemoryLinkTest, AbortWakesBothSides) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  b->Send(Make(Phase::kSetup, 1));  // an abort does not wait for what is queued
  auto here = std::async(std::launch::async, [&a = a] { a->Receive(Phase::kOnline); });
  auto there = std::async(std::launch::async, [&b = b] { b->Receive(Phase::kOnline); });
  a->Abort("out of\nmemory");
  EXPECT_THAT([&] { here.get(); }, ThrowsMessage<NetworkError>(HasSubstr("closed here")));
  EXPECT_THAT([&] { there.get(); }, ThrowsMessage<AbortError>("party 0 stopped: out of?memory"));
  EXPECT_THROW(b->Send(Make(Phase::kSetup, 1)), AbortError);
  EXPECT_THROW(a->Receive(Phase::kSetup), NetworkError);
}

TEST(MemoryLinkTest, CloseLeavesWhatIsQueued) {
  auto [a, b] = MakeMemoryPair(0, 1, 60s);
  a->Send(Make(Phase::kSetup, 1));
  a.reset();
  EXPECT_EQ(b->Receive(Phase::kSetup).tag, 1U);
  EXPECT_THAT([&b = b] { b->Receive(Phase::kSetup); },
              ThrowsMessage<NetworkError>("party 0 closed the link"));
  EXPECT_THROW(b->Flush(), NetworkError);
}

TEST(MemoryLinkTest, ThreeParties) {
  auto links = MakeMemoryLinks();
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) {
      ASSERT_EQ(links[i][j] == nullptr, i == j);
      if (i != j) links[i][j]->Send(Make(Phase::kOnline, static_cast<std::uint32_t>(10 * i + j)));
    }
  }
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) {
      if (i != j) {
        EXPECT_EQ(links[i][j]->Receive(Phase::kOnline).tag, 10 * j + i);
      }
    }
  }
}

}  // namespace
}  // namespace tercet::net
