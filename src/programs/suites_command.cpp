// SPDX-License-Identifier: Apache-2.0
#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/output.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::programs {
namespace {

int ListSuites() {
  const auto registry = BuiltinProtocols();
  for (const auto& name : registry.SuiteNames()) {
    const auto& info = registry.FindSuite(name).Info();
    Print("{} ({}{})\n    {}\n", info.name, info.is_private ? "private" : "NOT private",
          info.exact ? "" : ", not exact", info.summary);
    if (!info.is_private) Print("    leaks: {}\n", info.leaks);
    for (const auto& option : info.options)
      Print("    option {}={}: {}\n", option.name, fmt::join(option.values, "|"), option.meaning);
  }
  Print("\nOptions follow the name, as in --suite lut:chunks=3\n");
  return kExitOk;
}

}  // namespace

void AddSuitesCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("suites", "List the protocols for non-linear layers");
  command->footer("Example:\n  tercet suites");
  command->callback([&chosen] { chosen = ListSuites; });
}

}  // namespace tercet::programs
