#pragma once

namespace CLI {
class App;
}

namespace tercet::train {

/// Adds the subcommand `train` to `app`. Parsing it runs the training, prints its progress to
/// standard output (a line that is rewritten on a terminal, a line per epoch elsewhere) and, with
/// --log, keeps a JSON log. Errors leave the parse as the exceptions of tercet/base/error.h.
void AddTrainCommand(CLI::App& app);

}  // namespace tercet::train
