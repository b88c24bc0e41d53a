// SPDX-License-Identifier: Apache-2.0
#include "tercet/client/query.h"

#include <gtest/gtest.h>

#include <set>

#include "base/scratch.h"
#include "service/small_service.h"
#include "tercet/ring/pack.h"

namespace tercet::client {
namespace {

using service::Gate;
using service::QueryId;
using service::Refusal;

constexpr std::uint64_t kNow = 1'800'000'000'000;

class Queries : public testing::Test {
 protected:
  Queries() {
    const Bytes package = service::SmallPackage(service::SmallModel(), world_.deployment);
    info_ = service::InfoOf(service::ReadPackage(package, world_.deployment, 0, world_.keys[0],
                                                 service::Protocols(), "p"),
                            service::Protocols());
    for (int id = 0; id < 3; ++id)
      gates_.push_back(std::make_unique<Gate>(
          world_.deployment, id,
          crypto::SealingKey(world_.keys[static_cast<std::size_t>(id)].Secret()),
          [this, id](const QueryId& query, std::uint64_t) {
            return seen_[static_cast<std::size_t>(id)].insert(query).second;
          }));
  }
  Query Ask(std::size_t count = 2) const {
    return {world_.deployment, info_, images_, 0, count, kNow};
  }
  int E2(const Query& query) const {
    return service::RolesOf(query.Request().head.lane).Evaluator2();
  }
  Refusal Open(int server, const service::QueryHead& head, const Bytes& sealed,
               std::uint64_t now = kNow) const {
    Refusal why = Refusal::kNone;
    text_ = gates_[static_cast<std::size_t>(server)]->Open(head, sealed, info_.input.shape.Size(),
                                                           info_.input_bits, now, why);
    EXPECT_EQ(text_.has_value(), why == Refusal::kNone);
    return why;
  }
  std::vector<std::uint16_t> Values() const {
    std::vector<std::uint16_t> values(2 * info_.input.shape.Size());
    ring::Unpack(ByteSpan(*text_), info_.input_bits, std::span<std::uint16_t>(values));
    return values;
  }

  service::SmallDeployment world_;
  service::ModelInfo info_;
  files::Images images_ = compile::RandomImages({1, 4, 4}, 100, 4);
  std::vector<std::unique_ptr<Gate>> gates_;
  std::array<std::set<QueryId>, 3> seen_;
  mutable std::optional<Bytes> text_;
};

TEST_F(Queries, SharesOfBothEvaluatorsAreTheImages) {
  const Query query = Ask();
  const auto& request = query.Request();
  ASSERT_EQ(ring::WordBytes(info_.input_bits), sizeof(std::uint16_t));
  ASSERT_EQ(Open(query.E1(), request.head, request.e1), Refusal::kNone);
  const auto mine = Values();
  ASSERT_EQ(Open(E2(query), request.head, request.e2), Refusal::kNone);
  const auto other = Values();
  const auto input = nn::QuantiseInput(info_.input, images_, 0, 2);
  const std::size_t features = info_.input.shape.Size();
  for (std::size_t image = 0; image < 2; ++image)
    for (std::size_t row = 0; row < features; ++row)
      EXPECT_EQ(
          (mine[image * features + row] + other[image * features + row]) % (1 << info_.input_bits),
          input[row * 2 + image]);
}

TEST_F(Queries, AreNeverTheSameTwice) {
  const Query a = Ask(), b = Ask();
  EXPECT_NE(a.Request().head.id, b.Request().head.id);
  EXPECT_NE(a.Request().head.reply, b.Request().head.reply);
  ASSERT_EQ(Open(a.E1(), a.Request().head, a.Request().e1), Refusal::kNone);
  const auto first = Values();
  ASSERT_EQ(Open(b.E1(), b.Request().head, b.Request().e1), Refusal::kNone);
  EXPECT_NE(first, Values());
}

TEST_F(Queries, ASecondTimeIsRefused) {
  const Query query = Ask();
  const auto& request = query.Request();
  EXPECT_EQ(Open(query.E1(), request.head, request.e1), Refusal::kNone);
  EXPECT_EQ(Open(query.E1(), request.head, request.e1), Refusal::kReplay);
  EXPECT_EQ(Open(E2(query), request.head, request.e2), Refusal::kNone);
  EXPECT_EQ(Open(E2(query), request.head, request.e2), Refusal::kReplay);
}

TEST_F(Queries, ThatAreOldOrFromTheFutureAreRefused) {
  const Query query = Ask();
  const auto& request = query.Request();
  const std::uint64_t age = 120'000;
  for (const std::uint64_t now : {kNow + age + 1, kNow - age - 1, std::uint64_t{0}})
    EXPECT_EQ(Open(query.E1(), request.head, request.e1, now), Refusal::kTime) << now;
  EXPECT_EQ(Open(query.E1(), request.head, request.e1, kNow + age), Refusal::kNone);
}

TEST_F(Queries, PartsOpenForTheirServerAndQueryAlone) {
  const Query query = Ask(), other = Ask();
  const auto& request = query.Request();
  EXPECT_EQ(Open(query.E1(), request.head, request.e2), Refusal::kSeal);
  EXPECT_EQ(Open(E2(query), request.head, request.e1), Refusal::kSeal);
  EXPECT_EQ(Open(query.E1(), request.head, other.Request().e1), Refusal::kSeal);
  // Every field of the head is bound.
  auto head = request.head;
  head.model[5] ^= 1;
  EXPECT_EQ(Open(query.E1(), head, request.e1), Refusal::kSeal);
  head = request.head;
  head.reply = crypto::SealingKey::Random().Public();
  EXPECT_EQ(Open(query.E1(), head, request.e1), Refusal::kSeal);
  head = request.head;
  head.time_ms += 1;
  EXPECT_EQ(Open(query.E1(), head, request.e1), Refusal::kSeal);
  head = request.head;
  head.images = 3;
  EXPECT_EQ(Open(query.E1(), head, request.e1), Refusal::kSeal);
  head = request.head;
  head.id[15] ^= 1;
  EXPECT_EQ(Open(query.E1(), head, request.e1), Refusal::kSeal);
  head = request.head;
  head.lane = (head.lane + 1) % 3;
  EXPECT_EQ(Open(query.E1(), head, request.e1), Refusal::kLane);
  head = request.head;
  head.reply = {};
  EXPECT_EQ(Open(query.E1(), head, request.e1), Refusal::kReply);
  EXPECT_EQ(Open(static_cast<int>(request.head.lane % 3), request.head, request.e1),
            Refusal::kLane);
  // None of them has used the number up.
  EXPECT_EQ(Open(query.E1(), request.head, request.e1), Refusal::kNone);
}

TEST_F(Queries, OfAnotherLengthOrNumberAreRefused) {
  const Query query = Ask();
  auto head = query.Request().head;
  const auto sealed = [&](std::size_t bytes) {
    return crypto::Seal(world_.deployment.servers[static_cast<std::size_t>(query.E1())].sealing_key,
                        QueryContext(head, query.E1()), Bytes(bytes));
  };
  const std::size_t right = ring::PackedBytes(2 * 16, info_.input_bits);
  EXPECT_EQ(Open(query.E1(), head, sealed(right - 1)), Refusal::kLength);
  EXPECT_EQ(Open(query.E1(), head, sealed(right + 1)), Refusal::kLength);
  head.images = 0;
  EXPECT_EQ(Open(query.E1(), head, sealed(0)), Refusal::kImages);
  head.images = 65;
  EXPECT_EQ(Open(query.E1(), head, sealed(right)), Refusal::kImages);
  EXPECT_THROW(Ask(0), ConfigError);
  EXPECT_THROW(Ask(65), ConfigError);
}

TEST_F(Queries, MessagesComeBackAndAreCheckedByField) {
  const Query query = Ask();
  const auto message = RequestOf(query.Request());
  const auto read = service::ParseRequest(message.body, message.json_bytes);
  EXPECT_EQ(read.head, query.Request().head);
  EXPECT_EQ(read.e1, query.Request().e1);
  EXPECT_EQ(read.e2, query.Request().e2);
  const auto answer = ResponseOf(query.Request(), "small", "1");
  EXPECT_EQ(service::ParseResponse(answer.body, answer.json_bytes).e2, query.Request().e2);

  const auto parse = [&](ByteSpan body, std::size_t json) {
    return [=] { service::ParseRequest(body, json); };
  };
  for (std::size_t size = 0; size < message.body.size(); size += 11)
    EXPECT_THROW(parse(ByteSpan(message.body).first(size), message.json_bytes)(), ConfigError);
  ExpectConfigError(parse(message.body, message.body.size() + 1), "Inference-Header-Content-Length",
                    "expected");
  ExpectConfigError(
      parse(ByteSpan(message.body).first(message.body.size() - 1), message.json_bytes),
      "body /inputs/1", "bytes that are left");
  Bytes longer = message.body;
  longer.push_back(0);
  ExpectConfigError(parse(longer, message.json_bytes), "body", "after the last tensor");
  std::string text(message.body.begin(), message.body.end());
  text.replace(text.find("share_e2"), 8, "share_e1");
  const Bytes renamed(text.begin(), text.end());
  EXPECT_THROW(parse(renamed, message.json_bytes)(), ConfigError);
}

TEST_F(Queries, AnAnswerOfAnotherQueryIsRefused) {
  const Query query = Ask(), other = Ask();
  const auto answer = [&](const Query& to) {
    const auto& head = to.Request().head;
    const Bytes share(ring::PackedBytes(2 * info_.classes, info_.output_bits), 0);
    const auto seal = [&](int server) {
      return crypto::Seal(head.reply, AnswerContext(head, server), share);
    };
    return service::SealedPair{head, seal(to.E1()), seal(E2(to))};
  };
  const auto mine = answer(query);
  EXPECT_EQ(query.Open(mine), std::vector<std::int64_t>(2 * info_.classes, 0));
  EXPECT_THROW(query.Open(answer(other)), ProtocolError);
  auto mixed = mine;
  mixed.e1 = answer(other).e1;
  EXPECT_THROW(query.Open(mixed), ProtocolError);
  mixed = mine;
  std::swap(mixed.e1, mixed.e2);
  EXPECT_THROW(query.Open(mixed), ProtocolError);
}

TEST_F(Queries, TheModelsDocumentComesBack) {
  EXPECT_EQ(service::ModelInfoFromJson(service::ModelInfoToJson(info_), "d"), info_);
  ExpectConfigError([] { service::ModelInfoFromJson("{}", "d"); }, "d", "missing");
}

}  // namespace
}  // namespace tercet::client
