// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "programs/commands.h"
#include "tercet/base/error.h"

namespace tercet::programs {

void AddMissingCommand(CLI::App& app, Chosen& chosen, const std::string& name,
                       const std::string& what, const std::string& remedy) {
  auto* command = app.add_subcommand(name, what + " (not part of this build)");
  command->allow_extras();
  command->callback([=, &chosen] {
    chosen = [=]() -> int {
      throw UnsupportedError(
          fmt::format("this tercet was built without `{}`: {} and build again", name, remedy));
    };
  });
}

}  // namespace tercet::programs
