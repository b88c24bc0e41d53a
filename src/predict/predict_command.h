// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "programs/commands.h"

namespace tercet::client {

/// `tercet predict` and `tercet load`: clients of a prediction service.
void AddPredictCommand(CLI::App& app, programs::Chosen& chosen);
void AddLoadCommand(CLI::App& app, programs::Chosen& chosen);

}  // namespace tercet::client
