// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>

#include "programs/commands.h"
#include "programs/draw_digits.h"
#include "programs/failure.h"
#include "programs/options.h"
#include "programs/output.h"

namespace tercet::programs {
namespace {

struct DrawDigitsArguments {
  std::filesystem::path images, labels;
  std::size_t count = 100, seed = 1;
};

int DrawDigitFiles(const DrawDigitsArguments& arguments) {
  DrawDigits(arguments.images, arguments.labels, arguments.count, arguments.seed);
  Print("{} and {}: {} drawn digits and their classes\n", arguments.images.string(),
        arguments.labels.string(), arguments.count);
  return kExitOk;
}

}  // namespace

void AddDrawDigitsCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "draw-digits", "Draw digits to try the networks on where MNIST is not at hand");
  auto a = std::make_shared<DrawDigitsArguments>();
  command->add_option("images", a->images, "IDX file of images to write")->required();
  command->add_option("labels", a->labels, "IDX file of labels to write")->required();
  AddNumber(*command, "--count", a->count, 1, 1'000'000, "How many");
  AddNumber(*command, "--seed", a->seed, 0, 1'000'000'000, "The same seed draws the same digits");
  command->footer("Example:\n  tercet draw-digits digits.idx classes.idx --count 200");
  command->callback([a, &chosen] { chosen = [a] { return DrawDigitFiles(*a); }; });
}

}  // namespace tercet::programs
