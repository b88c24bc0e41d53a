// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "programs/auto_suite.h"
#include "programs/commands.h"
#include "programs/cost_table.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

struct PlanArguments {
  std::filesystem::path network, json, csv;
  ModelSource model;
  std::vector<std::string> suites;  // none: all private ones and auto
  std::vector<std::filesystem::path> measured;
  std::string link = "none", optimise = "online";
  std::size_t batch = 1, bits = kDefaultBits;
  RoleOptions roles;
};

// The network of a model, or one with the width that was given for every layer.
nn::PublicNetwork NetworkOf(const PlanArguments& arguments, const mpc::Registry& registry,
                            std::vector<std::string>& warnings) {
  const auto spec = nn::LoadNetwork(arguments.network);
  if (arguments.model.file.empty()) {
    Print("No model given: every layer is taken to need {} bits.\n", arguments.bits);
    return PlaceholderNetwork(spec, static_cast<unsigned>(arguments.bits));
  }
  auto model = LoadModel(spec, arguments.model, registry, Say);
  warnings = std::move(model.warnings);
  for (const auto& warning : warnings) PrintWarning(warning);
  return std::move(model.net);
}

// One suite's plan in each of the formats.
class PlanOutput {
 public:
  explicit PlanOutput(const PlanArguments& arguments)
      : arguments_(arguments), link_(net::ParseLinkProfile(arguments.link)) {}

  void Add(nn::PublicNetwork network, const mpc::SuiteChoice& suite, const mpc::Roles& roles,
           const mpc::Registry& registry, std::vector<std::string> warnings) {
    ResolveAuto(network, registry, suite, link_,
                infer::ParseObjective(arguments_.optimise, "--optimise"), roles, arguments_.batch);
    const auto plan = infer::MakePlan(network, registry, suite, roles, arguments_.batch);
    for (auto& warning : plan.Warnings(registry)) {
      PrintWarning(warning);
      warnings.push_back(std::move(warning));
    }
    const auto prediction = Predict(plan, suite, registry, link_, arguments_.measured);
    all_measured_ = all_measured_ && prediction.measured;
    Print("\n{}, suite {}, one batch of {}, link {}; {}\n\n{}", network.name, suite.Text(),
          plan.batch, link_.name, mpc::RolesText(roles),
          DescribePlan(plan, &prediction, report::Utf8Locale()));
    const auto total = plan.Total();
    const auto& time = prediction.steps.back();
    comparison_.AddRow(
        {suite.Text(), std::to_string(total.OnlineHops()),
         report::FormatBytes(total.OfflineTotal()), report::FormatBytes(total.OnlineTotal()),
         report::FormatSeconds(time.OfflineSeconds()), report::FormatSeconds(time.OnlineSeconds()),
         prediction.measured ? "measured" : "model"});
    csv_ += PlanToCsv(plan, suite, prediction);
    plans_ += (plans_.empty() ? "" : ",\n") + PlanToJson(plan, suite, prediction, warnings);
  }

  void Finish() const {
    Print("\nOn link {} (round trip {} ms, {} Mbit/s), one batch of {}:\n\n{}", link_.name,
          link_.rtt_ms, link_.mbit > 0 ? fmt::format("{}", link_.mbit) : "unlimited",
          arguments_.batch, comparison_.Render(report::Utf8Locale()));
    if (!all_measured_)
      Print(
          "Computation by the built-in model is that of two cores of a Xeon with AVX-512; "
          "for times of this\nmachine give reports of `tercet run --json` on link none with "
          "--measured.\n");
    const std::string plans = "{\"plans\": [\n" + plans_ + "\n]}\n";
    std::vector<Output> outputs;
    if (!arguments_.csv.empty()) outputs.push_back({arguments_.csv, csv_});
    if (!arguments_.json.empty()) outputs.push_back({arguments_.json, plans});
    WriteFiles(outputs);
  }

 private:
  using Align = report::Align;

  const PlanArguments& arguments_;
  const net::LinkProfile link_;
  bool all_measured_ = true;
  report::Table comparison_{{{"suite"},
                             {"hops", Align::kRight},
                             {"offline", Align::kRight},
                             {"online", Align::kRight},
                             {"offline time", Align::kRight},
                             {"online time", Align::kRight},
                             {"computation"}}};
  std::string plans_, csv_ = PlanCsvHead();
};

int ShowPlan(PlanArguments arguments) {
  const auto registry = BuiltinProtocols();
  if (arguments.suites.empty()) {
    for (const auto& candidate : infer::AutoCandidates(registry))
      arguments.suites.push_back(candidate.suite.Text());
    arguments.suites.emplace_back(nn::kAutoSuite);
  }
  if (!arguments.csv.empty()) CheckWritable(arguments.csv, "--csv");
  if (!arguments.json.empty()) CheckWritable(arguments.json, "--json");
  PlanOutput output(arguments);
  const auto roles = arguments.roles.Resolve();
  std::vector<std::string> warnings;
  const auto network = NetworkOf(arguments, registry, warnings);
  for (const auto& text : arguments.suites)
    output.Add(network, ParseSuite(text, registry), roles, registry, warnings);
  output.Finish();
  return kExitOk;
}

}  // namespace

void AddPlanCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("plan", "What a query costs, layer by layer; nothing is run");
  auto a = std::make_shared<PlanArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  auto* model = command->add_option(
      "--model", a->model.file, "Compiled model or float weights; without it, one width for all");
  AddCalibration(*command, a->model);
  AddNumber(*command, "--bits", a->bits, 2, 32, "That width")->excludes(model);
  command->add_option("--suite", a->suites, "Suites to compare [all private ones and auto]");
  AddObjective(*command, a->optimise);
  AddNumber(*command, "--batch", a->batch, 1, kMaxBatch, "Images a query");
  command
      ->add_option("--link", a->link,
                   "Predict times on this link: none, lan, wan or rtt_ms=X,mbit=Y")
      ->capture_default_str();
  command->add_option(
      "--measured", a->measured,
      "Reports of `tercet run --json` without --link, of the same network, suite and "
      "batch: computation is taken from them");
  command->add_option("--json", a->json, "Write the plans");
  command->add_option("--csv", a->csv, "Write them as a table, with the predicted times");
  a->roles.AddTo(*command);
  command->footer(
      "Example:\n"
      "  tercet plan nets/mnistnet3.json --suite lut --suite cbnn --link wan");
  command->callback([a, &chosen] { chosen = [a] { return ShowPlan(*a); }; });
}

}  // namespace tercet::programs
