// SPDX-License-Identifier: Apache-2.0
#include "import/import_command.h"

#include <fmt/format.h>

#include <array>
#include <memory>

#include "import/import_onnx.h"
#include "programs/failure.h"
#include "programs/options.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"

namespace tercet::importer {
namespace {

constexpr double kMaxReal = 1e6;  // as nets/network.schema.json says

struct Arguments : ImportSettings {
  std::filesystem::path model, out, weights;
};

int RunImport(Arguments arguments) {
  if (arguments.weights.empty()) {
    arguments.weights = arguments.out;
    arguments.weights.replace_extension(".safetensors");
  }
  CheckWritable(arguments.out, "--out");
  CheckWritable(arguments.weights, "--weights");
  if (arguments.weights == arguments.out) {
    throw ConfigError("--out", fmt::format("{} is the file of the weights too, expected another "
                                           "one, such as NET.json",
                                           arguments.out.string()));
  }
  const ImportedNetwork network = ImportOnnx(arguments.model, arguments.Options());
  const auto weights = files::SerializeTensors(network.weights);
  const std::array outputs{Output{arguments.weights,
                                  {reinterpret_cast<const char*>(weights.data()), weights.size()},
                                  FileRights::kOwner},
                           Output{arguments.out, network.architecture}};
  WriteFiles(outputs);
  const auto spec = nn::ParseNetwork(network.architecture, arguments.out.string());
  programs::Print("{}: {} layers, input {}, {} classes; weights in {}\n", arguments.out.string(),
                  spec.layers.size(), mpc::ShapeText(spec.input.shape), spec.Classes(),
                  arguments.weights.string());
  for (const std::string& note : network.notes) programs::Print("note: {}\n", note);
  for (const std::string& remark : nn::Remarks(spec)) programs::PrintWarning(remark);
  return programs::kExitOk;
}

}  // namespace

ImportOptions ImportSettings::Options() const {
  ImportOptions all = options;
  if (!shape.empty()) all.input.shape = {shape[0], shape[1], shape[2]};
  all.input.bits = static_cast<unsigned>(bits);
  all.binarise = {binarise.begin(), binarise.end()};
  return all;
}

void AddImportSettings(CLI::App& app, ImportSettings& settings) {
  nn::InputSpec& input = settings.options.input;
  app.add_option("--name", settings.options.name, "The network's name (default: the model's file)");
  app.add_option("--shape", settings.shape,
                 "Channels, height and width of the images, C,H,W, where the model does not say: "
                 "its input is [N, features] or has sides of any size")
      ->delimiter(',')
      ->expected(3)
      ->check(CLI::Range(std::size_t{1}, std::size_t{65536}).description(""))
      ->type_name("N");
  app.add_option("--binarise", settings.binarise,
                 "Layers whose weights are latent, as Larq's: their signs are taken")
      ->delimiter(',')
      ->type_name("LAYER,...");
  programs::AddReal(app, "--scale", input.scale, 1 / kMaxReal, kMaxReal,
                    "A pixel p of 0..255 enters as (p / scale - mean) / std");
  programs::AddReal(app, "--mean", input.mean, -kMaxReal, kMaxReal, "See --scale");
  programs::AddReal(app, "--std", input.std, 1 / kMaxReal, kMaxReal, "See --scale");
  programs::AddNumber(app, "--bits", settings.bits, 1, 8, "Bits that a pixel is first rounded to");
}

void AddImportCommand(CLI::App& app, programs::Chosen& chosen) {
  auto* command = app.add_subcommand("import", "Make a network of an ONNX model");
  auto a = std::make_shared<Arguments>();
  command->add_option("model", a->model, "ONNX model with its weights")->required();
  command->add_option("--out", a->out, "Architecture to write (JSON)")->required();
  command->add_option("--weights", a->weights,
                      "Weights to write (default: --out's name with .safetensors)");
  AddImportSettings(*command, *a);
  command->footer(
      "Then `tercet compile NET.json --model NET.safetensors` makes integers of the weights.\n"
      "Example:\n  tercet import lenet.onnx --out lenet.json --mean 0.1307 --std 0.3081");
  command->callback([a, &chosen] { chosen = [a] { return RunImport(*a); }; });
}

}  // namespace tercet::importer
