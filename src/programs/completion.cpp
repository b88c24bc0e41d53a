// SPDX-License-Identifier: Apache-2.0
#include "programs/completion.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "programs/failure.h"
#include "programs/output.h"

namespace tercet::programs {
namespace {

// The values that an option's type lists, as "TEXT:{tls,memory}" or "0|1|2"; not those with letters
// in upper case, which stand for others.
std::vector<std::string> Choices(const CLI::Option& option) {
  std::string type = option.get_type_name();
  char separator = '|';
  if (type.ends_with('}')) {
    type = type.substr(type.find('{') + 1);
    type.pop_back();
    separator = ',';
  }
  if (type.find(separator) == std::string::npos) return {};
  auto values = CLI::detail::split(type, separator);
  std::erase_if(values, [](const std::string& value) {
    return std::any_of(value.begin(), value.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
  });
  return values;
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

std::vector<const CLI::Option*> Options(const CLI::App& app, bool positional) {
  return app.get_options([positional](const CLI::Option* option) {
    return !option->get_group().empty() && option->get_positional() == positional;
  });
}

std::vector<const CLI::App*> Commands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> Names(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const auto& name : option.get_lnames()) names.push_back("--" + name);
  for (const auto& name : option.get_snames()) names.push_back("-" + name);
  return names;
}

// The cases of one command, of the pattern `command` and the word before the one to complete.
std::string BashCases(const CLI::App& app, const std::string& command) {
  std::string cases, others;
  std::vector<std::string> words;
  for (const auto* each : Commands(app)) words.push_back(each->get_name());
  bool takes_file = false;
  for (const auto* option : Options(app, true)) {
    const auto choices = Choices(*option);
    takes_file = takes_file || choices.empty();
    words.insert(words.end(), choices.begin(), choices.end());
  }
  for (const auto* option : Options(app, false)) {
    const auto choices = Choices(*option);
    for (const auto& name : Names(*option)) {
      words.push_back(name);
      if (!choices.empty()) {
        cases += fmt::format("    {}\" {}\") candidates=\"{}\" ;;\n", command, name,
                             fmt::join(choices, " "));
      } else if (TakesValue(*option)) {
        others += fmt::format("{}{}\" {}\"", others.empty() ? "" : " | ", command, name);
      }
    }
  }
  if (!others.empty()) cases += fmt::format("    {}) return ;;\n", others);
  return cases + fmt::format("    {}\" \"*) {}candidates=\"{}\" ;;\n", command,
                             takes_file ? "[[ $current == -* ]] || return; " : "",
                             fmt::join(words, " "));
}

// Where the function finds nothing, bash completes names of files.
std::string BashScript(const CLI::App& app) {
  std::string function = "_" + app.get_name(), cases;
  std::replace(function.begin(), function.end(), '-', '_');
  for (const auto* command : Commands(app)) cases += BashCases(*command, command->get_name());
  cases += BashCases(app, "*");
  return fmt::format(R"({0}() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  local command= candidates=
  COMPREPLY=()
  if ((COMP_CWORD > 1)); then command=${{COMP_WORDS[1]}}; fi
  # Bash takes --option=value for three words.
  if [[ $current == "=" ]]; then
    current=
  elif [[ $previous == "=" ]]; then
    previous=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  case "$command $previous" in
{2}  esac
  COMPREPLY=($(compgen -W "$candidates" -- "$current"))
}}
complete -o default -F {0} {1}
)",
                     function, app.get_name(), cases);
}

std::string FishText(const std::string& text) {
  std::string quoted("'");
  for (const char c : text) {
    if (c == '\'' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

std::string FishLines(const CLI::App& app, const std::string& start) {
  std::string lines;
  for (const auto* option : Options(app, true)) {
    const auto choices = Choices(*option);
    if (!choices.empty()) lines += fmt::format("{} -f -a '{}'\n", start, fmt::join(choices, " "));
  }
  if (Options(app, true).empty()) lines += start + " -f\n";
  for (const auto* option : Options(app, false)) {
    const auto choices = Choices(*option);
    lines += start;
    for (const auto& name : option->get_lnames()) lines += " -l " + name;
    for (const auto& name : option->get_snames()) lines += " -s " + name;
    if (!choices.empty()) {
      lines += fmt::format(" -x -a '{}'", fmt::join(choices, " "));
    } else if (TakesValue(*option)) {
      lines += " -r -F";
    }
    lines += fmt::format(" -d {}\n", FishText(option->get_description()));
  }
  return lines;
}

std::string FishScript(const CLI::App& app) {
  std::string lines, names;
  const std::string start = fmt::format("complete -c {} -n ", app.get_name());
  for (const auto* command : Commands(app)) {
    names += " " + command->get_name();
    lines += fmt::format("{}__fish_use_subcommand -f -a {} -d {}\n", start, command->get_name(),
                         FishText(command->get_description()));
    lines += FishLines(
        *command, fmt::format("{}'__fish_seen_subcommand_from {}'", start, command->get_name()));
  }
  return lines + FishLines(app, fmt::format("{}'not __fish_seen_subcommand_from{}'", start, names));
}

}  // namespace

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  if (shell == "fish") return FishScript(app);
  // Zsh has a layer for scripts of bash.
  return (shell == "zsh" ? "autoload -U +X bashcompinit && bashcompinit\n" : "") + BashScript(app);
}

void AddCompletionCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "completion", "Print a script that makes a shell complete commands, options and values");
  auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "The shell")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(fmt::format(
      "Examples:\n"
      "  source <({0} completion bash)        in ~/.bashrc; for zsh in ~/.zshrc, after compinit\n"
      "  {0} completion fish | source         in ~/.config/fish/config.fish",
      app.get_name()));
  command->callback([&app, &chosen, shell] {
    chosen = [&app, shell] {
      PrintText(CompletionScript(app, *shell));
      return kExitOk;
    };
  });
}

}  // namespace tercet::programs
