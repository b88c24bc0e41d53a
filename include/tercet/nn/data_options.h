// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tercet/files/data_options.h"
#include "tercet/nn/network.h"

namespace tercet::nn {

/// `options` for images that a network with this input takes.
inline files::DataOptions WithInput(files::DataOptions options, const InputSpec& input) {
  options.scale = input.scale;
  options.mean = input.mean;
  options.std = input.std;
  return options;
}

}  // namespace tercet::nn
