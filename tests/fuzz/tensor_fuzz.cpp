// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tercet/base/error.h"
#include "tercet/files/tensor_file.h"

/// Any bytes give tensors that survive being written and read again, or a ConfigError.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const tercet::files::TensorFile file =
        tercet::files::ParseTensors(std::vector<std::uint8_t>(data, data + size), "fuzz");
    for (const auto& [name, tensor] : file.tensors)
      if (tensor.AsDoubles().size() != tensor.Count()) std::abort();
    if (tercet::files::ParseTensors(tercet::files::SerializeTensors(file), "again") != file)
      std::abort();
  } catch (const tercet::ConfigError&) {
  }
  return 0;
}
