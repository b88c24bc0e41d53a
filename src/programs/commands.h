// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

namespace tercet::programs {

/// Each adds a subcommand of `tercet`; when it is the one that is chosen, parsing sets `chosen` to
/// what then runs it and gives the exit code.
using Chosen = std::function<int()>;
void AddRunCommand(CLI::App& app, Chosen& chosen);
void AddBenchCommand(CLI::App& app, Chosen& chosen);
void AddJoinCommand(CLI::App& app, Chosen& chosen);
void AddPlanCommand(CLI::App& app, Chosen& chosen);
void AddPlainCommand(CLI::App& app, Chosen& chosen);
void AddCompileCommand(CLI::App& app, Chosen& chosen);
void AddCustomiseCommand(CLI::App& app, Chosen& chosen);
void AddKeygenCommand(CLI::App& app, Chosen& chosen);
void AddCertificateCommand(CLI::App& app, Chosen& chosen);
void AddSuitesCommand(CLI::App& app, Chosen& chosen);
void AddDrawDigitsCommand(CLI::App& app, Chosen& chosen);
void AddPublishCommand(CLI::App& app, Chosen& chosen);
/// Stands for the command of an optional room that this build lacks: says in the help that it is
/// missing, and throws UnsupportedError with the remedy when it is run.
void AddMissingCommand(CLI::App& app, Chosen& chosen, const std::string& name,
                       const std::string& what, const std::string& remedy);

}  // namespace tercet::programs
