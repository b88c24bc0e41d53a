// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "tercet/base/error.h"
#include "tercet/files/images.h"

namespace {

using tercet::files::CifarKind;
using tercet::files::DataOptions;
using tercet::files::Layout;
using tercet::files::Values;

// What a user may say, drawn from one byte.
DataOptions OptionsOf(std::uint8_t choice) {
  DataOptions options{
      .values = static_cast<Values>(choice & 3),
      .layout = static_cast<Layout>(choice >> 2 & 1),
      .transpose = (choice >> 3 & 1) != 0,
      .cifar = (choice >> 4 & 1) != 0 ? CifarKind::kCifar100Fine : CifarKind::kCifar10,
      .first_label = choice >> 5 & std::size_t{1},
      .mean = 0.5,
      .std = 0.25};
  constexpr const char* kColumns[] = {"", "first", "last", "x"};
  options.label_column = kColumns[choice >> 6];
  if ((choice & 1) != 0) options.header = (choice & 2) != 0;
  return options;
}

}  // namespace

/// Any bytes give as many images or labels as announced, or a ConfigError.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  // The first byte limits the count, so that both readings, of all and of a part, are tried; the
  // second says what the user does.
  const std::size_t limit = data[0] % 4;
  const DataOptions options = OptionsOf(data[1]);
  const std::vector<std::uint8_t> bytes(data + 2, data + size);
  // Formats without a magic are told by the name.
  for (const std::string_view name : {"fuzz", "fuzz.bin", "fuzz.u8", "fuzz.csv"}) {
    for (const tercet::mpc::Shape3& expected :
         {tercet::mpc::Shape3{}, tercet::mpc::Shape3{1, 2, 3}}) {
      try {
        const tercet::files::Images images =
            tercet::files::ParseImages(bytes, std::string(name), limit, expected, options);
        if (images.count == 0 || images.pixels.size() != images.count * images.shape.Size())
          std::abort();
        if (limit > 0 && images.count > limit) std::abort();
        if (expected.Size() > 0 && images.shape != expected) std::abort();
      } catch (const tercet::ConfigError&) {
      }
    }
    try {
      const std::vector<std::uint8_t> labels =
          tercet::files::ParseLabels(bytes, std::string(name), limit, 10, options);
      if (labels.empty()) std::abort();
      for (const std::uint8_t label : labels)
        if (label >= 10) std::abort();
    } catch (const tercet::ConfigError&) {
    }
  }
  return 0;
}
