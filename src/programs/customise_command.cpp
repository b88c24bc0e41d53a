// SPDX-License-Identifier: Apache-2.0
// The command that rewrites an architecture: customise.

#include <memory>

#include "nn/activation_type.h"
#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/customise.h"
#include "tercet/infer/plan.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

struct CustomiseArguments {
  std::filesystem::path network, out;
  std::string name, separable = "all", sign = "none", max_pool = "none", suite = "lut";
  std::size_t bits = kDefaultBits;
  bool keep_order = false;
  RoleOptions roles;
};

/// One column of the comparison.
struct Measured {
  compile::NetworkCounts counts;
  std::string hops, offline, online;
};

Measured Measure(const nn::NetworkSpec& spec, const CustomiseArguments& arguments,
                 const mpc::Registry& registry) {
  Measured measured{compile::CountNetwork(spec), "-", "-", "-"};
  try {
    const auto network = PlaceholderNetwork(spec, static_cast<unsigned>(arguments.bits));
    const auto plan = infer::MakePlan(network, registry, ParseSuite(arguments.suite, registry),
                                      arguments.roles.Resolve(), 1);
    const auto total = plan.Total();
    measured.hops = fmt::format("{}", total.OnlineHops());
    measured.offline = report::FormatBytes(total.OfflineTotal());
    measured.online = report::FormatBytes(total.OnlineTotal());
  } catch (const UnsupportedError& e) {
    PrintWarning(fmt::format("no hops and bytes of {}: {}", spec.name, e.what()));
  }
  return measured;
}

int CustomiseNetwork(const CustomiseArguments& arguments) {
  const auto registry = BuiltinProtocols();
  if (!arguments.out.empty()) CheckWritable(arguments.out, "--out");
  const auto spec = nn::LoadNetwork(arguments.network);
  const auto result =
      compile::Customise(spec, {.name = arguments.name,
                                .separable = compile::LayerSelection::Parse(arguments.separable),
                                .sign = compile::LayerSelection::Parse(arguments.sign),
                                .max_pool = compile::LayerSelection::Parse(arguments.max_pool),
                                .order = !arguments.keep_order});
  for (const auto& change : result.changes) Print("{}\n", change);
  if (result.changes.empty()) Print("Nothing to change.\n");

  const auto before = Measure(spec, arguments, registry);
  const auto after = Measure(result.network, arguments, registry);
  using report::Align;
  report::Table table(
      {{"one image"}, {spec.name, Align::kRight}, {result.network.name, Align::kRight}});
  const auto count = [&](const char* what, auto value) {
    table.AddRow({what, report::FormatCount(value(before.counts)),
                  report::FormatCount(value(after.counts))});
  };
  using compile::NetworkCounts;
  count("parameters", [](const NetworkCounts& c) { return c.Parameters(); });
  count("weights", [](const NetworkCounts& c) { return c.weights; });
  for (const nn::ActivationType* type : nn::ActivationTypes()) {
    const char* name = type->Name();
    // Few networks look anything up.
    const bool rare = type->Kind() == mpc::ActivationKind::kTable;
    if (rare && !before.counts.activations.contains(name)) continue;
    count(name, [&](const NetworkCounts& c) {
      return c.activations.contains(name) ? c.activations.at(name) : 0;
    });
  }
  count("pooled", [](const NetworkCounts& c) { return c.pooled; });
  count("multiply-accumulate", [](const NetworkCounts& c) { return c.macs; });
  table.AddRule();
  table.AddRow({"hops online", before.hops, after.hops});
  table.AddRow({"bytes offline", before.offline, after.offline});
  table.AddRow({"bytes online", before.online, after.online});
  Print("\n{}Hops and bytes: suite {}, {} bits in every layer, all parties together.\n",
        table.Render(report::Utf8Locale()), arguments.suite, arguments.bits);
  if (arguments.out.empty()) return kExitOk;
  WriteFile(arguments.out, compile::NetworkText(result.network));
  Print("{}: the new architecture; train it with `tercet train`.\n", arguments.out.string());
  return kExitOk;
}

}  // namespace

void AddCustomiseCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "customise", "Rewrite an architecture so that it is cheap under secure computation");
  auto a = std::make_shared<CustomiseArguments>();
  command->add_option("network", a->network, "Architecture (JSON)")->required();
  command->add_option("--out", a->out, "Write the new architecture here");
  command->add_option("--name", a->name, "Its name (default: the old one with -customised)");
  command
      ->add_option("--separable", a->separable,
                   "Convolutions that become depthwise + pointwise: all, none or NAME,NAME...")
      ->capture_default_str();
  command
      ->add_option("--sign", a->sign,
                   "relu and square layers that become sign: all, none or NAME,NAME...")
      ->capture_default_str();
  command
      ->add_option("--max-pool", a->max_pool,
                   "Average pools that become max-pools: all, none or NAME,NAME...")
      ->capture_default_str();
  command->add_flag("--keep-order", a->keep_order,
                    "Leave pools and batch normalisation where they are, instead of pooling after "
                    "sign and normalising before it");
  OfferSuites(command->add_option("--suite", a->suite, "Protocols to count hops and bytes with")
                  ->capture_default_str());
  AddNumber(*command, "--bits", a->bits, 2, 32, "Width of every layer, to count bytes with");
  a->roles.AddTo(*command);
  command->footer(
      "Weights are not carried over: train the new network, with the old one as teacher.\n"
      "Example:\n  tercet customise nets/cifarnet2-typical.json --out cifarnet2.json");
  command->callback([a, &chosen] { chosen = [a] { return CustomiseNetwork(*a); }; });
}

}  // namespace tercet::programs
