// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string_view>
#include <thread>

#include "programs/auto_suite.h"
#include "programs/completion.h"
#include "programs/events.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/party_bench.h"
#include "programs/party_run.h"
#include "programs/process.h"
#include "serve/serve_command.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::programs {
namespace {

constexpr const char* kProgram = "tercet-party";
constexpr std::size_t kMaxOptionsBytes = 1 << 20;

void AddOptions(CLI::App& app, PartyArguments& a) {
  AddParty(app, "--id", a.id, "This party's number")->required();
  app.add_option("--testbed", a.testbed, "Where the parties run (configs/*.json)")->required();
  app.add_option("--network", a.network, "Architecture (nets/*.json), the same at all parties")
      ->required();
  app.add_option("--model", a.model.file,
                 "Compiled model or float weights, or random[:SEED]; at the model's owner only");
  AddCalibration(app, a.model);
  app.add_option("--images", a.images, fmt::format("{}; at the images' owner only", kImageFormats));
  app.add_option(
      "--labels", a.labels,
      "Labels, for the accuracy; at the receiver only. Files of images that hold labels, where "
      "it has them, need none");
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
  PartyArguments arguments;
  CLI::App app(
      "One party of secure inference, for testbeds of real hosts. See `tercet run` for three on "
      "one machine, `tercet-party serve --help` for a server of a prediction service, "
      "`tercet-party token --help` for its clients' tokens, and `tercet-party bench --help` for "
      "benchmarks.",
      kProgram);
  app.set_version_flag("--version", "tercet-party " TERCET_VERSION);
  Chosen chosen;
  bool is_bench = false;
  serve::AddServeCommands(app, chosen);
  AddBenchParty(app, arguments, is_bench);
  AddCompletionCommand(app, chosen);
  AddOptions(app, arguments);
  const bool is_party = !BeginsWithCommand(app, argc, argv) || argv[1] == std::string_view("bench");
  // A thread of its own waits for the signals; all others leave them alone.
  const sigset_t signals = StopSignals();
  if (is_party) ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return ParseAndRun(app, argc, argv, [&] {
    if (chosen) return chosen();
    if (is_bench) arguments.report_fd = STDOUT_FILENO;
    std::unique_ptr<EventPipe> launcher;
    if (arguments.report_fd >= 0) launcher = std::make_unique<EventPipe>(arguments.report_fd);
    // Outlives this function: the waiting thread ends with the process only.
    auto process = std::make_shared<PartyProcess>(launcher.get());
    std::thread([process, signals] {
      for (int number = 0; ::sigwait(&signals, &number) == 0;) process->Stop(SignalText(number));
    }).detach();
    try {
      return is_bench ? RunBenchParty(arguments, *launcher, process)
                      : RunParty(arguments, launcher.get(), *process);
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
