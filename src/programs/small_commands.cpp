// SPDX-License-Identifier: Apache-2.0
// The commands without a network: keygen, certificate, suites, draw-digits.

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "programs/commands.h"
#include "programs/draw_digits.h"
#include "programs/failure.h"
#include "programs/options.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/crypto/certificates.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/service/deployment.h"

namespace tercet::programs {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDefaultDays = 365;
constexpr std::size_t kGroupDigits = 4;

std::chrono::sys_seconds Now() {
  return std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
}

// The digits of a fingerprint in groups, to be read to somebody.
std::string Grouped(const crypto::Fingerprint& fingerprint) {
  const std::string text = fingerprint.Text();
  std::string grouped;
  for (std::size_t at = text.find(':') + 1; at < text.size(); at += kGroupDigits)
    grouped += (grouped.empty() ? "" : " ") + text.substr(at, kGroupDigits);
  return grouped;
}

std::string Describe(const crypto::Certificate& certificate) {
  const auto now = Now();
  std::string state;
  if (now > certificate.not_after) {
    state = "EXPIRED";
  } else if (now < certificate.not_before) {
    state = "NOT YET VALID";
  } else {
    state = fmt::format(
        "{} days left",
        std::chrono::duration_cast<std::chrono::days>(certificate.not_after - now).count());
  }
  return fmt::format(
      "  name         {} ({})\n"
      "  valid        {} to {}: {}\n"
      "  signed by    {}\n"
      "  fingerprint  {}\n"
      "  to read out  {}\n",
      certificate.name,
      certificate.party ? fmt::format("party {}", *certificate.party) : "no party's",
      crypto::DateText(certificate.not_before), crypto::DateText(certificate.not_after), state,
      certificate.self_signed ? "itself; peers know it by its fingerprint" : certificate.issuer,
      certificate.fingerprint.Text(), Grouped(certificate.fingerprint));
}

struct KeygenArguments {
  std::filesystem::path directory;
  std::optional<int> party;
  std::size_t days = kDefaultDays;
  bool force = false, renew = false, servers = false;
};

int MakeServers(const KeygenArguments& arguments) {
  service::MakeDeployment(arguments.directory, service::LoopbackAddresses(),
                          static_cast<int>(arguments.days), arguments.force);
  const auto directory = arguments.directory.string();
  Print(
      "{0}/deployment.json is for everybody; {0}/server0 to {0}/server2 are the servers' stores, "
      "and each is for\nits server alone: whoever has two of them can read models and queries.\n"
      "Addresses are those of this machine; change them in deployment.json.\n",
      directory);
  return kExitOk;
}

int MakeAll(const KeygenArguments& arguments) {
  crypto::MakeCertificates(arguments.directory, static_cast<int>(arguments.days), arguments.force);
  Print(
      "{0} holds a private certificate authority and one certificate for each party, valid for {1} "
      "days.\n"
      "Whoever has this directory can be all three parties: keep it on one machine, or where one "
      "organisation runs\n"
      "all three. Between organisations each makes its own key: tercet keygen --party I "
      "DIRECTORY.\n"
      "Give party i only ca.pem, party<i>.pem and party<i>-key.pem; keep ca-key.pem to yourself.\n",
      arguments.directory.string(), arguments.days);
  return kExitOk;
}

int Keygen(const KeygenArguments& arguments) {
  if (arguments.servers) return MakeServers(arguments);
  if (!arguments.party) {
    if (arguments.renew)
      throw ConfigError("--renew", "renews the certificate of one party; say which with --party");
    return MakeAll(arguments);
  }
  const int party = *arguments.party, days = static_cast<int>(arguments.days);
  const auto certificate =
      arguments.renew
          ? crypto::RenewPartyCertificate(arguments.directory, party, days)
          : crypto::MakePartyCertificate(arguments.directory, party, days, arguments.force);
  const auto file = [&](const char* end) {
    return (arguments.directory / fmt::format("party{}{}", party, end)).string();
  };
  Print("{}\n{}", file(".pem"), Describe(certificate));
  if (arguments.renew) {
    Print(
        "The key is the old one, so the fingerprint is too: the others need not change "
        "anything.\n");
  } else {
    Print(
        "Give the others {0} or the fingerprint, and let them read the fingerprint to you on the "
        "phone.\n"
        "{1} stays here: whoever has it can be party {2}.\n",
        file(".pem"), file("-key.pem"), party);
  }
  return kExitOk;
}

// Nobody else can write to it, or nothing would have been made.
void WarnOfReaders(const fs::path& directory) {
  const auto rights = fs::status(directory).permissions();
  if ((rights & (fs::perms::group_all | fs::perms::others_all)) == fs::perms::none) return;
  PrintWarning(
      fmt::format("others may look into {0} and see which keys there are, though not read "
                  "them; expected mode 700 (chmod 700 {0})",
                  directory.string()));
}

int ShowCertificates(const std::vector<std::filesystem::path>& files) {
  for (const auto& file : files) {
    const auto certificate = crypto::ReadCertificate(file);
    Print("{}\n{}", file.string(), Describe(certificate));
  }
  return kExitOk;
}

struct DrawDigitsArguments {
  std::filesystem::path images, labels;
  std::size_t count = 100, seed = 1;
};

int DrawDigitFiles(const DrawDigitsArguments& arguments) {
  DrawDigits(arguments.images, arguments.labels, arguments.count, arguments.seed);
  Print("{} and {}: {} drawn digits and their classes\n", arguments.images.string(),
        arguments.labels.string(), arguments.count);
  return kExitOk;
}

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

void AddKeygenCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "keygen",
      "Make keys and certificates: with --party those of one party, for three organisations that "
      "pin "
      "each other's; without it an authority and all three, for one machine (whoever runs that can "
      "be all three parties)");
  auto a = std::make_shared<KeygenArguments>();
  command->add_option("directory", a->directory, "Where to; made when missing")->required();
  auto* party = AddParty(*command, "--party", a->party,
                         "Only this party's key, and a certificate that it signs itself");
  AddNumber(*command, "--days", a->days, 1, crypto::kMaxCertificateDays,
            "Days that they are valid");
  auto* force = command->add_flag(
      "--force", a->force, "Replace keys and certificates that are there; others must pin the new");
  command
      ->add_flag("--renew", a->renew,
                 "A new certificate of the key that is there: new dates, same fingerprint")
      ->needs(party)
      ->excludes(force);
  command
      ->add_flag("--servers", a->servers,
                 "Keys, certificates and deployment.json of the three servers of a prediction "
                 "service (docs/service.md)")
      ->excludes(party);
  command->footer(
      "Examples:\n"
      "  tercet keygen configs/certificates --days 30      all three, for one machine\n"
      "  tercet keygen --party 1 keys                      one of three organisations; writes\n"
      "                                                    keys/party1.pem and "
      "keys/party1-key.pem\n"
      "  tercet keygen --party 1 --renew keys              the same key for another year\n"
      "  tercet keygen --servers demo                      a prediction service, for one machine\n"
      "docs/certificates.md tells how three organisations exchange, renew and replace them.");
  command->callback([a, &chosen] {
    chosen = [a] {
      const int status = Keygen(*a);
      WarnOfReaders(a->directory);
      return status;
    };
  });
}

void AddCertificateCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "certificate", "Show what certificates say: party, dates, and the fingerprint to compare");
  auto files = std::make_shared<std::vector<std::filesystem::path>>();
  command->add_option("files", *files, "Certificates in PEM format")->required();
  command->footer("Example:\n  tercet certificate keys/party1.pem");
  command->callback([files, &chosen] { chosen = [files] { return ShowCertificates(*files); }; });
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
