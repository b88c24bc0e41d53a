// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/party.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <latch>

#include "tercet/mpc/local.h"
#include "tercet/net/wrappers.h"

namespace tercet::mpc {
namespace {

using testing::HasSubstr;

Bytes Payload(std::size_t size) { return Bytes(size, 7); }

TEST(Context, CountsBytesAndTheLongestChainOfMessages) {
  RunParties([](Party& party) {
    Context ctx(party, Phase::kOnline);
    ctx.Enter(1, "ring");
    // A token from 0 over 1 and 2 back to 0: a chain of three. Beside it a message that nobody
    // waits for.
    if (party.Id() == 0) {
      ctx.SendBytes(1, Payload(5));
      ctx.SendBytes(2, Payload(11));
      EXPECT_EQ(ctx.ReceiveBytes(2, 5).size(), 5u);
      EXPECT_EQ(ctx.Depth(), 3u);
    } else {
      if (party.Id() == 2) ctx.ReceiveBytes(0, 11);
      ctx.SendBytes(party.Next(), ctx.ReceiveBytes(party.Prev(), 5));
      EXPECT_EQ(ctx.Depth(), party.Id() == 1 ? 1u : 2u);
    }
    ctx.Leave();
    const auto cell = party.Meter().Layers(Phase::kOnline).at(1);
    EXPECT_EQ(cell.sent_bytes[static_cast<std::size_t>(party.Next())], 5u);
    EXPECT_EQ(cell.sent_bytes[static_cast<std::size_t>(party.Prev())], party.Id() == 0 ? 11u : 0u);
    EXPECT_EQ(cell.hops, ctx.Depth());
    EXPECT_EQ(party.Meter().Total(Phase::kOffline).hops, 0u);
  });
}

TEST(Context, PhasesDoNotMixOnALink) {
  RunParties([](Party& party) {
    Context offline(party, Phase::kOffline), online(party, Phase::kOnline);
    online.SendBytes(party.Next(), Payload(3));
    offline.SendBytes(party.Next(), Payload(4));
    EXPECT_EQ(offline.ReceiveBytes(party.Prev(), 4).size(), 4u);
    EXPECT_EQ(online.ReceiveBytes(party.Prev(), 3).size(), 3u);
  });
}

std::string ErrorOf(const std::function<void(Party&)>& body) {
  try {
    RunParties(body);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Context, NamesPeerPhaseAndLayerWhenALengthIsWrong) {
  const auto text = ErrorOf([](Party& party) {
    Context ctx(party, Phase::kOnline);
    ctx.Enter(1, "conv1");
    if (party.Id() == 0) ctx.SendBytes(1, Payload(5));
    if (party.Id() == 1) ctx.ReceiveBytes(0, 6);
  });
  EXPECT_THAT(text, HasSubstr("party 0 sent 5 bytes, expected 6"));
  EXPECT_THAT(text, HasSubstr("online phase, layer conv1"));
}

TEST(Context, RefusesAMessageOfAnotherStep) {
  const auto text = ErrorOf([](Party& party) {
    Context ctx(party, Phase::kOffline);
    if (party.Id() == 0) {
      ctx.Enter(1, "conv1");
      ctx.SendBytes(1, Payload(1));
    }
    if (party.Id() == 1) {
      ctx.Enter(2, "conv2");
      ctx.ReceiveBytes(0, 1);
    }
  });
  EXPECT_THAT(text, HasSubstr("party 0 sent step 0 of layer 1, expected step 0 of layer 2"));
}

TEST(Context, RefusesADepthThatWrapsAround) {
  const auto text = ErrorOf([](Party& party) {
    if (party.Id() == 0) party.LinkTo(1).Send({Phase::kOnline, 1U << 16, 0xffff'ffff, Payload(1)});
    Context ctx(party, Phase::kOnline);
    ctx.Enter(1, "conv1");
    if (party.Id() == 1) ctx.ReceiveBytes(0, 1);
  });
  EXPECT_THAT(text, HasSubstr("party 0 sent a message that ends a chain of 4294967295 hops"));
}

// Party 2 hears from 0 over 1, which may count neither too many hops nor too few.
TEST(Context, RefusesAChainOfAnotherLengthThanPlanned) {
  Cost input, layer;
  input.Add(Phase::kOnline, {{0, 1, 1}});
  layer.Add(Phase::kOnline, {{0, 2, 1}, {1, 2, 1}});
  layer.Add(Phase::kOnline, {{2, 0, 1}, {1, 2, 1}});
  layer.Add(Phase::kOnline, {{0, 2, 1}});
  const Depths planned = DepthsAt(2, Phase::kOnline, {&input, &layer});
  EXPECT_EQ(planned[0], (Depths::value_type{}));
  EXPECT_EQ(planned[1], (Depths::value_type{{{1, 4}, {2, 2}, {}}}));
  EXPECT_EQ(DepthsAt(2, Phase::kOffline, {&layer})[0], (Depths::value_type{}));
  const auto error = [&](std::uint32_t first, std::uint32_t second) {
    return ErrorOf([&](Party& party) {
      if (party.Id() == 1) {
        party.LinkTo(2).Send({Phase::kOnline, 1U << 16, first, Payload(1)});
        party.LinkTo(2).Send({Phase::kOnline, 1U << 16 | 1, second, Payload(1)});
      }
      if (party.Id() != 2) return;
      Context ctx(party, Phase::kOnline, &planned);
      ctx.Enter(1, "conv1");
      ctx.ReceiveBytes(1, 1);
      ctx.ReceiveBytes(1, 1);
      EXPECT_EQ(ctx.Depth(), 2u);
    });
  };
  EXPECT_EQ(error(2, 2), "no error");
  EXPECT_EQ(error(1, 2),
            "party 1 sent a message that ends a chain of 1 hops, expected 2 (online "
            "phase, layer conv1)");
  EXPECT_THAT(error(2, 3), HasSubstr("party 1 sent a message that ends a chain of 3 hops, "
                                     "expected 2 (online phase"));
}

TEST(Context, RefusesAMessageThatThePlanDoesNotHave) {
  const Cost layer;
  const Depths planned = DepthsAt(2, Phase::kOnline, {&layer, &layer});
  const auto text = ErrorOf([&](Party& party) {
    if (party.Id() == 1) party.LinkTo(2).Send({Phase::kOnline, 1U << 16, 1, Payload(1)});
    if (party.Id() != 2) return;
    Context ctx(party, Phase::kOnline, &planned);
    ctx.Enter(1, "conv1");
    ctx.ReceiveBytes(1, 1);
  });
  EXPECT_EQ(text, "party 1 sent a message that the plan does not have (online phase, layer conv1)");
}

TEST(Context, LongMessagesTravelInParts) {
  // As large as a batch's activations may get, with a width that no power of two divides.
  constexpr std::size_t kCount = 1'500'007;
  constexpr unsigned kBits = 13;
  RunParties([&](Party& party) {
    Context ctx(party, Phase::kOnline);
    ctx.Enter(1, "ring");
    std::vector<std::uint16_t> values(kCount), got(kCount);
    for (std::size_t i = 0; i < kCount; ++i) values[i] = (i * 77 + 5) & 0x1fff;
    ctx.Send(party.Next(), std::span<const std::uint16_t>(values), kBits);
    ctx.Receive(party.Prev(), std::span<std::uint16_t>(got), kBits);
    EXPECT_EQ(got, values);
    Bytes bytes(3 * Context::kPartBytes + 1, 9);
    bytes[2 * Context::kPartBytes] = 4;
    ctx.SendBytes(party.Next(), bytes);
    EXPECT_EQ(ctx.ReceiveBytes(party.Prev(), bytes.size()), bytes);
    EXPECT_EQ(ctx.Depth(), 2u);
    ctx.Leave();
    const auto sent = party.Meter().Layers(Phase::kOnline).at(1);
    const auto next = static_cast<std::size_t>(party.Next());
    EXPECT_EQ(sent.sent_messages[next], 2u);
    EXPECT_EQ(sent.sent_bytes[next], ring::PackedBytes(kCount, kBits) + bytes.size());
  });
}

std::string ErrorOfParts(const std::vector<std::size_t>& parts) {
  return ErrorOf([&](Party& party) {
    Context ctx(party, Phase::kOnline);
    ctx.Enter(1, "conv1");
    if (party.Id() == 0)
      for (const std::size_t size : parts)
        party.LinkTo(1).Send({Phase::kOnline, 1U << 16, 1, Bytes(size)});
    if (party.Id() == 1) ctx.ReceiveBytes(0, 3 * Context::kPartBytes);
  });
}

TEST(Context, PartsMustBeFullAndAddUp) {
  constexpr std::size_t kFull = Context::kPartBytes;
  EXPECT_EQ(ErrorOfParts({kFull, kFull, kFull}), "no error");
  EXPECT_THAT(ErrorOfParts({kFull, 0}), HasSubstr("party 0 sent 1048576 bytes, expected 3145728"));
  EXPECT_THAT(ErrorOfParts({kFull, kFull / 2}), HasSubstr("expected 3145728"));
  EXPECT_THAT(ErrorOfParts({kFull, kFull, kFull + 1}), HasSubstr("sent 3145729 bytes"));
}

TEST(Context, NamesAPlaceOnce) {
  const auto text = ErrorOf([](Party& party) {
    Context ctx(party, Phase::kOnline);
    ctx.Enter(1, "conv2");
    if (party.Id() == 0) party.Abort("party 2 is gone (online phase, layer conv1)");
    if (party.Id() == 1) ctx.ReceiveBytes(0, 1);
  });
  EXPECT_EQ(text, "party 0 stopped: party 2 is gone (online phase, layer conv1)");
}

TEST(RunParties, RethrowsTheFirstErrorAndAbortsTheOthers) {
  const auto text = ErrorOf([](Party& party) {
    if (party.Id() == 2) throw ProtocolError("the reason");
    Context ctx(party, Phase::kOnline);
    ctx.ReceiveBytes(2, 1);  // must wake up
  });
  EXPECT_EQ(text, "the reason");
}

TEST(Meet, ReturnsWhenAllAreThereAndCountsNothing) {
  RunParties([](Party& party) {
    for (int i = 0; i < 3; ++i) Meet(party);
    EXPECT_EQ(party.Meter().Total(Phase::kSetup).sent_bytes, (std::array<std::uint64_t, 3>{}));
  });
}

// Party 2 comes last, and what it sends takes a while: it must not be ahead of the others.
TEST(Meet, NobodyLeavesBeforeAllHaveHeardFromAll) {
  std::latch others(2);
  std::array<std::atomic<int>, 3> heard{};  // of meeting messages that each has received
  class HearingLink final : public net::LinkWrapper {
   public:
    HearingLink(std::unique_ptr<net::Link> inner, std::atomic<int>& heard)
        : LinkWrapper(std::move(inner)), heard_(heard) {}
    net::Message Receive(Phase phase) override {
      auto message = inner_->Receive(phase);
      if (message.payload.empty()) ++heard_;  // keys are not empty
      return message;
    }

   private:
    std::atomic<int>& heard_;
  };
  RunParties(
      [&](Party& party) {
        if (party.Id() == 2) {
          others.wait();
        } else {
          others.count_down();
        }
        Meet(party);
        for (const auto& count : heard) EXPECT_GE(count, 2);
      },
      {.layers = 1,
       .ledger = nullptr,
       .wrap = [&](std::unique_ptr<net::Link> link, int owner) -> std::unique_ptr<net::Link> {
         if (owner == 2) link = net::MakeShapedLink(std::move(link), {"slow", 100, 0});
         return std::make_unique<HearingLink>(std::move(link),
                                              heard[static_cast<std::size_t>(owner)]);
       }});
}

TEST(Party, KeysAreHeldByTheNeighbourBelow) {
  // Party i and party i-1 draw the same from k_i.
  std::array<std::array<Bytes, 3>, 3> drawn;
  RunParties([&](Party& party) {
    for (int key = 0; key < 3; ++key) {
      if (!party.Keys().Holds(key)) continue;
      drawn[party.Id()][key].resize(16);
      party.Keys().Open(key, "test").Fill(drawn[party.Id()][key]);
    }
  });
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(drawn[i][i], drawn[(i + 2) % 3][i]);
    EXPECT_FALSE(drawn[i][i].empty());
    EXPECT_TRUE(drawn[i][(i + 2) % 3].empty());
    EXPECT_NE(drawn[i][i], drawn[i][(i + 1) % 3]);
  }
}

}  // namespace
}  // namespace tercet::mpc
