// SPDX-License-Identifier: Apache-2.0
#include "serve/serve_command.h"

#include <malloc.h>
#include <pthread.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "programs/failure.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/process.h"
#include "serve/server.h"
#include "serve/store.h"
#include "serve/worker_choice.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/infer/testbed.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::serve {
namespace {

namespace programs = tercet::programs;

constexpr double kMaxWaitMs = 10'000;
constexpr std::size_t kMaxConnections = 1'000'000;
constexpr std::size_t kOtherFiles = 256;  // that are open beside clients' connections, at most
constexpr std::size_t kMaxMebibytes = 1'000'000;
constexpr FileKind kTokenFile{"a token", 4096};
constexpr std::size_t kLeastToken = 32;
constexpr std::size_t kMaxTotal = 1'000'000'000'000;

struct ServeArguments {
  std::optional<int> id;
  std::filesystem::path deployment, store, web;
  std::size_t max_batch = 64, ahead = 2, in_flight = 1, material = 96;
  double max_wait_ms = 0.5;
  std::string lanes, metrics;
  std::string link{"none"};
  bool json = false;
  bool client_certificates = false;
  std::size_t max_connections = 1024, max_connections_each = 512, max_bodies = 128;
};

// A server that runs out of files takes no connections any more.
void AllowFiles(std::size_t connections) {
  rlimit limit{};
  const std::size_t files = connections + kOtherFiles;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= files) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, files);
  if (limit.rlim_cur < files || ::setrlimit(RLIMIT_NOFILE, &limit) != 0)
    throw ConfigError("--max-connections",
                      fmt::format("{} found, needs {} open files where {} are allowed (ulimit -n)",
                                  connections, files, limit.rlim_max));
}

// Material is made in one thread and used up in another, so that each of glibc's arenas grows to
// the most that was ever in it; by default there are eight for each core.
void ShareMemory() {
#ifdef M_ARENA_MAX
  ::mallopt(M_ARENA_MAX, std::max(2, static_cast<int>(std::thread::hardware_concurrency())));
#endif
}

int Serve(const ServeArguments& arguments) {
  ShareMemory();
  // All threads leave the signals to this one.
  sigset_t signals = programs::StopSignals();
  sigaddset(&signals, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const int id = *arguments.id;
  AllowFiles(arguments.max_connections);
  auto deployment = service::LoadDeployment(arguments.deployment);
  const std::size_t worker =
      ChooseWorker(arguments.lanes, deployment, [](const char* name) { return std::getenv(name); });
  const bool several = deployment.servers[0].workers.size() > 1;
  spdlog::set_default_logger(spdlog::stderr_color_mt("server"));
  // Of JSON an object a line, whose message is JSON text already.
  const bool json = arguments.json;
  spdlog::set_pattern(
      json ? fmt::format(
                 R"({{"time":"%Y-%m-%dT%H:%M:%S.%e%z","server":{}{},"level":"%l","message":%v}})",
                 id, several ? fmt::format(R"(,"worker":{})", worker) : "")
           : fmt::format("%Y-%m-%dT%H:%M:%S.%e server {}{}: %v", id,
                         several ? fmt::format(" worker {}", worker) : ""));
  const auto log = [json](const std::string& line) {
    constexpr auto kReplace = nlohmann::json::error_handler_t::replace;
    spdlog::info("{}", json ? nlohmann::json(line).dump(-1, ' ', false, kReplace) : line);
  };
  const auto registry = BuiltinProtocols();
  const std::string own = fmt::format("party{}", id);
  infer::CheckOwnCertificate(
      {"", arguments.store / (own + ".pem"), arguments.store / (own + "-key.pem"), deployment.pins},
      id, std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now()));
  ServerOptions options;
  options.id = id;
  options.worker = worker;
  options.store = arguments.store;
  options.web = arguments.web;
  options.max_batch = arguments.max_batch;
  options.max_wait =
      std::chrono::microseconds(static_cast<std::int64_t>(arguments.max_wait_ms * 1000));
  options.ahead = arguments.ahead;
  options.material = std::uint64_t{arguments.material} << 20;
  options.in_flight = arguments.in_flight;
  options.link = programs::ParseLink(arguments.link);
  options.max_connections = arguments.max_connections;
  options.max_connections_each = arguments.max_connections_each;
  options.max_bodies = arguments.max_bodies << 20;
  options.client_certificates = arguments.client_certificates;
  options.metrics = arguments.metrics;
  options.log = log;
  Server server(options, std::move(deployment), registry);
  int number = 0;
  while (::sigwait(&signals, &number) != 0 || number == SIGHUP) {
    try {
      server.Reload();
    } catch (const ConfigError& e) {
      log(fmt::format("keeps the certificate for clients: {}", e.what()));
    }
  }
  log(fmt::format("{}: no new queries; those under way end", programs::SignalText(number)));
  server.Drain();
  return programs::kExitOk;
}

struct TokenArguments {
  std::filesystem::path store, token_file;
  std::string certificate;
  std::string add, remove;
  double rate = 0;
  std::size_t total = 0;
  bool is_operator = false;
};

int Token(const TokenArguments& arguments) {
  Store store(arguments.store);
  if (!arguments.remove.empty()) {
    if (!store.RemoveToken(arguments.remove))
      throw ConfigError("--remove", fmt::format("no token of \"{}\" is there", arguments.remove));
    return programs::kExitOk;
  }
  if (!arguments.add.empty()) {
    Allowance allowance;
    allowance.name = arguments.add;
    if (arguments.rate > 0) allowance.rate = arguments.rate;
    if (arguments.total > 0) allowance.total = arguments.total;
    allowance.is_operator = arguments.is_operator;
    // One token for all three servers, so the first makes it and the others take it.
    std::string token;
    if (!arguments.certificate.empty()) {
      const auto pinned = crypto::Fingerprint::Parse(arguments.certificate);
      token = Store::CredentialOf(
          pinned ? *pinned : crypto::ReadCertificate(arguments.certificate).fingerprint);
    } else if (arguments.token_file.empty()) {
      throw ConfigError("--add", "expected with --token-file or --certificate");
    } else if (std::filesystem::exists(arguments.token_file)) {
      const auto text = ReadPrivateFile(arguments.token_file, kTokenFile);
      token.assign(text.begin(), text.end());
      while (!token.empty() && token.back() == '\n') token.pop_back();
      if (token.size() < kLeastToken)
        throw ConfigError(arguments.token_file.string(),
                          fmt::format("holds no token of at least {} characters", kLeastToken));
    } else {
      token = Store::NewToken();
      WriteFile(arguments.token_file, token + "\n", FileRights::kOwner);
    }
    store.AddToken(allowance, token);
    return programs::kExitOk;
  }
  for (const auto& [allowance, used] : store.Tokens())
    programs::Print("{}: {} images used{}{}{}\n", allowance.name, used,
                    allowance.total ? fmt::format(" of {}", *allowance.total) : "",
                    allowance.rate ? fmt::format(", {} a second", *allowance.rate) : "",
                    allowance.is_operator ? ", operator" : "");
  return programs::kExitOk;
}

void AddServeCommand(CLI::App& program, programs::Chosen& chosen) {
  auto arguments = std::make_shared<ServeArguments>();
  auto& a = *arguments;
  auto& app = *program.add_subcommand(
      "serve", "One server of a prediction service: answers clients' queries with the two others");
  programs::AddParty(app, "--id", a.id, "This server's number")->required();
  app.add_option("--deployment", a.deployment, "The three servers (deployment.json)")->required();
  app.add_option("--store", a.store,
                 "This process's directory: keys, packages, tokens; of no other process")
      ->required();
  app.add_option(
      "--lanes", a.lanes,
      "Of a server with several workers, the one with these lanes, as 0-3 or 0,2,5-7; "
      "auto, as where nothing is said: the one that OMPI_COMM_WORLD_RANK, SLURM_PROCID or "
      "JOB_COMPLETION_INDEX names, the first that is set");
  app.add_option("--web", a.web,
                 "Directory of a web page that clients get; index.html is /. Read once");
  programs::AddNumber(app, "--max-batch", a.max_batch, 1, infer::kMaxBatch,
                      "Images a batch; the same at all servers, at least the deployment's "
                      "max_images");
  programs::AddReal(app, "--max-wait", a.max_wait_ms, 0, kMaxWaitMs,
                    "Milliseconds that a query waits for others, where no batch is under way");
  programs::AddNumber(
      app, "--ahead", a.ahead, 1, 64,
      "Batches of each size that occurs whose material each lane makes ahead; at least one "
      "for each batch in flight");
  programs::AddNumber(app, "--material", a.material, 0, kMaxMebibytes,
                      "MiB of material that all lanes together have ahead, about; the same at all "
                      "servers. Batches whose size has no part of it wait for theirs");
  programs::AddNumber(app, "--in-flight", a.in_flight, 1, 16,
                      "Batches of each lane at once, the same at all servers: more where messages "
                      "travel long. Lane k uses the ports port + k, port + lanes + k, ...");
  programs::AddNumber(app, "--max-connections", a.max_connections, 1, kMaxConnections,
                      "Connections of clients at once");
  programs::AddNumber(app, "--max-connections-per-address", a.max_connections_each, 1,
                      kMaxConnections, "Of these of one address (of IPv6, of 64 bits of it)");
  programs::AddNumber(app, "--max-bodies", a.max_bodies, 1, kMaxMebibytes,
                      "MiB that requests under way may have at once; a package needs its own size");
  app.add_flag("--client-certificates", a.client_certificates,
               "Ask clients for certificates, for those without a token (tercet-party token "
               "--certificate); browsers may ask people which of theirs to show");
  programs::OfferLinks(
      app.add_option("--link", a.link, "Delay what is sent to the other servers, to measure")
          ->capture_default_str());
  app.add_option("--metrics", a.metrics,
                 "Address and port, as 127.0.0.1:9464, where Prometheus gets metrics: HTTP, for "
                 "who can reach it, so none that clients can");
  app.add_option_function<std::string>(
         "--log-format", [&a](const std::string& format) { a.json = format == "json"; },
         "text, or json: an object a line")
      ->check(CLI::IsMember({"text", "json"}));
  app.footer(
      "Example:\n"
      "  tercet keygen --servers demo\n"
      "  tercet-party serve --id 0 --deployment demo/deployment.json --store demo/server0\n"
      "SIGTERM and SIGINT drain it: no new query, those under way end. SIGHUP: reads the "
      "certificate for clients anew. Tokens: tercet-party token.\n"
      "docs/service.md has the rest.");
  app.callback([arguments, &chosen] { chosen = [arguments] { return Serve(*arguments); }; });
}

void AddTokenCommand(CLI::App& program, programs::Chosen& chosen) {
  auto arguments = std::make_shared<TokenArguments>();
  auto& a = *arguments;
  auto& app = *program.add_subcommand(
      "token", "Clients' tokens in a server's store: lists them, makes or removes one");
  app.add_option("--store", a.store, "The server's directory")->required();
  auto* add = app.add_option("--add", a.add, "Add a token of this name");
  auto* file = app.add_option("--token-file", a.token_file,
                              "The token: taken from this file, or made and written to it where it "
                              "is missing; the store keeps its hash")
                   ->needs(add);
  app.add_option("--certificate", a.certificate,
                 "In place of a token: the client's certificate, or the fingerprint of its key; "
                 "renewed with the same key it stays known")
      ->needs(add)
      ->excludes(file);
  app.add_option("--remove", a.remove, "Remove the token of this name")->excludes(add);
  programs::AddReal(app, "--rate", a.rate, 0, 1e9, "Images a second; 0: no limit")->needs(add);
  programs::AddNumber(app, "--total", a.total, 0, kMaxTotal, "Images in all; 0: no limit")
      ->needs(add);
  app.add_flag("--operator", a.is_operator, "May put in and take out packages")->needs(add);
  app.footer(
      "Example:\n  tercet-party token --store demo/server0 --add alice --token-file alice.token "
      "--rate 10 --total 10000\nThe same for the other servers' stores.");
  app.callback([arguments, &chosen] { chosen = [arguments] { return Token(*arguments); }; });
}

}  // namespace

void AddServeCommands(CLI::App& app, programs::Chosen& chosen) {
  AddServeCommand(app, chosen);
  AddTokenCommand(app, chosen);
}

}  // namespace tercet::serve
