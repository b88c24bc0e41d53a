// SPDX-License-Identifier: Apache-2.0
#include "tercet/service/model_info.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "files/schema_check.h"
#include "tercet/base/error.h"

namespace tercet::service {
namespace {

using nlohmann::json;

constexpr char kInfoSchema[] = R"json({
  "title": "the model", "description": "a model as clients see it", "type": "object",
  "required": ["name", "version", "digest", "inputs", "bits", "input_bits", "output_bits", "classes", "output"],
  "properties": {
    "name": {"type": "string", "maxLength": 64, "description": "a name"},
    "version": {"type": "string", "maxLength": 64, "description": "a version"},
    "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "64 small hex digits"},
    "inputs": {
      "type": "array", "minItems": 1, "maxItems": 1, "description": "an array of one tensor",
      "items": {
        "title": "the input", "description": "an object with shape", "type": "object", "required": ["shape"],
        "properties": {
          "shape": {"type": "array", "minItems": 4, "maxItems": 4, "items": {"type": "integer", "minimum": -1, "maximum": 65536, "description": "a number from -1 to 65536"}, "description": "[-1, channels, height, width]"}
        }
      }
    },
    "bits": {"type": "integer", "minimum": 1, "maximum": 8, "description": "bits of an input, 1 to 8"},
    "input_bits": {"type": "integer", "minimum": 2, "maximum": 64, "description": "a ring's bits, 2 to 64"},
    "output_bits": {"type": "integer", "minimum": 2, "maximum": 64, "description": "a ring's bits, 2 to 64"},
    "classes": {"type": "integer", "minimum": 1, "maximum": 256, "description": "a number of classes from 1 to 256"},
    "output": {"enum": ["logits", "class"], "description": "\"logits\" or \"class\""},
    "scale": {"type": "number", "description": "a number"},
    "mean": {"type": "number", "description": "a number"},
    "std": {"type": "number", "description": "a number"}
  }
})json";

}  // namespace

ModelInfo InfoOf(const ServedModel& model, const mpc::Registry& registry) {
  const auto plan = PlanOf(model, registry, 0, 1);
  return {model.header.name,       model.header.version,     model.header.digest,
          model.network.input,     plan.input_bits,          plan.output_bits,
          model.network.Classes(), model.network.OnlyClass()};
}

std::string ModelInfoToJson(const ModelInfo& info) {
  const auto& shape = info.input.shape;
  const std::string output = info.only_class ? "class" : "logits";
  return json{
      {"name", info.name},
      {"versions", {info.version}},
      {"version", info.version},
      {"platform", "tercet"},
      {"digest", crypto::HexText(info.digest)},
      {"inputs",
       {{{"name", "image"},
         {"datatype", "UINT8"},
         {"shape", {-1, shape.channels, shape.height, shape.width}}}}},
      {"outputs", {{{"name", output}, {"datatype", "INT64"}, {"shape", {-1, info.classes}}}}},
      {"scale", info.input.scale},
      {"mean", info.input.mean},
      {"std", info.input.std},
      {"bits", info.input.bits},
      {"input_bits", info.input_bits},
      {"output_bits", info.output_bits},
      {"classes", info.classes},
      {"output", output}}
      .dump();
}

ModelInfo ModelInfoFromJson(const std::string& text, const std::string& place) {
  const json document = ReadJson(text, place, JsonLimits{});
  static const files::Schema schema(kInfoSchema);
  schema.Check(document, place);
  ModelInfo info;
  info.name = document.at("name").get<std::string>();
  info.version = document.at("version").get<std::string>();
  crypto::ParseHex(document.at("digest").get<std::string>(), info.digest);
  std::array<std::size_t, 3> sides{};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto side = document.at("inputs").at(0).at("shape").at(i + 1).get<std::int64_t>();
    if (side < 1)
      throw ConfigError(fmt::format("{} /inputs/0/shape/{}", place, i + 1),
                        fmt::format("{} found, a number from 1 expected", side));
    sides[i] = static_cast<std::size_t>(side);
  }
  info.input.shape = {sides[0], sides[1], sides[2]};
  info.input.scale = document.value("scale", info.input.scale);
  info.input.mean = document.value("mean", info.input.mean);
  info.input.std = document.value("std", info.input.std);
  info.input.bits = document.at("bits").get<unsigned>();
  info.input_bits = document.at("input_bits").get<unsigned>();
  info.output_bits = document.at("output_bits").get<unsigned>();
  info.classes = document.at("classes").get<std::size_t>();
  info.only_class = document.at("output") == "class";
  return info;
}

}  // namespace tercet::service
