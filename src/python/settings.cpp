// SPDX-License-Identifier: Apache-2.0
#include "programs/options.h"
#include "python/module.h"

namespace tercet::python {

void ParseSettings(const std::string& command, const Words& words,
                   const std::function<void(CLI::App&)>& add) {
  CLI::App app("", "tercet");
  add(*app.add_subcommand(command));
  Words line{"tercet", command};
  line.insert(line.end(), words.begin(), words.end());
  std::vector<char*> arguments;
  for (auto& word : line) arguments.push_back(word.data());
  programs::ParseAndRun(app, static_cast<int>(arguments.size()), arguments.data(),
                        [] { return 0; });
}

}  // namespace tercet::python
