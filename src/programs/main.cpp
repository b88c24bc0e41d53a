// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "import/import_command.h"
#include "predict/predict_command.h"
#include "programs/commands.h"
#include "programs/completion.h"
#include "programs/failure.h"
#include "programs/options.h"
#include "train/train_command.h"

namespace {

namespace programs = tercet::programs;

int Main(int argc, char** argv) {
  CLI::App cli(
      "Tercet: secure inference by three parties for binarized and other small neural networks.",
      "tercet");
  cli.set_version_flag("--version", "tercet " TERCET_VERSION);
  cli.require_subcommand(1);
  programs::Chosen chosen;
  programs::AddRunCommand(cli, chosen);
  programs::AddBenchCommand(cli, chosen);
  programs::AddJoinCommand(cli, chosen);
  programs::AddPlanCommand(cli, chosen);
  programs::AddPlainCommand(cli, chosen);
  programs::AddCompileCommand(cli, chosen);
  programs::AddCustomiseCommand(cli, chosen);
  tercet::train::AddTrainCommand(cli, chosen);
  tercet::importer::AddImportCommand(cli, chosen);
  programs::AddKeygenCommand(cli, chosen);
  programs::AddCertificateCommand(cli, chosen);
  programs::AddSuitesCommand(cli, chosen);
  programs::AddDrawDigitsCommand(cli, chosen);
  programs::AddPublishCommand(cli, chosen);
  tercet::client::AddPredictCommand(cli, chosen);
  tercet::client::AddLoadCommand(cli, chosen);
  programs::AddCompletionCommand(cli, chosen);
  // A command takes over what is there when it is added.
  cli.footer(
      "Example, three parties on this machine:\n"
      "  tercet run nets/mnistnet1.json --model nets/mnistnet1.safetensors --images "
      "t10k-images-idx3-ubyte.gz\n"
      "         --labels t10k-labels-idx1-ubyte.gz --limit 1000\n"
      "`tercet COMMAND --help` explains a command. Exit status: 0 done, 1 the run failed, 2 wrong "
      "usage or input, 141 done, but the reader of the output left.\n"
      "Neither program leaves a core dump or lets a debugger in, since its memory holds keys and "
      "shares; TERCET_CORE_DUMPS=1 in the environment allows both.");
  return programs::ParseAndRun(cli, argc, argv,
                               [&] { return chosen ? chosen() : programs::kExitOk; });
}

}  // namespace

int main(int argc, char** argv) {
  return tercet::programs::GuardedMain("tercet", [&] { return Main(argc, argv); });
}
