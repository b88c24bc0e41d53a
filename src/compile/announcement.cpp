// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/announcement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/json.h"
#include "compile/bounds.h"
#include "compile/quantise.h"
#include "files/schema_check.h"
#include "mpc/activation_function.h"
#include "tercet/base/error.h"
#include "tercet/compile/architecture.h"

namespace tercet::compile {
namespace {

using nlohmann::json;

static_assert(kMaxLayerBits == kMaxWidth);

/// What the logits' weights may have beside their sign: twice the 8 bits of precision that bfloat16
/// has, in which networks are trained and served.
constexpr unsigned kLogitWeightBits = 16;

constexpr std::size_t kMaxTextBytes = 256;  // as in the schema

constexpr const char* kSchema = R"({
  "title": "an announcement", "description": "an object", "type": "object",
  "required": ["layers", "network", "only_class", "spec_digest"], "additionalProperties": false,
  "properties": {
    "network": {"$ref": "#/definitions/text"},
    "spec_digest": {"type": "string", "minLength": 64, "maxLength": 64, "pattern": "^[0-9a-f]+$",
                    "description": "64 hexadecimal digits"},
    "only_class": {"type": "boolean", "description": "true or false"},
    "layers": {
      "type": "array", "minItems": 1, "maxItems": 4096, "description": "an array of 1 to 4096 layers",
      "items": {
        "title": "a layer", "description": "an object", "type": "object",
        "required": ["proven", "shift", "value_bits"], "additionalProperties": false,
        "properties": {
          "value_bits": {"type": "integer", "minimum": 2, "maximum": 34,
                         "description": "an integer from 2 to 34"},
          "shift": {"type": "integer", "minimum": 0, "maximum": 33,
                    "description": "an integer from 0 to 33"},
          "proven": {"type": "boolean", "description": "true or false"},
          "suite": {"$ref": "#/definitions/text"}
        }
      }
    }
  },
  "definitions": {
    "text": {"type": "string", "maxLength": 256, "pattern": "^[ -~]*$",
             "description": "a string of at most 256 printable characters"}
  }
})";
static_assert(kMaxLayerBits + kComparisonBits == 34, "as in the schema");

/// The largest value that leaves the input (0) or a layer, by its width.
Int128 LargestOf(const nn::PublicNetwork& network, std::size_t output) {
  if (output == 0) return network.InputMax();
  const nn::PublicLayer& layer = network.layers[output - 1];
  const Int128 half = Int128{1} << (layer.value_bits - 1);
  return OutputMax(layer, {-half, half - 1}, layer.name);
}

unsigned BitWidth(Int128 value) {
  unsigned bits = 0;
  for (; value > 0; value >>= 1) ++bits;
  return bits;
}

std::string LayerPlace(const std::string& place, std::size_t layer, const char* field) {
  return fmt::format("{} /layers/{}/{}", place, layer, field);
}

void CheckNetwork(const nn::NetworkSpec& spec, const Announcement& announcement,
                  const std::string& place) {
  const std::string digest = spec.Digest();
  if (announcement.spec_digest != digest)
    throw ConfigError(
        place, fmt::format("this model was compiled for another architecture (network \"{}\", "
                           "digest {:.12}); network \"{}\" with digest {:.12} expected",
                           announcement.network, announcement.spec_digest, spec.name, digest));
  if (announcement.network != spec.name)
    throw ConfigError(place + " /network", fmt::format("found \"{}\", expected \"{}\"",
                                                       announcement.network, spec.name));
  if (!announcement.only_class && spec.output == "class")
    throw ConfigError(place + " /only_class",
                      "found false, expected true: the network's \"output\" is the class, and no "
                      "model makes more than that leave it");
}

/// The widths, each checked against the layer that it is for.
void SetWidths(nn::PublicNetwork& network, const Announcement& announcement,
               const std::string& place) {
  const std::size_t count = network.layers.size();
  if (announcement.layers.size() != count)
    throw ConfigError(place + " /layers",
                      fmt::format("found {} elements, expected {}, one for each layer of network "
                                  "\"{}\"",
                                  announcement.layers.size(), count, network.name));
  for (std::size_t l = 0; l < count; ++l) {
    nn::PublicLayer& layer = network.layers[l];
    const Announcement::Layer& announced = announcement.layers[l];
    const bool logits = l + 1 == count && layer.compared_classes == 0;
    const unsigned most = logits ? MostLogitBits(network)
                                 : kMaxLayerBits + (layer.compared_classes ? kComparisonBits : 0);
    if (announced.value_bits < 2 || announced.value_bits > most)
      throw ConfigError(
          LayerPlace(place, l, "value_bits"),
          fmt::format("found {}, expected 2 to {}{}", announced.value_bits, most,
                      logits ? ", all that the logits of this architecture can need" : ""));
    const mpc::ActivationFunction& function = mpc::FunctionOf(layer.activation);
    const bool looks_up = function.Shift() == mpc::ShiftRule::kIndexes;
    const unsigned index = layer.Activation(1).TableBits();
    if (looks_up &&
        (announced.value_bits < index || announced.shift != announced.value_bits - index))
      throw ConfigError(LayerPlace(place, l, "shift"),
                        fmt::format("found {} for {} bits, expected the table of layer {} to be "
                                    "left with {} bits",
                                    announced.shift, announced.value_bits, layer.name, index));
    if (looks_up && !announced.proven)
      throw ConfigError(LayerPlace(place, l, "proven"),
                        fmt::format("found false, expected true: what enters the table of layer {} "
                                    "must be in it",
                                    layer.name));
    const unsigned largest =
        function.Shift() == mpc::ShiftRule::kDivides ? announced.value_bits - 1 : 0;
    if (!looks_up && announced.shift > largest)
      throw ConfigError(
          LayerPlace(place, l, "shift"),
          fmt::format("found {}, expected at most {}, as layer {} has {} bits and "
                      "activation {}",
                      announced.shift, largest, layer.name, announced.value_bits, function.Name()));
    layer.value_bits = announced.value_bits;
    layer.shift = announced.shift;
    layer.proven = announced.proven;
  }
}

/// Checks the suite that is announced for a layer that leaves it.
void CheckChosen(const std::string& text, const mpc::Registry& registry, const std::string& place) {
  if (text.empty())
    throw ConfigError(place, "found none, expected one, as suite auto leaves the choice");
  const mpc::SuiteChoice chosen = mpc::ParseSuiteChoice(text, place);
  const std::vector<std::string> names = registry.SuiteNames();
  if (std::find(names.begin(), names.end(), chosen.name) == names.end())
    throw ConfigError(place,
                      fmt::format("found {}, expected one of {}", text, fmt::join(names, ", ")));
  if (!registry.FindSuite(chosen.name).Info().is_private)
    throw ConfigError(place, fmt::format("found {}, which is NOT private, expected a private "
                                         "suite: another one is used only where every party's own "
                                         "network file or --suite names it",
                                         text));
}

}  // namespace

bool LeavesSuite(const nn::PublicLayer& layer, const mpc::SuiteChoice& suite) {
  if (layer.activation == mpc::ActivationKind::kNone) return false;
  return layer.suite == nn::kAutoSuite || (layer.suite.empty() && suite.name == nn::kAutoSuite);
}

Announcement AnnouncementOf(const nn::PublicNetwork& network) {
  Announcement announcement{network.name, network.spec_digest, network.OnlyClass(), {}};
  for (const nn::PublicLayer& layer : network.layers)
    announcement.layers.push_back({layer.value_bits, layer.shift, layer.proven, ""});
  return announcement;
}

Announcement AnnouncementOf(const nn::PublicNetwork& network, const nn::NetworkSpec& spec,
                            const mpc::SuiteChoice& suite) {
  Announcement announcement = AnnouncementOf(network);
  const nn::PublicNetwork own = Architecture(spec, announcement.only_class);
  TERCET_CHECK(own.layers.size() == network.layers.size(), "{} layers, expected {}",
               network.layers.size(), own.layers.size());
  for (std::size_t l = 0; l < own.layers.size(); ++l)
    if (LeavesSuite(own.layers[l], suite)) announcement.layers[l].suite = network.layers[l].suite;
  return announcement;
}

std::string AnnouncementToJson(const Announcement& announcement) {
  json document = {{"network", announcement.network},
                   {"spec_digest", announcement.spec_digest},
                   {"only_class", announcement.only_class},
                   {"layers", json::array()}};
  for (const Announcement::Layer& layer : announcement.layers) {
    json written = {
        {"value_bits", layer.value_bits}, {"shift", layer.shift}, {"proven", layer.proven}};
    if (!layer.suite.empty()) written["suite"] = layer.suite;
    document["layers"].push_back(std::move(written));
  }
  return document.dump(-1, ' ', true, json::error_handler_t::replace);
}

Announcement AnnouncementFromJson(const std::string& text, const std::string& place) {
  const json document = ReadJson(text, place, JsonLimits{});
  static const files::Schema schema(kSchema);
  schema.Check(document, place);
  Announcement announcement;
  document.at("network").get_to(announcement.network);
  document.at("spec_digest").get_to(announcement.spec_digest);
  document.at("only_class").get_to(announcement.only_class);
  for (const json& from : document.at("layers")) {
    const std::size_t l = announcement.layers.size();
    Announcement::Layer& layer = announcement.layers.emplace_back();
    from.at("value_bits").get_to(layer.value_bits);
    from.at("shift").get_to(layer.shift);
    if (layer.shift >= layer.value_bits)
      throw ConfigError(LayerPlace(place, l, "shift"),
                        fmt::format("found {}, expected an integer from 0 to {}", layer.shift,
                                    layer.value_bits - 1));
    from.at("proven").get_to(layer.proven);
    layer.suite = from.value("suite", "");
  }
  return announcement;
}

std::size_t MostAnnouncementBytes(const nn::NetworkSpec& spec) {
  Announcement longest{spec.name, spec.Digest(), false, {}};
  const std::string suite(kMaxTextBytes, '"');  // which is escaped
  longest.layers.assign(Architecture(spec, false).layers.size(),
                        {kMaxLayerBits + kComparisonBits, kMaxLayerBits, false, suite});
  return AnnouncementToJson(longest).size();
}

unsigned MostLogitBits(const nn::PublicNetwork& network) {
  const nn::PublicLayer& last = network.layers.back();
  const auto entering = [&](std::size_t output, std::size_t count) {
    return Product(LargestOf(network, output), static_cast<Int128>(count), last.name);
  };
  Int128 sum = entering(network.layers.size() - 1, last.linear.Depth());
  if (const auto& shortcut = last.shortcut)
    sum += entering(shortcut->from, shortcut->linear ? shortcut->linear->Depth() : 1);
  // One bit for the sign and one for the bias.
  return std::min(kMaxLayerBits, 2 + kLogitWeightBits + BitWidth(sum));
}

nn::PublicNetwork NetworkOf(const nn::NetworkSpec& spec, const Announcement& announcement,
                            const std::string& place) {
  CheckNetwork(spec, announcement, place);
  nn::PublicNetwork network = Architecture(spec, announcement.only_class);
  SetWidths(network, announcement, place);
  for (std::size_t l = 0; l < network.layers.size(); ++l)
    if (const std::string& suite = announcement.layers[l].suite; !suite.empty())
      throw ConfigError(LayerPlace(place, l, "suite"),
                        fmt::format("found {} for layer {}, expected none: a model chooses no "
                                    "suite, the network file and --suite do",
                                    suite, network.layers[l].name));
  return network;
}

nn::PublicNetwork NetworkOf(const nn::NetworkSpec& spec, const Announcement& announcement,
                            const mpc::Registry& registry, const mpc::SuiteChoice& suite,
                            const std::string& place) {
  Announcement widths = announcement;
  for (Announcement::Layer& layer : widths.layers) layer.suite.clear();
  nn::PublicNetwork network = NetworkOf(spec, widths, place);
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    nn::PublicLayer& layer = network.layers[l];
    const std::string& announced = announcement.layers[l].suite;
    const std::string where = LayerPlace(place, l, "suite");
    if (LeavesSuite(layer, suite)) {
      CheckChosen(announced, registry, where);
      layer.suite = announced;
    } else if (!announced.empty()) {
      throw ConfigError(where, fmt::format("found {} for layer {}, expected none: this party's own "
                                           "network file or --suite says {}",
                                           announced, layer.name,
                                           layer.suite.empty() ? suite.Text() : layer.suite));
    }
  }
  return network;
}

}  // namespace tercet::compile
