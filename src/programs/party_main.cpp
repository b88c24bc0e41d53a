// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <memory>
#include <thread>
#include <utility>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "programs/auto_suite.h"
#include "programs/cost_table.h"
#include "programs/events.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/process.h"
#include "programs/run_options.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/infer/session.h"
#include "tercet/infer/testbed.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/net/tcp_link.h"
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

std::chrono::sys_seconds Now() {
  return std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
}

void CheckOwner(bool given, bool owner, const char* option, int id, const char* what) {
  if (owner && !given)
    throw ConfigError(option, fmt::format("party {} owns {}, so it must be given", id, what));
  if (!owner && given)
    throw ConfigError(option, fmt::format("party {} does not own {}; leave it out", id, what));
}

// Takes the suite from the material, and the batch where it was not given, and compares the rest.
// Whether the helper takes part.
bool UseMaterial(const Arguments& arguments, const infer::MaterialFile& material,
                 infer::SessionSettings& settings, const mpc::Registry& registry) {
  const auto asked = settings.suite;
  settings.suite = mpc::ParseSuiteChoice(material.Header().suite, material.File().string());
  if (!arguments.batch_given) settings.batch = material.Header().batch;
  CheckMaterial(material, settings);
  if (arguments.suite_given)
    CheckMaterialSuite(material, settings.spec, registry, asked, settings.link,
                       infer::ParseObjective(arguments.optimise, "--optimise"));
  const bool helper_acts = material.MakePlan(settings.spec, registry).HelperActsOnline();
  if (!helper_acts && settings.id == settings.roles.helper)
    throw ConfigError("--material",
                      fmt::format("party {}, the helper, has no part in the online phase of this "
                                  "plan; start the other two alone",
                                  settings.id));
  return helper_acts;
}

int RunParty(const Arguments& arguments, Process& process, EventPipe* launcher) {
  const int id = *arguments.id;
  const bool quiet = launcher != nullptr;
  if (quiet) {
    spdlog::set_level(spdlog::level::err);
  } else {
    spdlog::set_default_logger(spdlog::stderr_color_mt("party"));
    spdlog::set_pattern(Named(fmt::format("%T party {}: %v", id)));
  }
  if (!arguments.json.empty()) CheckWritable(arguments.json, "--json");
  const mpc::Registry registry = BuiltinProtocols();
  const infer::Testbed testbed = infer::LoadTestbed(arguments.testbed, id);
  // The certificates of `tercet run` live as long as the run: nobody renews them.
  std::vector<std::string> warnings;
  const auto warn = [&](const std::string& text) {
    if (!quiet) PrintWarning(text);
    warnings.push_back(text);
  };
  const auto warn_of_expiry = [&](const crypto::Certificate& certificate) {
    if (quiet) return;
    if (const auto warning = crypto::ExpiryWarning(certificate, Now())) warn(*warning);
  };
  if (testbed.tls) warn_of_expiry(infer::CheckOwnCertificate(*testbed.tls, id, Now()));

  std::optional<infer::MaterialFile> material;
  if (arguments.UsesMaterial()) {
    if (id == testbed.roles.helper && !std::filesystem::exists(arguments.material))
      throw ConfigError(
          "--material",
          fmt::format(
              "{} is not there; where party {}, the helper, has no part in the online phase, "
              "it has no material: start the other two alone",
              arguments.material.string(), id));
    material.emplace(arguments.material, arguments.Place());
  }
  auto settings = arguments.Settings(id, nn::LoadNetwork(arguments.network),
                                     ParseSuite(arguments.suite, registry), testbed.roles,
                                     material ? &*material : nullptr);
  bool helper_acts = true;
  if (material) {
    helper_acts = UseMaterial(arguments, *material, settings, registry);
    if (!arguments.model.file.empty())
      throw ConfigError("--model", "the material holds the shares of its model; leave it out");
  }
  const bool makes_material = arguments.MakesMaterial();
  if (makes_material) {
    if (arguments.queries == 0) throw ConfigError("--queries", "must be given with --material-out");
    CheckWritable(arguments.material_out, "--material-out");
    if (std::filesystem::exists(arguments.material_out))
      throw ConfigError("--material-out",
                        fmt::format("{} exists already; material is never overwritten",
                                    arguments.material_out.string()));
  }

  const bool owns_model = id == testbed.roles.model_owner && !material,
             owns_images = id == testbed.roles.data_owner && !makes_material;
  const bool receives = id == testbed.roles.receiver;
  CheckOwner(!arguments.model.file.empty(), owns_model, "--model", id, "the model");
  if (makes_material && !arguments.images.empty())
    throw ConfigError("--images", "material is made without images; leave it out");
  CheckOwner(!arguments.images.empty(), owns_images, "--images", id, "the images");
  if (makes_material && !arguments.labels.empty())
    throw ConfigError("--labels", "material is made without images; leave it out");
  if (!arguments.labels.empty() && !receives)
    throw ConfigError(
        "--labels",
        fmt::format("party {} does not receive the result (party {} does); leave it out", id,
                    testbed.roles.receiver));
  std::optional<nn::IntegerNetwork> model;
  LabelledImages data;
  if (owns_model) {
    model = LoadModel(settings.spec, arguments.model, registry,
                      [](const std::string& line) { spdlog::info(line); });
    for (const auto& warning : model->warnings) warn(warning);
    ResolveAuto(model->net, registry, settings.suite, settings.link,
                infer::ParseObjective(arguments.optimise, "--optimise"), settings.roles,
                settings.batch);
    settings.model = &*model;
  }
  const bool labelled = !arguments.labels.empty();
  if (owns_images && labelled) {
    data = LoadLabelledImages(arguments.images, arguments.labels, arguments.limit, settings.spec);
  } else if (owns_images) {
    data.images = files::LoadImages(arguments.images, arguments.limit, settings.spec.input.shape);
  } else if (labelled) {
    data.labels = files::LoadLabels(arguments.labels, arguments.limit, settings.spec.Classes());
  }
  if (owns_images) settings.images = &data.images;

  settings.stall_timeout = testbed.stall_timeout;
  net::TcpOptions tcp = testbed.Tcp(id);
  if (arguments.listen_fd >= 0) tcp.listen_fd = arguments.listen_fd;
  if (!helper_acts) tcp.absent = testbed.roles.helper;
  tcp.agreement = infer::Agreement(settings);
  tcp.on_wait = [](const std::string& line) { spdlog::info(line); };
  tcp.on_peer = [&](int, const crypto::Certificate& certificate) { warn_of_expiry(certificate); };
  tcp.on_warning = settings.on_warning = warn;
  if (!testbed.tls)
    warn("transport tcp-insecure: nothing is encrypted, and nobody proves who they are");

  bool warned = false;
  settings.on_images = [&](std::size_t count) {
    // Each party's own arguments are right by themselves, so this is no wrong usage of this one.
    if (labelled && data.labels.size() != count)
      throw ProtocolError(
          fmt::format("--labels: {} labels found, {} expected, one for each image of party {}",
                      data.labels.size(), count, settings.roles.data_owner));
  };
  settings.on_plan = [&](const infer::Plan& plan, std::size_t count) {
    if (quiet) return;
    if (!std::exchange(warned, true))
      for (const auto& warning : plan.Warnings(registry)) warn(warning);
    const bool rotates = arguments.rotate_dealer;
    Print("{} images in {} of {}; {}; cost of one {}:\n\n{}\n", count,
          rotates ? "groups" : "batches", plan.batch, mpc::RolesText(plan.roles),
          rotates ? "group" : "batch", DescribePlan(plan, nullptr, report::Utf8Locale()));
    if (makes_material && id == plan.roles.helper && !plan.HelperActsOnline())
      Print("This party, the helper, has no part online: it writes no file.\n");
    FlushOutput();
  };
  settings.on_delivered = [](std::size_t queries) {
    spdlog::info("the material of all {} queries is delivered; the helper is not needed any more",
                 queries);
  };
  auto last = std::chrono::steady_clock::now();
  settings.on_progress = [&, launcher](std::size_t done, std::size_t total) {
    if (launcher != nullptr) {
      launcher->Send(ProgressEvent{done, total});
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (now - last < std::chrono::seconds(1)) return;
    last = now;
    spdlog::info("{} of {} images done", done, total);
  };

  infer::Session session(settings, registry);
  process.Attach(&session);
  infer::PartyReport report;
  try {
    tcp.interrupted = [&] { return session.Stopped(); };
    report = session.Run([&] { return net::ConnectTcp(tcp); });
    report.warnings = std::move(warnings);
  } catch (...) {
    process.Detach();
    throw;
  }
  process.Detach();

  if (launcher != nullptr) {
    launcher->Send(ReportEvent{report::ToJson(report)});
    return kExitOk;
  }
  Print("{}", report::Describe(report, report::Utf8Locale()));
  if (receives && !makes_material) {
    const auto predictions = nn::Predictions(report.logits, report.classes);
    if (!labelled) {
      Print("\npredictions: {}\n", fmt::join(predictions, " "));
    } else {
      const std::size_t correct = CountCorrect(predictions, data.labels);
      Print("\naccuracy: {:.2f} % ({} of {} images)\n",
            100.0 * static_cast<double>(correct) / static_cast<double>(data.labels.size()), correct,
            data.labels.size());
    }
  }
  // Last, so that a disk that is full does not lose what has been computed.
  FlushOutput();
  if (!arguments.json.empty())
    WriteFile(arguments.json, report::ToJson(report), FileRights::kOwner);
  return kExitOk;
}

void AddOptions(CLI::App& app, Arguments& a) {
  AddParty(app, "--id", a.id, "This party's number")->required();
  app.add_option("--testbed", a.testbed, "Where the parties run (configs/*.json)")->required();
  app.add_option("--network", a.network, "Architecture (nets/*.json), the same at all parties")
      ->required();
  app.add_option("--model", a.model.file,
                 "Compiled model or float weights; at the model's owner only");
  AddCalibration(app, a.model);
  app.add_option(
      "--images", a.images,
      "IDX, .npy, CIFAR-10 .bin or bytes .u8, also .gz or .xz; at the images' owner only");
  app.add_option("--labels", a.labels, "Labels, for the accuracy; at the receiver only");
  AddNumber(app, "--limit", a.limit, 1, kMaxImages,
            "Use the first N images only; at the owner of images and labels");
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
  app.add_option("--link", a.link,
                 "Delay what is sent: none, lan, wan or rtt_ms=X,mbit=Y; the same at all parties")
      ->capture_default_str();
  app.add_option("--json", a.json, "Write this party's report");
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

int Main(int argc, char** argv) {
  // A thread of its own waits for the signals; all others leave them alone.
  const sigset_t signals = StopSignals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Arguments arguments;
  CLI::App app(
      "One party of secure inference, for testbeds of real hosts. See `tercet run` for three on "
      "one machine.",
      kProgram);
  app.set_version_flag("--version", "tercet-party " TERCET_VERSION);
  AddOptions(app, arguments);
  return ParseAndRun(app, argc, argv, [&] {
    std::unique_ptr<EventPipe> launcher;
    if (arguments.report_fd >= 0) launcher = std::make_unique<EventPipe>(arguments.report_fd);
    // Outlives this function: the waiting thread ends with the process only.
    auto process = std::make_shared<Process>(launcher.get());
    std::thread([process, signals] {
      for (int number = 0; ::sigwait(&signals, &number) == 0;) process->OnSignal(number);
    }).detach();
    try {
      return RunParty(arguments, *process, launcher.get());
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
