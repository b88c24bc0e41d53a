// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "programs/commands.h"

namespace tercet::importer {

/// Adds the subcommand `import` to `app`, as the programs' own commands are added: `import
/// MODEL.onnx --out NET.json` writes the architecture and beside it the weights. Both are written
/// when the whole model is read and checked, or neither.
void AddImportCommand(CLI::App& app, programs::Chosen& chosen);

}  // namespace tercet::importer
