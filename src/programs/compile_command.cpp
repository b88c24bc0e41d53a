// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "base/clock.h"
#include "programs/commands.h"
#include "programs/compile_settings.h"
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

constexpr double kSilentSeconds = 1;

struct CompileArguments : CompileSettings {
  std::filesystem::path network, model, out, images, labels;
  std::size_t limit = 0;
  files::DataOptions data;
};

// The search takes nearly all of the time.
void ShowSearch(ProgressLine& progress, double seconds, double part) {
  if (seconds < kSilentSeconds || part >= 1) return;
  progress.Show(fmt::format(
      "choosing widths, {:.0f} % done{}", 100 * part,
      part > 0 ? fmt::format(", about {} left", report::FormatSeconds(seconds * (1 - part) / part))
               : ""));
}

int RunCompile(const CompileArguments& arguments) {
  const auto registry = BuiltinProtocols();
  CheckWritable(arguments.out, "--out");
  const auto spec = nn::LoadNetwork(arguments.network);
  CheckLabels(arguments.model, arguments.labels);
  if (!RandomSeed(arguments.model) && compile::IsCompiled(arguments.model))
    RefuseCompiled(arguments.model);
  auto options = arguments.Options();
  ProgressLine progress;
  options.progress = [&](const std::string& line) {
    progress.End();
    Say(line);
  };
  const auto start = Clock::now();
  options.on_search = [&](double part) { ShowSearch(progress, SecondsSince(start), part); };
  LabelledImages calibration;
  if (!arguments.images.empty()) {
    calibration = LoadLabelledImages(arguments.images, arguments.labels, arguments.limit, spec,
                                     arguments.data);
    if (const auto warning = files::RangeWarning(calibration.images)) PrintWarning(*warning);
    options.calibration = &calibration.images;
    if (!calibration.labels.empty()) options.labels = &calibration.labels;
  }
  const auto compiled = CompileModel(spec, arguments.model, registry, std::move(options));
  compile::SaveCompiled(compiled, arguments.out);
  Print("{} written\n", arguments.out.string());
  return kExitOk;
}

}  // namespace

void AddCompileCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "compile", "Turn float weights into an integer network with a proven width per layer");
  auto a = std::make_shared<CompileArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  command
      ->add_option("--model", a->model,
                   "Float weights (.safetensors, names as in a PyTorch state_dict), or "
                   "random[:SEED]")
      ->required();
  command->add_option("--out", a->out, "Compiled model to write (.safetensors)")->required();
  auto* images = command->add_option(
      "--images", a->images,
      "Training images to choose the widths with (at most 10,000 of them, drawn "
      "at random, are used); without any, widths keep what the weights need");
  command->add_option("--labels", a->labels, "Their labels, to report accuracies")->needs(images);
  AddCompileSettings(*command, *a);
  AddNumber(*command, "--limit", a->limit, 1, kMaxImages, "Use the first N images only");
  AddDataOptions(*command, a->data);
  command->footer(
      "Example:\n"
      "  tercet compile nets/mnistnet1.json --model nets/mnistnet1.safetensors --out "
      "mnistnet1.compiled.safetensors\n"
      "         --images train-images-idx3-ubyte.gz --labels train-labels-idx1-ubyte.gz --limit "
      "5000");
  command->callback([a, &chosen] { chosen = [a] { return RunCompile(*a); }; });
}

}  // namespace tercet::programs
