// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tercet::files {

/// A .npy file with this dictionary.
inline std::vector<std::uint8_t> Npy(const std::string& dictionary,
                                     const std::vector<std::uint8_t>& data, std::uint8_t major = 1,
                                     std::uint8_t minor = 0) {
  std::vector<std::uint8_t> bytes = {0x93, 'N', 'U', 'M', 'P', 'Y', major, minor};
  const std::string header = dictionary + "\n";
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i)
    bytes.push_back(static_cast<std::uint8_t>(header.size() >> (8 * i)));
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

/// One of this type and shape: "(2, 3)".
inline std::vector<std::uint8_t> Npy(const std::string& descr, const std::string& shape,
                                     const std::vector<std::uint8_t>& data, bool fortran = false) {
  return Npy("{'descr': '" + descr + "', 'fortran_order': " + (fortran ? "True" : "False") +
                 ", 'shape': " + shape + ", }",
             data);
}

}  // namespace tercet::files
