// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "programs/build_identity.h"
#include "programs/check_layers.h"
#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/progress_line.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/report/run_report.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

constexpr std::size_t kFloatBatch = 128;

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
    const auto part = nn::Predictions(logits, classes);
    predictions.insert(predictions.end(), part.begin(), part.end());
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
  CheckLabels(arguments.model.file, arguments.labels);
  const auto spec = nn::LoadNetwork(arguments.network);
  const auto data = LoadLabelledImages(arguments.images, arguments.labels, arguments.limit, spec,
                                       arguments.model.data);
  if (!arguments.check.empty())
    return CheckLayers(LoadFloats(spec, arguments.model.file), data.images,
                       arguments.check.string(), arguments.tolerance);
  const auto model = LoadModel(spec, arguments.model, registry, Say);
  report::PlainReport report;
  report.network = spec.name;
  report.images = data.images.count;
  report.classes = spec.Classes();
  report.machine = MachineText();
  report.warnings = model.warnings;
  if (const auto warning = files::RangeWarning(data.images)) report.warnings.push_back(*warning);
  for (const auto& layer : model.net.layers)
    if (!layer.proven) report.warnings.push_back(infer::NotProvenText(layer));
  for (const auto& warning : report.warnings) PrintWarning(warning);

  const auto start = Clock::now();
  std::vector<nn::ValueRange> ranges;
  std::optional<ProgressLine> progress(std::in_place);
  report.logits =
      PlainLogits(model, registry.PlainOracle(), data.images, &ranges,
                  [&](std::size_t done, std::size_t total) { progress->Show(done, total); });
  progress.reset();
  report.total_s = SecondsSince(start);
  report.predictions = nn::Predictions(report.logits, report.classes);
  for (std::size_t l = 0; l < ranges.size(); ++l) {
    const auto& layer = model.net.layers[l];
    report.layers.push_back(
        {layer.name, layer.type, layer.value_bits, layer.proven, ranges[l].low, ranges[l].high});
  }
  PrintRanges(model.net, ranges);
  if (!data.labels.empty()) report.correct = CountCorrect(report.predictions, data.labels);
  if (RandomSeed(arguments.model.file) || !compile::IsCompiled(arguments.model.file)) {
    const auto network = LoadFloats(spec, arguments.model.file);
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

}  // namespace

void AddPlainCommand(CLI::App& app, Chosen& chosen) {
  auto* command =
      app.add_subcommand("plain", "The same integers without secrecy, and the float network");
  auto a = std::make_shared<PlainArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  command
      ->add_option("--model", a->model.file,
                   "Compiled model or float weights (.safetensors), or random[:SEED]")
      ->required();
  command->add_option("--images", a->images, kImageFormats)->required();
  command->add_option("--labels", a->labels, "Their labels, for the accuracy");
  AddNumber(*command, "--limit", a->limit, 1, kMaxImages, "Use the first N images only");
  AddCalibration(*command, a->model);
  AddDataOptions(*command, a->model.data);
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

}  // namespace tercet::programs
