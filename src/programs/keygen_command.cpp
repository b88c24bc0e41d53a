// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>
#include <optional>

#include "programs/certificate_text.h"
#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/options.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/crypto/certificates.h"
#include "tercet/service/deployment.h"

namespace tercet::programs {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDefaultDays = 365;

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

}  // namespace tercet::programs
