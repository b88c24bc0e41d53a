// SPDX-License-Identifier: Apache-2.0
// Three servers in this process, asked over HTTPS.

#include "serve/server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "base/scratch.h"
#include "crypto/certificates_internal.h"
#include "files/schema_check.h"
#include "serve/store.h"
#include "service/small_service.h"
#include "tercet/client/service.h"
#include "tercet/nn/run_plain.h"
#include "tercet/ring/pack.h"

namespace tercet::serve {
namespace {

using client::ClientCertificate;
using client::Query;
using client::Service;
using client::ServiceError;
using nlohmann::json;
using testing::HasSubstr;

sockaddr_in Loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool IsFree(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = Loopback(port);
  const bool free = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return free;
}

// Ports that nobody has now, for clients and two batches of three lanes of each server.
service::Addresses FreeAddresses() {
  std::mt19937 rng(static_cast<unsigned>(::getpid()));
  while (true) {
    const auto base = static_cast<int>(20'000 + rng() % 10'000);
    const auto port = [base](int i) { return static_cast<std::uint16_t>(base + i); };
    bool free = true;
    for (int i = 0; i < 21; ++i) free = free && IsFree(port(i));
    if (!free) continue;
    service::Addresses addresses;
    for (int i = 0; i < 3; ++i) {
      addresses.urls[static_cast<std::size_t>(i)] = fmt::format("https://localhost:{}", port(i));
      addresses.parties[static_cast<std::size_t>(i)] = {"127.0.0.1", port(3 + 6 * i)};
    }
    return addresses;
  }
}

// One set of servers for all tests; each test asks with a token of its own.
class World {
 public:
  World() {
    std::filesystem::create_directories(scratch_.Path() / "web/js");
    scratch_.Write("web/index.html", std::string("<p>page"));
    scratch_.Write("web/js/app.js", std::string("draw()"));
    scratch_.Write("outside", std::string("secret"));
    service::MakeDeployment(root_, FreeAddresses(), 30, false);
    deployment_ = service::LoadDeployment(root_ / "deployment.json");
    package_ = service::SmallPackage(model_, deployment_);
    operator_ = Store::NewToken();
    for (int id = 0; id < 3; ++id)
      Store(StoreOf(id)).AddToken({.name = "op", .is_operator = true}, operator_);
    for (int id = 0; id < 3; ++id) Start(id);
    AwaitReady();
    Put();
  }
  std::filesystem::path StoreOf(int id) const { return root_ / fmt::format("server{}", id); }
  void Start(int id) {
    ServerOptions options;
    options.id = id;
    options.store = StoreOf(id);
    options.request_time = std::chrono::seconds(5);
    options.in_flight = 2;
    options.client_certificates = true;
    options.now_ms = [this, id] {
      return service::NowMs() + ahead_ms_[static_cast<std::size_t>(id)];
    };
    options.web = root_.parent_path() / "web";
    options.log = [this](const std::string& line) {
      if (line.starts_with("lane") && line.find("is up") == std::string::npos) ++breaks_;
    };
    servers_[static_cast<std::size_t>(id)] =
        std::make_unique<Server>(options, deployment_, service::Protocols());
  }
  void Stop(int id) { servers_[static_cast<std::size_t>(id)].reset(); }
  void Put(const Bytes& package) {
    Service op(deployment_, operator_);
    for (int id = 0; id < 3; ++id) EXPECT_EQ(op.Send(id, "PUT", kPackage, package).status, 200);
    AwaitModel();
  }
  void Put() { Put(package_); }
  bool Ready(int id) {
    try {
      return Service(deployment_, "").Send(id, "GET", "/v2/health/ready", {}).status == 200;
    } catch (const NetworkError&) {
      return false;
    }
  }
  void AwaitReady() {
    Await([&] { return Ready(0) && Ready(1) && Ready(2); });
  }
  void AwaitModel() {
    Await([&] {
      for (int id = 0; id < 3; ++id) {
        const auto list =
            json::parse(Service(deployment_, "").Send(id, "GET", "/v2/models", {}).body);
        if (list.at("models").empty() || !list.at("models").at(0).at("ready")) return false;
      }
      return true;
    });
  }
  static void Await(const std::function<bool()>& done) {
    for (int i = 0; i < 2000 && !done(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(done());
  }

  static constexpr const char* kPackage = "/v2/repository/models/small/versions/1";
  ScratchDirectory scratch_;
  std::filesystem::path root_ = scratch_.Path() / "demo";
  service::Deployment deployment_;
  nn::IntegerNetwork model_ = service::SmallModel();
  Bytes package_;
  std::string operator_;
  std::atomic<int> breaks_ = 0;                           // of lanes
  std::array<std::atomic<std::uint64_t>, 3> ahead_ms_{};  // of the servers' clocks
  std::array<std::unique_ptr<Server>, 3> servers_;
};

class Servers : public testing::Test {
 protected:
  static void SetUpTestSuite() { world_ = std::make_unique<World>(); }
  static void TearDownTestSuite() { world_.reset(); }

  Servers() : service_(world_->deployment_, "") { Allow({}); }
  // This test's token at all servers.
  void Allow(Allowance allowance) {
    static int number = 0;
    allowance.name = fmt::format("client{}", ++number);
    token_ = Store::NewToken();
    for (int id = 0; id < 3; ++id) Store(world_->StoreOf(id)).AddToken(allowance, token_);
    service_ = Service(world_->deployment_, token_);
    info_ = service_.Model("small", "");
  }
  // Sends a query's message, changed or not.
  Service::Response Post(const service::SealedPair& request, int server) {
    const auto message = RequestOf(request);
    return service_.Send(server, "POST", "/v2/models/small/infer", message.body,
                         {fmt::format("{}: {}", service::kJsonLengthHeader, message.json_bytes)});
  }
  Query Ask() const { return {world_->deployment_, info_, images_, 0, 1}; }
  Service::Response AskAt(int server) {
    while (true) {
      const Query query = Ask();
      if (query.E1() == server) return Post(query.Request(), server);
    }
  }
  std::vector<std::int64_t> Plain(std::size_t first, std::size_t count) const {
    return nn::RunPlain(world_->model_, compile::Oracle(), images_, first, count);
  }
  static void ExpectProblem(const Service::Response& response, int status,
                            const std::string& detail, const std::string& field) {
    EXPECT_EQ(response.status, status) << response.body;
    const auto problem = json::parse(response.body);
    EXPECT_EQ(problem.at("status"), status);
    EXPECT_THAT(problem.at("detail").get<std::string>(), HasSubstr(detail));
    EXPECT_EQ(problem.value("field", ""), field);
  }

  static std::unique_ptr<World> world_;
  std::string token_;
  Service service_;
  service::ModelInfo info_;
  files::Images images_ = compile::RandomImages({1, 4, 4}, 60, 4);
};
std::unique_ptr<World> Servers::world_;

// Who shows a certificate needs no token. Its key counts, and that it has not expired.
TEST_F(Servers, KnowsClientsByTheirCertificates) {
  const auto directory = world_->scratch_.Path() / "clients";
  const auto shown = [&](const std::string& name) {
    return ClientCertificate{ReadAll(directory / (name + ".pem")),
                             ReadAll(directory / (name + "-key.pem"))};
  };
  const auto allow = [&](const std::string& name) {
    const auto key = crypto::ReadCertificate(directory / (name + ".pem")).fingerprint;
    for (int id = 0; id < 3; ++id)
      Store(world_->StoreOf(id)).AddToken({.name = name}, Store::CredentialOf(key));
    return key;
  };
  for (const char* name : {"bob", "eve"})
    crypto::MakeServerCertificate(directory, name, "localhost", 30, false);
  crypto::MakeCertificatesValid(directory, {-3, -2}, false);
  const auto key = allow("bob");
  allow("party0");
  EXPECT_EQ(Service(world_->deployment_, shown("bob")).Ask(info_, images_, 0, 4), Plain(0, 4));
  const auto refused = [&](Service service) {
    try {
      service.Ask(info_, images_, 0, 1);
    } catch (const ServiceError& e) {
      return e.Status();
    }
    return 200;
  };
  EXPECT_EQ(refused({world_->deployment_, shown("eve")}), 401);
  EXPECT_EQ(refused({world_->deployment_, shown("party0")}), 401);  // expired
  // Whoever knows the fingerprint, which is no secret, cannot give it for a token.
  EXPECT_EQ(refused({world_->deployment_, key.Text()}), 401);
  EXPECT_EQ(refused({world_->deployment_, Store::CredentialOf(key)}), 401);
  EXPECT_EQ(refused({world_->deployment_, ""}), 401);
}

TEST_F(Servers, AnswersEqualThePlainIntegers) {
  const auto plain = Plain(0, 60);
  std::vector<std::int64_t> logits;
  for (std::size_t first = 0; first < 60; first += 4) {
    const auto part = service_.Ask(info_, images_, first, 4);
    logits.insert(logits.end(), part.begin(), part.end());
  }
  EXPECT_EQ(logits, plain);
  std::vector<std::thread> threads;
  for (std::size_t c = 0; c < 8; ++c)
    threads.emplace_back([&, c] {
      Service mine(world_->deployment_, token_);
      for (std::size_t i = c; i < 60; i += 8) {
        const auto answer = mine.Ask(info_, images_, i, 1);
        EXPECT_TRUE(std::equal(answer.begin(), answer.end(),
                               plain.begin() + static_cast<long>(i * info_.classes)));
      }
    });
  for (auto& thread : threads) thread.join();
}

TEST_F(Servers, ListenAtPortsOfTheirOwn) {
  auto addresses = FreeAddresses();
  addresses.parties[1].port = static_cast<std::uint16_t>(addresses.parties[0].port + 3);
  const auto root = world_->scratch_.Path() / "close";
  service::MakeDeployment(root, addresses, 30, false);
  const auto deployment = service::LoadDeployment(root / "deployment.json");
  ServerOptions options;
  options.store = root / "server0";
  options.log = [](const std::string&) {};
  options.in_flight = 2;
  ExpectConfigError([&] { const Server server(options, deployment, service::Protocols()); },
                    "--in-flight", "2 found; servers 0 and 1 would both listen at 127.0.0.1:");
  options.in_flight = 1;
  const Server server(options, deployment, service::Protocols());
}

TEST_F(Servers, TellWhatEverybodyMayKnow) {
  EXPECT_EQ(service_.Send(1, "GET", "/deployment.json", {}).body, world_->deployment_.text);
  EXPECT_EQ(service_.Send(1, "GET", "/v2/health/live", {}).status, 200);
  EXPECT_EQ(info_.input.shape, (mpc::Shape3{1, 4, 4}));
  EXPECT_EQ(service_.ModelAt(2, 0, "small", "1"), info_);
  ExpectProblem(service_.Send(0, "GET", "/v2/models/none", {}), 404, "no such thing", "");
  ExpectProblem(service_.Send(0, "GET", "/v2/models/small/versions/2", {}), 404, "no such", "");
  ExpectProblem(service_.Send(0, "GET", "/none", {}), 404, "no such thing", "");
  ExpectProblem(service_.Send(0, "DELETE", "/v2/models", {}), 405, "GET", "");
}

// What tests/serve/operation_test.py cannot seal.
TEST_F(Servers, QueriesAndAnswersAreAsTheDocumentSays) {
  const auto document = json::parse(service_.Send(0, "GET", "/openapi.json", {}).body);
  const auto check = [&](const char* name, const std::string& text) {
    const json schema{{"allOf", {{{"$ref", std::string("#/components/schemas/") + name}}}},
                      {"components", document.at("components")}};
    EXPECT_EQ(files::Schema(schema.dump()).FindViolation(json::parse(text)), std::nullopt) << text;
  };
  const Query query = Ask();
  const auto message = RequestOf(query.Request());
  check("Query", {message.body.begin(),
                  message.body.begin() + static_cast<std::ptrdiff_t>(message.json_bytes)});
  const auto answer = Post(query.Request(), query.E1());
  ASSERT_EQ(answer.status, 200);
  check("Answer", answer.body.substr(0, answer.json_bytes));
}

TEST_F(Servers, GiveThePageAndNothingBesideIt) {
  EXPECT_EQ(service_.Send(0, "GET", "/", {}).body, "<p>page");
  EXPECT_EQ(service_.Send(2, "GET", "/index.html", {}).body, "<p>page");
  EXPECT_EQ(service_.Send(1, "GET", "/js/app.js?x=1", {}).body, "draw()");
  for (const char* path : {"/js", "/js/", "/outside", "/../outside", "/js/../../outside",
                           "/%2e%2e/outside", "//outside"})
    EXPECT_EQ(service_.Send(0, "GET", path, {}).status, 404) << path;
}

TEST_F(Servers, WithoutATokenNobodyIsAnswered) {
  for (const std::string& token : {std::string(), Store::NewToken()}) {
    service_ = Service(world_->deployment_, token);
    const Query query = Ask();
    ExpectProblem(Post(query.Request(), query.E1()), 401, "token", "");
  }
}

TEST_F(Servers, AQueryIsAnsweredOnce) {
  const Query query = Ask();
  EXPECT_EQ(Post(query.Request(), query.E1()).status, 200);
  ExpectProblem(Post(query.Request(), query.E1()), 409, "has been here before", "body /id");
}

TEST_F(Servers, OfTwoClientsWithOneNumberOneIsAnswered) {
  const Query first = Ask();
  const auto& head = first.Request().head;
  // The other knows the number, but no more; it can seal to the servers what it likes.
  const auto reply = crypto::SealingKey::Random();
  service::SealedPair other{head, {}, {}};
  other.head.reply = reply.Public();
  const auto roles = service::RolesOf(head.lane);
  const auto seal = [&](int server) {
    return crypto::Seal(world_->deployment_.servers[static_cast<std::size_t>(server)].sealing_key,
                        service::QueryContext(other.head, server),
                        Bytes(ring::PackedBytes(info_.input.shape.Size(), info_.input_bits)));
  };
  other.e1 = seal(roles.Evaluator1());
  other.e2 = seal(roles.Evaluator2());
  Service::Response theirs;
  std::thread thread([&] {
    Service service(world_->deployment_, token_);
    const auto message = RequestOf(other);
    theirs = service.Send(first.E1(), "POST", "/v2/models/small/infer", message.body,
                          {fmt::format("{}: {}", service::kJsonLengthHeader, message.json_bytes)});
  });
  const auto mine = Post(first.Request(), first.E1());
  thread.join();
  EXPECT_EQ(std::min(mine.status, theirs.status), 200);
  EXPECT_EQ(std::max(mine.status, theirs.status), 409);
  // Nobody can open what the other got.
  const auto& answered = mine.status == 200 ? mine : theirs;
  const auto answer = service::ParseResponse(
      {reinterpret_cast<const std::uint8_t*>(answered.body.data()), answered.body.size()},
      answered.json_bytes);
  if (mine.status == 200) {
    EXPECT_EQ(first.Open(answer), Plain(0, 1));
    EXPECT_FALSE(
        crypto::Unseal(reply, service::AnswerContext(head, roles.Evaluator1()), answer.e1));
  } else {
    EXPECT_THROW(first.Open(answer), ProtocolError);
  }
}

TEST_F(Servers, AClockThatIsWrongRefusesAndNothingElse) {
  world_->ahead_ms_[2] = 3'600'000;
  ExpectProblem(AskAt(2), 400, "too far from this server's clock", "body /parameters/time_ms");
  ExpectProblem(
      AskAt(1), 400,
      "server 2, the other evaluator: the query's time is too far from this server's clock",
      "body /parameters/time_ms");
  EXPECT_EQ(AskAt(0).status, 200);  // where server 2 is the helper
  world_->ahead_ms_[2] = 0;
  EXPECT_EQ(AskAt(2).status, 200);
}

// What one server has forgotten the other evaluator knows.
TEST_F(Servers, AnOlderStoreAnswersNoQueryTwice) {
  namespace fs = std::filesystem;
  const fs::path store = world_->StoreOf(1), copy = world_->scratch_.Path() / "copy";
  const auto start = [] {
    world_->Start(1);
    world_->AwaitReady();
    world_->AwaitModel();
  };
  world_->Stop(1);
  fs::copy(store, copy, fs::copy_options::recursive);
  start();
  std::vector<Query> asked;
  for (const int server : {0, 1}) {  // with server 1 as E2 and as E1
    Query query = Ask();
    while (query.E1() != server) query = Ask();
    EXPECT_EQ(Post(query.Request(), server).status, 200);
    asked.push_back(std::move(query));
  }
  world_->Stop(1);
  for (const auto& file : fs::directory_iterator(store))
    if (file.path().filename().string().starts_with("service.db")) fs::remove(file);
  for (const auto& file : fs::directory_iterator(copy))
    if (file.path().filename().string().starts_with("service.db"))
      fs::copy_file(file, store / file.path().filename());
  start();
  for (const auto& query : asked)
    ExpectProblem(Post(query.Request(), query.E1()), 409, "has been here before", "body /id");
  EXPECT_EQ(service_.Ask(info_, images_, 7, 1), Plain(7, 1));
}

TEST_F(Servers, AnotherModelsDigestIsRefused) {
  info_.digest[0] ^= 1;
  const Query query = Ask();
  ExpectProblem(Post(query.Request(), query.E1()), 409, "no model",
                "body /parameters/model_digest");
}

TEST_F(Servers, APartForTheWrongServerIsRefused) {
  const Query query = Ask(), other = Ask();
  auto request = query.Request();
  request.e1 = request.e2;
  ExpectProblem(Post(request, query.E1()), 400, "not sealed to its server", "body /inputs");
  request = other.Request();
  request.e2 = request.e1;  // which E2 alone can see
  ExpectProblem(Post(request, other.E1()), 400, "not sealed to its server", "body /inputs");
  ExpectProblem(Post(query.Request(), (query.E1() + 1) % 3), 421, "lane", "body /parameters/lane");
}

TEST_F(Servers, ATotalIsHeldAcrossARestart) {
  Allow({.total = 2});
  EXPECT_EQ(AskAt(1).status, 200);
  world_->Stop(1);
  world_->Start(1);
  world_->AwaitReady();
  world_->AwaitModel();
  EXPECT_EQ(AskAt(1).status, 200);
  ExpectProblem(AskAt(1), 403, "total is used up", "");
  EXPECT_EQ(AskAt(2).status, 200);  // each server counts by itself
}

TEST_F(Servers, ARateIsHeld) {
  Allow({.rate = 0.001});
  EXPECT_EQ(AskAt(0).status, 200);
  ExpectProblem(AskAt(0), 429, "rate is used up", "");
}

TEST_F(Servers, WhatIsMissingIsSaidAndWhatComesBackIsServed) {
  world_->Stop(2);
  World::Await([&] { return !world_->Ready(0) && !world_->Ready(1); });
  ExpectProblem(AskAt(0), 503, "away", "");
  ExpectProblem(AskAt(1), 503, "away", "");
  EXPECT_THROW(AskAt(2), NetworkError);
  world_->Start(2);
  EXPECT_EQ(service_.AskAgain(info_, images_, 5, 1, 200), Plain(5, 1));
  world_->AwaitReady();
}

TEST_F(Servers, PackagesAreTheOperatorsBusiness) {
  const auto put = [&](const Bytes& package, const std::string& path) {
    return service_.Send(0, "PUT", path, package);
  };
  ExpectProblem(put(world_->package_, World::kPackage), 401, "operator", "");
  service_ = Service(world_->deployment_, world_->operator_);
  Bytes bad = world_->package_;
  bad[bad.size() / 2] ^= 1;
  EXPECT_EQ(put(bad, World::kPackage).status, 400);
  bad = world_->package_;
  bad.pop_back();
  ExpectProblem(put(bad, World::kPackage), 400, "is cut short", "package");
  ExpectProblem(put(world_->package_, "/v2/repository/models/other/versions/1"), 400,
                "expected other 1", "package");
  EXPECT_EQ(service_.Model("small", ""), info_);  // still there
  EXPECT_EQ(service_.Send(0, "DELETE", World::kPackage, {}).status, 200);
  EXPECT_EQ(service_.Send(0, "DELETE", World::kPackage, {}).status, 404);
  EXPECT_EQ(service_.Send(0, "GET", "/v2/models/small", {}).status, 404);
  world_->Put();
  EXPECT_EQ(service_.AskAgain(info_, images_, 3, 1, 50), Plain(3, 1));
}

TEST_F(Servers, APackageIsReplacedWhileItIsAsked) {
  const nn::IntegerNetwork other = service::SmallModel(8);
  const Bytes package = service::SmallPackage(other, world_->deployment_);
  const auto first = info_.digest;
  const auto plain = Plain(0, 60);
  const auto other_plain = nn::RunPlain(other, compile::Oracle(), images_, 0, 60);
  ASSERT_NE(plain, other_plain);
  const int breaks = world_->breaks_;
  std::atomic<bool> done = false;
  std::atomic<int> of_first = 0, of_other = 0;
  std::vector<std::thread> threads;
  for (std::size_t c = 0; c < 3; ++c)
    threads.emplace_back([&, c] {
      Service mine(world_->deployment_, token_);
      for (std::size_t i = c; !done; i = (i + 3) % 60) {
        const auto info = mine.ModelAt(static_cast<int>(i % 3), 0, "small", "1");
        const bool is_first = info.digest == first;
        try {
          const auto answer = mine.Ask(info, images_, i, 1);
          EXPECT_TRUE(std::equal(
              answer.begin(), answer.end(),
              (is_first ? plain : other_plain).begin() + static_cast<long>(i * info.classes)));
          ++(is_first ? of_first : of_other);
        } catch (const ServiceError& e) {  // another one here now, or not everywhere yet
          EXPECT_TRUE(e.Status() == 409 || e.Status() == 503) << e.what();
        }
      }
    });
  const auto await = [](std::atomic<int>& answers) {
    World::Await([&, before = answers.load()] { return answers > before + 5; });
  };
  await(of_first);
  world_->Put(package);
  await(of_other);
  world_->Put();
  await(of_first);
  EXPECT_EQ(world_->breaks_, breaks);  // the lanes have gone on
  done = true;
  for (auto& thread : threads) thread.join();
}

TEST_F(Servers, GarbageAndTooMuchAreRefused) {
  const std::string path("/v2/models/small/infer");
  ExpectProblem(service_.Send(0, "POST", path, Bytes(100, 'x')), 400, "length of the body's JSON",
                service::kJsonLengthHeader);
  const std::string header = std::string(service::kJsonLengthHeader) + ": 100";
  EXPECT_EQ(service_.Send(0, "POST", path, Bytes(100, 'x'), {header}).status, 400);
  // Its end may come before its answer is read.
  try {
    const auto answer = service_.Send(0, "POST", path, Bytes(std::size_t{80} << 20, 'x'), {header});
    ExpectProblem(answer, 413, "at most", "Content-Length");
  } catch (const NetworkError&) {
  }
  EXPECT_EQ(service_.Ask(info_, images_, 1, 1), Plain(1, 1));
}

TEST_F(Servers, ConnectionsThatSayNothingAreNoBurden) {
  const auto& url = world_->deployment_.servers[0].workers[0].url;
  const sockaddr_in address =
      Loopback(static_cast<std::uint16_t>(std::stoul(url.substr(url.rfind(':') + 1))));
  std::vector<int> silent;
  for (int i = 0; i < 300; ++i) {
    silent.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    ::connect(silent.back(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  for (int i = 0; i < 10; ++i) EXPECT_EQ(AskAt(0).status, 200);
  for (const int fd : silent) ::close(fd);
}

}  // namespace
}  // namespace tercet::serve
