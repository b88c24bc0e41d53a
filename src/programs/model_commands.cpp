// SPDX-License-Identifier: Apache-2.0
// The commands that look at a network without running it securely: plan, plain, compile.

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "programs/auto_suite.h"
#include "programs/check_layers.h"
#include "programs/commands.h"
#include "programs/cost_table.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/progress_line.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

constexpr std::size_t kFloatBatch = 128;

void Say(const std::string& line) {
  Print("{}\n", line);
  FlushOutput();
}

struct PlanArguments {
  std::filesystem::path network, json, csv;
  ModelSource model;
  std::vector<std::string> suites;  // none: all private ones and auto
  std::vector<std::filesystem::path> measured;
  std::string link = "none", optimise = "online";
  std::size_t batch = 1, bits = kDefaultBits;
  RoleOptions roles;
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
  const auto link = net::ParseLinkProfile(arguments.link);
  const auto roles = arguments.roles.Resolve();
  const auto spec = nn::LoadNetwork(arguments.network);
  nn::PublicNetwork network;
  std::vector<std::string> model_warnings;
  if (arguments.model.file.empty()) {
    network = PlaceholderNetwork(spec, static_cast<unsigned>(arguments.bits));
    Print("No model given: every layer is taken to need {} bits.\n", arguments.bits);
  } else {
    auto model = LoadModel(spec, arguments.model, registry, Say);
    network = std::move(model.net);
    model_warnings = std::move(model.warnings);
    for (const auto& warning : model_warnings) PrintWarning(warning);
  }
  std::string plans;
  std::string csv = PlanCsvHead();
  bool all_measured = true;
  using report::Align;
  report::Table comparison({{"suite"},
                            {"hops", Align::kRight},
                            {"offline", Align::kRight},
                            {"online", Align::kRight},
                            {"offline time", Align::kRight},
                            {"online time", Align::kRight},
                            {"computation"}});
  for (const auto& text : arguments.suites) {
    const auto suite = ParseSuite(text, registry);
    auto named = network;
    ResolveAuto(named, registry, suite, link,
                infer::ParseObjective(arguments.optimise, "--optimise"), roles, arguments.batch);
    const auto plan = infer::MakePlan(named, registry, suite, roles, arguments.batch);
    auto warnings = plan.Warnings(registry);
    for (const auto& warning : warnings) PrintWarning(warning);
    warnings.insert(warnings.begin(), model_warnings.begin(), model_warnings.end());
    const auto prediction = Predict(plan, suite, registry, link, arguments.measured);
    all_measured = all_measured && prediction.measured;
    Print("\n{}, suite {}, one batch of {}, link {}; {}\n\n{}", network.name, suite.Text(),
          plan.batch, link.name, mpc::RolesText(roles),
          DescribePlan(plan, &prediction, report::Utf8Locale()));
    const auto total = plan.Total();
    const auto& time = prediction.steps.back();
    comparison.AddRow({suite.Text(), std::to_string(total.OnlineHops()),
                       report::FormatBytes(total.OfflineTotal()),
                       report::FormatBytes(total.OnlineTotal()),
                       report::FormatSeconds(static_cast<double>(time.offline_ns) / 1e9),
                       report::FormatSeconds(static_cast<double>(time.online_ns) / 1e9),
                       prediction.measured ? "measured" : "model"});
    csv += PlanToCsv(plan, suite, prediction);
    plans += (plans.empty() ? "" : ",\n") + PlanToJson(plan, suite, prediction, warnings);
  }
  Print("\nOn link {} (round trip {} ms, {} Mbit/s), one batch of {}:\n\n{}", link.name,
        link.rtt_ms, link.mbit > 0 ? fmt::format("{}", link.mbit) : "unlimited", arguments.batch,
        comparison.Render(report::Utf8Locale()));
  if (!all_measured)
    Print(
        "Computation by the built-in model is that of two cores of a Xeon with AVX-512; "
        "for times of this\nmachine give reports of `tercet run --json` on link none with "
        "--measured.\n");
  plans = "{\"plans\": [\n" + plans + "\n]}\n";
  std::vector<Output> outputs;
  if (!arguments.csv.empty()) outputs.push_back({arguments.csv, csv});
  if (!arguments.json.empty()) outputs.push_back({arguments.json, plans});
  WriteFiles(outputs);
  return kExitOk;
}

struct PlainArguments {
  std::filesystem::path network, images, labels, check, json;
  ModelSource model;
  std::size_t limit = 0;
  double tolerance = 1e-4;
};

std::vector<std::uint8_t> FloatPredictions(const nn::FloatNetwork& network,
                                           const files::Images& images) {
  std::vector<std::uint8_t> predictions;
  const std::size_t classes = network.Spec().Classes();
  for (std::size_t first = 0; first < images.count; first += kFloatBatch) {
    const auto logits = network.Run(images, first, std::min(kFloatBatch, images.count - first));
    for (auto row = logits.begin(); row != logits.end();
         row += static_cast<std::ptrdiff_t>(classes))
      predictions.push_back(static_cast<std::uint8_t>(
          std::max_element(row, row + static_cast<std::ptrdiff_t>(classes)) - row));
  }
  return predictions;
}

/// Widths and the values that entered each layer's activation.
void PrintRanges(const nn::PublicNetwork& network, const std::vector<nn::ValueRange>& ranges) {
  using report::Align;
  report::Table table({{"layer"},
                       {"type"},
                       {"bits", Align::kRight},
                       {"width", Align::kLeft},
                       {"smallest value", Align::kRight},
                       {"largest value", Align::kRight},
                       {"head-room, bits", Align::kRight}});
  for (std::size_t l = 0; l < ranges.size(); ++l) {
    const auto& layer = network.layers[l];
    table.AddRow({layer.name, layer.type, fmt::format("{}", layer.value_bits),
                  layer.proven ? "proven" : "measured", fmt::format("{}", ranges[l].low),
                  fmt::format("{}", ranges[l].high),
                  fmt::format("{:.1f}", ranges[l].HeadRoom(layer.value_bits))});
  }
  Print("{}", table.Render(report::Utf8Locale()));
}

int RunPlainNetwork(const PlainArguments& arguments) {
  const auto registry = BuiltinProtocols();
  if (!arguments.json.empty()) CheckWritable(arguments.json, "--json");
  const auto spec = nn::LoadNetwork(arguments.network);
  const auto data = LoadLabelledImages(arguments.images, arguments.labels, arguments.limit, spec);
  if (!arguments.check.empty()) {
    const auto& file = arguments.model.file;
    return CheckLayers({spec, files::LoadTensors(file), file.string()}, data.images,
                       arguments.check.string(), arguments.tolerance);
  }
  const auto model = LoadModel(spec, arguments.model, registry, Say);
  report::PlainReport report;
  report.network = spec.name;
  report.images = data.images.count;
  report.classes = spec.Classes();
  report.machine = MachineText();
  report.warnings = model.warnings;
  for (const auto& layer : model.net.layers)
    if (!layer.proven) report.warnings.push_back(infer::NotProvenText(layer));
  for (const auto& warning : report.warnings) PrintWarning(warning);

  const auto start = std::chrono::steady_clock::now();
  std::vector<nn::ValueRange> ranges;
  std::optional<ProgressLine> progress(std::in_place);
  report.logits =
      PlainLogits(model, registry.PlainOracle(), data.images, &ranges,
                  [&](std::size_t done, std::size_t total) { progress->Show(done, total); });
  progress.reset();
  report.total_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.predictions = nn::Predictions(report.logits, report.classes);
  for (std::size_t l = 0; l < ranges.size(); ++l) {
    const auto& layer = model.net.layers[l];
    report.layers.push_back(
        {layer.name, layer.type, layer.value_bits, layer.proven, ranges[l].low, ranges[l].high});
  }
  PrintRanges(model.net, ranges);
  if (!data.labels.empty()) report.correct = CountCorrect(report.predictions, data.labels);
  if (!compile::IsCompiled(arguments.model.file)) {
    const nn::FloatNetwork network(spec, files::LoadTensors(arguments.model.file),
                                   arguments.model.file.string());
    const auto exact = FloatPredictions(network, data.images);
    if (!data.labels.empty()) report.float_correct = CountCorrect(exact, data.labels);
    report.same_as_float = CountCorrect(report.predictions, exact);
  }
  const auto show = [&](const char* what, const std::optional<std::size_t>& part) {
    if (part)
      Print("{}: {:.2f} % ({} of {} images)\n", what,
            100.0 * static_cast<double>(*part) / static_cast<double>(report.images), *part,
            report.images);
  };
  show("integer network, accuracy", report.correct);
  show("float network, accuracy", report.float_correct);
  show("both predict the same", report.same_as_float);
  if (data.labels.empty() && !report.same_as_float)
    Print("predictions: {}\n", fmt::join(report.predictions, " "));
  if (!arguments.json.empty())
    WriteFile(arguments.json, report::ToJson(report), FileRights::kOwner);
  return kExitOk;
}

struct CompileArguments {
  std::filesystem::path network, model, out, images, labels;
  std::size_t limit = 0;
  double max_loss = compile::CompileOptions{}.max_loss;
  double max_noise = 100 * compile::CompileOptions{}.max_noise;
  double min_agreement = compile::CompileOptions{}.min_agreement;
  bool accept_loss = false;
  std::size_t max_bits = compile::CompileOptions{}.max_bits;
  std::size_t activation_bits = compile::CompileOptions{}.activation_bits;
  std::size_t head_room = compile::CompileOptions{}.head_room;
  std::string widths = "proven", output;
};

int RunCompile(const CompileArguments& arguments) {
  const auto registry = BuiltinProtocols();
  CheckWritable(arguments.out, "--out");
  const auto spec = nn::LoadNetwork(arguments.network);
  if (compile::IsCompiled(arguments.model))
    throw ConfigError("--model", fmt::format("{} is compiled already; float weights expected",
                                             arguments.model.string()));
  const nn::FloatNetwork network(spec, files::LoadTensors(arguments.model),
                                 arguments.model.string());
  compile::CompileOptions options;
  options.max_bits = static_cast<unsigned>(arguments.max_bits);
  options.min_bits = std::min(options.min_bits, options.max_bits);
  options.max_loss = arguments.max_loss;
  options.max_noise = arguments.max_noise / 100;
  options.min_agreement = arguments.min_agreement;
  options.accept_loss = arguments.accept_loss;
  options.activation_bits = static_cast<unsigned>(arguments.activation_bits);
  options.measured = arguments.widths == "measured";
  options.head_room = static_cast<unsigned>(arguments.head_room);
  if (!arguments.output.empty()) options.only_class = arguments.output == "class";
  options.progress = Say;
  LabelledImages calibration;
  if (!arguments.images.empty()) {
    calibration = LoadLabelledImages(arguments.images, arguments.labels, arguments.limit, spec);
    options.calibration = &calibration.images;
    if (!calibration.labels.empty()) options.labels = &calibration.labels;
  }
  const auto compiled = compile::Compile(network, registry.PlainOracle(), options, nullptr);
  compile::SaveCompiled(compiled, arguments.out);
  Print("{} written\n", arguments.out.string());
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

void AddPlainCommand(CLI::App& app, Chosen& chosen) {
  auto* command =
      app.add_subcommand("plain", "The same integers without secrecy, and the float network");
  auto a = std::make_shared<PlainArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  command->add_option("--model", a->model.file, "Compiled model or float weights (.safetensors)")
      ->required();
  command
      ->add_option("--images", a->images, "IDX, .npy, CIFAR-10 .bin or bytes .u8, also .gz or .xz")
      ->required();
  command->add_option("--labels", a->labels, "Their labels, for the accuracy");
  AddNumber(*command, "--limit", a->limit, 1, kMaxImages, "Use the first N images only");
  AddCalibration(*command, a->model);
  command->add_option("--json", a->json, "Write the report");
  auto* check = command->add_option("--check", a->check,
                                    "Only compare the float network's layers with this reference "
                                    "(scripts/export-pytorch.py writes one)");
  AddReal(*command, "--tolerance", a->tolerance, 0, 1,
          "Difference that --check allows, as a part of the layer's largest value")
      ->needs(check);
  command->footer(
      "Example:\n"
      "  tercet plain nets/mnistnet1.json --model nets/mnistnet1.safetensors --images "
      "t10k-images-idx3-ubyte.gz\n"
      "         --labels t10k-labels-idx1-ubyte.gz");
  command->callback([a, &chosen] { chosen = [a] { return RunPlainNetwork(*a); }; });
}

void AddCompileCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "compile", "Turn float weights into an integer network with a proven width per layer");
  auto a = std::make_shared<CompileArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  command
      ->add_option("--model", a->model,
                   "Float weights (.safetensors, names as in a PyTorch state_dict)")
      ->required();
  command->add_option("--out", a->out, "Compiled model to write (.safetensors)")->required();
  auto* images = command->add_option(
      "--images", a->images,
      "Training images to choose the widths with (at most 10,000 of them, drawn "
      "at random, are used); without any, widths keep what the weights need");
  command->add_option("--labels", a->labels, "Their labels, to report accuracies")->needs(images);
  AddReal(
      *command, "--max-loss", a->max_loss, 0, 100,
      "Predictions that narrower layers may change, in percent of the images; near ties are not "
      "counted");
  AddReal(
      *command, "--max-noise", a->max_noise, 0, 100,
      "By how much narrower layers may change the margin between an image's two largest logits, "
      "in percent of it (median image)");
  AddNumber(*command, "--max-bits", a->max_bits, 2, 32, "Width that no layer may exceed");
  AddReal(
      *command, "--min-agreement", a->min_agreement, 0, 100,
      "Predictions that integer and float network must have in common, in percent; fewer are an "
      "error");
  command->add_flag(
      "--accept-loss", a->accept_loss,
      "Write the model even if it loses more than that, or a whole layer; its reports "
      "warn of it");
  AddNumber(*command, "--activation-bits", a->activation_bits, 2, 16,
            "Bits of the largest value that leaves a ReLU; before a square 3/4 of them");
  command
      ->add_option("--widths", a->widths,
                   "Of layers before and after ReLU or square: proven for every input, or measured "
                   "on the images, which deep networks need")
      ->check(CLI::IsMember({"proven", "measured"}))
      ->capture_default_str();
  AddNumber(*command, "--head-room", a->head_room, 0, 16,
            "Bits that measured widths have more than the values seen need");
  command
      ->add_option("--output", a->output,
                   "What leaves the network: its logits, or the class alone (default: as the "
                   "architecture says; never more than that)")
      ->check(CLI::IsMember({"logits", "class"}));
  AddNumber(*command, "--limit", a->limit, 1, kMaxImages, "Use the first N images only");
  command->footer(
      "Example:\n"
      "  tercet compile nets/mnistnet1.json --model nets/mnistnet1.safetensors --out "
      "mnistnet1.compiled.safetensors\n"
      "         --images train-images-idx3-ubyte.gz --labels train-labels-idx1-ubyte.gz --limit "
      "5000");
  command->callback([a, &chosen] { chosen = [a] { return RunCompile(*a); }; });
}

}  // namespace tercet::programs
