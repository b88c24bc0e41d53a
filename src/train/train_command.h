#pragma once

namespace CLI {
class App;
}

namespace tercet::train {

/// Adds the subcommand `train` to `app`: `train NETWORK.json OPTIONS` or `train CONFIG.json`, where
/// options override what the configuration says. Parsing it runs the training, prints its progress
/// to standard output (a line that is rewritten on a terminal, a line per epoch elsewhere) and,
/// with
/// --log, keeps a JSON log (options, machine, every epoch) and a chart of it, both up to date after
/// every epoch. Errors leave the parse as the exceptions of tercet/base/error.h.
void AddTrainCommand(CLI::App& app);

}  // namespace tercet::train
