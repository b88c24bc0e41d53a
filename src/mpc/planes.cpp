// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/planes.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "tercet/ring/pack.h"

namespace tercet::mpc {

namespace {

// Packed bytes and words hold the same bits in the same order only then.
static_assert(std::endian::native == std::endian::little);

std::span<std::uint8_t> RowBytes(Planes& planes, std::size_t row, std::size_t first,
                                 std::size_t count) {
  return {reinterpret_cast<std::uint8_t*>(planes[row]) + first / 8, ring::PackedBytes(count, 1)};
}

/// Calls f(word, bits) for each word of each row; `bits` of it belong to elements.
template <class P, class F>
void ForEachWord(P& planes, F&& f) {
  for (std::size_t row = 0; row < planes.Rows(); ++row)
    for (std::size_t w = 0; w < planes.Words(); ++w)
      f(planes[row][w], static_cast<unsigned>(std::min<std::size_t>(64, planes.Count() - 64 * w)));
}

}  // namespace

Planes::Planes(std::size_t rows, std::size_t count)
    : rows_(rows), count_(count), words_((count + 63) / 64), data_(rows * words_) {
  if (words_ == 0) return;
  for (std::size_t row = 0; row < rows; ++row) (*this)[row][words_ - 1] = 0;
}

Planes& Planes::operator^=(const Planes& other) {
  TERCET_CHECK(rows_ == other.rows_ && count_ == other.count_,
               "XOR of {} planes of {} bits and {} planes of {} bits", rows_, count_, other.rows_,
               other.count_);
  for (std::size_t i = 0; i < data_.size(); ++i) data_[i] ^= other.data_[i];
  return *this;
}

template <Word W>
Planes Slice(std::span<const W> values, unsigned rows) {
  constexpr std::size_t kBlock = 4096;  // elements; their words stay in the first cache
  Planes planes(rows, values.size());
  std::array<std::uint8_t, kBlock> bits;
  for (std::size_t first = 0; first < values.size(); first += kBlock) {
    const auto block = values.subspan(first, std::min(kBlock, values.size() - first));
    for (unsigned row = 0; row < rows; ++row) {
      for (std::size_t i = 0; i < block.size(); ++i)
        bits[i] = static_cast<std::uint8_t>(block[i] >> row);
      ring::Pack(std::span<const std::uint8_t>(bits.data(), block.size()), 1,
                 RowBytes(planes, row, first, block.size()));
    }
  }
  return planes;
}

template Planes Slice(std::span<const std::uint8_t>, unsigned);
template Planes Slice(std::span<const std::uint16_t>, unsigned);
template Planes Slice(std::span<const std::uint32_t>, unsigned);
template Planes Slice(std::span<const std::uint64_t>, unsigned);

Planes FromBytes(std::span<const std::uint8_t> bits, std::size_t rows) {
  const std::size_t count = bits.size() / rows;
  Planes planes(rows, count);
  for (std::size_t row = 0; row < rows; ++row)
    ring::Pack(bits.subspan(row * count, count), 1, RowBytes(planes, row, 0, count));
  return planes;
}

Planes Row(const Planes& planes, std::size_t row) {
  Planes one(1, planes.Count());
  std::copy_n(planes[row], planes.Words(), one[0]);
  return one;
}

Buffer<std::uint8_t> ToBytes(const Planes& plane) {
  Buffer<std::uint8_t> bits(plane.Count());
  const auto* packed = reinterpret_cast<const std::uint8_t*>(plane[0]);
  ring::Unpack(ByteSpan(packed, ring::PackedBytes(plane.Count(), 1)), 1,
               std::span<std::uint8_t>(bits));
  return bits;
}

Bytes Pack(const Planes& planes) {
  Bytes out(ring::PackedBytes(planes.Rows() * planes.Count(), 1));
  std::uint8_t* to = out.data();
  std::uint64_t held = 0;  // bits not written yet
  unsigned filled = 0;     // how many, below 64
  ForEachWord(planes, [&](std::uint64_t word, unsigned bits) {
    word &= ring::LowMask<std::uint64_t>(bits);
    held |= word << filled;
    filled += bits;
    if (filled < 64) return;
    std::memcpy(to, &held, 8);
    to += 8;
    filled -= 64;
    held = filled == 0 ? 0 : word >> (bits - filled);
  });
  std::memcpy(to, &held, (filled + 7) / 8);
  return out;
}

Planes Unpack(ByteSpan in, std::size_t rows, std::size_t count) {
  TERCET_CHECK(in.size() == ring::PackedBytes(rows * count, 1),
               "{} bytes for {} planes of {} bits, expected {}", in.size(), rows, count,
               ring::PackedBytes(rows * count, 1));
  Planes planes(rows, count);
  std::uint64_t held = 0;  // bits read ahead
  unsigned filled = 0;     // how many, below 64
  ForEachWord(planes, [&](std::uint64_t& word, unsigned bits) {
    std::uint64_t more = 0;
    unsigned used = 0;  // bits of `more` that go into this word
    if (filled < bits) {
      const std::size_t bytes = std::min<std::size_t>(8, in.size());
      std::memcpy(&more, in.data(), bytes);
      in = in.subspan(bytes);
      used = bits - filled;
      word = (held | more << filled) & ring::LowMask<std::uint64_t>(bits);
      held = used == 64 ? 0 : more >> used;
      filled = static_cast<unsigned>(8 * bytes) - used;
    } else {
      word = held & ring::LowMask<std::uint64_t>(bits);
      held = bits == 64 ? 0 : held >> bits;
      filled -= bits;
    }
  });
  return planes;
}

}  // namespace tercet::mpc
