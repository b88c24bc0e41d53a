// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tercet/ring/word.h"

/// Rows of 2^width bits, one for each element: bit v of a row says whether D's part of a chunk of
/// `width` bits is greater than v. What they are in memory and on the wire; no messages. All
/// functions are thread safe.
namespace tercet::protocols::lut {

/// Chunks of wider values have rows of 2^width bits on the wire, the others leave out the last
/// entry, which is 0 for everybody.
constexpr unsigned RowBits(unsigned width) { return width <= 6 ? (1U << width) - 1 : 1U << width; }
/// Of the same row in memory, where it has at least 8 bits.
constexpr std::size_t RowBytes(unsigned width) {
  return width <= 3 ? 1 : std::size_t{1} << (width - 3);
}
/// A row in memory has 2^RowWidth bits.
constexpr unsigned RowWidth(unsigned width) { return std::max(width, 3U); }

/// Bits [at, at + width) of each value ^ flip.
template <ring::Word W>
void Chunk(const W* values, std::size_t count, unsigned at, unsigned width, W flip,
           std::uint8_t* out) {
  const W low = ring::LowMask<W>(width);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = static_cast<std::uint8_t>(static_cast<W>((values[i] ^ flip) >> at) & low);
}

/// Rows to what goes over the wire, and back; the number of bytes there.
std::size_t PackRows(const std::uint8_t* rows, std::size_t count, unsigned width,
                     std::uint8_t* out);
std::size_t UnpackRows(const std::uint8_t* in, std::size_t count, unsigned width,
                       std::uint8_t* rows);
/// Sets the last entry of each row to 0, where it is left out.
void ClearLast(std::uint8_t* rows, std::size_t count, unsigned width);

}  // namespace tercet::protocols::lut
