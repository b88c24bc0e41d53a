// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "tercet/base/error.h"
#include "tercet/compile/announcement.h"

namespace {

constexpr char kNetwork[] = R"({
  "name": "N", "input": {"shape": [1, 4, 4], "bits": 4}, "output": "logits",
  "layers": [{"name": "c1", "type": "conv2d", "out_channels": 2, "kernel": 3},
             {"name": "r1", "type": "relu"},
             {"name": "fc", "type": "linear", "out_features": 3}]})";

}  // namespace

/// Any text gives an announcement that comes back from its own text, and then a network of the
/// party's own architecture, or a ConfigError.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const tercet::nn::NetworkSpec spec = tercet::nn::ParseNetwork(kNetwork, "net");
  try {
    auto announcement = tercet::compile::AnnouncementFromJson(
        std::string(reinterpret_cast<const char*>(data), size), "fuzz");
    const std::string text = tercet::compile::AnnouncementToJson(announcement);
    if (!(tercet::compile::AnnouncementFromJson(text, "fuzz") == announcement)) std::abort();
    // Whoever fuzzes does not find a digest.
    announcement.network = spec.name;
    announcement.spec_digest = spec.Digest();
    const auto network = tercet::compile::NetworkOf(spec, announcement, "fuzz");
    if (network.layers.size() != 2 || network.layers[0].shift >= network.layers[0].value_bits ||
        network.layers[1].value_bits > 34)
      std::abort();
  } catch (const tercet::ConfigError&) {
  }
  return 0;
}
