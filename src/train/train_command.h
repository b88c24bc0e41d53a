// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "programs/commands.h"

namespace tercet::train {

/// Adds the subcommand `train` to `app`, as the programs' own commands are added: `train
/// NETWORK.json OPTIONS` or `train CONFIG.json`, where options override what the configuration
/// says. It prints its progress to standard output (a line that is rewritten on a terminal, a line
/// per epoch elsewhere) and, with --log, keeps a JSON log (options, machine, every epoch) that is
/// up to date after every epoch.
void AddTrainCommand(CLI::App& app, programs::Chosen& chosen);

}  // namespace tercet::train
