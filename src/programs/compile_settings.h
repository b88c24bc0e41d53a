// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>

#include "tercet/compile/compile.h"

namespace tercet::programs {

/// compile::CompileOptions as whoever compiles gives them, noise in percent.
struct CompileSettings {
  double max_loss = compile::CompileOptions{}.max_loss;
  double max_noise = 100 * compile::CompileOptions{}.max_noise;
  double min_agreement = compile::CompileOptions{}.min_agreement;
  bool accept_loss = false;
  std::size_t max_bits = compile::CompileOptions{}.max_bits;
  std::size_t activation_bits = compile::CompileOptions{}.activation_bits;
  std::size_t head_room = compile::CompileOptions{}.head_room;
  double norm_scale = 0;
  std::string widths = "proven", output;

  /// Without images, labels and progress.
  compile::CompileOptions Options() const;
};

/// --max-loss, --max-noise, --max-bits, --min-agreement, --accept-loss, --activation-bits,
/// --norm-scale, --widths, --head-room and --output.
void AddCompileSettings(CLI::App& app, CompileSettings& settings);

}  // namespace tercet::programs
