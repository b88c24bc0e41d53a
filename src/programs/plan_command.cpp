// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <set>

#include "programs/auto_suite.h"
#include "programs/commands.h"
#include "programs/cost_table.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/plan_settings.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/infer/memory.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

struct PlanArguments : PlanSettings {
  std::filesystem::path network, json, csv;
  ModelSource model;
  std::size_t bits = kDefaultBits;
  bool summary = false;
};

// The network of a model, or one with the width that was given for every layer.
nn::PublicNetwork NetworkOf(const PlanArguments& arguments, const mpc::Registry& registry,
                            std::vector<std::string>& warnings) {
  const auto spec = nn::LoadNetwork(arguments.network);
  if (arguments.model.file.empty()) {
    Print("No model given: every layer is taken to need {} bits.\n", arguments.bits);
    auto network = PlaceholderNetwork(spec, static_cast<unsigned>(arguments.bits));
    network.linear = LinearProtocol(arguments.linear);
    return network;
  }
  auto model = LoadModel(spec, arguments.model, registry, Say);
  model.net.linear = LinearProtocol(arguments.linear);
  warnings = std::move(model.warnings);
  return std::move(model.net);
}

// The plans in each of the formats, those of one link and batch after the other.
class PlanOutput {
 public:
  PlanOutput(const PlanArguments& arguments, const mpc::Registry& registry)
      : arguments_(arguments), registry_(registry), roles_(arguments.roles.Resolve()) {
    suites_ = arguments.Suites(registry);
    for (const auto& link : arguments.links) links_.push_back(ParseLink(link));
  }

  void AddAll(const nn::PublicNetwork& network, const std::vector<std::string>& warnings) {
    for (const auto& report : arguments_.measured)
      CheckMeasured(report, network, suites_, arguments_.batches);
    for (const auto& warning : warnings) Warn(warning);
    for (const auto batch : arguments_.batches)
      for (const auto& link : links_) {
        Rows comparison;
        for (const auto& suite : suites_) Add(network, suite, link, batch, warnings, comparison);
        const std::string best = AddBest(network, link, batch, comparison);
        comparisons_ += fmt::format(
            "\nOn link {} (round trip {} ms, {} Mbit/s), one batch of {}:\n\n{}{}", link.name,
            link.rtt_ms, link.mbit > 0 ? fmt::format("{}", link.mbit) : "unlimited", batch,
            Compared(comparison), best);
      }
  }

  // Whether there is any plan.
  bool Finish() const {
    Print("{}", comparisons_);
    if (modelled_)
      Print(
          "Computation by the built-in model is that of two cores of a Xeon with AVX-512; "
          "for times of this\nmachine give reports of `tercet run --json` on link none with "
          "--measured.\n");
    const std::string plans = "{\"plans\": [\n" + plans_ + "\n]}\n";
    std::vector<Output> outputs;
    if (!arguments_.csv.empty()) outputs.push_back({arguments_.csv, csv_});
    if (!arguments_.json.empty()) outputs.push_back({arguments_.json, plans});
    WriteFiles(outputs);
    return any_;
  }

 private:
  using Align = report::Align;
  using Rows = std::vector<std::vector<std::string>>;
  static constexpr const char* kModelled = "model";

  // Each once, however many plans it is true of.
  void Warn(const std::string& warning) {
    if (warned_.insert(warning).second) PrintWarning(warning);
  }

  void Add(nn::PublicNetwork network, const mpc::SuiteChoice& suite, const net::LinkProfile& link,
           std::size_t batch, std::vector<std::string> warnings, Rows& comparison) {
    infer::Plan plan;
    plans_ += plans_.empty() ? "" : ",\n";
    try {
      ResolveAuto(network, registry_, suite, link,
                  infer::ParseObjective(arguments_.optimise, "--optimise"), roles_, batch);
      plan = infer::MakePlan(network, registry_, suite, roles_, batch);
    } catch (const UnsupportedError& e) {
      comparison.push_back(
          {suite.Text(), "", "", "", "", "", "", fmt::format("not supported: {}", e.what())});
      csv_ += NoPlanToCsv(network, suite, batch, link, e.what());
      plans_ += NoPlanToJson(network, suite, batch, link, e.what());
      return;
    }
    any_ = true;
    for (auto& warning : plan.Warnings(registry_)) {
      Warn(warning);
      warnings.push_back(std::move(warning));
    }
    const auto prediction = Predict(plan, suite, registry_, link, arguments_.measured);
    modelled_ = modelled_ || !prediction.measured;
    if (!arguments_.summary)
      Print("\n{}, suite {}, linear layers {}, one batch of {}, link {}; {}\n\n{}", network.name,
            suite.Text(), plan.linear, batch, link.name, mpc::RolesText(roles_),
            DescribePlan(plan, &prediction, report::Utf8Locale()));
    comparison.push_back(Row(suite.Text(), plan, prediction));
    csv_ += PlanToCsv(plan, suite, prediction);
    plans_ += PlanToJson(plan, suite, prediction, warnings);
  }

  // Where `auto` is compared: what it takes for each objective. Its layers' suites, as text.
  std::string AddBest(const nn::PublicNetwork& network, const net::LinkProfile& link,
                      std::size_t batch, Rows& comparison) const {
    const mpc::SuiteChoice suite{nn::kAutoSuite, {}};
    std::string text;
    for (const auto& name : infer::ObjectiveNames()) {
      if (std::none_of(suites_.begin(), suites_.end(),
                       [&](const auto& compared) { return compared.name == suite.name; }))
        break;
      nn::PublicNetwork chosen = network;
      try {
        ResolveAuto(chosen, registry_, suite, link, infer::ParseObjective(name, "--optimise"),
                    roles_, batch);
      } catch (const UnsupportedError&) {
        break;  // its row says so
      }
      const auto plan = infer::MakePlan(chosen, registry_, suite, roles_, batch);
      std::vector<std::string> suites;
      for (const auto& layer : plan.layers)
        if (layer.Activates()) suites.push_back(layer.suite.Text());
      comparison.push_back(Row("least " + name, plan, Predict(plan, suite, registry_, link, {})));
      text += fmt::format("  least {:<8}{}\n", name, fmt::join(suites, ", "));
    }
    return text.empty() ? text : "\nThe layers' suites then:\n\n" + text;
  }

  // The memory is that of the party that needs most.
  static std::vector<std::string> Row(const std::string& name, const infer::Plan& plan,
                                      const Prediction& prediction) {
    const auto total = plan.Total();
    const auto& time = prediction.steps.back();
    const auto memory = infer::EstimateMemory(plan, 1, plan.batch);
    return {name,
            std::to_string(total.OnlineHops()),
            report::FormatBytes(total.OfflineTotal()),
            report::FormatBytes(total.OnlineTotal()),
            report::FormatSeconds(time.OfflineSeconds()),
            report::FormatSeconds(time.OnlineSeconds()),
            report::FormatBytes(*std::max_element(memory.begin(), memory.end())),
            prediction.measured ? "measured" : kModelled};
  }

  // Without the last column where it says nothing.
  static std::string Compared(const Rows& rows) {
    std::vector<report::Table::Column> columns = {{"suite"},
                                                  {"hops", Align::kRight},
                                                  {"offline", Align::kRight},
                                                  {"online", Align::kRight},
                                                  {"offline time", Align::kRight},
                                                  {"online time", Align::kRight},
                                                  {"memory", Align::kRight},
                                                  {"computation"}};
    if (std::all_of(rows.begin(), rows.end(),
                    [](const auto& row) { return row.back() == kModelled; }))
      columns.pop_back();
    report::Table table(columns);
    for (const auto& row : rows)
      table.AddRow({row.begin(), row.begin() + static_cast<std::ptrdiff_t>(columns.size())});
    return table.Render(report::Utf8Locale());
  }

  const PlanArguments& arguments_;
  const mpc::Registry& registry_;
  const mpc::Roles roles_;
  std::vector<mpc::SuiteChoice> suites_;
  std::vector<net::LinkProfile> links_;
  bool any_ = false, modelled_ = false;
  std::set<std::string> warned_;
  std::string comparisons_, plans_, csv_ = PlanCsvHead();
};

int ShowPlan(const PlanArguments& arguments) {
  const auto registry = BuiltinProtocols();
  if (!arguments.csv.empty()) CheckWritable(arguments.csv, "--csv");
  if (!arguments.json.empty()) CheckWritable(arguments.json, "--json");
  PlanOutput output(arguments, registry);
  std::vector<std::string> warnings;
  output.AddAll(NetworkOf(arguments, registry, warnings), warnings);
  return output.Finish() ? kExitOk : kExitFailed;
}

}  // namespace

void AddPlanCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("plan", "What a query costs, layer by layer; nothing is run");
  auto a = std::make_shared<PlanArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  auto* model = command->add_option(
      "--model", a->model.file,
      "Compiled model or float weights, or random[:SEED]; without it, one width for all");
  AddCalibration(*command, a->model);
  AddNumber(*command, "--bits", a->bits, 2, 32, "That width")->excludes(model);
  AddPlanSettings(*command, *a);
  command->add_flag("--summary", a->summary, "Only compare the suites, without their layers");
  command->add_option("--json", a->json, "Write the plans");
  command->add_option("--csv", a->csv, "Write them as a table, with the predicted times");
  command->footer(
      "Example:\n"
      "  tercet plan nets/mnistnet3.json --suite lut,cbnn --link lan,wan --batch 1,128 --summary");
  command->callback([a, &chosen] { chosen = [a] { return ShowPlan(*a); }; });
}

}  // namespace tercet::programs
