#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace tercet::programs {

/// Each adds a subcommand of `tercet`; when it is the one that is chosen, parsing sets `chosen` to
/// what then runs it and gives the exit code.
using Chosen = std::function<int()>;
void AddRunCommand(CLI::App& app, Chosen& chosen);
void AddPlanCommand(CLI::App& app, Chosen& chosen);
void AddPlainCommand(CLI::App& app, Chosen& chosen);
void AddCompileCommand(CLI::App& app, Chosen& chosen);
void AddCustomiseCommand(CLI::App& app, Chosen& chosen);
void AddKeygenCommand(CLI::App& app, Chosen& chosen);
void AddCertificateCommand(CLI::App& app, Chosen& chosen);
void AddSuitesCommand(CLI::App& app, Chosen& chosen);
void AddDrawDigitsCommand(CLI::App& app, Chosen& chosen);

}  // namespace tercet::programs
