// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "tercet/base/error.h"
#include "tercet/files/images.h"

/// Any bytes give as many images or labels as announced, or a ConfigError.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  // The first byte limits the count, so that both readings, of all and of a part, are tried.
  const std::size_t limit = data[0] % 4;
  const std::vector<std::uint8_t> bytes(data + 1, data + size);
  // Formats without a magic are told by the name.
  for (const char* name : {"fuzz", "fuzz.bin", "fuzz.u8"}) {
    try {
      const tercet::mpc::Shape3 expected = name == std::string_view("fuzz.u8")
                                               ? tercet::mpc::Shape3{1, 2, 3}
                                               : tercet::mpc::Shape3{};
      const tercet::files::Images images = tercet::files::ParseImages(bytes, name, limit, expected);
      if (images.count == 0 || images.pixels.size() != images.count * images.shape.Size())
        std::abort();
    } catch (const tercet::ConfigError&) {
    }
    try {
      const std::vector<std::uint8_t> labels = tercet::files::ParseLabels(bytes, name, limit, 10);
      if (labels.empty()) std::abort();
      for (const std::uint8_t label : labels)
        if (label >= 10) std::abort();
    } catch (const tercet::ConfigError&) {
    }
  }
  return 0;
}
