// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>

#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::programs {
namespace {

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
  double norm_scale = 0;
  std::string widths = "proven", output;
};

int RunCompile(const CompileArguments& arguments) {
  const auto registry = BuiltinProtocols();
  CheckWritable(arguments.out, "--out");
  const auto spec = nn::LoadNetwork(arguments.network);
  CheckLabels(arguments.model, arguments.labels);
  if (!RandomSeed(arguments.model) && compile::IsCompiled(arguments.model))
    throw ConfigError("--model", fmt::format("{} is compiled already; float weights expected",
                                             arguments.model.string()));
  compile::CompileOptions options;
  options.max_bits = static_cast<unsigned>(arguments.max_bits);
  options.min_bits = std::min(options.min_bits, options.max_bits);
  options.max_loss = arguments.max_loss;
  options.max_noise = arguments.max_noise / 100;
  options.min_agreement = arguments.min_agreement;
  options.accept_loss = arguments.accept_loss;
  options.activation_bits = static_cast<unsigned>(arguments.activation_bits);
  options.norm_scale = arguments.norm_scale;
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
  AddReal(*command, "--norm-scale", a->norm_scale, 0, compile::kMaxNormScale,
          "Round the factors and shifts of batch normalisation to multiples of 1/X first, as "
          "MOBIUS does "
          "with 10000; 0: use them as they are");
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
