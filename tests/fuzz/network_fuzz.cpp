// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "tercet/base/error.h"
#include "tercet/compile/architecture.h"
#include "tercet/nn/network.h"

/// Any text gives a network whose shapes were worked out, or a ConfigError, and then the
/// architecture of its integer layers, or an UnsupportedError.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const tercet::nn::NetworkSpec network =
        tercet::nn::ParseNetwork(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
    for (const tercet::nn::LayerSpec& layer : network.layers)
      if (layer.in.Size() == 0 || layer.out.Size() == 0) std::abort();
    if (network.Digest().size() != 64) std::abort();
    // The shapes of its integer layers follow one another, without a weight to hold.
    const bool only_class = network.output == "class";
    const auto layers = tercet::compile::Architecture(network, only_class).layers;
    if (layers.back().Out().Size() != network.Classes()) std::abort();
  } catch (const tercet::ConfigError&) {
  } catch (const tercet::UnsupportedError&) {
  }
  return 0;
}
