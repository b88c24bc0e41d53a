// SPDX-License-Identifier: Apache-2.0
#include "predict/predict_command.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "predict/credentials.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/progress_line.h"
#include "tercet/base/file_writer.h"
#include "tercet/client/service.h"
#include "tercet/nn/data_options.h"

namespace tercet::client {
namespace {

constexpr std::size_t kMaxClients = 1024;
constexpr double kMaxSeconds = 86'400;

struct Asked : Credentials {
  std::filesystem::path deployment, images;
  std::string model, version;
  std::size_t limit = 0, batch = 1;
  files::DataOptions data;

  void AddTo(CLI::App& command) {
    command.add_option("--deployment", deployment, "The servers (deployment.json)")->required();
    command.add_option("--model", model, "The model's name")->required();
    command.add_option("--model-version", version, "Its version (default: the last one)");
    command
        .add_option(
            "--images", images,
            fmt::format("Images to ask about, which no server sees: {}", programs::kImageFormats))
        ->required();
    AddCredentials(command, *this);
    programs::AddNumber(command, "--limit", limit, 1, programs::kMaxImages,
                        "Use the first N images only");
    programs::AddNumber(command, "--batch", batch, 1, programs::kMaxBatch, "Images a query");
    programs::AddDataOptions(command, data);
  }
  /// What a model takes; without `labels` with those that the images' own files hold.
  files::LabelledImages LoadLabelled(const service::ModelInfo& info,
                                     const std::filesystem::path& labels) const {
    return Checked(files::LoadLabelledImages(images, labels, limit, info.input.shape, info.classes,
                                             nn::WithInput(data, info.input)));
  }
  files::Images Load(const service::ModelInfo& info) const {
    return Checked(
               {files::LoadImages(images, limit, info.input.shape, nn::WithInput(data, info.input)),
                {}})
        .images;
  }

 private:
  static files::LabelledImages Checked(files::LabelledImages loaded) {
    if (const auto warning = files::RangeWarning(loaded.images)) programs::PrintWarning(*warning);
    return loaded;
  }
};

struct PredictArguments : Asked {
  std::filesystem::path labels, json;
  std::size_t tries = kDefaultTries;
};

int Predict(const PredictArguments& a) {
  if (!a.json.empty()) CheckWritable(a.json, "--json");
  const auto deployment = service::LoadDeployment(a.deployment);
  Service service = a.Servers(deployment);
  const auto info = service.Model(a.model, a.version, a.tries);
  const auto [images, labels] = a.LoadLabelled(info, a.labels);
  std::vector<std::int64_t> logits;
  const auto start = Clock::now();
  std::optional<programs::ProgressLine> progress(std::in_place);
  for (std::size_t first = 0; first < images.count; first += a.batch) {
    const auto part =
        service.AskAgain(info, images, first, std::min(a.batch, images.count - first), a.tries);
    logits.insert(logits.end(), part.begin(), part.end());
    progress->Show(std::min(first + a.batch, images.count), images.count);
  }
  progress.reset();
  const double seconds = SecondsSince(start);
  const auto predictions = nn::Predictions(logits, info.classes);
  programs::Print("{} {}: {} images in {:.3f} s\n", info.name, info.version, images.count, seconds);
  if (labels.empty()) {
    programs::Print("predictions: {}\n", fmt::join(predictions, " "));
  } else {
    const auto correct = programs::CountCorrect(predictions, labels);
    programs::Print("accuracy: {:.2f} % ({} of {} images)\n",
                    100.0 * static_cast<double>(correct) / static_cast<double>(labels.size()),
                    correct, labels.size());
  }
  programs::FlushOutput();
  if (a.json.empty()) return programs::kExitOk;
  nlohmann::json rows = nlohmann::json::array();
  for (std::size_t i = 0; i < images.count; ++i)
    rows.push_back(std::vector<std::int64_t>(
        logits.begin() + static_cast<std::ptrdiff_t>(i * info.classes),
        logits.begin() + static_cast<std::ptrdiff_t>((i + 1) * info.classes)));
  const nlohmann::json document{{"model", info.name},         {"version", info.version},
                                {"images", images.count},     {"seconds", seconds},
                                {"predictions", predictions}, {"logits", std::move(rows)}};
  WriteFile(a.json, document.dump() + "\n", FileRights::kOwner);
  return programs::kExitOk;
}

struct LoadArguments : Asked {
  std::size_t clients = 8;
  double rate = 0, seconds = 10;
  std::filesystem::path json;
};

// What one client, or all of them, have seen.
struct Seen {
  std::vector<double> seconds;  // of each query that was answered
  std::map<std::string, std::size_t> errors;
};

Clock::duration Span(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// One client's queries from `start` on. With a rate they begin at fixed times, and wait where the
// one before is late: the time is counted from when one should have begun. After one that failed it
// pauses as AskAgain does.
Seen AskUntilEnd(const LoadArguments& a, std::size_t client, Service service,
                 const service::ModelInfo& info, const files::Images& images,
                 Clock::time_point start) {
  Seen seen;
  const auto end = start + Span(a.seconds);
  const auto clients = static_cast<double>(a.clients);
  const auto gap = a.rate > 0 ? Span(clients / a.rate) : Clock::duration::zero();
  Pauses pauses;
  auto due = start + gap * static_cast<Clock::rep>(client) / static_cast<Clock::rep>(a.clients);
  for (std::size_t q = client; (a.rate > 0 ? due : Clock::now()) < end; ++q, due += gap) {
    if (a.rate > 0) std::this_thread::sleep_until(due);
    const auto begin = a.rate > 0 ? due : Clock::now();
    try {
      service.Ask(info, images, q * a.batch % (images.count - a.batch + 1), a.batch);
      seen.seconds.push_back(SecondsSince(begin));
      pauses = {};
      continue;
    } catch (const ServiceError& e) {
      ++seen.errors[std::to_string(e.Status())];
    } catch (const NetworkError&) {
      ++seen.errors["network"];
    } catch (const std::exception&) {
      ++seen.errors["answer"];
    }
    std::this_thread::sleep_until(std::min(end, Clock::now() + pauses.Next()));
  }
  return seen;
}

// The figures as text and, where asked for, as JSON.
void Report(const LoadArguments& a, Seen all, double taken) {
  std::sort(all.seconds.begin(), all.seconds.end());
  const auto at = [&](double part) {
    if (all.seconds.empty()) return 0.0;
    const auto index = static_cast<std::size_t>(part * static_cast<double>(all.seconds.size()));
    return 1000 * all.seconds[std::min(index, all.seconds.size() - 1)];
  };
  const auto queries = static_cast<double>(all.seconds.size());
  programs::Print(
      "{} clients, {:.1f} s: {:.1f} queries/s, {:.1f} images/s\n"
      "latency: 50 % under {:.2f} ms, 95 % under {:.2f} ms, 99 % under {:.2f} ms\n",
      a.clients, taken, queries / taken, queries * static_cast<double>(a.batch) / taken, at(0.5),
      at(0.95), at(0.99));
  for (const auto& [kind, count] : all.errors) programs::Print("errors {}: {}\n", kind, count);
  if (a.json.empty()) return;
  const nlohmann::json document{
      {"clients", a.clients},
      {"seconds", taken},
      {"queries", all.seconds.size()},
      {"images", all.seconds.size() * a.batch},
      {"queries_per_s", queries / taken},
      {"latency_ms", {{"50", at(0.5)}, {"95", at(0.95)}, {"99", at(0.99)}}},
      {"errors", all.errors}};
  WriteFile(a.json, document.dump() + "\n");
}

int Load(const LoadArguments& a) {
  if (!a.json.empty()) CheckWritable(a.json, "--json");
  const auto deployment = service::LoadDeployment(a.deployment);
  const auto info = a.Servers(deployment).Model(a.model, a.version);
  const auto images = a.Load(info);
  if (images.count < a.batch)
    throw ConfigError("--images",
                      fmt::format("{} found, {} a query asked for", images.count, a.batch));
  std::vector<Service> services;
  while (services.size() < a.clients) services.push_back(a.Servers(deployment));
  Seen all;
  std::mutex mutex;
  std::condition_variable ended;
  std::size_t running = a.clients;
  const auto start = Clock::now();
  {
    std::vector<std::jthread> threads;
    for (std::size_t client = 0; client < a.clients; ++client)
      threads.emplace_back([&, client] {
        const Seen seen = AskUntilEnd(a, client, std::move(services[client]), info, images, start);
        const std::lock_guard lock(mutex);
        all.seconds.insert(all.seconds.end(), seen.seconds.begin(), seen.seconds.end());
        for (const auto& [kind, count] : seen.errors) all.errors[kind] += count;
        if (--running == 0) ended.notify_one();
      });
    programs::ProgressLine progress;
    std::unique_lock lock(mutex);
    while (!ended.wait_for(lock, std::chrono::seconds(1), [&] { return running == 0; }))
      progress.Show(fmt::format(
          "{} left", report::FormatSeconds(std::max(0.0, a.seconds - SecondsSince(start)))));
  }
  Report(a, std::move(all), SecondsSince(start));
  return programs::kExitOk;
}

}  // namespace

void AddPredictCommand(CLI::App& app, programs::Chosen& chosen) {
  auto* command =
      app.add_subcommand("predict", "Ask a prediction service about images that no server sees");
  auto a = std::make_shared<PredictArguments>();
  a->AddTo(*command);
  command->add_option("--labels", a->labels,
                      "Labels, for the accuracy, where the files of the images hold none");
  programs::AddNumber(
      *command, "--tries", a->tries, 1, kMaxTries,
      "How often one query is tried, each time as a new one, and the model looked up");
  command->add_option("--json", a->json, "Write predictions and logits");
  command->footer(
      "Example:\n"
      "  tercet predict --deployment demo/deployment.json --model MnistNet3 --token-file "
      "demo/client.token --images t10k-images-idx3-ubyte.gz --limit 10");
  command->callback([a, &chosen] { chosen = [a] { return Predict(*a); }; });
}

void AddLoadCommand(CLI::App& app, programs::Chosen& chosen) {
  auto* command = app.add_subcommand(
      "load", "Ask a prediction service by many clients at once, and measure how long it takes");
  auto a = std::make_shared<LoadArguments>();
  a->AddTo(*command);
  programs::AddNumber(*command, "--clients", a->clients, 1, kMaxClients, "Clients at once");
  programs::AddReal(*command, "--rate", a->rate, 0, 1e6,
                    "Queries a second of all clients together; 0: as fast as answers come");
  programs::AddReal(*command, "--seconds", a->seconds, 0.1, kMaxSeconds, "How long");
  command->add_option("--json", a->json, "Write the figures");
  command->footer(
      "Example:\n"
      "  tercet load --deployment demo/deployment.json --model MnistNet3 --token-file "
      "demo/client.token --images t10k-images-idx3-ubyte.gz --clients 64 --seconds 10");
  command->callback([a, &chosen] { chosen = [a] { return Load(*a); }; });
}

}  // namespace tercet::client
