// The commands without a network: keygen, suites, draw-digits.

#include <memory>

#include "app/commands.h"
#include "app/draw_digits.h"
#include "app/failure.h"
#include "app/options.h"
#include "tercet/base/error.h"
#include "tercet/crypto/certificates.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::app {
namespace {

struct KeygenArguments {
  std::filesystem::path directory;
  std::size_t days = 365;
  bool force = false;
};

int Keygen(const KeygenArguments& arguments) {
  crypto::MakeCertificates(arguments.directory, static_cast<int>(arguments.days), arguments.force);
  fmt::print(
      "{} holds a private certificate authority and one certificate for each party, valid for {} "
      "days.\n"
      "Give party i only ca.pem, party<i>.pem and party<i>-key.pem; keep ca-key.pem to yourself.\n",
      arguments.directory.string(), arguments.days);
  return kExitOk;
}

struct DrawDigitsArguments {
  std::filesystem::path images, labels;
  std::size_t count = 100, seed = 1;
};

int DrawDigitFiles(const DrawDigitsArguments& arguments) {
  DrawDigits(arguments.images, arguments.labels, arguments.count, arguments.seed);
  fmt::print("{} and {}: {} drawn digits and their classes\n", arguments.images.string(),
             arguments.labels.string(), arguments.count);
  return kExitOk;
}

int ListSuites() {
  const auto registry = BuiltinProtocols();
  for (const auto& name : registry.SuiteNames()) {
    const auto& info = registry.FindSuite(name).Info();
    fmt::print("{} ({})\n    {}\n", info.name, info.is_private ? "private" : "NOT private",
               info.summary);
    if (!info.is_private) fmt::print("    leaks: {}\n", info.leaks);
    for (const auto& option : info.options) fmt::print("    option {}\n", option);
  }
  fmt::print("\nOptions follow the name, as in --suite lut:chunks=3\n");
  return kExitOk;
}

}  // namespace

void AddKeygenCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "keygen", "Make a certificate authority and the certificates of three parties");
  auto a = std::make_shared<KeygenArguments>();
  command->add_option("directory", a->directory, "Where to; made when missing")->required();
  AddNumber(*command, "--days", a->days, 1, 36500, "Days that they are valid");
  command->add_flag("--force", a->force, "Replace certificates that are there");
  command->footer("Example:\n  tercet keygen configs/certificates --days 30");
  command->callback([a, &chosen] { chosen = [a] { return Keygen(*a); }; });
}

void AddDrawDigitsCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "draw-digits", "Draw digits to try the networks on where MNIST is not at hand");
  auto a = std::make_shared<DrawDigitsArguments>();
  command->add_option("images", a->images, "IDX file of images to write")->required();
  command->add_option("labels", a->labels, "IDX file of labels to write")->required();
  AddNumber(*command, "--count", a->count, 1, 1'000'000, "How many");
  AddNumber(*command, "--seed", a->seed, 0, 1'000'000'000, "The same seed draws the same digits");
  command->footer("Example:\n  tercet draw-digits digits.idx classes.idx --count 200");
  command->callback([a, &chosen] { chosen = [a] { return DrawDigitFiles(*a); }; });
}

void AddSuitesCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("suites", "List the protocols for non-linear layers");
  command->footer("Example:\n  tercet suites");
  command->callback([&chosen] { chosen = ListSuites; });
}

}  // namespace tercet::app
