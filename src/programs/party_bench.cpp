// SPDX-License-Identifier: Apache-2.0
#include "programs/party_bench.h"

#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>

#include "programs/bench_order.h"
#include "programs/build_identity.h"
#include "programs/options.h"
#include "tercet/base/error.h"

namespace tercet::programs {
namespace {

// Whatever comes behind an order, its end or more, the controller does not want this run any more.
void StopWithController(const std::shared_ptr<PartyProcess>& process) {
  std::thread([process] {
    char byte = 0;
    while (::read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR) {
    }
    process->Stop("stopped by `tercet bench`, or cut off from it");
  }).detach();
}

}  // namespace

void AddBenchParty(CLI::App& app, PartyArguments& arguments, bool& asked) {
  auto* command = app.add_subcommand(
      "bench",
      "One party of `tercet bench --testbed`, which starts it through a remote shell for each run, "
      "tells it network, model or images and settings on standard input, and reads its report from "
      "standard output. It reads no other file than the testbed and its keys, and writes none");
  AddParty(*command, "--id", arguments.id, "This party's number")->required();
  command
      ->add_option("--testbed", arguments.testbed,
                   "Where the parties run (configs/*.json), with this party's keys")
      ->required();
  command->add_option("--listen-fd", arguments.listen_fd, "A socket that listens already")
      ->group("");
  command->footer(
      "Example, in authorized_keys: a key that can do nothing else here\n"
      "  restrict,command=\"/usr/bin/tercet-party bench --id 1 --testbed "
      "/etc/tercet/testbed.json\" "
      "ssh-ed25519 AAAA...");
  command->callback([&asked] {
    if (::isatty(STDIN_FILENO) != 0)
      throw ConfigError("standard input",
                        "is a terminal; `tercet bench --testbed` starts this command and tells it "
                        "what to run");
    asked = true;
  });
}

int RunBenchParty(PartyArguments arguments, EventPipe& controller,
                  const std::shared_ptr<PartyProcess>& process) {
  const BenchOrder order = ReadBenchOrder(STDIN_FILENO);
  if (order.describe) {
    controller.Send(ReportEvent{ToJson(OwnIdentity())});
    return kExitOk;
  }
  static_cast<RunOptions&>(arguments) = order.options;
  arguments.network = order.network->Path();
  if (order.model) arguments.model.file = order.model->Path();
  if (order.images) arguments.images = order.images->Path();
  StopWithController(process);
  return RunParty(arguments, &controller, *process);
}

}  // namespace tercet::programs
