// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "import/import_onnx.h"
#include "tercet/base/error.h"
#include "tercet/compile/compile.h"

/// Any bytes give a network that its weights fit, or a ConfigError.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tercet::importer::ImportedNetwork network;
  try {
    network = tercet::importer::ParseOnnx({data, data + size}, "fuzz.onnx", {});
  } catch (const tercet::ConfigError&) {
    return 0;
  }
  const tercet::nn::FloatNetwork fits(tercet::nn::ParseNetwork(network.architecture, "again"),
                                      network.weights, "again");
  return 0;
}
