// SPDX-License-Identifier: Apache-2.0
// vectors.json holds queries that this library sealed, and their answers; clients in other
// languages are tested against it. Here it is checked that it still says what the library does.
// With TERCET_WRITE_VECTORS=FILE a new one is written.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/scratch.h"
#include "tercet/base/file_writer.h"
#include "tercet/client/query.h"
#include "tercet/nn/integer_network.h"
#include "tercet/ring/pack.h"

namespace tercet::client {
namespace {

using nlohmann::json;

constexpr std::uint64_t kTime = 1'800'000'000'000;
constexpr std::size_t kImages = 2;

Bytes FromHex(const json& text) {
  const auto hex = text.get<std::string>();
  Bytes bytes(hex.size() / 2);
  EXPECT_TRUE(crypto::ParseHex(hex, bytes));
  return bytes;
}

crypto::SealingKey KeyOf(const json& hex) {
  const Bytes secret = FromHex(hex);
  return crypto::SealingKey(std::span<const std::uint8_t, crypto::SealingKey::kBytes>(
      secret.data(), crypto::SealingKey::kBytes));
}

json MessageOf(const service::Message& message) {
  return {{"json_bytes", message.json_bytes}, {"body", crypto::HexText(message.body)}};
}

// Rings of both sides of a word, logits and classes, one channel and three.
std::vector<service::ModelInfo> Models() {
  service::ModelInfo narrow, wide;
  narrow.name = wide.name = "vectors";
  narrow.version = "1";
  narrow.input = {.shape = {1, 4, 4}, .bits = 4};
  narrow.input_bits = 11;
  narrow.output_bits = 13;
  narrow.classes = 3;
  wide.version = "2";
  wide.input = {.shape = {3, 2, 3}, .bits = 8};
  wide.input_bits = 33;
  wide.output_bits = 2;
  wide.classes = 4;
  wide.only_class = true;
  for (auto* model : {&narrow, &wide}) model->digest.fill(model->input_bits & 255);
  return {narrow, wide};
}

json Case(const service::ModelInfo& model, const service::Deployment& deployment) {
  const std::size_t features = model.input.shape.Size();
  files::Images images{model.input.shape, kImages, std::vector<std::uint8_t>(kImages * features)};
  crypto::RandomBytes(images.pixels);
  const Query query(deployment, model, images, 0, kImages, kTime);

  // Query keeps its own one-time key to itself, so the answer is to another one.
  const auto reply = crypto::SealingKey::Random();
  auto answer = query.Request();
  answer.head.reply = reply.Public();
  const std::size_t values = kImages * model.classes;
  std::vector<std::uint64_t> mine(values), other(values);
  std::vector<std::int64_t> logits(values);
  crypto::RandomBytes({reinterpret_cast<std::uint8_t*>(mine.data()), 8 * values});
  for (std::size_t i = 0; i < values; ++i) {
    logits[i] = model.only_class ? (i % model.classes == 1 ? 1 : 0)
                                 : 100 * static_cast<std::int64_t>(i) - 250;
    const std::int64_t sum = model.only_class ? 1 - logits[i] : logits[i];
    other[i] = static_cast<std::uint64_t>(sum) - mine[i];
  }
  const auto seal = [&](const std::vector<std::uint64_t>& share, int server) {
    Bytes packed(ring::PackedBytes(values, model.output_bits));
    ring::Pack(std::span<const std::uint64_t>(share), model.output_bits,
               std::span<std::uint8_t>(packed));
    return crypto::Seal(reply.Public(), service::AnswerContext(answer.head, server), packed);
  };
  const auto roles = service::RolesOf(answer.head.lane);
  answer.e1 = seal(mine, roles.Evaluator1());
  answer.e2 = seal(other, roles.Evaluator2());
  return {{"model", json::parse(service::ModelInfoToJson(model))},
          {"pixels", crypto::HexText(images.pixels)},
          {"request", MessageOf(service::RequestOf(query.Request()))},
          {"reply_secret", crypto::HexText(reply.Secret())},
          {"answer", MessageOf(service::ResponseOf(answer, model.name, model.version))},
          {"logits", logits}};
}

json NewVectors() {
  service::Deployment deployment;
  json document{{"servers", json::array()}, {"secrets", json::array()}, {"cases", json::array()}};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto key = crypto::SealingKey::Random();
    deployment.servers[i].sealing_key = key.Public();
    document["servers"].push_back({{"url", "https://localhost:" + std::to_string(8440 + i)},
                                   {"sealing_key", crypto::HexText(key.Public())}});
    document["secrets"].push_back(crypto::HexText(key.Secret()));
  }
  for (const auto& model : Models()) document["cases"].push_back(Case(model, deployment));
  return document;
}

TEST(Vectors, AreWhatThisLibrarySeals) {
  if (const char* file = std::getenv("TERCET_WRITE_VECTORS"))
    WriteFile(file, NewVectors().dump(1) + "\n");
  const json document =
      json::parse(ReadAll(std::string(TERCET_SOURCE_DIR) + "/tests/client/vectors.json"));
  ASSERT_EQ(document.at("cases").size(), Models().size());
  for (const json& entry : document.at("cases")) {
    const auto model = service::ModelInfoFromJson(entry.at("model").dump(), "vectors.json");
    const auto parse = [&](const char* name, auto parser) {
      const json& message = entry.at(name);
      return parser(FromHex(message.at("body")), message.at("json_bytes").get<std::size_t>());
    };
    const auto request = parse("request", service::ParseRequest);
    const auto& head = request.head;
    const auto roles = service::RolesOf(head.lane);
    const std::array servers{roles.Evaluator1(), roles.Evaluator2()};
    ASSERT_EQ(head.images, kImages);
    EXPECT_EQ(head.lane, service::LaneOf(head.id, 3));

    const auto sum = [](const std::array<std::optional<Bytes>, 2>& shares, unsigned bits,
                        std::size_t count) {
      std::vector<std::uint64_t> total(count), share(count);
      for (const auto& packed : shares) {
        EXPECT_TRUE(packed);
        ring::Unpack(ByteSpan(*packed), bits, std::span<std::uint64_t>(share));
        for (std::size_t i = 0; i < count; ++i) total[i] += share[i];
      }
      return total;
    };
    const auto key = [&](std::size_t e) {
      return KeyOf(document.at("secrets").at(static_cast<std::size_t>(servers[e])));
    };
    const std::size_t features = model.input.shape.Size();
    const auto inputs =
        sum({crypto::Unseal(key(0), service::QueryContext(head, servers[0]), request.e1),
             crypto::Unseal(key(1), service::QueryContext(head, servers[1]), request.e2)},
            model.input_bits, kImages * features);
    const Bytes pixels = FromHex(entry.at("pixels"));
    const files::Images images{model.input.shape, kImages, {pixels.begin(), pixels.end()}};
    const auto quantised = nn::QuantiseInput(model.input, images, 0, kImages);
    for (std::size_t image = 0; image < kImages; ++image)
      for (std::size_t row = 0; row < features; ++row)
        EXPECT_EQ(ring::Decode(ring::Reduce(inputs[image * features + row], model.input_bits),
                               model.input_bits),
                  quantised[row * kImages + image]);

    const auto answer = parse("answer", service::ParseResponse);
    const auto reply = KeyOf(entry.at("reply_secret"));
    auto answered = head;
    answered.reply = reply.Public();
    EXPECT_EQ(answer.head.id, head.id);
    const auto logits =
        sum({crypto::Unseal(reply, service::AnswerContext(answered, servers[0]), answer.e1),
             crypto::Unseal(reply, service::AnswerContext(answered, servers[1]), answer.e2)},
            model.output_bits, kImages * model.classes);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const auto value =
          ring::Decode(ring::Reduce(logits[i], model.output_bits), model.output_bits);
      EXPECT_EQ(model.only_class ? 1 - value : value, entry.at("logits").at(i));
    }
  }
}

}  // namespace
}  // namespace tercet::client
