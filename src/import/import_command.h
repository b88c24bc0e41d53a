// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "import/import_onnx.h"
#include "programs/commands.h"

namespace tercet::importer {

/// ImportOptions as whoever imports gives them.
struct ImportSettings {
  ImportOptions options;  ///< but for what follows
  std::vector<std::size_t> shape;
  std::vector<std::string> binarise;
  std::size_t bits = 8;

  ImportOptions Options() const;
};

/// --name, --shape, --binarise, --scale, --mean, --std and --bits. In a build with ONNX only.
void AddImportSettings(CLI::App& app, ImportSettings& settings);

/// Adds the subcommand `import` to `app`, as the programs' own commands are added: `import
/// MODEL.onnx --out NET.json` writes the architecture and beside it the weights. Both are written
/// when the whole model is read and checked, or neither.
void AddImportCommand(CLI::App& app, programs::Chosen& chosen);

}  // namespace tercet::importer
