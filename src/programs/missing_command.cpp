// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "programs/commands.h"
#include "tercet/base/error.h"

namespace tercet::programs {

void AddMissingCommand(CLI::App& app, Chosen& chosen, const std::string& name,
                       const std::string& what, const std::string& remedy) {
  auto* command = app.add_subcommand(name, what + " (not part of this build)");
  command->allow_extras();
  command->callback([=, &app, &chosen] {
    chosen = [=, program = app.get_name()]() -> int {
      throw UnsupportedError(
          fmt::format("this {} was built without `{}`: {} and build again", program, name, remedy));
    };
  });
}

}  // namespace tercet::programs
