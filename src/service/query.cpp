// SPDX-License-Identifier: Apache-2.0
#include "tercet/service/query.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "files/schema_check.h"
#include "service/words.h"
#include "tercet/base/error.h"
#include "tercet/ring/pack.h"

namespace tercet::service {
namespace {

using nlohmann::json;

constexpr std::size_t kTitleBytes = 16;

constexpr char kMessageSchema[] = R"json({
  "title": "the message", "description": "a query or an answer", "type": "object",
  "required": ["id", "TENSORS"],
  "properties": {
    "id": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "32 small hex digits"},
    "model_name": {"type": "string", "description": "a string"},
    "model_version": {"type": "string", "description": "a string"},
    "parameters": {
      "title": "the parameters", "description": "an object with model_digest, lane, images, time_ms and reply_key",
      "type": "object", "required": ["model_digest", "lane", "images", "time_ms", "reply_key"],
      "properties": {
        "model_digest": {"$ref": "#/definitions/digest"},
        "reply_key": {"$ref": "#/definitions/digest"},
        "lane": {"type": "integer", "minimum": 0, "maximum": 63, "description": "a lane, 0 to 63"},
        "images": {"type": "integer", "minimum": 1, "maximum": 4096, "description": "a number of images from 1 to 4096"},
        "time_ms": {"type": "integer", "minimum": 0, "maximum": 9007199254740991, "description": "milliseconds since 1970"}
      }
    },
    "TENSORS": {
      "type": "array", "minItems": 2, "maxItems": 2, "items": {"$ref": "#/definitions/tensor"},
      "description": "an array of two tensors, share_e1 and share_e2"
    }
  },
  "definitions": {
    "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "64 small hex digits"},
    "tensor": {
      "title": "a tensor", "description": "an object with name, datatype, shape and parameters",
      "type": "object", "required": ["name", "datatype", "shape", "parameters"],
      "properties": {
        "name": {"enum": ["share_e1", "share_e2"], "description": "\"share_e1\", then \"share_e2\""},
        "datatype": {"const": "UINT8", "description": "\"UINT8\""},
        "shape": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "integer", "description": "a number"}, "description": "an array of one number, the tensor's bytes"},
        "parameters": {
          "title": "the tensor's parameters", "description": "an object with binary_data_size",
          "type": "object", "required": ["binary_data_size"],
          "properties": {"binary_data_size": {"type": "integer", "minimum": 0, "maximum": 1073741824, "description": "a number of bytes"}}
        }
      }
    }
  }
})json";

json TensorsOf(const SealedPair& pair) {
  json tensors = json::array();
  for (const auto& [name, part] :
       {std::pair("share_e1", &pair.e1), std::pair("share_e2", &pair.e2)})
    tensors.push_back({{"name", name},
                       {"datatype", "UINT8"},
                       {"shape", {part->size()}},
                       {"parameters", {{"binary_data_size", part->size()}}}});
  return tensors;
}

Message MessageOf(const json& document, const SealedPair& pair) {
  const std::string text = document.dump();
  Writer writer;
  writer.Text(text);
  writer.Raw(pair.e1);
  writer.Raw(pair.e2);
  return {text.size(), writer.Take()};
}

// Of a message whose tensors have this key.
files::Schema SchemaWith(const char* tensors) {
  std::string schema(kMessageSchema);
  for (std::size_t at = 0; (at = schema.find("TENSORS")) != std::string::npos;)
    schema.replace(at, 7, tensors);
  return files::Schema(schema);
}

// Fills in the id and the parts; gives the JSON.
json ParseMessage(ByteSpan body, std::size_t json_bytes, const char* tensors,
                  const files::Schema& schema, SealedPair& pair) {
  static const std::string place("body");
  if (json_bytes > body.size() || json_bytes == 0)
    throw ConfigError(kJsonLengthHeader, fmt::format("{} found, 1 to the body's {} bytes expected",
                                                     json_bytes, body.size()));
  json document =
      ReadJson({reinterpret_cast<const char*>(body.data()), json_bytes}, place, JsonLimits{});
  schema.Check(document, place);
  ByteSpan left = body.subspan(json_bytes);
  std::size_t t = 0;
  for (const auto& [name, part] :
       {std::pair("share_e1", &pair.e1), std::pair("share_e2", &pair.e2)}) {
    const json& tensor = document.at(tensors).at(t);
    const std::string pointer = fmt::format("body /{}/{}", tensors, t++);
    if (tensor.at("name") != name)
      throw ConfigError(pointer + "/name", fmt::format("expected \"{}\"", name));
    const auto size = tensor.at("parameters").at("binary_data_size").get<std::size_t>();
    if (size > left.size() || tensor.at("shape").at(0) != size)
      throw ConfigError(
          pointer,
          fmt::format("{} bytes and shape {} found, both the same and at most the {} bytes "
                      "that are left expected",
                      size, ValueText(tensor.at("shape").at(0)), left.size()));
    part->assign(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(size));
    left = left.subspan(size);
  }
  if (!left.empty())
    throw ConfigError(place, fmt::format("{} bytes after the last tensor", left.size()));
  crypto::ParseHex(document.at("id").get<std::string>(), pair.head.id);
  return document;
}

Bytes Context(std::string_view title, const QueryHead& head, int server) {
  Writer writer;
  writer.Text(title);
  for (std::size_t i = title.size(); i < kTitleBytes; ++i) writer.Word8(0);
  writer.Raw(HeadBytes(head));
  writer.Word8(static_cast<std::uint8_t>(server));
  return writer.Take();
}

}  // namespace

std::uint64_t NowMs() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

std::uint32_t LaneOf(const QueryId& id, std::size_t lanes) {
  Reader reader(id);
  return static_cast<std::uint32_t>(*reader.Word64() % lanes);
}

Bytes HeadBytes(const QueryHead& head) {
  Writer writer;
  writer.Raw(head.id);
  writer.Raw(head.model);
  writer.Word32(head.lane);
  writer.Word32(head.images);
  writer.Word64(head.time_ms);
  writer.Raw(head.reply);
  return writer.Take();
}

QueryHead HeadFromBytes(ByteSpan bytes) {
  TERCET_CHECK(bytes.size() == kHeadBytes, "a query's head of {} bytes", bytes.size());
  Reader reader(bytes);
  QueryHead head;
  const auto fill = [&](auto& out) {
    const auto raw = *reader.Raw(out.size());
    std::copy(raw.begin(), raw.end(), out.begin());
  };
  fill(head.id);
  fill(head.model);
  head.lane = *reader.Word32();
  head.images = *reader.Word32();
  head.time_ms = *reader.Word64();
  fill(head.reply);
  return head;
}

Bytes QueryContext(const QueryHead& head, int server) {
  return Context("tercet query 1", head, server);
}

Bytes AnswerContext(const QueryHead& head, int server) {
  return Context("tercet answer 1", head, server);
}

Message RequestOf(const SealedPair& query) {
  const QueryHead& head = query.head;
  return MessageOf({{"id", crypto::HexText(head.id)},
                    {"parameters",
                     {{"model_digest", crypto::HexText(head.model)},
                      {"lane", head.lane},
                      {"images", head.images},
                      {"time_ms", head.time_ms},
                      {"reply_key", crypto::HexText(head.reply)}}},
                    {"inputs", TensorsOf(query)}},
                   query);
}

SealedPair ParseRequest(ByteSpan body, std::size_t json_bytes) {
  SealedPair query;
  static const files::Schema schema = SchemaWith("inputs");
  const json document = ParseMessage(body, json_bytes, "inputs", schema, query);
  if (!document.contains("parameters")) throw ConfigError("body", "missing key 'parameters'");
  const json& parameters = document.at("parameters");
  crypto::ParseHex(parameters.at("model_digest").get<std::string>(), query.head.model);
  crypto::ParseHex(parameters.at("reply_key").get<std::string>(), query.head.reply);
  query.head.lane = parameters.at("lane").get<std::uint32_t>();
  query.head.images = parameters.at("images").get<std::uint32_t>();
  query.head.time_ms = parameters.at("time_ms").get<std::uint64_t>();
  return query;
}

Message ResponseOf(const SealedPair& answer, const std::string& model, const std::string& version) {
  return MessageOf({{"id", crypto::HexText(answer.head.id)},
                    {"model_name", model},
                    {"model_version", version},
                    {"outputs", TensorsOf(answer)}},
                   answer);
}

SealedPair ParseResponse(ByteSpan body, std::size_t json_bytes) {
  SealedPair answer;
  static const files::Schema schema = SchemaWith("outputs");
  ParseMessage(body, json_bytes, "outputs", schema, answer);
  return answer;
}

const char* RefusalText(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
      return "none";
    case Refusal::kModel:
      return "the query's model digest is of no model that this server serves";
    case Refusal::kLane:
      return "the query's lane is not the one that its number says";
    case Refusal::kImages:
      return "the query has no images, or more than the deployment allows";
    case Refusal::kTime:
      return "the query's time is too far from this server's clock";
    case Refusal::kReplay:
      return "a query of this number has been here before; each needs a new one";
    case Refusal::kSeal:
      return "a part of the query was not sealed to its server, or for this query";
    case Refusal::kStore:
      return "a server cannot take note of the query";
    case Refusal::kReply:
      return "nothing can be sealed to the query's one-time key";
    case Refusal::kLength:
      return "a share has another length than the model's input";
  }
  return "unknown";
}

Gate::Gate(const Deployment& deployment, int id, crypto::SealingKey key, Remember remember)
    : deployment_(deployment), id_(id), key_(std::move(key)), remember_(std::move(remember)) {}

std::optional<Bytes> Gate::Open(const QueryHead& head, ByteSpan sealed, std::size_t values,
                                unsigned bits, std::uint64_t now_ms, Refusal& why) const {
  const auto refuse = [&](Refusal reason) -> std::optional<Bytes> {
    why = reason;
    return std::nullopt;
  };
  const auto age = static_cast<std::uint64_t>(deployment_.max_age.count()) * 1000;
  if (head.lane != LaneOf(head.id, deployment_.lanes) || RolesOf(head.lane).helper == id_)
    return refuse(Refusal::kLane);
  if (head.images == 0 || head.images > deployment_.max_images) return refuse(Refusal::kImages);
  const std::uint64_t apart = head.time_ms > now_ms ? head.time_ms - now_ms : now_ms - head.time_ms;
  if (apart > age) return refuse(Refusal::kTime);
  if (!crypto::CanSealTo(head.reply)) return refuse(Refusal::kReply);
  auto text = crypto::Unseal(key_, QueryContext(head, id_), sealed);
  if (!text) return refuse(Refusal::kSeal);
  if (text->size() != ring::PackedBytes(values * head.images, bits))
    return refuse(Refusal::kLength);
  // Last, so that what is refused anyway is not kept. What passes is, for as long as its time
  // lets it.
  try {
    if (!remember_(head.id, head.time_ms + age)) return refuse(Refusal::kReplay);
  } catch (const Error&) {
    return refuse(Refusal::kStore);
  }
  why = Refusal::kNone;
  return text;
}

}  // namespace tercet::service
