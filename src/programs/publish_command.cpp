// SPDX-License-Identifier: Apache-2.0
// The command of whoever publishes a model for a prediction service.

#include <memory>

#include "programs/auto_suite.h"
#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/service/package.h"

namespace tercet::programs {
namespace {

constexpr FileKind kNetworkFile{"a network's JSON", 1 << 20};

struct PublishArguments {
  std::filesystem::path network, deployment, out;
  ModelSource model;
  std::string suite = "lut", link = "none", optimise = "online", name, version = "1";
  std::size_t batch = 1;
};

int Publish(const PublishArguments& arguments) {
  CheckWritable(arguments.out, "--out");
  const auto registry = BuiltinProtocols();
  const auto deployment = service::LoadDeployment(arguments.deployment);
  const auto text = ReadTextFile(arguments.network, kNetworkFile);
  const auto spec = nn::ParseNetwork(text, arguments.network.string());
  auto model = LoadModel(spec, arguments.model, registry,
                         [](const std::string& line) { Print("{}\n", line); });
  for (const auto& warning : model.warnings) PrintWarning(warning);
  const auto suite = ParseSuite(arguments.suite, registry);
  // The shares of all lanes are the same, whose roles differ.
  const auto roles = service::RolesOf(0);
  ResolveAuto(model.net, registry, suite, ParseLink(arguments.link),
              infer::ParseObjective(arguments.optimise, "--optimise"), roles, arguments.batch);
  for (const auto& warning :
       infer::MakePlan(model.net, registry, suite, roles, 1).Warnings(registry))
    PrintWarning(warning);
  const auto package =
      service::MakePackage(model, text, suite, arguments.name.empty() ? spec.name : arguments.name,
                           arguments.version, deployment, registry);
  const auto header =
      service::ReadPackageHeader(package, deployment, registry, arguments.out.string());
  WriteFile(arguments.out, {reinterpret_cast<const char*>(package.data()), package.size()});
  Print("{}: {} {}, {} bytes, digest {}\n", arguments.out.string(), header.name, header.version,
        package.size(), crypto::HexText(header.digest));
  return kExitOk;
}

}  // namespace

void AddPublishCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "publish",
      "Seal a model for the three servers of a prediction service, none of which can read it");
  auto a = std::make_shared<PublishArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  command->add_option("--model", a->model.file, "Compiled model or float weights (safetensors)")
      ->required();
  AddCalibration(*command, a->model);
  command->add_option("--deployment", a->deployment, "The servers (deployment.json)")->required();
  command->add_option("--out", a->out, "Package to write (NAME.tercet)")->required();
  command->add_option("--name", a->name, "The model's name for clients (default: the network's)");
  command->add_option("--model-version", a->version, "Its version")->capture_default_str();
  OfferSuites(command
                  ->add_option("--suite", a->suite,
                               "Protocols of the non-linear layers (see tercet suites); private "
                               "and exact ones")
                  ->capture_default_str());
  AddObjective(*command, a->optimise);
  OfferLinks(command->add_option("--link", a->link, "The link between the servers, for suite auto")
                 ->capture_default_str());
  AddNumber(*command, "--batch", a->batch, 1, kMaxBatch,
            "Images that the servers compute together, about, for suite auto");
  command->footer(
      "Example:\n"
      "  tercet keygen --servers demo\n"
      "  tercet publish nets/mnistnet3.json --model nets/mnistnet3.compiled.safetensors "
      "--deployment demo/deployment.json --out mnistnet3.tercet\n"
      "docs/service.md says what is in the package, and who learns what.");
  command->callback([a, &chosen] { chosen = [a] { return Publish(*a); }; });
}

}  // namespace tercet::programs
