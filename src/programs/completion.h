// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "programs/commands.h"

namespace tercet::programs {

/// A script that makes `shell` ("bash", "zsh" or "fish") complete the program `app`: its commands,
/// what --help tells of their options, and those options' values where the help lists them all.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

/// `completion SHELL` prints that script. Add it when all other commands are there.
void AddCompletionCommand(CLI::App& app, Chosen& chosen);

}  // namespace tercet::programs
