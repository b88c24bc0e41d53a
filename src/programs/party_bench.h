// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

#include "programs/events.h"
#include "programs/party_run.h"

/// `tercet-party bench`: one party of a testbed that `tercet bench --testbed` drives.
namespace tercet::programs {

/// The command; `asked` becomes true where it is the one that is given.
void AddBenchParty(CLI::App& app, PartyArguments& arguments, bool& asked);

/// Takes one order from standard input and answers with events on `controller`. Where standard
/// input ends during the run, the controller has gone, and so has the reason to go on: `process` is
/// stopped. Throws as ReadBenchOrder and RunParty do.
int RunBenchParty(PartyArguments arguments, EventPipe& controller,
                  const std::shared_ptr<PartyProcess>& process);

}  // namespace tercet::programs
