// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "base/clock.h"
#include "programs/auto_suite.h"
#include "programs/completion.h"
#include "programs/cost_table.h"
#include "programs/events.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/process.h"
#include "programs/run_options.h"
#include "programs/shard_options.h"
#include "serve/serve_command.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/infer/session.h"
#include "tercet/infer/testbed.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/net/tcp_link.h"
#include "tercet/nn/data_options.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

constexpr const char* kProgram = "tercet-party";
constexpr std::size_t kMaxOptionsBytes = 1 << 20;
// From a signal to the end: enough for the peers to be told.
constexpr auto kSignalGrace = std::chrono::milliseconds(1500);

struct Arguments : RunOptions {
  Arguments() { ahead = 1; }
  std::optional<int> id;
  std::filesystem::path testbed, json;
  int listen_fd = -1, report_fd = -1;
  ShardOptions shard;
};

// The run as a signal sees it: what to stop, and where to say so.
class Process {
 public:
  explicit Process(EventPipe* launcher) : launcher_(launcher) {}

  void Attach(infer::Session* session) {
    const std::lock_guard lock(mutex_);
    session_ = session;
  }
  // What is left is to write the results, or to say why there are none.
  void Detach() {
    const std::lock_guard lock(mutex_);
    session_ = nullptr;
    done_ = true;
  }
  // The peers are told, and the process ends soon even where the main thread hangs in output that
  // nobody reads.
  void OnSignal(int number) {
    const std::string reason = SignalText(number);
    if (!std::exchange(asked_, true)) EndSoon(kSignalGrace, reason);
    const std::lock_guard lock(mutex_);
    if (done_) return;
    if (session_ != nullptr) {
      session_->Stop(reason);
      return;
    }
    // Nobody is there yet who would have to be told, and reading files cannot be cut short.
    Tell({FailureKind::kOwn, reason});
    ::_exit(kExitFailed);
  }
  void Tell(const Failure& failure) {
    if (launcher_ != nullptr) {
      launcher_->Send(failure);
    } else {
      PrintError(failure.text);
    }
  }

 private:
  std::mutex mutex_;
  EventPipe* launcher_;
  infer::Session* session_ = nullptr;
  bool done_ = false;
  bool asked_ = false;  // of the thread that waits for signals
};

void CheckOwner(bool given, bool owner, const char* option, int id, const char* what) {
  if (owner && !given)
    throw ConfigError(option, fmt::format("party {} owns {}, so it must be given", id, what));
  if (!owner && given)
    throw ConfigError(option, fmt::format("party {} does not own {}; leave it out", id, what));
}

// One party's part in a run, from its arguments to its report.
class PartyRun {
 public:
  // Loads and checks what this party brings, before anybody else is asked.
  PartyRun(const Arguments& arguments, EventPipe* launcher)
      : arguments_(arguments), launcher_(launcher), id_(*arguments.id) {
    StartLog();
    if (!json_.empty()) CheckWritable(json_, "--json");
    testbed_ = infer::LoadTestbed(arguments_.testbed, id_, arguments_.shard.Index());
    if (testbed_.tls) WarnOfExpiry(infer::CheckOwnCertificate(*testbed_.tls, id_, Now()));
    if (arguments_.UsesMaterial()) OpenMaterial();
    settings_ = arguments_.Settings(id_, nn::LoadNetwork(arguments_.network),
                                    ParseSuite(arguments_.suite, registry_), testbed_.roles,
                                    material_ ? &*material_ : nullptr);
    settings_.stall_timeout = testbed_.stall_timeout;
    if (material_) UseMaterial();
    if (arguments_.MakesMaterial()) CheckMaterialOut();
    if (arguments_.shard.shard) UseShard();
    CheckOwners();
    LoadInput();
    SetCallbacks();
  }
  // `settings_` refers to the rest.
  PartyRun(const PartyRun&) = delete;
  PartyRun& operator=(const PartyRun&) = delete;

  int Run(Process& process) {
    net::TcpOptions tcp = Connection();
    infer::Session session(settings_, registry_);
    process.Attach(&session);
    infer::PartyReport report;
    try {
      tcp.interrupted = [&] { return session.Stopped(); };
      report = session.Run([&] { return net::ConnectTcp(tcp); });
      report.warnings = std::move(warnings_);
      if (HasLabels() && report.presence != infer::kWasDone)
        report.correct = CountCorrect(nn::Predictions(report.logits, report.classes), data_.labels);
    } catch (...) {
      process.Detach();
      throw;
    }
    process.Detach();
    Tell(report);
    return kExitOk;
  }

 private:
  bool OwnsModel() const { return id_ == testbed_.roles.model_owner && !material_; }
  bool OwnsImages() const {
    return id_ == testbed_.roles.data_owner && !arguments_.MakesMaterial();
  }
  bool Receives() const { return id_ == testbed_.roles.receiver; }
  bool HasLabels() const { return !arguments_.labels.empty(); }
  infer::Objective Objective() const {
    return infer::ParseObjective(arguments_.optimise, "--optimise");
  }

  void StartLog() const {
    if (launcher_ != nullptr) {
      spdlog::set_level(spdlog::level::err);
    } else {
      spdlog::set_default_logger(spdlog::stderr_color_mt("party"));
      spdlog::set_pattern(Named(fmt::format("%T party {}: %v", id_)));
    }
  }

  void Warn(const std::string& text) {
    if (launcher_ == nullptr) PrintWarning(text);
    warnings_.push_back(text);
  }
  // The certificates of `tercet run` live as long as the run: nobody renews them.
  void WarnOfExpiry(const crypto::Certificate& certificate) {
    if (launcher_ != nullptr) return;
    if (const auto warning = crypto::ExpiryWarning(certificate, Now())) Warn(*warning);
  }

  void OpenMaterial() {
    if (id_ == testbed_.roles.helper && !std::filesystem::exists(arguments_.material))
      throw ConfigError(
          "--material",
          fmt::format(
              "{} is not there; where party {}, the helper, has no part in the online phase, "
              "it has no material: start the other two alone",
              arguments_.material.string(), id_));
    material_.emplace(arguments_.material, arguments_.Place());
  }

  // Takes the suite from the material, and the batch where it was not given, and compares the rest.
  void UseMaterial() {
    const auto asked = settings_.suite;
    settings_.suite = mpc::ParseSuiteChoice(material_->Header().suite, material_->File().string());
    std::string linear = arguments_.linear;
    TakeLinear(linear, *material_);
    settings_.linear = LinearProtocol(linear);
    if (!arguments_.batch_given) settings_.batch = material_->Header().batch;
    CheckMaterial(*material_, settings_);
    if (arguments_.suite_given)
      CheckMaterialSuite(*material_, settings_.spec, registry_, asked, settings_.link, Objective());
    helper_acts_ = material_->MakePlan(settings_.spec, registry_).HelperActsOnline();
    if (!helper_acts_ && id_ == settings_.roles.helper)
      throw ConfigError("--material",
                        fmt::format("party {}, the helper, has no part in the online phase of this "
                                    "plan; start the other two alone",
                                    id_));
    if (!arguments_.model.file.empty())
      throw ConfigError("--model", "the material holds the shares of its model; leave it out");
  }

  void CheckMaterialOut() const {
    if (arguments_.queries == 0)
      throw ConfigError("--queries", "must be given with --material-out");
    CheckWritable(arguments_.material_out, "--material-out");
    if (std::filesystem::exists(arguments_.material_out))
      throw ConfigError("--material-out",
                        fmt::format("{} exists already; material is never overwritten",
                                    arguments_.material_out.string()));
    if (!arguments_.images.empty())
      throw ConfigError("--images", "material is made without images; leave it out");
    if (HasLabels()) throw ConfigError("--labels", "material is made without images; leave it out");
  }

  void CheckOwners() const {
    CheckOwner(!arguments_.model.file.empty(), OwnsModel(), "--model", id_, "the model");
    CheckOwner(!arguments_.images.empty(), OwnsImages(), "--images", id_, "the images");
    if (HasLabels() && !Receives())
      throw ConfigError(
          "--labels",
          fmt::format("party {} does not receive the result (party {} does); leave it out", id_,
                      testbed_.roles.receiver));
  }

  void LoadInput() {
    if (OwnsModel()) {
      model_ = LoadModel(settings_.spec, arguments_.model, registry_,
                         [](const std::string& line) { spdlog::info(line); });
      model_->net.linear = settings_.linear;
      for (const auto& warning : model_->warnings) Warn(warning);
      ResolveAuto(model_->net, registry_, settings_.suite, settings_.link, Objective(),
                  settings_.roles, settings_.batch);
      settings_.model = &*model_;
      if (settings_.shard)
        settings_.shard->model_tag = TagOf("model " + compile::CompiledDigest(*model_));
    }
    const auto& a = arguments_;
    const auto options = nn::WithInput(a.model.data, settings_.spec.input);
    if (OwnsImages() && HasLabels()) {
      data_ = LoadLabelledImages(a.images, a.labels, a.limit, settings_.spec, a.model.data);
    } else if (OwnsImages()) {
      data_.images = files::LoadImages(a.images, a.limit, settings_.spec.input.shape, options);
    } else if (HasLabels()) {
      data_.labels = files::LoadLabels(a.labels, a.limit, settings_.spec.Classes(), options);
    }
    if (!OwnsImages()) return;
    if (const auto warning = files::RangeWarning(data_.images)) Warn(*warning);
    settings_.images = &data_.images;
    if (!settings_.shard) return;
    settings_.shard->all_images = data_.images.count;
    settings_.shard->images_tag = TagOf("images " + ImagesDigest(data_.images));
    TakeShard(data_, settings_.shard->shard);
  }

  // The others learn whether two shards have the same model and images, and cannot tell by guessing
  // which those are.
  std::string TagOf(const std::string& text) const {
    return crypto::KeyedTag(testbed_.tls->key, text);
  }

  void UseShard() {
    if (!testbed_.tls)
      throw ConfigError("--shard",
                        "needs the transport tls, since the owners of model and images "
                        "mark them with their key");
    settings_.shard = {.shard = *arguments_.shard.shard};
    if (arguments_.shard.resume)
      settings_.shard->is_done = [this](const std::string& job) { return HasReportOf(job); };
  }

  bool HasReportOf(const std::string& job) const {
    if (!std::filesystem::exists(json_)) return false;
    try {
      const auto report =
          report::PartyReportFromJson(ReadTextFile(json_, kShardReport), json_.string());
      return report.party == id_ && IsDone(report, {settings_.shard->shard, all_images_, job, {}},
                                           Receives(), data_.labels);
    } catch (const ConfigError& e) {
      spdlog::info("no report of this shard, so it is made anew: {}", e.what());
      return false;
    }
  }

  net::TcpOptions Connection() {
    net::TcpOptions tcp = testbed_.Tcp(id_);
    if (arguments_.listen_fd >= 0) tcp.listen_fd = arguments_.listen_fd;
    if (!helper_acts_) tcp.absent = testbed_.roles.helper;
    tcp.agreement = infer::Agreement(settings_);
    tcp.on_wait = [](const std::string& line) { spdlog::info(line); };
    tcp.on_peer = [this](int, const crypto::Certificate& certificate) {
      WarnOfExpiry(certificate);
    };
    tcp.on_warning = settings_.on_warning;
    if (!testbed_.tls)
      Warn("transport tcp-insecure: nothing is encrypted, and nobody proves who they are");
    return tcp;
  }

  void SetCallbacks() {
    settings_.on_warning = [this](const std::string& text) { Warn(text); };
    settings_.on_images = [this](std::size_t count) {
      all_images_ = count;
      if (!HasLabels() || OwnsImages()) return;
      // Each party's own arguments are right by themselves, so this is no wrong usage of this one.
      if (data_.labels.size() != count)
        throw ProtocolError(
            fmt::format("--labels: {} labels found, {} expected, one for each image of party {}",
                        data_.labels.size(), count, settings_.roles.data_owner));
      if (settings_.shard) TakeShard(data_, settings_.shard->shard);
    };
    settings_.on_plan = [this](const infer::Plan& plan, std::size_t count) {
      if (launcher_ == nullptr) ShowPlan(plan, count);
    };
    settings_.on_delivered = [](std::size_t queries) {
      spdlog::info("the material of all {} queries is delivered; the helper is not needed any more",
                   queries);
    };
    settings_.on_progress = [this](std::size_t done, std::size_t total) {
      ShowProgress(done, total);
    };
  }

  void ShowPlan(const infer::Plan& plan, std::size_t count) {
    if (!std::exchange(warned_of_plan_, true)) {
      for (const auto& warning : plan.Warnings(registry_)) Warn(warning);
      start_ = Clock::now();
    }
    const bool rotates = arguments_.rotate_dealer;
    if (settings_.shard) Print("{}\n", ShardText(settings_.shard->shard, all_images_));
    Print("{} images in {} of {}; {}; cost of one {}:\n\n{}\n", count,
          rotates ? "groups" : "batches", plan.batch, mpc::RolesText(plan.roles),
          rotates ? "group" : "batch", DescribePlan(plan, nullptr, report::Utf8Locale()));
    if (arguments_.MakesMaterial() && id_ == plan.roles.helper && !plan.HelperActsOnline())
      Print("This party, the helper, has no part online: it writes no file.\n");
    FlushOutput();
  }

  void ShowProgress(std::size_t done, std::size_t total) {
    if (launcher_ != nullptr) {
      launcher_->Send(ProgressEvent{done, total});
      return;
    }
    const auto now = Clock::now();
    if (now - last_progress_ < std::chrono::seconds(1)) return;
    last_progress_ = now;
    const double left =
        Seconds(now - start_) * static_cast<double>(total - done) / static_cast<double>(done);
    spdlog::info("{} of {} images done{}", done, total,
                 done > 0 ? fmt::format(", {} left", report::FormatSeconds(left)) : "");
  }

  void Tell(const infer::PartyReport& report) const {
    if (launcher_ != nullptr) {
      launcher_->Send(ReportEvent{report::ToJson(report)});
      return;
    }
    if (report.presence == infer::kWasDone) {
      Print("{}: done already by all parties, see {}\n",
            ShardText(settings_.shard->shard, all_images_), json_.string());
      return;
    }
    Print("{}", report::Describe(report, report::Utf8Locale()));
    if (Receives() && !arguments_.MakesMaterial() && !HasLabels())
      Print("\npredictions: {}\n", fmt::join(nn::Predictions(report.logits, report.classes), " "));
    // Last, so that a disk that is full does not lose what has been computed.
    FlushOutput();
    if (!json_.empty()) WriteFile(json_, report::ToJson(report), FileRights::kOwner);
  }

  const Arguments& arguments_;
  EventPipe* const launcher_;  // null: this party speaks to a terminal
  const int id_;
  const std::filesystem::path json_ = arguments_.shard.ReportOf(arguments_.json);
  std::size_t all_images_ = 0;
  const mpc::Registry registry_ = BuiltinProtocols();
  std::vector<std::string> warnings_;
  infer::Testbed testbed_;
  std::optional<infer::MaterialFile> material_;
  bool helper_acts_ = true;
  std::optional<nn::IntegerNetwork> model_;
  LabelledImages data_;
  infer::SessionSettings settings_;
  bool warned_of_plan_ = false;
  Clock::time_point start_ = Clock::now(), last_progress_ = start_;
};

void AddOptions(CLI::App& app, Arguments& a) {
  AddParty(app, "--id", a.id, "This party's number")->required();
  app.add_option("--testbed", a.testbed, "Where the parties run (configs/*.json)")->required();
  app.add_option("--network", a.network, "Architecture (nets/*.json), the same at all parties")
      ->required();
  app.add_option("--model", a.model.file,
                 "Compiled model or float weights, or random[:SEED]; at the model's owner only");
  AddCalibration(app, a.model);
  app.add_option("--images", a.images, fmt::format("{}; at the images' owner only", kImageFormats));
  app.add_option("--labels", a.labels, "Labels, for the accuracy; at the receiver only");
  AddNumber(app, "--limit", a.limit, 1, kMaxImages,
            "Use the first N images only; at the owner of images and labels");
  AddDataOptions(app, a.model.data);
  AddBatchAndSuite(app, a, "Images a query; the same at all parties",
                   "Protocols of the non-linear layers; the same at all parties (see tercet "
                   "suites); with auto the model's owner chooses private ones");
  AddObjective(app, a.optimise);
  AddSchedule(app, a,
              "Make material for --queries queries, write it here, and stop; a helper without a "
              "part online has none. As secret as a key, and never to be copied: see --material",
              "Use this material; no offline messages, and no --model. Each query is used once; a "
              "copy is refused, since a query used from two copies gives the difference of the two "
              "inputs away");
  OfferLinks(app.add_option("--link", a.link, "Delay what is sent; the same at all parties")
                 ->capture_default_str());
  auto* json = app.add_option("--json", a.json, "Write this party's report");
  AddShard(app, a.shard, json);
  app.add_option_function<std::string>(
         "--options",
         [&a](const std::string& file) {
           static_cast<RunOptions&>(a) =
               RunOptionsFromJson(ReadTextFile(file, {"options of a run", kMaxOptionsBytes}), file);
         },
         "All options of a run, as tercet run writes them")
      ->group("");
  app.add_option("--listen-fd", a.listen_fd, "A socket that listens already")->group("");
  app.add_option("--report-fd", a.report_fd, "A pipe for the events of the run")->group("");
  app.footer(
      "Example, three terminals:\n"
      "  tercet keygen configs/certificates\n"
      "  tercet-party --id 0 --testbed configs/loopback.json --network nets/mnistnet1.json\n"
      "  tercet-party --id 1 --testbed configs/loopback.json --network nets/mnistnet1.json "
      "--images t10k-images-idx3-ubyte.gz\n"
      "  tercet-party --id 2 --testbed configs/loopback.json --network nets/mnistnet1.json --model "
      "nets/mnistnet1.safetensors\n"
      "No core dump is left and no debugger let in, since the memory holds keys and shares; "
      "TERCET_CORE_DUMPS=1 in the environment allows both.");
}

// Whether a command follows the program's name. It needs none of a party's options, and a party has
// no command.
bool BeginsWithCommand(CLI::App& app, int argc, char** argv) {
  bool begins = false;
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) {
    command->excludes(app.get_option("--id"));
    begins = begins || (argc > 1 && command->get_name() == argv[1]);
  }
  if (begins)
    for (CLI::Option* option : app.get_options([](CLI::Option*) { return true; }))
      option->required(false);
  return begins;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "One party of secure inference, for testbeds of real hosts. See `tercet run` for three on "
      "one machine, `tercet-party serve --help` for a server of a prediction service, and "
      "`tercet-party token --help` for its clients' tokens.",
      kProgram);
  app.set_version_flag("--version", "tercet-party " TERCET_VERSION);
  Chosen chosen;
  serve::AddServeCommands(app, chosen);
  AddCompletionCommand(app, chosen);
  AddOptions(app, arguments);
  const bool is_party = !BeginsWithCommand(app, argc, argv);
  // A thread of its own waits for the signals; all others leave them alone.
  const sigset_t signals = StopSignals();
  if (is_party) ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return ParseAndRun(app, argc, argv, [&] {
    if (chosen) return chosen();
    std::unique_ptr<EventPipe> launcher;
    if (arguments.report_fd >= 0) launcher = std::make_unique<EventPipe>(arguments.report_fd);
    // Outlives this function: the waiting thread ends with the process only.
    auto process = std::make_shared<Process>(launcher.get());
    std::thread([process, signals] {
      for (int number = 0; ::sigwait(&signals, &number) == 0;) process->OnSignal(number);
    }).detach();
    try {
      return PartyRun(arguments, launcher.get()).Run(*process);
    } catch (const std::exception& e) {
      process->Detach();
      const Failure failure = Classify(e);
      if (launcher == nullptr) throw;
      launcher->Send(failure);
      return ExitCode(failure.kind);
    }
  });
}

}  // namespace
}  // namespace tercet::programs

int main(int argc, char** argv) {
  return tercet::programs::GuardedMain(tercet::programs::kProgram,
                                       [&] { return tercet::programs::Main(argc, argv); });
}
