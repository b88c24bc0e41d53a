// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>
#include <vector>

#include "programs/certificate_text.h"
#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/output.h"

namespace tercet::programs {
namespace {

int ShowCertificates(const std::vector<std::filesystem::path>& files) {
  for (const auto& file : files) {
    const auto certificate = crypto::ReadCertificate(file);
    Print("{}\n{}", file.string(), Describe(certificate));
  }
  return kExitOk;
}

}  // namespace

void AddCertificateCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "certificate", "Show what certificates say: party, dates, and the fingerprint to compare");
  auto files = std::make_shared<std::vector<std::filesystem::path>>();
  command->add_option("files", *files, "Certificates in PEM format")->required();
  command->footer("Example:\n  tercet certificate keys/party1.pem");
  command->callback([files, &chosen] { chosen = [files] { return ShowCertificates(*files); }; });
}

}  // namespace tercet::programs
