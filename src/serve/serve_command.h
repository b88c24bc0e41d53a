// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "programs/commands.h"

namespace tercet::serve {

/// `tercet-party serve`: one server of a prediction service, until SIGTERM or SIGINT, which drain
/// it. `tercet-party token`: clients' tokens in a server's store.
void AddServeCommands(CLI::App& app, programs::Chosen& chosen);

}  // namespace tercet::serve
