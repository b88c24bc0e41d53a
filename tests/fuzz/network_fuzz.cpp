#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "tercet/base/error.h"
#include "tercet/nn/network.h"

/// Any text gives a network whose shapes were worked out, or a ConfigError.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const tercet::nn::NetworkSpec network =
        tercet::nn::ParseNetwork(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
    for (const tercet::nn::LayerSpec& layer : network.layers)
      if (layer.in.Size() == 0 || layer.out.Size() == 0) std::abort();
    if (network.Digest().size() != 64) std::abort();
  } catch (const tercet::ConfigError&) {
  }
  return 0;
}
