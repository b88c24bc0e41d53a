#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/options.h"
#include "tercet/base/error.h"
#ifdef TERCET_HAVE_IMPORT
#include "import/import_command.h"
#endif
#ifdef TERCET_HAVE_TRAIN
#include "train/train_command.h"
#endif

namespace {

namespace programs = tercet::programs;

/// Stands for the command of an optional component that this build lacks.
[[maybe_unused]] void AddMissing(CLI::App& cli, programs::Chosen& chosen, const std::string& name,
                                 const std::string& what, const std::string& remedy) {
  auto* command = cli.add_subcommand(name, what + " (not part of this build)");
  command->allow_extras();
  command->callback([=, &chosen] {
    chosen = [=]() -> int {
      throw tercet::UnsupportedError(
          fmt::format("this tercet was built without `{}`: {} and build again", name, remedy));
    };
  });
}

void AddTrain(CLI::App& cli, programs::Chosen& chosen) {
#ifdef TERCET_HAVE_TRAIN
  // Parsing runs the training, so nothing is left to be chosen.
  static_cast<void>(chosen);
  tercet::train::AddTrainCommand(cli);
#else
  AddMissing(cli, chosen, "train", "Train a network in the clear",
             "install libtorch (Debian: libtorch-dev; elsewhere set Torch_DIR), configure with "
             "-DTERCET_BUILD_TRAIN=ON");
#endif
}

void AddImport(CLI::App& cli, programs::Chosen& chosen) {
#ifdef TERCET_HAVE_IMPORT
  tercet::importer::AddImportCommand(cli, chosen);
#else
  AddMissing(cli, chosen, "import", "Make a network of an ONNX model",
             "install ONNX and protobuf (Debian: libonnx-dev, libprotobuf-dev), configure with "
             "-DTERCET_BUILD_IMPORT=ON");
#endif
}

int Main(int argc, char** argv) {
  CLI::App cli(
      "Tercet: secure inference by three parties for binarized and other small neural networks.",
      "tercet");
  cli.set_version_flag("--version", "tercet " TERCET_VERSION);
  cli.require_subcommand(1);
  cli.footer(
      "Example, three parties on this machine:\n"
      "  tercet run nets/mnistnet1.json --model nets/mnistnet1.safetensors --images "
      "t10k-images-idx3-ubyte.gz\n"
      "         --labels t10k-labels-idx1-ubyte.gz --limit 1000\n"
      "`tercet COMMAND --help` explains a command. Exit status: 0 done, 1 the run failed, 2 wrong "
      "usage or input, 141 done, but the reader of the output left.\n"
      "Neither program leaves a core dump or lets a debugger in, since its memory holds keys and "
      "shares; TERCET_CORE_DUMPS=1 in the environment allows both.");
  programs::Chosen chosen;
  programs::AddRunCommand(cli, chosen);
  programs::AddPlanCommand(cli, chosen);
  programs::AddPlainCommand(cli, chosen);
  programs::AddCompileCommand(cli, chosen);
  programs::AddCustomiseCommand(cli, chosen);
  AddTrain(cli, chosen);
  AddImport(cli, chosen);
  programs::AddKeygenCommand(cli, chosen);
  programs::AddCertificateCommand(cli, chosen);
  programs::AddSuitesCommand(cli, chosen);
  programs::AddDrawDigitsCommand(cli, chosen);
  return programs::ParseAndRun(cli, argc, argv,
                               [&] { return chosen ? chosen() : programs::kExitOk; });
}

}  // namespace

int main(int argc, char** argv) {
  return tercet::programs::GuardedMain("tercet", [&] { return Main(argc, argv); });
}
