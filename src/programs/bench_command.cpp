// SPDX-License-Identifier: Apache-2.0
// Many runs of many settings, in one table.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <tuple>

#include "base/clock.h"
#include "base/json.h"
#include "programs/anonymous_file.h"
#include "programs/auto_suite.h"
#include "programs/bench_machines.h"
#include "programs/bench_options.h"
#include "programs/bench_results.h"
#include "programs/child_program.h"
#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/launcher.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/progress_line.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/crypto/certificates.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

namespace fs = std::filesystem;

struct BenchArguments {
  std::vector<std::string> networks;
  fs::path config, model, testbed, out{"bench"};
  std::string remote_shell = "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15";
  BenchOptions line;  ///< what was given on the command line, of which `given` tells
  std::vector<std::pair<const CLI::Option*, std::function<void(BenchOptions&)>>> given;
  bool resume = false, no_charts = false;
};

BenchOptions OptionsOf(const BenchArguments& arguments) {
  BenchOptions options;
  if (!arguments.config.empty()) options = ReadBenchOptions(arguments.config);
  for (const auto& [option, take] : arguments.given)
    if (option->count() > 0) take(options);
  if (!arguments.networks.empty()) options.networks.clear();
  for (const auto& text : arguments.networks)
    options.networks.push_back(FindNetwork(text, arguments.model, "networks"));
  if (options.networks.empty())
    throw ConfigError("networks", "none found; name some, or a run file with --config");
  for (auto& network : options.networks) {
    if (!arguments.networks.empty() || network.images.empty()) {
      network.images = options.images;
      network.labels = options.labels;
    }
    if (RandomSeed(network.model)) network.labels.clear();
    for (const auto& text : {network.images, network.labels}) {
      if (text.empty()) continue;
      for (const auto& file : files::ParseDataFiles(text.string()).files)
        if (!fs::exists(file))
          throw ConfigError("--images", fmt::format("there is no {}, images or labels of {} "
                                                    "(scripts/get-mnist fetches MNIST)",
                                                    file.string(), network.file.string()));
    }
  }
  return options;
}

// What a row is of, before it runs.
struct Job {
  BenchRow row;
  std::size_t finished = 0;  // runs, warm-ups too
  double seconds = 0;        // that they took
};

// The settings of a network that are compared: repetitions go round among them, so that all see the
// same moods of the machine.
using Group = std::vector<Job>;

class Bench {
 public:
  Bench(const BenchArguments& arguments, BenchOptions options)
      : options_(std::move(options)), out_(arguments.out), charts_(!arguments.no_charts) {
    for (const auto& suite : options_.suites) ParseSuite(suite, registry_, "--suites");
    for (const auto& link : options_.links) ParseLink(link, "--links");
    for (const auto& schedule : options_.schedules) ScheduleOptions(schedule);
    fs::create_directories(out_);
    for (const char* name : {"results.json", "results.csv", "results.md"})
      CheckWritable(out_ / name, "--out");
    const auto file = out_ / "results.json";
    const bool goes_on = fs::exists(file);
    if (goes_on && !arguments.resume)
      throw ConfigError("--out",
                        fmt::format("{} is there; --resume goes on with it", file.string()));
    machines_ =
        arguments.testbed.empty()
            ? ThisMachine(options_)
            : TestbedMachines(arguments.testbed, arguments.remote_shell, options_, registry_);
    Describe();
    if (goes_on) GoOnWith(file);
  }

  int Run() {
    MakeGroups();
    for (std::size_t n = 0; n < options_.networks.size(); ++n) RunNetwork(n);
    progress_.End();
    Print("\n{}", ToMarkdown(results_));
    Print("\nresults.md, results.csv and results.json are in {}\n", out_.string());
    FlushOutput();
    if (charts_) DrawCharts();
    const auto failed = std::count_if(results_.rows.begin(), results_.rows.end(),
                                      [](const BenchRow& row) { return !row.failed.empty(); });
    if (failed == 0) return kExitOk;
    PrintWarning(
        fmt::format("{} of {} settings failed; their rows say why", failed, results_.rows.size()));
    return kExitFailed;
  }

 private:
  // How the figures come about.
  void Describe() {
    const auto identity = machines_->Identity();
    results_.title = options_.title;
    results_.version = identity.version;
    results_.commit = identity.commit;
    results_.build = identity.build;
    results_.machine = identity.machine;
    results_.transport = machines_->Transport();
    results_.weights = options_.weights;
    results_.date = fmt::format("{:%Y-%m-%d}", fmt::localtime(std::time(nullptr)));
    results_.repetitions = options_.repetitions;
    results_.published = options_.published;
    results_.options = {{"suites", options_.suites},   {"links", options_.links},
                        {"batches", options_.batches}, {"schedules", options_.schedules},
                        {"queries", options_.queries}, {"accuracy_limit", options_.accuracy_limit}};
  }

  void GoOnWith(const fs::path& file) {
    earlier_ = ReadBenchResults(file);
    for (const auto& [what, before, now] :
         {std::tuple{"version", earlier_.version, results_.version},
          {"commit", earlier_.commit, results_.commit},
          {"build", earlier_.build, results_.build},
          {"machine", earlier_.machine, results_.machine},
          {"transport", earlier_.transport, results_.transport},
          {"kind of weights", earlier_.weights, results_.weights}})
      if (before != now)
        throw ConfigError("--resume",
                          fmt::format("{} is of another {}: \"{}\" found, \"{}\" expected; measure "
                                      "anew in another folder",
                                      file.string(), what, before, now));
    results_.date = earlier_.date;
    if (earlier_.options.value("accuracy_limit", std::size_t{0}) == options_.accuracy_limit)
      results_.accuracies = earlier_.accuracies;
  }

  struct Network {
    nn::NetworkSpec spec;
    std::vector<Group> groups;
  };

  void MakeGroups() {
    std::map<std::string, std::size_t> models;  // of each network
    for (const auto& each : options_.networks) ++models[nn::LoadNetwork(each.file).name];
    for (const auto& each : options_.networks) {
      Network network{nn::LoadNetwork(each.file), {}};
      for (const auto batch : options_.batches)
        for (const auto& schedule : options_.schedules) {
          auto& group = network.groups.emplace_back();
          for (const auto& suite : options_.suites)
            for (const auto& link : options_.links) {
              BenchRow row;
              row.network = network.spec.name;
              row.model =
                  RandomSeed(each.model) ? each.model.string() : each.model.filename().string();
              if (models[row.network] > 1) row.network += ", " + row.model;
              row.suite = suite;
              row.link = link;
              row.schedule = schedule;
              row.batch = batch;
              row.images = batch * QueriesOf(options_, schedule, batch);
              group.push_back({std::move(row)});
            }
        }
      networks_.push_back(std::move(network));
    }
  }

  std::size_t RunsEach() const { return options_.repetitions + 1; }

  void RunNetwork(std::size_t n) {
    auto& network = networks_[n];
    const auto& from = options_.networks[n];
    std::optional<nn::IntegerNetwork> model;
    std::string failed;
    progress_.Show(fmt::format("loading {}", network.spec.name));
    try {
      model = LoadModel(network.spec, {from.model, {}, {}, false}, registry_,
                        [](const std::string&) {});
      const auto digest =
          crypto::Sha256Hex(network.spec.Digest() + compile::CompiledDigest(*model));
      for (auto& group : network.groups)
        for (auto& job : group) job.row.model_digest = digest;
      progress_.End();
      for (const auto& warning : model->warnings) PrintWarning(warning);
      TakeAccuracy(network, from, *model);
    } catch (const Error& e) {
      failed = e.what();
    }
    AnonymousFile file;
    if (model) compile::SaveCompiled(*model, file.Path());
    for (auto& group : network.groups) {
      const std::size_t first = results_.rows.size();
      for (auto& job : group) {
        if (model) TakeEarlier(job.row);
        job.row.failed = failed;
        if (!failed.empty() || job.row.runs.size() >= options_.repetitions)
          job.finished = RunsEach();
        results_.rows.push_back(job.row);
      }
      for (std::size_t r = 0; model && r < RunsEach(); ++r)
        for (std::size_t k = 0; k < group.size(); ++k)
          RunOnce(group[k], {from, network.spec, *model, file}, r == 0, results_.rows[first + k]);
      if (model) Predict(*model, first);
      Save();
    }
  }

  // Accuracy is the integer network's, whose logits the runs give.
  void TakeAccuracy(const Network& network, const BenchNetwork& from,
                    const nn::IntegerNetwork& model) {
    const auto& row = network.groups.front().front().row;
    if (from.labels.empty() || results_.AccuracyOf(row) != nullptr) return;
    const auto data = LoadLabelledImages(from.images, from.labels, options_.accuracy_limit,
                                         network.spec, options_.data);
    if (const auto warning = files::RangeWarning(data.images)) PrintWarning(*warning);
    const auto predictions = nn::Predictions(
        PlainLogits(model, registry_.PlainOracle(), data.images), network.spec.Classes());
    results_.accuracies.push_back(
        {row.network, row.model_digest,
         100.0 * static_cast<double>(CountCorrect(predictions, data.labels)) /
             static_cast<double>(data.images.count),
         data.images.count});
  }

  // What failed, or was of another model, is measured anew.
  void TakeEarlier(BenchRow& row) {
    const auto before = std::find_if(earlier_.rows.begin(), earlier_.rows.end(),
                                     [&](const BenchRow& other) { return other.SameSetting(row); });
    if (before == earlier_.rows.end()) return;
    if (before->failed.empty() && before->model_digest == row.model_digest) row = *before;
    row.runs.resize(std::min(row.runs.size(), options_.repetitions));
    earlier_.rows.erase(before);
  }

  void RunOnce(Job& job, const BenchSubject& subject, bool warm_up, BenchRow& shown) {
    if (job.finished >= RunsEach() || !job.row.failed.empty()) return;
    if (!warm_up && job.row.runs.size() >= options_.repetitions) return;
    ShowProgress(job.row);
    const auto start = Clock::now();
    try {
      Measure(job.row, subject, warm_up);
    } catch (const StoppedBySignal&) {
      throw;  // no failure of this setting
    } catch (const Error& e) {
      job.row.failed = e.what();
    }
    job.seconds += SecondsSince(start);
    ++job.finished;
    const bool ended = !job.row.failed.empty() || job.row.runs.size() >= options_.repetitions;
    if (ended) job.finished = RunsEach();
    shown = job.row;
    if (!warm_up || ended) Save();
    if (!ended) return;
    progress_.End();
    Print("{}: {}\n", job.row.Text(),
          job.row.failed.empty()
              ? fmt::format("{} hops, online {} an image, offline and online {}", job.row.hops,
                            report::FormatSeconds(job.row.OnlineMs().median / 1000),
                            report::FormatSeconds(job.row.TotalMs().median / 1000))
              : "failed: " + job.row.failed);
    FlushOutput();
  }

  // One run, whose figures it adds. The first run of a setting is compared with the plain network.
  void Measure(BenchRow& row, const BenchSubject& subject, bool warm_up) {
    const auto report = machines_->Run(row, subject, warm_up);
    if (report.images != row.images)
      throw Error(fmt::format("{} has {} images, {} are needed", subject.from.images.string(),
                              report.images, row.images));
    row.hops = report.online_hops;
    row.offline_bytes = report.offline_bytes;
    row.online_bytes = report.online_bytes;
    row.kernels = report.kernels;
    for (const double memory : report.peak_memory_mb)
      row.peak_memory_mb = std::max(row.peak_memory_mb, memory);
    if (!warm_up) row.runs.push_back({report.offline_s, report.online_s, report.wall_s});
  }

  // From the same setting on link none, where `auto` chose the same there, which its bytes show.
  void Predict(const nn::IntegerNetwork& model, std::size_t first) {
    for (std::size_t k = first; k < results_.rows.size(); ++k) {
      auto& row = results_.rows[k];
      const auto unshaped =
          std::find_if(results_.rows.begin(), results_.rows.end(), [&](const BenchRow& other) {
            auto same = row;
            same.link = "none";
            return other.SameSetting(same) && !other.runs.empty();
          });
      if (row.link == "none" || row.schedule != "in-turn" || row.runs.empty() ||
          unshaped == results_.rows.end() || unshaped->offline_bytes != row.offline_bytes ||
          unshaped->online_bytes != row.online_bytes)
        continue;
      auto network = model.net;
      if (options_.WeightsArePublic()) network.linear = mpc::kPublicLinear;
      const auto suite = ParseSuite(row.suite, registry_);
      const auto link = ParseLink(row.link, "--links");
      const auto roles = machines_->Roles();
      ResolveAuto(network, registry_, suite, link, infer::Objective::kOnline, roles, row.batch);
      const auto plan = infer::MakePlan(network, registry_, suite, roles, row.batch);
      const double query_ns = 1e6 * static_cast<double>(row.batch);
      const auto time = infer::LinkTime(plan.Total(), link,
                                        {std::llround(unshaped->OfflineMs().median * query_ns),
                                         std::llround(unshaped->OnlineMs().median * query_ns)});
      row.predicted_offline_ms = static_cast<double>(time.offline_ns) / query_ns;
      row.predicted_online_ms = static_cast<double>(time.online_ns) / query_ns;
    }
  }

  void ShowProgress(const BenchRow& row) {
    std::size_t done = 0, all = 0, timed = 0;
    double seconds = 0;
    for (const auto& network : networks_)
      for (const auto& group : network.groups)
        for (const auto& job : group) {
          all += RunsEach();
          done += job.finished;
          if (job.seconds > 0) timed += job.finished;
          seconds += job.seconds;
        }
    progress_.Show(fmt::format(
        "run {} of {}{}: {}", done + 1, all,
        timed > 0 ? fmt::format(", about {} left",
                                report::FormatSeconds(seconds / static_cast<double>(timed) *
                                                      static_cast<double>(all - done)))
                  : "",
        row.Text()));
  }

  // With what a resumed bench has not come to, or was not asked for again.
  void Save() {
    auto all = results_;
    all.rows.insert(all.rows.end(), earlier_.rows.begin(), earlier_.rows.end());
    const std::string json = ToJson(all), csv = ToCsv(all), markdown = ToMarkdown(all);
    WriteFiles(std::vector<Output>{{out_ / "results.json", json},
                                   {out_ / "results.csv", csv},
                                   {out_ / "results.md", markdown}});
  }

  void DrawCharts() const {
    const auto script = SharedFolder("scripts") / "plot";
    if (!fs::exists(script)) {
      PrintWarning("no charts: scripts/plot is not there");
      return;
    }
    const auto end = RunProgram({script.string(), (out_ / "results.json").string()}, {});
    if (end.status == kExitOk) {
      Print("charts are there too\n");
    } else {
      PrintWarning(fmt::format("no charts: {}", end.err.empty()
                                                    ? fmt::format("status {}", end.status)
                                                    : end.err.substr(0, end.err.find('\n'))));
    }
  }

  const mpc::Registry registry_ = BuiltinProtocols();
  const BenchOptions options_;
  const fs::path out_;
  const bool charts_;
  std::unique_ptr<BenchMachines> machines_;
  BenchResults results_, earlier_;
  std::vector<Network> networks_;
  ProgressLine progress_;
};

int RunBench(const BenchArguments& arguments) {
  return Bench(arguments, OptionsOf(arguments)).Run();
}

// What is measured: the options that a run file may say, too. Returns --transport. `a` outlives the
// command.
CLI::Option* AddSettings(CLI::App& command, BenchArguments& a) {
  BenchOptions& line = a.line;
  const auto given = [&](CLI::Option* option, auto field) {
    a.given.emplace_back(option,
                         [&a, field](BenchOptions& options) { options.*field = a.line.*field; });
    return option;
  };
  given(command.add_option("--images", line.images,
                           "Images for all networks named here, and for those of the run file that "
                           "name none; without, random ones"),
        &BenchOptions::images);
  given(command.add_option("--labels", line.labels, "Their labels, for the accuracy"),
        &BenchOptions::labels);
  for (auto& [option, take] : AddDataOptions(command, line.data))
    a.given.emplace_back(
        option, [&a, take = take](BenchOptions& options) { take(options.data, a.line.data); });
  given(OfferSuites(AddList(command, "--suites", line.suites, "Suites (see tercet suites)")),
        &BenchOptions::suites);
  given(OfferLinks(AddList(command, "--links", line.links, "Links")), &BenchOptions::links);
  given(AddNumbers(command, "--batches", line.batches, 1, kMaxBatch, "Images a query"),
        &BenchOptions::batches);
  given(AddList(command, "--schedules", line.schedules,
                "How queries follow each other: in-turn, helper-leaves, rotate-helper, ahead=K or "
                "in-flight=K, as the options of tercet run"),
        &BenchOptions::schedules);
  given(AddNumber(command, "--repetitions", line.repetitions, 1, 1000,
                  "Counted runs of each setting, after one that warms up"),
        &BenchOptions::repetitions);
  given(AddNumber(
            command, "--queries", line.queries, 1, 1000,
            "Queries in a run of batch 1; 2 of larger batches, and at least 4 K with a K above"),
        &BenchOptions::queries);
  given(AddNumber(command, "--accuracy-limit", line.accuracy_limit, 1, kMaxImages,
                  "Take the accuracy of the first N images"),
        &BenchOptions::accuracy_limit);
  given(command.add_flag_callback(
            kPublicWeights, [&line] { line.weights = mpc::kPublicLinear; },
            "The models are no secret: their owner tells all parties the weights"),
        &BenchOptions::weights);
  return given(
      command
          .add_option("--transport", line.transport, "tls, tcp-insecure, or memory (three threads)")
          ->check(CLI::IsMember({"tls", "tcp-insecure", "memory"}))
          ->capture_default_str(),
      &BenchOptions::transport);
}

}  // namespace

void AddBenchCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "bench", "Time networks, suites, links and batches with many runs, in one table");
  auto a = std::make_shared<BenchArguments>();
  command->add_option("networks", a->networks, "Architectures: paths, or names in the folder nets");
  command->add_option(
      "--config", a->config,
      "A run file (configs/bench/*.json); what the command line says goes before it");
  command->add_option(
      "--model", a->model,
      "For all networks named here: float weights, a compiled model or random[:SEED] "
      "[NAME.compiled.safetensors beside the network, else random]");
  auto* transport = AddSettings(*command, *a);
  auto* testbed =
      command
          ->add_option("--testbed", a->testbed,
                       "Measure over the machines of a testbed file, whose parties have \"bench\": "
                       "this program starts `tercet-party bench` there for each run, tells it "
                       "network, model and images, and learns the results")
          ->excludes(transport);
  command
      ->add_option("--remote-shell", a->remote_shell,
                   "The program, with its options, that is given a login and a command for it")
      ->needs(testbed)
      ->capture_default_str();
  command
      ->add_option("--out", a->out,
                   "Folder for results.md, .csv and .json, which are whole after every run, and "
                   "charts")
      ->capture_default_str();
  command->add_flag("--resume", a->resume,
                    "Go on where a bench into this folder was stopped; what failed is tried again");
  command->add_flag("--no-charts", a->no_charts, "Draw no charts (scripts/plot, matplotlib)");
  command->footer(
      "Example:\n"
      "  tercet bench mnistnet1 mnistnet3 nets/li1.json --suites lut,fss,auto --links none,lan,wan "
      "--batches 1,128 --out results\n"
      "  tercet bench --config configs/bench/cbnn1.json --out results-cbnn1\n"
      "  tercet bench --config configs/bench/cbnn1.json --testbed testbed.json --out "
      "results-testbed");
  command->callback([a, &chosen] { chosen = [a] { return RunBench(*a); }; });
}

}  // namespace tercet::programs
