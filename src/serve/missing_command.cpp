// SPDX-License-Identifier: Apache-2.0
#include "serve/serve_command.h"

namespace tercet::serve {

void AddServeCommands(CLI::App& app, programs::Chosen& chosen) {
  const std::string remedy("install librestinio-dev and libsqlite3-dev");
  programs::AddMissingCommand(app, chosen, "serve", "One server of a prediction service", remedy);
  programs::AddMissingCommand(app, chosen, "token", "Clients' tokens in a server's store", remedy);
}

}  // namespace tercet::serve
