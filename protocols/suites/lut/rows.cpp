// SPDX-License-Identifier: Apache-2.0
#include "suites/lut/rows.h"

#include <cstring>

#include "tercet/base/bytes.h"
#include "tercet/ring/pack.h"

namespace tercet::protocols::lut {
namespace {

// Calls f(word type) with a word that is one row, for rows of which the last entry is left out.
template <class F>
void WithRowWord(unsigned width, F&& f) {
  ring::DispatchWord(std::max(8U, 1U << width), f);
}
bool LeavesOutLast(unsigned width) { return RowBits(width) < 1U << width; }

}  // namespace

std::size_t PackRows(const std::uint8_t* rows, std::size_t count, unsigned width,
                     std::uint8_t* out) {
  const std::size_t bytes = (count * RowBits(width) + 7) / 8;
  if (!LeavesOutLast(width)) {
    std::memcpy(out, rows, bytes);
    return bytes;
  }
  WithRowWord(width, [&]<ring::Word W>(W) {
    Buffer<W> words(count);
    std::memcpy(words.data(), rows, count * sizeof(W));
    ring::Pack(std::span<const W>(words), RowBits(width), {out, bytes});
  });
  return bytes;
}
std::size_t UnpackRows(const std::uint8_t* in, std::size_t count, unsigned width,
                       std::uint8_t* rows) {
  const std::size_t bytes = (count * RowBits(width) + 7) / 8;
  if (!LeavesOutLast(width)) {
    std::memcpy(rows, in, bytes);
    return bytes;
  }
  WithRowWord(width, [&]<ring::Word W>(W) {
    Buffer<W> words(count);
    ring::Unpack(ByteSpan(in, bytes), RowBits(width), std::span<W>(words));
    std::memcpy(rows, words.data(), count * sizeof(W));
  });
  return bytes;
}
void ClearLast(std::uint8_t* rows, std::size_t count, unsigned width) {
  if (!LeavesOutLast(width)) return;
  WithRowWord(width, [&]<ring::Word W>(W) {
    const W low = ring::LowMask<W>(RowBits(width));
    for (std::size_t i = 0; i < count; ++i) {
      W row;
      std::memcpy(&row, rows + i * sizeof(W), sizeof(W));
      row &= low;
      std::memcpy(rows + i * sizeof(W), &row, sizeof(W));
    }
  });
}

}  // namespace tercet::protocols::lut
