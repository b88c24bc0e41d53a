// SPDX-License-Identifier: Apache-2.0
#include "tercet/client/service.h"

#include <curl/curl.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "base/json.h"
#include "tercet/crypto/prf.h"

namespace tercet::client {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxAnswerBytes = std::size_t{64} << 20;
constexpr std::chrono::milliseconds kLongestPause{2000};

std::size_t TakeBody(char* data, std::size_t, std::size_t size, void* into) {
  auto& body = static_cast<Service::Response*>(into)->body;
  if (size > kMaxAnswerBytes - std::min(kMaxAnswerBytes, body.size())) return 0;
  body.append(data, size);
  return size;
}

std::size_t TakeHeader(char* data, std::size_t, std::size_t size, void* into) {
  const std::string_view line(data, size);
  const std::string_view name(service::kJsonLengthHeader);
  if (line.size() > name.size() + 1 && line[name.size()] == ':' &&
      std::equal(name.begin(), name.end(), line.begin(),
                 [](char a, char b) { return std::tolower(a) == std::tolower(b); })) {
    std::size_t length = 0;
    for (const char c : line.substr(name.size() + 1))
      if (c >= '0' && c <= '9' && length < kMaxAnswerBytes)
        length = length * 10 + static_cast<std::size_t>(c - '0');
    static_cast<Service::Response*>(into)->json_bytes = length;
  }
  return size;
}

void InitCurl() {
  static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  TERCET_CHECK(ready, "libcurl could not be initialised");
}

// What a problem document says.
std::string DetailOf(const Service::Response& response) {
  try {
    const auto document = ReadJson(response.body, "answer", JsonLimits{});
    return document.at("title").get<std::string>() + ": " +
           document.at("detail").get<std::string>();
  } catch (const std::exception&) {
    return "no reason given";
  }
}

// What `ask` returns, up to `tries` times where that may help.
template <class F>
auto Again(std::size_t tries, const F& ask) {
  Pauses pauses;
  while (true) {
    try {
      return ask();
    } catch (const ServiceError& e) {
      if (--tries == 0 || !e.MayPass()) throw;
    } catch (const NetworkError&) {
      if (--tries == 0) throw;
    }
    std::this_thread::sleep_for(pauses.Next());
  }
}

}  // namespace

std::chrono::milliseconds Pauses::Next() {
  return std::exchange(next_, std::min(2 * next_, kLongestPause));
}

struct Service::State {
  const service::Deployment& deployment;
  std::string token;
  ClientCertificate certificate;
  std::chrono::milliseconds timeout;
  std::vector<std::array<CURL*, 3>> handles;  // of each worker
  ~State() {
    for (const auto& worker : handles)
      for (auto* handle : worker) curl_easy_cleanup(handle);
    crypto::Wipe({reinterpret_cast<std::uint8_t*>(certificate.key.data()), certificate.key.size()});
  }
  // A server in words.
  std::string Name(int server, std::size_t worker) const {
    return handles.size() == 1 ? fmt::format("server {}", server)
                               : fmt::format("server {} worker {}", server, worker);
  }
};

Service::Service(const service::Deployment& deployment, std::string token,
                 std::chrono::milliseconds timeout)
    : state_(new State{deployment, std::move(token), {}, timeout, {}}) {
  InitCurl();
  state_->handles.resize(deployment.servers[0].workers.size());
  for (auto& worker : state_->handles)
    for (auto& handle : worker) {
      handle = curl_easy_init();
      TERCET_CHECK(handle != nullptr, "libcurl has no handle");
    }
}

Service::Service(const service::Deployment& deployment, ClientCertificate certificate,
                 std::chrono::milliseconds timeout)
    : Service(deployment, std::string(), timeout) {
  state_->certificate = std::move(certificate);
}

Service::Service(Service&&) noexcept = default;
Service& Service::operator=(Service&&) noexcept = default;
Service::~Service() = default;

Service::Response Service::Send(int server, const char* method, const std::string& path,
                                ByteSpan body, const std::vector<std::string>& headers,
                                std::size_t worker) {
  const auto s = static_cast<std::size_t>(server);
  const auto& to = state_->deployment.servers[s].workers.at(worker);
  CURL* curl = state_->handles.at(worker)[s];
  curl_easy_reset(curl);  // its connections stay
  Response response;
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> lines(nullptr, &curl_slist_free_all);
  const auto add = [&](const std::string& line) {
    lines.reset(curl_slist_append(lines.release(), line.c_str()));
  };
  for (const auto& line : headers) add(line);
  if (!state_->token.empty()) add("Authorization: Bearer " + state_->token);
  add("Expect:");
  const std::string url = to.url + path;
  std::array<char, CURL_ERROR_SIZE> problem{};
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(curl, CURLOPT_PROXY, "");
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, problem.data());
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(state_->timeout.count()));
  curl_easy_setopt(curl, CURLOPT_TCP_NODELAY, 1L);
  curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, lines.get());
  if (!body.empty()) {
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
  }
  curl_blob authority{const_cast<char*>(to.authority.data()), to.authority.size(),
                      CURL_BLOB_NOCOPY};
  if (!to.authority.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &authority);
  auto& own = state_->certificate;
  curl_blob certificate{own.certificate.data(), own.certificate.size(), CURL_BLOB_NOCOPY};
  curl_blob key{own.key.data(), own.key.size(), CURL_BLOB_NOCOPY};
  if (!own.key.empty()) {
    curl_easy_setopt(curl, CURLOPT_SSLCERT_BLOB, &certificate);
    curl_easy_setopt(curl, CURLOPT_SSLKEY_BLOB, &key);
  }
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &TakeBody);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &response);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &TakeHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &response);
  const CURLcode code = curl_easy_perform(curl);
  if (code != CURLE_OK)
    throw NetworkError(fmt::format("{} at {}: {}", state_->Name(server, worker), to.url,
                                   problem[0] != '\0' ? problem.data() : curl_easy_strerror(code)));
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  response.status = static_cast<int>(status);
  return response;
}

service::ModelInfo Service::ModelAt(int server, std::size_t worker, const std::string& name,
                                    const std::string& version) {
  std::string path = "/v2/models/" + name;
  if (!version.empty()) path += "/versions/" + version;
  const auto response = Send(server, "GET", path, {}, {}, worker);
  const std::string place = fmt::format("{} {}", state_->Name(server, worker), path);
  if (response.status != 200)
    throw ServiceError(response.status, place + ": " + DetailOf(response));
  return service::ModelInfoFromJson(response.body, place);
}

service::ModelInfo Service::ModelOfAny(const std::string& name, const std::string& version) {
  const std::size_t workers = state_->handles.size();
  for (std::size_t i = 0;; ++i) {
    try {
      return ModelAt(static_cast<int>(i % 3), i / 3, name, version);
    } catch (const NetworkError&) {
      if (i + 1 == 3 * workers) throw;
    }
  }
}

service::ModelInfo Service::Model(const std::string& name, const std::string& version,
                                  std::size_t tries) {
  return Again(tries, [&] { return ModelOfAny(name, version); });
}

std::vector<std::int64_t> Service::Ask(const service::ModelInfo& model, const files::Images& images,
                                       std::size_t first, std::size_t count) {
  const Query query(state_->deployment, model, images, first, count);
  const std::size_t worker = state_->deployment.WorkerOf(query.Lane());
  const std::string place = state_->Name(query.E1(), worker);
  const auto message = RequestOf(query.Request());
  const auto response =
      Send(query.E1(), "POST",
           fmt::format("/v2/models/{}/versions/{}/infer", model.name, model.version), message.body,
           {"Content-Type: application/octet-stream",
            fmt::format("{}: {}", service::kJsonLengthHeader, message.json_bytes)},
           worker);
  if (response.status != 200)
    throw ServiceError(response.status, fmt::format("{}: {}", place, DetailOf(response)));
  try {
    return query.Open(service::ParseResponse(
        {reinterpret_cast<const std::uint8_t*>(response.body.data()), response.body.size()},
        response.json_bytes));
  } catch (const ConfigError& e) {
    throw ProtocolError(fmt::format("{} gave no answer: {}", place, e.what()));
  }
}

std::vector<std::int64_t> Service::AskAgain(const service::ModelInfo& model,
                                            const files::Images& images, std::size_t first,
                                            std::size_t count, std::size_t tries) {
  return Again(tries, [&] { return Ask(model, images, first, count); });
}

}  // namespace tercet::client
