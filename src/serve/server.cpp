// SPDX-License-Identifier: Apache-2.0
#include "serve/server.h"

#include <netinet/tcp.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "crypto/certificates_internal.h"
#include "serve/failure_log.h"
#include "serve/http_door.h"
#include "serve/lane_keeper.h"
#include "serve/models.h"
#include "serve/openapi.h"
#include "serve/store.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/crypto/prf.h"
#include "tercet/ring/pack.h"

namespace tercet::serve {
namespace {

using nlohmann::json;
using service::Outcome;
using service::Refusal;

constexpr std::size_t kHttpThreads = 2;
constexpr const char* kRetryAfter = "1";
constexpr std::size_t kMaxPackage = std::size_t{64} << 20;  // it comes in one body
constexpr std::uint32_t kMaxHeader = std::uint32_t{16} << 10;
// Of a query, beside its sealed parts.
constexpr std::size_t kQueryHeader = std::size_t{16} << 10;
// A body that is refused is read up to this length, and not kept, so that the client hears why: at
// a connection that ends while a client sends it may not.
constexpr std::size_t kMaxUnkept = std::size_t{1} << 20;
constexpr std::size_t kRequestBytes = 4096;  // that a request takes beside its body, about
// How long a connection that has sent nothing waits in the kernel.
constexpr int kDeferSeconds = 10;

restinio::http_status_line_t StatusLine(std::uint16_t status, const char* title) {
  return {restinio::http_status_code_t{status}, title};
}

auto Begin(const Request& request, restinio::http_status_line_t line, const char* type) {
  request->extra_data().metrics->Answered(line.status_code().raw_code());
  auto response = request->create_response(std::move(line));
  response.append_header(restinio::http_field::content_type, type);
  response.append_header("Cache-Control", "no-store");
  response.append_header("X-Content-Type-Options", "nosniff");
  // Of an answer to HEAD a client expects no body.
  if (request->extra_data().cut || request->header().method() == restinio::http_method_head())
    response.connection_close();
  return response;
}

void Send(const Request& request, const std::string& body, const char* type = "application/json",
          std::uint16_t status = 200, const char* title = "OK") {
  Begin(request, StatusLine(status, title), type).set_body(body).done();
}

void Send(const Request& request, const Problem& problem) {
  json document{{"type", "about:blank"},
                {"title", problem.title},
                {"status", problem.status},
                {"detail", problem.detail}};
  if (!problem.field.empty()) document["field"] = problem.field;
  auto response =
      Begin(request, StatusLine(problem.status, problem.title), "application/problem+json");
  if (problem.status == 401)
    response.append_header(restinio::http_field::www_authenticate, "Bearer");
  if (problem.status == 429 || problem.status == 503)
    response.append_header(restinio::http_field::retry_after, kRetryAfter);
  response.set_body(document.dump(-1, ' ', false, json::error_handler_t::replace)).done();
}

Problem ProblemOf(Refusal refusal) {
  const std::string text = service::RefusalText(refusal);
  switch (refusal) {
    case Refusal::kReplay:
      return {409, "Conflict", text, "body /id"};
    case Refusal::kModel:
      return {409, "Conflict", text, "body /parameters/model_digest"};
    case Refusal::kStore:
      return {503, "Service Unavailable", text, ""};
    case Refusal::kLane:
      return {421, "Misdirected Request", text, "body /parameters/lane"};
    case Refusal::kImages:
      return {400, "Bad Request", text, "body /parameters/images"};
    case Refusal::kTime:
      return {400, "Bad Request", text, "body /parameters/time_ms"};
    case Refusal::kReply:
      return {400, "Bad Request", text, "body /parameters/reply_key"};
    default:
      return {400, "Bad Request", text, "body /inputs"};
  }
}

const Problem kNotFound{404, "Not Found",
                        "there is no such thing here; GET /v2/models lists the models", ""};
const Problem kUnavailable{503, "Service Unavailable",
                           "the other servers are away, or the query was under way when one went; "
                           "ask again with a new query",
                           ""};

const Problem kFull{503, "Service Unavailable", "too many queries wait; ask again later", ""};
const Problem kNoStore{503, "Service Unavailable",
                       "the store of this server cannot be used now; its log says why", ""};
const Problem kBroken{500, "Internal Server Error", "the server's log says why", ""};

// "/v2/models/a" in its steps, without the query string.
std::vector<std::string> Steps(const std::string& target) {
  const std::string path = target.substr(0, target.find('?'));
  std::vector<std::string> steps;
  for (std::size_t at = 1; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    steps.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return steps;
}

// A file of the web page.
struct Page {
  std::string type, content;
};

constexpr FileKind kPageFile{"a file of the web page", 16 << 20};
// A page loads nothing from elsewhere and talks to this server alone.
constexpr const char* kPagePolicy =
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::string TypeOf(const std::filesystem::path& file) {
  static const std::map<std::string, std::string> types{{".html", "text/html; charset=utf-8"},
                                                        {".js", "text/javascript; charset=utf-8"},
                                                        {".css", "text/css; charset=utf-8"},
                                                        {".json", "application/json"},
                                                        {".svg", "image/svg+xml"},
                                                        {".png", "image/png"},
                                                        {".ico", "image/x-icon"},
                                                        {".wasm", "application/wasm"},
                                                        {".woff2", "font/woff2"},
                                                        {".txt", "text/plain; charset=utf-8"}};
  const auto type = types.find(file.extension().string());
  return type == types.end() ? "application/octet-stream" : type->second;
}

// All files below a directory, by the path that clients ask for; read once.
std::map<std::string, Page> PagesOf(const std::filesystem::path& directory) {
  namespace fs = std::filesystem;
  std::map<std::string, Page> pages;
  if (directory.empty()) return pages;
  if (!fs::is_directory(directory))
    throw ConfigError("--web", directory.string() + " is no directory");
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file())
      pages["/" + entry.path().lexically_relative(directory).generic_string()] = {
          TypeOf(entry.path()), ReadTextFile(entry.path(), kPageFile)};
  if (const auto index = pages.find("/index.html"); index != pages.end())
    pages["/"] = index->second;
  return pages;
}

std::string TokenOf(const restinio::http_request_header_t& header) {
  const std::string value = header.get_field_or(restinio::http_field::authorization, std::string());
  constexpr std::string_view kScheme("Bearer ");
  // A text with a NUL is none: certificates stand for such.
  return value.starts_with(kScheme) && value.find('\0') == std::string::npos
             ? value.substr(kScheme.size())
             : std::string();
}

ByteSpan BodyOf(const Request& request) {
  const std::string& body = request->body();
  return {reinterpret_cast<const std::uint8_t*>(body.data()), body.size()};
}

std::uint16_t PortOf(const std::string& url) {
  const std::size_t colon = url.rfind(':');
  return colon > url.find("//") && url.find(']', colon) == std::string::npos
             ? static_cast<std::uint16_t>(std::stoul(url.substr(colon + 1)))
             : std::uint16_t{443};
}

// The address to listen on for a name or an address; of several the first of IPv4.
asio::ip::address AddressOf(const std::string& name) {
  asio::io_context context;
  const auto found = asio::ip::tcp::resolver(context).resolve(name, "");
  const auto four = std::find_if(found.begin(), found.end(), [](const auto& entry) {
    return entry.endpoint().address().is_v4();
  });
  return (four == found.end() ? found.begin() : four)->endpoint().address();
}

constexpr FileKind kKeyFile{"a key for clients", 1 << 20};

// With `asks`, clients may show a certificate: any, since the store knows the keys that count.
std::shared_ptr<asio::ssl::context> TlsContext(const std::filesystem::path& store, bool asks) {
  namespace ssl = asio::ssl;
  auto made = std::make_shared<ssl::context>(ssl::context::tls_server);
  auto& context = *made;
  const std::string name = service::kHttpsName;
  const auto certificate = store / (name + ".pem"), key = store / (name + "-key.pem");
  // To open a pipe, say, would wait for somebody to write to it.
  for (const auto& file : {certificate, key})
    if (!std::filesystem::is_regular_file(file))
      throw ConfigError(file.string(), "expected a file, with the certificate or key for clients");
  auto secret = ReadPrivateFile(key, kKeyFile);
  try {
    asio::error_code problem;
    context.use_certificate_chain_file(certificate.string(), problem);
    if (!problem) context.use_private_key(asio::buffer(secret), ssl::context::pem, problem);
    crypto::Wipe(secret);
    if (problem) throw asio::system_error(problem);
    context.set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 |
                        ssl::context::no_tlsv1_1);
    if (asks) {
      context.set_verify_mode(ssl::verify_peer);
      context.set_verify_callback([](bool, ssl::verify_context&) { return true; });
      // Without it OpenSSL ends the connections of clients that come again.
      const std::string_view id("tercet clients");
      SSL_CTX_set_session_id_context(context.native_handle(),
                                     reinterpret_cast<const unsigned char*>(id.data()),
                                     static_cast<unsigned>(id.size()));
    }
  } catch (const std::exception& e) {
    throw ConfigError(certificate.string(),
                      fmt::format("with {}, no certificate and key for clients: {}",
                                  key.filename().string(), e.what()));
  }
  return made;
}

// Where a request goes that has a body.
bool IsQuery(const std::vector<std::string>& steps) {
  return (steps.size() == 4 || (steps.size() == 6 && steps[3] == "versions")) && steps[0] == "v2" &&
         steps[1] == "models" && steps.back() == "infer";
}
bool IsPackage(const std::vector<std::string>& steps) {
  return steps.size() == 6 && steps[0] == "v2" && steps[1] == "repository" &&
         steps[2] == "models" && steps[4] == "versions";
}

const Problem kUnknownToken{401, "Unauthorized", "the token or certificate is unknown", ""};

// What stands for the client that shows a certificate; one that is out of date stands for nobody.
// Whoever connects may show anything, also what cannot be read.
std::string CredentialOf(const X509* shown) {
  try {
    const auto certificate = crypto::Describe(shown);
    const auto now = Now();
    if (now >= certificate.not_before && now <= certificate.not_after)
      return Store::CredentialOf(certificate.fingerprint);
  } catch (const std::exception&) {
    return {};
  }
  return {};
}

}  // namespace

class Server::Implementation {
 public:
  Implementation(ServerOptions options, service::Deployment deployment,
                 const mpc::Registry& registry)
      : options_(std::move(options)),
        failures_(options_.log),
        deployment_(std::move(deployment)),
        pages_(PagesOf(options_.web)),
        lock_(options_.store),
        store_(options_.store),
        key_(service::LoadSealingKey(options_.store, deployment_, options_.id)),
        packages_(options_.store / "packages", deployment_, options_.id, key_, registry,
                  options_.log),
        gate_(deployment_, options_.id, crypto::SealingKey(key_.Secret()),
              [this](const service::QueryId& id, std::uint64_t forget_ms) {
                return store_.Remember(id, forget_ms, options_.now_ms());
              }),
        bodies_(options_.max_bodies, options_.max_bodies),
        door_(std::make_shared<Door>(
            Bounds(options_.max_connections, options_.max_connections_each),
            options_.handshake_time,
            [this](const restinio::http_request_header_t& header, restinio::http_method_id_t method,
                   bool chunked, std::uint64_t length, const std::string& certificate) {
              const std::string token = TokenOf(header);
              const std::string& credential = token.empty() ? certificate : token;
              Entry entry = Admit(header, method, chunked, length, credential);
              entry.credential = credential;
              entry.metrics = &metrics_;
              return entry;
            },
            &CredentialOf)) {
    door_->SetContext(TlsContext(options_.store, options_.client_certificates));
    SetQueryBytes();
    if (options_.max_batch < deployment_.max_images)
      throw ConfigError("--max-batch", fmt::format("{} found, at least max_images of the "
                                                   "deployment, {}, expected",
                                                   options_.max_batch, deployment_.max_images));
    CheckPorts();
    const LaneContext context{
        deployment_,   options_.store,
        options_.link, registry,
        gate_,         [this] { return packages_.All(); },
        options_.log,  [this](const service::BatchDone& batch) { metrics_.Batch(batch); }};
    for (const std::size_t lane : Self().lanes) {
      service::LaneSettings settings;
      settings.id = options_.id;
      settings.lane = lane;
      settings.max_batch = options_.max_batch;
      settings.max_wait = options_.max_wait;
      settings.ahead = (options_.ahead + options_.in_flight - 1) / options_.in_flight;
      settings.stock = options_.material / (Self().lanes.size() * options_.in_flight);
      settings.now_ms = options_.now_ms;
      lanes_[lane] = std::make_unique<LaneKeeper>(context, settings, options_.in_flight);
    }
    if (!options_.metrics.empty()) {
      metrics_.Listen(options_.metrics, [this] {
        std::vector<LaneState> states;
        for (const auto& [lane, keeper] : lanes_) states.push_back(keeper->State());
        return states;
      });
      options_.log(fmt::format("metrics are at http://{}/metrics", options_.metrics));
    }
    Listen();
  }

  void Reload() {
    door_->SetContext(TlsContext(options_.store, options_.client_certificates));
    options_.log("has read the certificate for clients anew");
  }

  ~Implementation() { Drain(); }

  void Drain() {
    if (draining_.exchange(true)) return;
    std::vector<std::thread> threads;
    for (auto& lane : lanes_) threads.emplace_back([&lane] { lane.second->Drain(); });
    for (auto& thread : threads) thread.join();
    metrics_.Close();
    if (!http_) return;
    http_->stop();
    http_->wait();
    http_.reset();
  }

 private:
  const service::Worker& Self() const {
    const auto& workers = deployment_.servers[static_cast<std::size_t>(options_.id)].workers;
    return workers.at(options_.worker);
  }

  void Listen() {
    ::http_parser_set_max_header_size(kMaxHeader);
    const auto& self = Self();
    try {
      const auto address = AddressOf(self.listen.empty() ? self.party.host : self.listen);
      http_ = restinio::run_async(
          restinio::own_io_context(),
          restinio::server_settings_t<Traits>{}
              .address(address)
              .port(PortOf(self.url))
              .door(door_)
              .acceptor_options_setter([](auto& acceptor) {
                acceptor.set_option(asio::socket_base::reuse_address(true));
                // Who connects and says nothing does not take one of the connections.
                acceptor.set_option(
                    asio::detail::socket_option::integer<IPPROTO_TCP, TCP_DEFER_ACCEPT>(
                        kDeferSeconds));
              })
              // More would race for RESTinio's counter of connections.
              .concurrent_accepts_count(1)
              .incoming_http_msg_limits(restinio::incoming_http_msg_limits_t{}
                                            .max_url_size(1024)
                                            .max_field_name_size(256)
                                            .max_field_value_size(4096)
                                            .max_field_count(64)
                                            .max_body_size(kMaxPackage))
              .read_next_http_message_timelimit(options_.request_time)
              .write_http_response_timelimit(options_.request_time)
              .handle_request_timeout(std::chrono::seconds(60))
              .request_handler([this](const Request& request) {
                Handle(request);
                return restinio::request_accepted();
              }),
          kHttpThreads);
      options_.log(fmt::format("listens for clients at {} on {}", self.url, address.to_string()));
    } catch (const ConfigError&) {
      throw;
    } catch (const std::exception& e) {
      throw ConfigError(self.url, fmt::format("cannot be listened on: {}", e.what()));
    }
  }

  // Before a request's body is read: whether it may come at all.
  Entry Admit(const restinio::http_request_header_t& header, restinio::http_method_id_t method,
              bool chunked, std::uint64_t length, const std::string& credential) {
    const auto refuse = [&](Problem problem) {
      return Entry{std::move(problem), chunked || length > kMaxUnkept, nullptr};
    };
    const auto steps = Steps(std::string(header.request_target()));
    std::size_t most = 0;
    try {
      if (IsPackage(steps)) {
        if (credential.empty() || store_.HolderOf(credential) != Store::Holder::kOperator)
          return refuse({401, "Unauthorized", "an operator's token is expected", ""});
        if (method == restinio::http_method_put()) most = kMaxPackage;
      } else if (IsQuery(steps) && method == restinio::http_method_post()) {
        if (credential.empty())
          return refuse({401, "Unauthorized", "a bearer token is expected", ""});
        if (store_.HolderOf(credential) == Store::Holder::kUnknown) return refuse(kUnknownToken);
        most = query_bytes_;
      }
    } catch (const StoreError& e) {
      failures_.Say(fmt::format("a request failed: {}", ErrorText(e)));
      return refuse(kNoStore);
    }
    if (chunked)
      return refuse(
          {411, "Length Required", "the length of the body is expected", "Content-Length"});
    if (length > most)
      return refuse({413, "Content Too Large",
                     fmt::format("{} bytes found, at most {} expected", length, most),
                     "Content-Length"});
    if (length == 0) return {};
    Entry entry;
    entry.hold = bodies_.Take(credential, length + kRequestBytes);
    if (entry.hold == nullptr) return refuse(kFull);
    return entry;
  }

  void Handle(const Request& request) {
    if (const auto& problem = request->extra_data().problem) return Send(request, *problem);
    try {
      Route(request);
    } catch (const ConfigError& e) {
      Send(request, Problem{400, "Bad Request", e.what(), e.Place()});
    } catch (const UnsupportedError& e) {
      Send(request, Problem{400, "Bad Request", e.what(), ""});
    } catch (const StoreError& e) {
      failures_.Say(fmt::format("a request failed: {}", ErrorText(e)));
      Send(request, kNoStore);
    } catch (const std::exception& e) {
      failures_.Say(fmt::format("a request failed: {}", ErrorText(e)));
      Send(request, kBroken);
    }
  }

  void Route(const Request& request) {
    const auto method = request->header().method();
    const auto steps = Steps(std::string(request->header().request_target()));
    const auto is = [&](std::initializer_list<const char*> expected) {
      return std::equal(
          steps.begin(), steps.end(), expected.begin(), expected.end(),
          [](const std::string& step, const char* want) { return *want == '*' || step == want; });
    };
    const bool get = method == restinio::http_method_get();
    if (IsQuery(steps)) {
      if (method != restinio::http_method_post()) return NotAllowed(request, "POST");
      return Infer(request, steps[2], steps.size() > 4 ? steps[4] : "");
    }
    if (IsPackage(steps)) return Change(request, steps[3], steps[5]);
    const bool models = is({"v2", "models"}), model = is({"v2", "models", "*"}),
               version = is({"v2", "models", "*", "versions", "*"}),
               live = is({"v2", "health", "live"}), ready = is({"v2", "health", "ready"}),
               deployment = is({"deployment.json"}), openapi = is({"openapi.json"});
    const std::string target(request->header().request_target());
    const auto page = pages_.find(target.substr(0, target.find('?')));
    if (!models && !model && !version && !live && !ready && !deployment && !openapi &&
        page == pages_.end())
      return Send(request, kNotFound);
    if (!get) return NotAllowed(request, "GET");
    if (page != pages_.end()) {
      auto response = Begin(request, restinio::status_ok(), page->second.type.c_str());
      response.append_header("Content-Security-Policy", kPagePolicy);
      response.set_body(page->second.content).done();
      return;
    }
    if (live) return Send(request, "{\"live\":true}");
    if (ready) return Ready(request);
    if (deployment) return Send(request, deployment_.text);
    if (openapi) return Send(request, kOpenApi);
    if (models) {
      json list = json::array();
      for (const auto& info : packages_.Infos())
        list.push_back({{"name", info.name},
                        {"version", info.version},
                        {"digest", crypto::HexText(info.digest)},
                        {"ready", AllServe(info.digest)}});
      return Send(request, json{{"models", std::move(list)}}.dump());
    }
    const auto served = packages_.Find(steps[2], version ? steps[4] : "");
    if (!served) return Send(request, kNotFound);
    Send(request, service::ModelInfoToJson(served->info));
  }

  static void NotAllowed(const Request& request, const char* allowed) {
    Send(request,
         Problem{405, "Method Not Allowed", fmt::format("{} is expected here", allowed), ""});
  }

  bool AllServe(const crypto::Digest& digest) const {
    return std::all_of(lanes_.begin(), lanes_.end(),
                       [&](const auto& lane) { return lane.second->Serves(digest); });
  }

  void Ready(const Request& request) {
    const auto up = static_cast<std::size_t>(std::count_if(
        lanes_.begin(), lanes_.end(), [](const auto& lane) { return lane.second->Up(); }));
    const bool ready = up == lanes_.size() && !draining_;
    const auto body = json{{"ready", ready}, {"lanes", lanes_.size()}, {"lanes_up", up}}.dump();
    if (ready) return Send(request, body);
    Send(request, Problem{503, "Service Unavailable",
                          fmt::format("{} of {} lanes are up", up, lanes_.size()), ""});
  }

  void Change(const Request& request, const std::string& name, const std::string& version) {
    const auto method = request->header().method();
    if (method == restinio::http_method_put()) {
      packages_.Put(name, version, BodyOf(request));
    } else if (method == restinio::http_method_delete()) {
      if (!packages_.Remove(name, version)) return Send(request, kNotFound);
    } else {
      return NotAllowed(request, "PUT or DELETE");
    }
    options_.log(fmt::format(
        "{} {} {}", method == restinio::http_method_put() ? "took in" : "took out", name, version));
    SetQueryBytes();
    for (auto& [lane, keeper] : lanes_) keeper->Renew();
    Send(request, "{}");
  }

  void Infer(const Request& request, const std::string& name, const std::string& version) {
    const auto seconds = [start = Clock::now()] { return SecondsSince(start); };
    const std::string length =
        request->header().get_field_or(service::kJsonLengthHeader, std::string());
    if (length.empty() || length.size() > 9 ||
        length.find_first_not_of("0123456789") != std::string::npos)
      return Send(request, Problem{400, "Bad Request", "the length of the body's JSON is expected",
                                   service::kJsonLengthHeader});
    auto query = service::ParseRequest(BodyOf(request), std::stoul(length));
    const auto served = packages_.Find(name, version);
    // Before anything else is told: only who has a token learns more.
    switch (store_.Admit(request->extra_data().credential, served ? query.head.images : 0,
                         options_.now_ms())) {
      case Store::Admission::kUnknown:
        return Send(request, kUnknownToken);
      case Store::Admission::kTooFast:
        return Send(request, Problem{429, "Too Many Requests", "the token's rate is used up", ""});
      case Store::Admission::kSpent:
        return Send(request, Problem{403, "Forbidden", "the token's total is used up", ""});
      case Store::Admission::kAdmitted:
        break;
    }
    if (!served) return Send(request, kNotFound);
    if (query.head.model != served->info.digest) return Send(request, ProblemOf(Refusal::kModel));
    if (query.head.lane >= deployment_.lanes ||
        service::RolesOf(query.head.lane).Evaluator1() != options_.id)
      return Send(request, ProblemOf(Refusal::kLane));
    const auto found = lanes_.find(query.head.lane);
    if (found == lanes_.end()) {
      auto problem = ProblemOf(Refusal::kLane);
      problem.detail = fmt::format("lane {} is not one of this worker's, {}; its worker is at {}",
                                   query.head.lane, service::LanesText(Self().lanes),
                                   deployment_.servers[static_cast<std::size_t>(options_.id)]
                                       .workers[deployment_.WorkerOf(query.head.lane)]
                                       .url);
      return Send(request, problem);
    }
    auto& lane = *found->second;
    if (draining_ || !lane.Serves(query.head.model)) return Send(request, kUnavailable);
    Refusal why = Refusal::kNone;
    auto share = gate_.Open(query.head, query.e1, served->info.input.shape.Size(),
                            served->info.input_bits, options_.now_ms(), why);
    if (!share) return Send(request, ProblemOf(why));
    metrics_.Opened(seconds());
    const auto head = query.head;
    const bool taken = lane.Queries().Put(
        {head, std::move(*share), std::move(query.e2),
         [this, request, head, info = served->info, seconds](Outcome outcome) {
           if (outcome.kind == Outcome::Kind::kUnavailable) return Send(request, kUnavailable);
           if (outcome.kind == Outcome::Kind::kRefused) {
             auto problem = ProblemOf(outcome.refusal);
             problem.detail = fmt::format("server {}, the other evaluator: {}",
                                          service::RolesOf(head.lane).Evaluator2(), problem.detail);
             return Send(request, problem);
           }
           const auto message = service::ResponseOf(
               {head, std::move(outcome.e1), std::move(outcome.e2)}, info.name, info.version);
           auto response = Begin(request, restinio::status_ok(), "application/octet-stream");
           response.append_header(service::kJsonLengthHeader, std::to_string(message.json_bytes));
           response.set_body(std::string(message.body.begin(), message.body.end())).done();
           metrics_.Query(head.images, seconds());
         }});
    if (!taken) Send(request, kFull);
  }

  // That the ports of all lanes and batches in flight are there, each for one alone.
  void CheckPorts() const {
    const std::size_t ports = deployment_.lanes * options_.in_flight;
    std::map<std::pair<std::string, std::size_t>, std::size_t> listens;
    for (std::size_t i = 0; i < 3; ++i)
      for (const auto& worker : deployment_.servers[i].workers) {
        const auto& [host, first] = worker.party;
        if (first + ports > std::size_t{1} << 16)
          throw ConfigError("--in-flight", fmt::format("{} found, needs {} ports from {} on",
                                                       options_.in_flight, ports, first));
        if (i == 2) continue;  // which calls the others
        for (const std::size_t lane : worker.lanes)
          for (std::size_t n = 0; n < options_.in_flight; ++n) {
            const std::size_t port = first + lane + n * deployment_.lanes;
            if (const auto [other, free] = listens.try_emplace({host, port}, i); !free)
              throw ConfigError(
                  "--in-flight",
                  fmt::format("{} found; servers {} and {} would both listen at {}:{}",
                              options_.in_flight, other->second, i, host, port));
          }
      }
  }

  // The longest query that any model may be asked with.
  void SetQueryBytes() {
    std::size_t part = 0;
    for (const auto& info : packages_.Infos())
      part =
          std::max(part, crypto::SealedBytes(ring::PackedBytes(
                             info.input.shape.Size() * deployment_.max_images, info.input_bits)));
    query_bytes_ = kQueryHeader + 2 * part;
  }

  const ServerOptions options_;
  FailureLog failures_;
  const service::Deployment deployment_;
  const std::map<std::string, Page> pages_;
  Metrics metrics_;
  const StoreLock lock_;
  Store store_;
  const crypto::SealingKey key_;
  Packages packages_;
  const service::Gate gate_;
  Bounds bodies_;
  std::atomic<std::size_t> query_bytes_ = 0;
  const std::shared_ptr<Door> door_;
  std::map<std::size_t, std::unique_ptr<LaneKeeper>> lanes_;  // that this worker runs
  std::atomic<bool> draining_ = false;
  restinio::running_server_handle_t<Traits> http_;
};

Server::Server(ServerOptions options, service::Deployment deployment, const mpc::Registry& registry)
    : implementation_(
          std::make_unique<Implementation>(std::move(options), std::move(deployment), registry)) {}
Server::~Server() = default;
void Server::Drain() { implementation_->Drain(); }
void Server::Reload() { implementation_->Reload(); }

}  // namespace tercet::serve
