// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/testbed.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/json.h"
#include "files/schema_check.h"
#include "infer/testbed_schema.h"
#include "tercet/base/error.h"
#include "tercet/infer/shard.h"

namespace tercet::infer {
namespace {

using nlohmann::json;

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

std::uint16_t PortOf(const json& party, std::size_t shard, const std::string& place) {
  constexpr std::size_t kLast = std::numeric_limits<std::uint16_t>::max();
  const auto first = party.at("port").get<std::uint16_t>();
  if (shard > kLast - first)
    throw ConfigError(
        place, fmt::format("{} found, {} or less expected, so that shard {} has a port", first,
                           shard < kLast ? kLast - shard : 0, shard));
  return static_cast<std::uint16_t>(first + shard);
}

/// The entries of a value that is one string or an array of them, each with its pointer.
std::vector<std::pair<std::string, std::string>> Strings(const json& party, const std::string& key,
                                                         const std::string& pointer) {
  std::vector<std::pair<std::string, std::string>> all;
  if (!party.contains(key)) return all;
  const json& value = party.at(key);
  const std::string own = pointer + "/" + key;
  if (value.is_string()) return {{value.get<std::string>(), own}};
  for (std::size_t i = 0; i < value.size(); ++i)
    all.emplace_back(value.at(i).get<std::string>(), fmt::format("{}/{}", own, i));
  return all;
}

bool Holds(const std::vector<crypto::Fingerprint>& pins, const crypto::Fingerprint& key) {
  return std::find(pins.begin(), pins.end(), key) != pins.end();
}

/// What the testbed pins of one party. Fingerprints, where there are any, are what counts:
/// certificates beside them must be of these keys, so that a certificate that was exchanged on the
/// way does not pass beside the fingerprint that was compared.
std::vector<crypto::Fingerprint> PartyPins(
    const json& party, std::size_t p, const std::string& name,
    const std::function<std::filesystem::path(const std::string&)>& at) {
  std::vector<crypto::Fingerprint> pins;
  const std::string pointer = fmt::format("/parties/{}", p);
  for (const auto& [text, place] : Strings(party, "fingerprint", pointer)) {
    const auto pin = crypto::Fingerprint::Parse(text);
    if (!pin)
      throw ConfigError(name + " " + place,
                        "found no fingerprint, expected \"sha256:\" and 64 hex digits");
    pins.push_back(*pin);
  }
  const bool given = !pins.empty();
  for (const auto& [file, place] : Strings(party, "certificate", pointer)) {
    const auto certificate = crypto::ReadCertificate(at(file));
    if (certificate.party != static_cast<int>(p))
      throw ConfigError(name + " " + place,
                        fmt::format("{} is a certificate of \"{}\", expected party {}", file,
                                    certificate.name, p));
    if (given && !Holds(pins, certificate.fingerprint))
      throw ConfigError(
          name + " " + place,
          fmt::format("{} has the key {}, which is not among the fingerprints that are "
                      "pinned for party {}",
                      file, certificate.fingerprint.Text(), p));
    if (!given) pins.push_back(certificate.fingerprint);
  }
  return pins;
}

/// Nothing where no party has any. A key stands for one party alone.
std::optional<net::Pins> LoadPins(
    const json& parties, int id, const std::string& name,
    const std::function<std::filesystem::path(const std::string&)>& at) {
  net::Pins pins;
  bool any = false;
  for (std::size_t p = 0; p < pins.size(); ++p) {
    pins[p] = PartyPins(parties.at(p), p, name, at);
    any |= !pins[p].empty();
    for (std::size_t other = 0; other < p; ++other)
      for (const auto& pin : pins[p])
        if (Holds(pins[other], pin))
          throw ConfigError(
              fmt::format("{} /parties/{}", name, p),
              fmt::format("the key {} is pinned for party {} too; each party has a key of its own",
                          pin.Text(), other));
  }
  if (!any) return std::nullopt;
  for (std::size_t p = 0; p < pins.size(); ++p)
    if (pins[p].empty() && p != static_cast<std::size_t>(id))
      throw ConfigError(fmt::format("{} /parties/{}", name, p),
                        fmt::format("missing key 'fingerprint' or 'certificate' of party {}: where "
                                    "one party's key is pinned, all others' are",
                                    p));
  return pins;
}

/// The party's own certificate, and what it knows the others by; nothing without TLS.
std::optional<net::TlsFiles> LoadTls(
    const json& document, int id, const std::string& name,
    const std::function<std::filesystem::path(const std::string&)>& at) {
  const auto pins = LoadPins(document.at("parties"), id, name, at);
  const bool with_tls = document.value("transport", "tls") == "tls";
  const bool directory = document.contains("certificates"), files = document.contains("tls");
  if (with_tls && directory == files)
    throw ConfigError(
        name, fmt::format("{} 'certificates' and 'tls' given; transport \"tls\" needs one of them",
                          directory ? "both" : "neither"));
  if (!with_tls && (directory || files || pins))
    throw ConfigError(
        name,
        "certificates or fingerprints given, but transport \"tcp-insecure\" would not use them; "
        "leave out one of the two");
  if (!with_tls) return std::nullopt;
  if (directory) {
    const auto base = at(document.at("certificates").get<std::string>());
    return net::TlsFiles{pins ? "" : base / "ca.pem", base / fmt::format("party{}.pem", id),
                         base / fmt::format("party{}-key.pem", id), pins};
  }
  const json& tls = document.at("tls");
  if (pins && tls.contains("ca"))
    throw ConfigError(name + " /tls/ca",
                      "the keys of the parties are pinned, so no authority is asked; leave out one "
                      "of the two");
  if (!pins && !tls.contains("ca"))
    throw ConfigError(name + " /tls",
                      "missing key 'ca': where no keys are pinned ('fingerprint' or 'certificate' "
                      "of each party), an authority must have signed the certificates");
  return net::TlsFiles{pins ? "" : at(tls.at("ca").get<std::string>()),
                       at(tls.at("certificate").get<std::string>()),
                       at(tls.at("key").get<std::string>()), pins};
}

json ReadDocument(const std::filesystem::path& file) {
  json document = ReadJsonFile(file, {"a testbed's JSON", 1 << 20}, JsonLimits{});
  static const files::Schema schema(kTestbedSchema);
  schema.Check(document, file.string());
  return document;
}

mpc::Roles RolesOf(const json& document) {
  if (!document.contains("roles")) return {};
  const json& roles = document.at("roles");
  return {roles.at("helper").get<int>(), roles.at("data_owner").get<int>(),
          roles.at("model_owner").get<int>(), roles.at("receiver").get<int>()};
}

}  // namespace

net::TcpOptions Testbed::Tcp(int id) const {
  net::TcpOptions options;
  options.party = id;
  options.endpoints = endpoints;
  options.tls = tls;
  options.listen = listen;
  options.timeout = timeout;
  options.stall_timeout = stall_timeout;
  options.connect_timeout = connect_timeout;
  return options;
}

Testbed LoadTestbed(const std::filesystem::path& file, int id, std::size_t shard) {
  const std::string name = file.string();
  const json document = ReadDocument(file);

  Testbed testbed;
  for (std::size_t p = 0; p < 3; ++p) {
    const json& party = document.at("parties").at(p);
    testbed.endpoints[p].host = ForShard(party.at("host").get<std::string>(), shard);
    if (party.contains("port")) {
      testbed.endpoints[p].port = PortOf(party, shard, fmt::format("{} /parties/{}/port", name, p));
    } else if (p < 2) {
      throw ConfigError(
          fmt::format("{} /parties/{}", name, p),
          fmt::format("missing key 'port': party {} is connected to, so it needs one", p));
    }
    if (!party.contains("listen")) continue;
    if (p == 2)
      throw ConfigError(fmt::format("{} /parties/2/listen", name),
                        "party 2 connects to the others and does not listen; leave it out");
    if (static_cast<int>(p) == id)
      testbed.listen = ForShard(party.at("listen").get<std::string>(), shard);
  }
  const auto at = [&](const std::string& path) {
    return std::filesystem::absolute(file).parent_path() / path;
  };
  testbed.tls = LoadTls(document, id, name, at);
  testbed.roles = RolesOf(document);
  testbed.timeout = Milliseconds(document.value("timeout_s", 30.0));
  testbed.stall_timeout = std::max<std::chrono::milliseconds>(kStallTimeout, testbed.timeout);
  if (document.contains("stall_timeout_s"))
    testbed.stall_timeout = Milliseconds(document.at("stall_timeout_s").get<double>());
  if (testbed.stall_timeout < testbed.timeout)
    throw ConfigError(name + " /stall_timeout_s",
                      fmt::format("{} found, a number no less than timeout_s, {}, expected",
                                  document.at("stall_timeout_s").get<double>(),
                                  document.value("timeout_s", 30.0)));
  testbed.connect_timeout = Milliseconds(document.value("connect_timeout_s", 30.0));
  return testbed;
}

BenchTestbed LoadBenchTestbed(const std::filesystem::path& file) {
  const json document = ReadDocument(file);
  BenchTestbed testbed{{}, RolesOf(document), document.value("transport", "tls") == "tls"};
  for (std::size_t p = 0; p < 3; ++p) {
    const json& party = document.at("parties").at(p);
    const std::string place = fmt::format("{} /parties/{}", file.string(), p);
    if (!party.contains("bench"))
      throw ConfigError(place,
                        fmt::format("missing key 'bench', which says how party {} is started", p));
    const json& bench = party.at("bench");
    auto& login = testbed.logins[p];
    login.command = bench.at("command").get<std::string>();
    login.login = bench.value("login", party.at("host").get<std::string>());
    if (login.login.starts_with('-'))
      throw ConfigError(place + "/host", "begins like an option of the remote shell");
  }
  return testbed;
}

crypto::Certificate CheckOwnCertificate(const net::TlsFiles& tls, int id,
                                        std::chrono::sys_seconds now) {
  const std::string file = tls.certificate.string();
  auto own = crypto::ReadCertificate(tls.certificate);
  if (own.party != id)
    throw ConfigError(file,
                      fmt::format("is a certificate of \"{}\", expected party {}", own.name, id));
  if (now > own.not_after)
    throw ConfigError(file, fmt::format("has expired on {}; {}", crypto::DateText(own.not_after),
                                        crypto::HowToRenew(own)));
  if (now < own.not_before)
    throw ConfigError(file, fmt::format("is valid from {} on, and this machine's clock says {}",
                                        crypto::DateText(own.not_before), crypto::DateText(now)));
  if (!tls.pins) return own;
  for (std::size_t p = 0; p < tls.pins->size(); ++p) {
    const auto& pins = (*tls.pins)[p];
    const bool mine = p == static_cast<std::size_t>(id);
    if (!mine && Holds(pins, own.fingerprint))
      throw ConfigError(file, fmt::format("has the key that is pinned for party {}", p));
    if (mine && !pins.empty() && !Holds(pins, own.fingerprint))
      throw ConfigError(
          file, fmt::format("has the key {}, which the testbed does not pin for this party {}; the "
                            "others would refuse it",
                            own.fingerprint.Text(), id));
  }
  return own;
}

std::string TestbedToJson(const std::array<net::Endpoint, 3>& endpoints,
                          const std::optional<net::TlsFiles>& tls, const mpc::Roles& roles,
                          double timeout_s, double stall_timeout_s, double connect_timeout_s) {
  json parties = json::array();
  for (const auto& endpoint : endpoints) {
    json party{{"host", endpoint.host}};
    if (endpoint.port != 0) party["port"] = endpoint.port;
    parties.push_back(std::move(party));
  }
  json document{{"parties", std::move(parties)},
                {"transport", tls ? "tls" : "tcp-insecure"},
                {"roles",
                 {{"helper", roles.helper},
                  {"data_owner", roles.data_owner},
                  {"model_owner", roles.model_owner},
                  {"receiver", roles.receiver}}},
                {"timeout_s", timeout_s},
                {"stall_timeout_s", stall_timeout_s},
                {"connect_timeout_s", connect_timeout_s}};
  if (tls)
    document["tls"] = {{"ca", tls->ca.string()},
                       {"certificate", tls->certificate.string()},
                       {"key", tls->key.string()}};
  return document.dump(2) + "\n";
}

}  // namespace tercet::infer
