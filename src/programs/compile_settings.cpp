// SPDX-License-Identifier: Apache-2.0
#include "programs/compile_settings.h"

#include <algorithm>

#include "programs/options.h"

namespace tercet::programs {

compile::CompileOptions CompileSettings::Options() const {
  compile::CompileOptions options;
  options.max_bits = static_cast<unsigned>(max_bits);
  options.min_bits = std::min(options.min_bits, options.max_bits);
  options.max_loss = max_loss;
  options.max_noise = max_noise / 100;
  options.min_agreement = min_agreement;
  options.accept_loss = accept_loss;
  options.activation_bits = static_cast<unsigned>(activation_bits);
  options.norm_scale = norm_scale;
  options.measured = widths == "measured";
  options.head_room = static_cast<unsigned>(head_room);
  if (!output.empty()) options.only_class = output == "class";
  return options;
}

void AddCompileSettings(CLI::App& app, CompileSettings& settings) {
  AddReal(
      app, "--max-loss", settings.max_loss, 0, 100,
      "Predictions that narrower layers may change, in percent of the images; near ties are not "
      "counted");
  AddReal(
      app, "--max-noise", settings.max_noise, 0, 100,
      "By how much narrower layers may change the margin between an image's two largest logits, "
      "in percent of it (median image)");
  AddNumber(app, "--max-bits", settings.max_bits, 2, 32, "Width that no layer may exceed");
  AddReal(
      app, "--min-agreement", settings.min_agreement, 0, 100,
      "Predictions that integer and float network must have in common, in percent; fewer are an "
      "error");
  app.add_flag("--accept-loss", settings.accept_loss,
               "Write the model even if it loses more than that, or a whole layer; its reports "
               "warn of it");
  AddNumber(app, "--activation-bits", settings.activation_bits, 2, 16,
            "Bits of the largest value that leaves a ReLU; before a square 3/4 of them");
  AddReal(app, "--norm-scale", settings.norm_scale, 0, compile::kMaxNormScale,
          "Round the factors and shifts of batch normalisation to multiples of 1/X first, as "
          "MOBIUS does "
          "with 10000; 0: use them as they are");
  app.add_option("--widths", settings.widths,
                 "Of layers before and after ReLU or square: proven for every input, or measured "
                 "on the images, which deep networks need")
      ->check(CLI::IsMember({"proven", "measured"}))
      ->capture_default_str();
  AddNumber(app, "--head-room", settings.head_room, 0, 16,
            "Bits that measured widths have more than the values seen need");
  app.add_option("--output", settings.output,
                 "What leaves the network: its logits, or the class alone (default: as the "
                 "architecture says; never more than that)")
      ->check(CLI::IsMember({"logits", "class"}));
}

}  // namespace tercet::programs
