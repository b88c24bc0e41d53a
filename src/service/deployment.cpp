// SPDX-License-Identifier: Apache-2.0
#include "tercet/service/deployment.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json.h"
#include "files/schema_check.h"
#include "service/deployment_schema.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"

namespace tercet::service {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr FileKind kDeploymentFile{"a deployment's JSON", 1 << 18};
constexpr FileKind kSecretFile{"a sealing key", 256};
constexpr FileKind kAuthorityFile{"a certificate", 1 << 14};
constexpr std::size_t kMaxAuthorityBytes = 1 << 14;

ByteSpan Span(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string StoreName(std::size_t server) { return fmt::format("server{}", server); }

// The host of a URL that the schema has let pass.
std::string HostOf(const std::string& url) {
  const std::size_t begin = url.find("//") + 2;
  if (url[begin] == '[') return url.substr(begin + 1, url.find(']') - begin - 1);
  return url.substr(begin, url.find(':', begin) - begin);
}

// The workers of a server; one that has none is its own, with all lanes.
std::vector<Worker> WorkersOf(const json& server, std::size_t lanes, const std::string& place) {
  const bool several = server.contains("workers");
  std::vector<Worker> workers;
  std::vector<std::optional<std::size_t>> of_lane(lanes);
  for (const json& from : several ? server.at("workers") : json::array({server})) {
    Worker worker;
    worker.url = from.at("url").get<std::string>();
    worker.authority = from.value("authority", "");
    worker.party = {from.at("host").get<std::string>(), from.at("port").get<std::uint16_t>()};
    worker.listen = from.value("listen", "");
    const std::string at = fmt::format("{}/workers/{}/lanes", place, workers.size());
    worker.lanes = ParseLanes(
        several ? from.at("lanes").get<std::string>() : fmt::format("0-{}", lanes - 1), lanes, at);
    for (const std::size_t lane : worker.lanes) {
      if (of_lane[lane])
        throw ConfigError(
            at, fmt::format("lane {} is one of worker {} too; each lane has one worker", lane,
                            *of_lane[lane]));
      of_lane[lane] = workers.size();
    }
    workers.push_back(std::move(worker));
  }
  for (std::size_t lane = 0; lane < lanes; ++lane)
    if (!of_lane[lane])
      throw ConfigError(
          place + "/workers",
          fmt::format("none has lane {}; of {} lanes each has one worker", lane, lanes));
  return workers;
}

const files::Schema& DeploymentSchema() {
  static const files::Schema schema(kDeploymentSchema);
  return schema;
}

}  // namespace

mpc::Roles RolesOf(std::size_t lane) {
  return mpc::Roles::ForClients(static_cast<PartyId>(lane % 3));
}

crypto::Digest Deployment::Id() const {
  return crypto::Sha256({Span("tercet deployment 1"), servers[0].sealing_key,
                         servers[1].sealing_key, servers[2].sealing_key});
}

std::size_t Deployment::WorkerOf(std::size_t lane) const {
  const auto& workers = servers[0].workers;
  const auto found = std::find_if(workers.begin(), workers.end(), [&](const Worker& worker) {
    return std::binary_search(worker.lanes.begin(), worker.lanes.end(), lane);
  });
  TERCET_CHECK(found != workers.end(), "the deployment has no such lane");
  return static_cast<std::size_t>(found - workers.begin());
}

Lanes ParseLanes(const std::string& text, std::size_t lanes, const std::string& place) {
  const auto fail = [&] {
    throw ConfigError(
        place, fmt::format("{} found, expected lanes from 0 to {}, as 0-3 or 0,2,5-7, each once",
                           Printable(text), lanes - 1));
  };
  std::vector<bool> has(lanes);
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&] {
    std::size_t value = lanes;
    const auto [after, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value >= lanes) fail();
    at = after;
    return value;
  };
  while (true) {
    const std::size_t first = number();
    std::size_t last = first;
    if (at != end && *at == '-') {
      ++at;
      last = number();
    }
    if (last < first) fail();
    for (std::size_t lane = first; lane <= last; ++lane) {
      if (has[lane]) fail();
      has[lane] = true;
    }
    if (at == end) break;
    if (*at++ != ',') fail();
  }
  Lanes all;
  for (std::size_t lane = 0; lane < lanes; ++lane)
    if (has[lane]) all.push_back(lane);
  return all;
}

std::string LanesText(const Lanes& lanes) {
  std::string text;
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    const std::size_t first = lanes[i];
    while (i + 1 < lanes.size() && lanes[i + 1] == lanes[i] + 1) ++i;
    text += fmt::format("{}{}", text.empty() ? "" : ",", first);
    if (lanes[i] != first) text += fmt::format("-{}", lanes[i]);
  }
  return text;
}

Deployment ParseDeployment(const std::string& text, const std::string& name) {
  const json document = ReadJson(text, name, {.string_length = kMaxAuthorityBytes});
  DeploymentSchema().Check(document, name);
  Deployment deployment;
  deployment.text = text;
  deployment.lanes = document.value("lanes", deployment.lanes);
  for (std::size_t i = 0; i < 3; ++i) {
    const json& from = document.at("servers").at(i);
    Server& server = deployment.servers[i];
    const std::string place = fmt::format("{} /servers/{}", name, i);
    server.workers = WorkersOf(from, deployment.lanes, place);
    const auto same = [](const Worker& a, const Worker& b) { return a.lanes == b.lanes; };
    const auto& first = deployment.servers[0].workers;
    if (!std::equal(first.begin(), first.end(), server.workers.begin(), server.workers.end(), same))
      throw ConfigError(place + "/workers",
                        "divide the lanes in another way than those of server 0, whose i-th worker "
                        "the i-th one here talks to");
    const auto pin = crypto::Fingerprint::Parse(from.at("fingerprint").get<std::string>());
    const bool key =
        crypto::ParseHex(from.at("sealing_key").get<std::string>(), std::span(server.sealing_key));
    TERCET_CHECK(pin && key, "the schema lets pass what is no key");
    deployment.pins[i] = {*pin};
    for (std::size_t other = 0; other < i; ++other) {
      const auto fail = [&](const char* what) {
        throw ConfigError(
            fmt::format("{}/{}", place, what),
            fmt::format("is that of server {} too; each server has keys of its own", other));
      };
      if (deployment.servers[other].sealing_key == server.sealing_key) fail("sealing_key");
      if (deployment.pins[other].front() == *pin) fail("fingerprint");
    }
  }
  deployment.max_images = document.value("max_images", deployment.max_images);
  deployment.max_age = std::chrono::seconds(
      document.value("max_age_s", static_cast<std::int64_t>(deployment.max_age.count())));
  return deployment;
}

Deployment LoadDeployment(const fs::path& file) {
  return ParseDeployment(ReadTextFile(file, kDeploymentFile), file.string());
}

crypto::SealingKey LoadSealingKey(const fs::path& store, const Deployment& deployment, int id) {
  const fs::path file = store / kSealingKeyFile;
  auto text = ReadPrivateFile(file, kSecretFile);
  std::string_view hex(reinterpret_cast<const char*>(text.data()), text.size());
  if (hex.ends_with('\n')) hex.remove_suffix(1);
  Bytes secret(crypto::SealingKey::kBytes);
  const bool fits = crypto::ParseHex(hex, secret);
  WipeMemory(text.data(), text.size());
  if (!fits) throw ConfigError(file.string(), "holds no sealing key of 64 hex digits");
  crypto::SealingKey key(std::span<const std::uint8_t, crypto::SealingKey::kBytes>(
      secret.data(), crypto::SealingKey::kBytes));
  if (key.Public() != deployment.servers.at(static_cast<std::size_t>(id)).sealing_key)
    throw ConfigError(file.string(),
                      fmt::format("is not the key that the deployment has for server {}", id));
  return key;
}

Addresses LoopbackAddresses() {
  return {{"https://localhost:8440", "https://localhost:8441", "https://localhost:8442"},
          {{{"127.0.0.1", 8500}, {"127.0.0.1", 8600}, {"127.0.0.1", 8700}}},
          3};
}

void MakeDeployment(const fs::path& directory, const Addresses& addresses, int days,
                    bool overwrite) {
  const fs::path file = directory / "deployment.json";
  const auto entry = [&](std::size_t i) {
    return json{{"url", addresses.urls[i]},
                {"host", addresses.parties[i].host},
                {"port", addresses.parties[i].port},
                {"fingerprint", "sha256:" + std::string(64, '0')},
                {"sealing_key", std::string(64, '0')}};
  };
  json document{{"format", 1}, {"servers", json::array()}, {"lanes", addresses.lanes}};
  for (std::size_t i = 0; i < 3; ++i) document["servers"].push_back(entry(i));
  // Before keys are made, which would be in the way next time.
  DeploymentSchema().Check(document, file.string());
  std::error_code unused;
  for (std::size_t i = 0; i < 3 && !overwrite; ++i)
    for (const fs::path& made : {file, directory / StoreName(i) / kSealingKeyFile})
      if (fs::exists(fs::symlink_status(made, unused)))
        throw ConfigError(made.string(), "exists already; --force replaces it");
  MakePrivateDirectory(directory);
  for (std::size_t i = 0; i < 3; ++i) {
    const fs::path store = directory / StoreName(i);
    json& server = document["servers"][i];
    server["fingerprint"] =
        crypto::MakePartyCertificate(store, static_cast<int>(i), days, overwrite)
            .fingerprint.Text();
    crypto::MakeServerCertificate(store, kHttpsName, HostOf(addresses.urls[i]), days, overwrite);
    server["authority"] = ReadTextFile(store / (std::string(kHttpsName) + ".pem"), kAuthorityFile);
    const auto key = crypto::SealingKey::Random();
    server["sealing_key"] = crypto::HexText(key.Public());
    std::string secret = crypto::HexText(key.Secret()) + "\n";
    WriteFile(store / kSealingKeyFile, secret, FileRights::kOwner);
    WipeMemory(secret.data(), secret.size());
  }
  WriteFile(file, document.dump(2) + "\n");
}

}  // namespace tercet::service
