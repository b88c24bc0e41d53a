// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace tercet::files {

/// An IDX file: the words of its header, then its bytes. For images 0x803, their number, height and
/// width, for labels 0x801 and their number.
inline std::vector<std::uint8_t> Idx(const std::vector<std::uint32_t>& header,
                                     const std::vector<std::uint8_t>& data) {
  std::vector<std::uint8_t> bytes;
  for (const std::uint32_t word : header)
    for (int shift = 24; shift >= 0; shift -= 8)
      bytes.push_back(static_cast<std::uint8_t>(word >> shift));
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

}  // namespace tercet::files
