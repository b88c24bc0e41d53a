// SPDX-License-Identifier: Apache-2.0
#include "programs/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <numeric>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "programs/inputs.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/infer/auto_plan.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::programs {
namespace {

template <class T>
T ParseInRange(const std::string& name, const std::string& text, T min, T max, const char* what) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Written so that a NaN is outside.
  if (error != std::errc() || end != text.data() + text.size() || !(value >= min && value <= max))
    throw ConfigError(name,
                      fmt::format("\"{}\" found, {} from {} to {} expected", text, what, min, max));
  return value;
}

// How many letters must be put in, taken out or changed to make one word of the other.
std::size_t Distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string Unknown(const char* what, const std::string& word,
                    const std::vector<std::string>& known) {
  const auto nearest = std::min_element(
      known.begin(), known.end(),
      [&](const auto& a, const auto& b) { return Distance(word, a) < Distance(word, b); });
  const bool near = nearest != known.end() &&
                    Distance(word, *nearest) <= std::max<std::size_t>(2, word.size() / 4);
  return fmt::format("unknown {} {}{}", what, Printable(word),
                     near ? fmt::format("; did you mean {}?", *nearest) : "");
}

// The first command or option of the command line that does not exist, with the nearest that does.
std::optional<std::string> UnknownWord(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string& word = words[i];
    const auto commands = command->get_subcommands([](const CLI::App*) { return true; });
    if (word.starts_with("--")) {
      const std::string name = word.substr(0, word.find('='));
      if (command->get_option_no_throw(name) != nullptr) continue;
      std::vector<std::string> known;
      for (const auto* option : command->get_options()) {
        if (option->get_group().empty()) continue;  // for programs, not people
        for (const auto& each : option->get_lnames()) known.push_back("--" + each);
      }
      return Unknown("option", name, known);
    }
    // A command is the first word; others are values of options, or files.
    if (i > 1 || word.starts_with('-') || commands.empty()) continue;
    std::vector<std::string> known;
    for (const auto* each : commands) {
      if (each->get_name() == word) command = each;
      known.push_back(each->get_name());
    }
    if (command == &app) return Unknown("command", word, known);
  }
  return std::nullopt;
}

// An option that was given without a value, as `--json ""`, is a mistake and not a default.
void RefuseEmptyValues(const CLI::App& app) {
  for (const auto* option : app.get_options()) {
    const auto& values = option->results();
    if (std::find(values.begin(), values.end(), "") != values.end())
      throw ConfigError(option->get_name(), "found an empty value");
  }
  for (const auto* command : app.get_subcommands()) RefuseEmptyValues(*command);
}

// Nobody wants his images or weights to be replaced by a report of them.
void RefuseOutputInPlaceOfInput(const CLI::App& app) {
  constexpr std::array kOutputs{"--out", "--json", "--csv", "--log", "--weights", "--checkpoint"};
  const auto options = app.get_options();
  for (const auto* output : options) {
    if (std::find(kOutputs.begin(), kOutputs.end(), output->get_name()) == kOutputs.end()) continue;
    for (const auto* input : options) {
      if (input == output || output->count() == 0) continue;
      for (const auto& file : input->results()) {
        std::error_code none;
        if (std::filesystem::is_regular_file(file, none) &&
            std::filesystem::equivalent(file, output->results().front(), none))
          throw ConfigError(output->get_name(), fmt::format("found {}, which is {} and would be "
                                                            "replaced",
                                                            file, input->get_name()));
      }
    }
  }
  for (const auto* command : app.get_subcommands()) RefuseOutputInPlaceOfInput(*command);
}

std::string LongName(const std::string& names) { return names.substr(names.rfind(',') + 1); }

}  // namespace

std::string PresentName(const std::string& word) {
  using Names = std::pair<std::string_view, std::string_view>;
  for (const auto& [former, present] :
       {Names{"--dealer-leaves", "--helper-leaves"}, Names{"--rotate-dealer", "--rotate-helper"}})
    if (word.substr(0, word.find('=')) == former)
      return std::string(present) + word.substr(former.size());
  return word;
}

CLI::Option* AddNumber(CLI::App& app, const std::string& name, std::size_t& value, std::size_t min,
                       std::size_t max, const std::string& help) {
  auto* option = app.add_option_function<std::string>(
      name,
      [&value, name = LongName(name), min, max](const std::string& text) {
        value = ParseInRange<std::size_t>(name, text, min, max, "a whole number");
      },
      help);
  option->type_name("N");
  if (value >= min) option->default_str(std::to_string(value));
  return option;
}

std::vector<std::string> SplitList(const std::string& text) {
  std::vector<std::string> entries;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find_first_of(",;", at), text.size());
    const std::string part = text.substr(at, end - at);
    const std::size_t equals = part.find('=');
    const bool option = equals != std::string::npos && part.find(':') > equals;
    if (option && text[at > 0 ? at - 1 : 0] == ',' && !entries.empty() &&
        entries.back().find('=') != std::string::npos &&
        ("," + entries.back()).find(fmt::format(",{}=", part.substr(0, equals))) ==
            std::string::npos) {
      entries.back() += "," + part;
    } else {
      entries.push_back(part);
    }
    at = end + 1;
  }
  return entries;
}

CLI::Option* AddList(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                     const std::string& help) {
  return app
      .add_option_function<std::vector<std::string>>(
          name,
          [&values, name = LongName(name)](const std::vector<std::string>& texts) {
            values.clear();
            for (const auto& text : texts)
              for (auto& entry : SplitList(text)) {
                if (entry.empty()) throw ConfigError(name, "found an empty value");
                values.push_back(std::move(entry));
              }
          },
          help)
      ->allow_extra_args(false)
      ->type_name("LIST")
      ->default_str(fmt::format("{}", fmt::join(values, ",")));
}

CLI::Option* AddNumbers(CLI::App& app, const std::string& name, std::vector<std::size_t>& values,
                        std::size_t min, std::size_t max, const std::string& help) {
  return app
      .add_option_function<std::vector<std::string>>(
          name,
          [&values, name = LongName(name), min, max](const std::vector<std::string>& texts) {
            values.clear();
            for (const auto& text : texts)
              for (const auto& entry : SplitList(text))
                values.push_back(
                    ParseInRange<std::size_t>(name, entry, min, max, "a whole number"));
          },
          help)
      ->allow_extra_args(false)
      ->type_name("LIST")
      ->default_str(fmt::format("{}", fmt::join(values, ",")));
}

CLI::Option* AddReal(CLI::App& app, const std::string& name, double& value, double min, double max,
                     const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&value, name = LongName(name), min, max](const std::string& text) {
            value = ParseInRange<double>(name, text, min, max, "a number");
          },
          help)
      ->type_name("X")
      ->default_str(fmt::format("{}", value));
}

CLI::Option* AddParty(CLI::App& app, const std::string& name, std::optional<int>& value,
                      const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&value, name](const std::string& text) {
            value = ParseInRange<int>(name, text, 0, 2, "a party's number");
          },
          help)
      ->type_name("0|1|2");
}

void RoleOptions::AddTo(CLI::App& app) {
  AddParty(app, "--helper", helper,
           "The helper, which deals correlated randomness with lut and fss [0]")
      ->group("Roles");
  AddParty(app, "--data-owner", data_owner, "Party with the images [the one after the helper]")
      ->group("Roles");
  AddParty(app, "--model-owner", model_owner, "Party with the model [the remaining one]")
      ->group("Roles");
  AddParty(app, "--receiver", receiver, "Party that receives the result [the owner of the images]")
      ->group("Roles");
}

mpc::Roles RoleOptions::Resolve() const {
  mpc::Roles roles;
  roles.helper = helper.value_or(roles.helper);
  roles.data_owner = data_owner.value_or(roles.Evaluator1());
  const int other =
      roles.data_owner == roles.Evaluator1() ? roles.Evaluator2() : roles.Evaluator1();
  roles.model_owner = model_owner.value_or(other);
  roles.receiver = receiver.value_or(roles.data_owner);
  return roles;
}

void AddCalibration(CLI::App& app, ModelSource& model) {
  auto* images = app.add_option("--calibrate-images", model.calibration_images,
                                "Training images to choose the widths of float weights with");
  app.add_option("--calibrate-labels", model.calibration_labels,
                 "Their labels, to report accuracies")
      ->needs(images);
  app.add_flag("--accept-loss", model.accept_loss,
               "Go on with warnings where compiling float weights loses a layer or too many "
               "predictions (see tercet compile)");
}

void AddLinear(CLI::App& app, std::string& linear) {
  auto* option =
      app.add_option(
             "--linear", linear,
             "Linear layers: clear (the model's owner, an evaluator, multiplies its weights in "
             "the clear), replicated (both evaluators multiply shares), or auto: clear where "
             "the roles allow it")
          ->check(CLI::IsMember({kByRoles, mpc::kClearLinear, mpc::kReplicatedLinear}))
          ->capture_default_str();
  app.add_flag_callback(
         kPublicWeights, [&linear] { linear = mpc::kPublicLinear; },
         "The model is no secret: its owner tells the weights to all parties, each of whom must "
         "give this option. Faster, with fewer hops and bytes")
      ->excludes(option);
}

std::string LinearProtocol(const std::string& linear) { return linear == kByRoles ? "" : linear; }

void TakeLinear(std::string& linear, const infer::MaterialFile& material) {
  const std::string& made = material.Header().linear;
  if (linear == kByRoles && made == mpc::kPublicLinear)
    throw ConfigError(kPublicWeights, fmt::format("not given, and {} was made with public weights",
                                                  material.File().string()));
  if (linear != kByRoles && linear != made)
    throw ConfigError("--linear", fmt::format("{} was made for linear layers {}, this run has {}",
                                              material.File().string(), made, linear));
  linear = made;
}

mpc::SuiteChoice ParseSuite(const std::string& text, const mpc::Registry& registry,
                            const char* option) {
  mpc::SuiteChoice choice = mpc::ParseSuiteChoice(text, option);
  if (choice.name == nn::kAutoSuite) {
    if (!choice.options.empty())
      throw ConfigError(option, fmt::format("\"{}\" found; auto has no options", text));
    return choice;
  }
  try {
    registry.FindSuite(choice.name);
  } catch (const UnsupportedError& e) {
    throw ConfigError(option, fmt::format("{}, and {}", e.what(), nn::kAutoSuite));
  }
  return choice;
}

net::LinkProfile ParseLink(const std::string& text, const char* option) {
  try {
    return net::ParseLinkProfile(text);
  } catch (const ConfigError& e) {
    // The place goes before, with a colon and a blank.
    throw ConfigError(option, std::string(e.what()).substr(e.Place().size() + 2));
  }
}

CLI::Option* OfferSuites(CLI::Option* option) {
  auto names = BuiltinProtocols().SuiteNames();
  names.emplace_back(nn::kAutoSuite);
  return option->type_name(fmt::format("{}|NAME:OPTIONS", fmt::join(names, "|")));
}

CLI::Option* OfferLinks(CLI::Option* option) {
  return option->type_name("none|lan|wan|rtt_ms=X,mbit=Y");
}

int ParseAndRun(CLI::App& app, int argc, char** argv, const std::function<int()>& run) {
  std::vector<std::string> words;
  for (int i = 0; i < argc; ++i) words.push_back(PresentName(argv[i]));
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  try {
    app.parse(argc, arguments.data());
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {  // help or version
      std::ostringstream text;
      const int status = app.exit(e, text, text);
      PrintText(text.str());
      return status;
    }
    std::string command = app.get_name();
    for (const auto* sub : app.get_subcommands()) command += " " + sub->get_name();
    throw ConfigError(
        "command line",
        fmt::format("{} (see {} --help)", UnknownWord(app, words).value_or(e.what()), command));
  }
  RefuseEmptyValues(app);
  RefuseOutputInPlaceOfInput(app);
  return run();
}

}  // namespace tercet::programs
