#include "app/testbed.h"

#include <nlohmann/json.hpp>

#include "app/options.h"
#include "app/testbed_schema.h"
#include "nn/input.h"
#include "nn/schema_check.h"
#include "tercet/base/error.h"

namespace tercet::app {
namespace {

using nlohmann::json;

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

}  // namespace

Testbed LoadTestbed(const std::filesystem::path& file, int id) {
  const std::string name = file.string();
  const auto bytes = nn::ReadFile(file, 1 << 20);
  const json document = nn::ReadJson({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                                     name, nn::JsonLimits{});
  nn::CheckSchema(json::parse(kTestbedSchema), document, name);

  Testbed testbed;
  for (std::size_t p = 0; p < 3; ++p) {
    const json& party = document.at("parties").at(p);
    testbed.endpoints[p].host = party.at("host").get<std::string>();
    if (party.contains("port")) {
      testbed.endpoints[p].port = party.at("port").get<std::uint16_t>();
    } else if (p < 2) {
      throw ConfigError(
          fmt::format("{} /parties/{}", name, p),
          fmt::format("missing key 'port': party {} is connected to, so it needs one", p));
    }
  }
  const auto at = [&](const std::string& path) {
    return std::filesystem::absolute(file).parent_path() / path;
  };
  const bool with_tls = document.value("transport", "tls") == "tls";
  const bool directory = document.contains("certificates"), files = document.contains("tls");
  if (with_tls && directory == files)
    throw ConfigError(
        name, fmt::format("{} 'certificates' and 'tls' given; transport \"tls\" needs one of them",
                          directory ? "both" : "neither"));
  if (!with_tls && (directory || files))
    throw ConfigError(name,
                      "certificates given, but transport \"tcp-insecure\" would not use them; "
                      "leave out one of the two");
  if (directory) {
    const auto base = at(document.at("certificates").get<std::string>());
    testbed.tls = net::TlsFiles{base / "ca.pem", base / fmt::format("party{}.pem", id),
                                base / fmt::format("party{}-key.pem", id)};
  } else if (files) {
    const json& tls = document.at("tls");
    testbed.tls = net::TlsFiles{at(tls.at("ca").get<std::string>()),
                                at(tls.at("certificate").get<std::string>()),
                                at(tls.at("key").get<std::string>())};
  }
  if (document.contains("roles")) {
    const json& roles = document.at("roles");
    testbed.roles = {roles.at("helper").get<int>(), roles.at("data_owner").get<int>(),
                     roles.at("model_owner").get<int>(), roles.at("receiver").get<int>()};
  }
  testbed.timeout = Milliseconds(document.value("timeout_s", 30.0));
  testbed.connect_timeout = Milliseconds(document.value("connect_timeout_s", 30.0));
  return testbed;
}

std::string TestbedToJson(const std::array<net::Endpoint, 3>& endpoints,
                          const std::filesystem::path& certificates, const mpc::Roles& roles,
                          double timeout_s, double connect_timeout_s) {
  json parties = json::array();
  for (const auto& endpoint : endpoints) {
    json party{{"host", endpoint.host}};
    if (endpoint.port != 0) party["port"] = endpoint.port;
    parties.push_back(std::move(party));
  }
  json document{{"parties", std::move(parties)},
                {"transport", certificates.empty() ? "tcp-insecure" : "tls"},
                {"roles",
                 {{"helper", roles.helper},
                  {"data_owner", roles.data_owner},
                  {"model_owner", roles.model_owner},
                  {"receiver", roles.receiver}}},
                {"timeout_s", timeout_s},
                {"connect_timeout_s", connect_timeout_s}};
  if (!certificates.empty()) document["certificates"] = certificates.string();
  return document.dump(2) + "\n";
}

}  // namespace tercet::app
