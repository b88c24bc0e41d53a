// SPDX-License-Identifier: Apache-2.0
#include "tercet/service/package.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json.h"
#include "files/schema_check.h"
#include "service/words.h"
#include "tercet/base/error.h"
#include "tercet/crypto/prf.h"
#include "tercet/ring/pack.h"

namespace tercet::service {
namespace {

using infer::WeightShapes;
using mpc::AnyMatrix;
using mpc::AnyShare;
using nlohmann::json;
using Weights = infer::SecureNetwork::ModelShares;

constexpr std::string_view kMagic = "TERCETPK";
constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kFixedBytes = kMagic.size() + 2 * sizeof(std::uint32_t);
constexpr std::size_t kMaxHeaderBytes = std::size_t{1} << 20;
constexpr std::size_t kSaltBytes = 32;

// What the header's JSON may hold; the network and the model's announcement are checked by those
// who read them.
constexpr char kHeaderSchema[] = R"json({
  "title": "the header", "description": "a package's header", "type": "object",
  "required": ["name", "version", "deployment", "network", "model", "suite", "parts"],
  "additionalProperties": false,
  "properties": {
    "name": {"$ref": "#/definitions/name"},
    "version": {"$ref": "#/definitions/name"},
    "deployment": {"$ref": "#/definitions/digest"},
    "network": {"type": "object", "description": "the network's JSON, an object"},
    "model": {"type": "object", "description": "what the model says of itself, an object"},
    "suite": {"type": "string", "minLength": 1, "maxLength": 256, "description": "the name of a suite with its options"},
    "parts": {
      "type": "array", "minItems": 3, "maxItems": 3, "items": {"$ref": "#/definitions/part"},
      "description": "an array of three parts, of server 0, 1 and 2"
    }
  },
  "definitions": {
    "name": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "description": "1 to 64 letters, digits, '.', '_' and '-'"},
    "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "64 small hex digits"},
    "part": {
      "title": "a part", "type": "object", "required": ["bytes", "commitment"],
      "additionalProperties": false,
      "properties": {
        "bytes": {"type": "integer", "minimum": 1, "maximum": 1073741824, "description": "a number of bytes from 1 to 2^30"},
        "commitment": {"$ref": "#/definitions/digest"}
      },
      "description": "an object with bytes and commitment"
    }
  }
})json";

bool IsName(const std::string& text) {
  return !text.empty() && text.size() <= 64 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
         });
}

Bytes PartContext(const crypto::Digest& digest, std::size_t server) {
  Writer writer;
  writer.Text("tercet package part");
  writer.Raw(digest);
  writer.Word8(static_cast<std::uint8_t>(server));
  return writer.Take();
}

// The three tensors of a layer in the order of the file, with what they are called.
template <class Visit>
void ForEachTensor(const infer::Plan& plan, Visit&& visit) {
  for (std::size_t k = 0; k < plan.layers.size(); ++k) {
    const nn::PublicLayer& layer = plan.layers[k].layer;
    const WeightShapes shapes(layer);
    const unsigned bits = plan.layers[k].activation.ring_bits;
    visit(k, layer.name + "/weight", &Weights::Layer::weight, &nn::LayerWeights::weight,
          shapes.weight, bits);
    visit(k, layer.name + "/bias", &Weights::Layer::bias, &nn::LayerWeights::bias, shapes.bias,
          bits);
    if (layer.shortcut)
      visit(k, layer.name + "/shortcut", &Weights::Layer::shortcut, &nn::LayerWeights::shortcut,
            shapes.shortcut, bits);
  }
}

std::size_t ValueBytes(const infer::Plan& plan) {
  std::size_t bytes = 0;
  ForEachTensor(plan, [&](std::size_t, const std::string&, auto, auto, const auto& shape,
                          unsigned bits) { bytes += ring::PackedBytes(shape.Size(), bits); });
  return bytes;
}

// Salt and one seed, and either the other seed or the values of share 2.
std::size_t TextBytes(const infer::Plan& plan, std::size_t server) {
  return kSaltBytes + crypto::PrfKey::kBytes +
         (server == 0 ? crypto::PrfKey::kBytes : ValueBytes(plan));
}

template <ring::Word W>
ring::Matrix<W> Drawn(const crypto::PrfKey& seed, const std::string& tensor,
                      const WeightShapes::Shape& shape) {
  return crypto::PrfStream(0, seed, "package/" + tensor, nullptr)
      .template Draw<W>(shape.rows, shape.cols);
}

// The widths and suites that a server computes with; the ring of each layer follows from them.
nn::PublicNetwork NetworkOf(const PackageHeader& header, const mpc::Registry& registry,
                            const std::string& place) {
  auto network = compile::NetworkOf(header.spec, header.announcement, registry, header.suite,
                                    place + " /model");
  for (const auto& layer : infer::MakePlan(network, registry, header.suite, RolesOf(0), 1).layers) {
    if (!layer.Activates()) continue;
    const auto& info = registry.FindSuite(layer.suite.name).Info();
    if (!info.is_private || !info.exact)
      throw UnsupportedError(
          fmt::format("{}: layer {} has suite {}, which is not {}; the service takes only suites "
                      "that are private and exact",
                      place, layer.layer.name, info.name, info.is_private ? "exact" : "private"));
  }
  return network;
}

infer::Plan PlanOf(const nn::PublicNetwork& network, const PackageHeader& header,
                   const mpc::Registry& registry, std::size_t lane, std::size_t batch) {
  return infer::MakePlan(network, registry, header.suite, RolesOf(lane), batch);
}

struct Frame {
  PackageHeader header;
  std::array<ByteSpan, 3> parts;
};

Frame ReadFrame(ByteSpan package, const Deployment& deployment, const std::string& place) {
  const auto fail = [&](const std::string& problem) { throw ConfigError(place, problem); };
  if (package.size() > kMaxPackageBytes)
    fail(fmt::format("{} bytes found, at most {} expected", package.size(), kMaxPackageBytes));
  Reader reader(package);
  const auto magic = reader.Raw(kMagic.size());
  if (!magic || !std::equal(magic->begin(), magic->end(), kMagic.begin()))
    fail("found no package; it does not begin as one");
  const auto format = reader.Word32();
  if (format && *format != kFormat)
    fail(fmt::format("has format {}, expected {}; publish the model again", *format, kFormat));
  const auto size = reader.Word32();
  if (size && *size > kMaxHeaderBytes)
    fail(fmt::format("has a header of {} bytes, at most {} expected", *size, kMaxHeaderBytes));
  const auto text = size ? reader.Raw(*size) : std::nullopt;
  if (!text)
    fail(fmt::format("is cut short: it ends after {} bytes, in its header", package.size()));

  Frame frame;
  PackageHeader& header = frame.header;
  header.digest = crypto::Sha256({*text});
  const json document = ReadJson({reinterpret_cast<const char*>(text->data()), text->size()}, place,
                                 {.values = kMaxHeaderBytes, .string_length = 4096});
  static const files::Schema schema(kHeaderSchema);
  schema.Check(document, place);
  std::size_t expected = kFixedBytes + text->size();
  for (std::size_t p = 0; p < 3; ++p) {
    const json& part = document.at("parts").at(p);
    crypto::ParseHex(part.at("commitment").get<std::string>(), header.commitments[p]);
    expected += part.at("bytes").get<std::size_t>();
  }
  if (expected != package.size())
    fail(fmt::format("{} {} bytes long, expected {}",
                     expected > package.size() ? "is cut short:" : "is too long:", package.size(),
                     expected));
  for (std::size_t p = 0; p < 3; ++p)
    frame.parts[p] = *reader.Raw(document.at("parts").at(p).at("bytes").get<std::size_t>());
  header.name = document.at("name").get<std::string>();
  header.version = document.at("version").get<std::string>();
  header.network = document.at("network").dump();
  header.spec = nn::ParseNetwork(header.network, place + " /network");
  header.announcement =
      compile::AnnouncementFromJson(document.at("model").dump(), place + " /model");
  header.suite = mpc::ParseSuiteChoice(document.at("suite").get<std::string>(), place + " /suite");
  crypto::Digest made_for{};
  crypto::ParseHex(document.at("deployment").get<std::string>(), made_for);
  if (made_for != deployment.Id())
    fail(fmt::format("was published for another deployment, {:.12}, this one is {:.12}",
                     crypto::HexText(made_for), crypto::HexText(deployment.Id())));
  return frame;
}

/// What each server gets, before it is sealed: a salt, its seeds, and the shares that no seed
/// gives.
std::array<Bytes, 3> ShareWeights(const nn::IntegerNetwork& model, const infer::Plan& plan) {
  std::array<Writer, 3> writers;
  const std::array<crypto::PrfKey, 2> seeds{crypto::PrfKey::Random(), crypto::PrfKey::Random()};
  for (auto& writer : writers) {
    Bytes salt(kSaltBytes);
    crypto::RandomBytes(salt);
    writer.Raw(salt);
  }
  // Server i has shares i and i + 1.
  writers[0].Raw(seeds[0].Data());
  writers[0].Raw(seeds[1].Data());
  writers[1].Raw(seeds[1].Data());
  writers[2].Raw(seeds[0].Data());
  ForEachTensor(plan, [&](std::size_t k, const std::string& tensor, auto, auto values,
                          const WeightShapes::Shape& shape, unsigned bits) {
    const auto& secret = model.weights.at(k).*values;
    TERCET_CHECK(secret.size() == shape.Size(), "{} values of {} found, {} expected", secret.size(),
                 tensor, shape.Size());
    ring::DispatchWord(bits, [&]<ring::Word W>(W) {
      auto third = ring::MakeMatrix<W>(shape.rows, shape.cols);
      for (std::size_t i = 0; i < secret.size(); ++i)
        third.data()[i] = ring::Encode<W>(secret[i], bits);
      for (const auto& seed : seeds) third -= Drawn<W>(seed, tensor, shape);
      Bytes packed(ring::PackedBytes(shape.Size(), bits));
      ring::Pack(std::span<const W>(third.data(), third.size()), bits,
                 std::span<std::uint8_t>(packed));
      writers[1].Raw(packed);
      writers[2].Raw(packed);
    });
  });
  std::array<Bytes, 3> texts;
  for (std::size_t p = 0; p < 3; ++p) {
    texts[p] = writers[p].Take();
    TERCET_CHECK(texts[p].size() == TextBytes(plan, p), "a part of {} bytes", texts[p].size());
  }
  return texts;
}

}  // namespace

Bytes MakePackage(const nn::IntegerNetwork& model, const std::string& network_json,
                  const mpc::SuiteChoice& suite, const std::string& name,
                  const std::string& version, const Deployment& deployment,
                  const mpc::Registry& registry) {
  for (const auto& [place, text] : {std::pair("name", &name), std::pair("version", &version)})
    if (!IsName(*text))
      throw ConfigError(place, fmt::format("\"{}\" found, expected 1 to 64 letters, digits, '.', "
                                           "'_' and '-'",
                                           Printable(*text)));
  PackageHeader header;
  header.spec = nn::ParseNetwork(network_json, "network");
  header.announcement = compile::AnnouncementOf(model.net, header.spec, suite);
  header.suite = suite;
  const auto network = NetworkOf(header, registry, "model");
  const auto texts = ShareWeights(model, PlanOf(network, header, registry, 0, 1));
  json parts = json::array();
  for (const Bytes& part : texts)
    parts.push_back({{"bytes", crypto::SealedBytes(part.size())},
                     {"commitment", crypto::HexText(crypto::Sha256({part}))}});
  const std::string text = json{
      {"name", name},
      {"version", version},
      {"deployment", crypto::HexText(deployment.Id())},
      {"network", json::parse(network_json)},
      {"model", json::parse(compile::AnnouncementToJson(header.announcement))},
      {"suite", suite.Text()},
      {"parts",
       std::move(parts)}}.dump();
  if (text.size() > kMaxHeaderBytes)
    throw ConfigError("network", fmt::format("makes a header of {} bytes, at most {} expected",
                                             text.size(), kMaxHeaderBytes));
  const ByteSpan header_bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  const auto digest = crypto::Sha256({header_bytes});
  Writer package;
  package.Text(kMagic);
  package.Word32(kFormat);
  package.Word32(static_cast<std::uint32_t>(text.size()));
  package.Raw(header_bytes);
  for (std::size_t p = 0; p < 3; ++p)
    package.Raw(crypto::Seal(deployment.servers[p].sealing_key, PartContext(digest, p), texts[p]));
  return package.Take();
}

PackageHeader ReadPackageHeader(ByteSpan package, const Deployment& deployment,
                                const mpc::Registry& registry, const std::string& place) {
  auto frame = ReadFrame(package, deployment, place);
  NetworkOf(frame.header, registry, place);
  return std::move(frame.header);
}

ServedModel ReadPackage(ByteSpan package, const Deployment& deployment, int id,
                        const crypto::SealingKey& key, const mpc::Registry& registry,
                        const std::string& place) {
  auto frame = ReadFrame(package, deployment, place);
  ServedModel model;
  model.header = std::move(frame.header);
  model.network = NetworkOf(model.header, registry, place);
  const auto plan = PlanOf(model, registry, 0, 1);
  const auto p = static_cast<std::size_t>(id);
  const auto fail = [&](const std::string& problem) {
    throw ConfigError(place, fmt::format("the part of server {} {}", id, problem));
  };
  const std::size_t bytes = TextBytes(plan, p);
  if (frame.parts[p].size() != crypto::SealedBytes(bytes))
    fail(fmt::format("has {} bytes, {} expected for this network", frame.parts[p].size(),
                     crypto::SealedBytes(bytes)));
  bool key_fits = false;
  const auto text =
      crypto::Unseal(key, PartContext(model.header.digest, p), frame.parts[p], &key_fits);
  if (!key_fits) fail("was sealed to another key, or is damaged");
  if (!text) fail("belongs to another header, or is damaged: package or header were changed");
  if (crypto::Sha256({*text}) != model.header.commitments[p])
    fail("is not the one that the header commits to");
  Reader reader(*text);
  reader.Raw(kSaltBytes);
  const crypto::PrfKey seed(*reader.Raw(crypto::PrfKey::kBytes));
  std::optional<crypto::PrfKey> other;
  if (id == 0) other.emplace(*reader.Raw(crypto::PrfKey::kBytes));
  model.shares.layers.resize(plan.layers.size());
  ForEachTensor(plan, [&](std::size_t k, const std::string& tensor, auto share, auto,
                          const WeightShapes::Shape& shape, unsigned bits) {
    ring::DispatchWord(bits, [&]<ring::Word W>(W) {
      AnyMatrix first(Drawn<W>(seed, tensor, shape), bits);
      auto values = ring::MakeMatrix<W>(shape.rows, shape.cols);
      if (other) {
        values = Drawn<W>(*other, tensor, shape);
      } else {
        ring::Unpack(*reader.Raw(ring::PackedBytes(shape.Size(), bits)), bits,
                     std::span<W>(values.data(), values.size()));
      }
      AnyMatrix second(std::move(values), bits);
      // Server 0 has (seed, other), server 1 (seed, values), server 2 (values, seed).
      if (id == 2) std::swap(first, second);
      model.shares.layers[k].*share = {std::move(first), std::move(second)};
    });
  });
  return model;
}

infer::Plan PlanOf(const ServedModel& model, const mpc::Registry& registry, std::size_t lane,
                   std::size_t batch) {
  return PlanOf(model.network, model.header, registry, lane, batch);
}

}  // namespace tercet::service
