// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tercet/ring/word.h"

/// Packing to exactly `bits` bits an element: element i occupies bits [i*bits, (i+1)*bits) of the
/// byte string, least significant bit first. Thread safe; vector code is chosen at run time
/// (kernels.h).
namespace tercet::ring {

/// Bytes that `count` packed elements take: ceil(count * bits / 8).
constexpr std::size_t PackedBytes(std::size_t count, unsigned bits) {
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

/// Writes PackedBytes(values.size(), bits) bytes to `out`. Bits above `bits` are cut off; bits past
/// the last element are zero. Throws InternalError when `out` is of another size or bits exceed the
/// word.
template <Word W>
void Pack(std::span<const W> values, unsigned bits, std::span<std::uint8_t> out);

/// The inverse; every value is reduced. Throws InternalError when `in` is not of the exact size.
template <Word W>
void Unpack(std::span<const std::uint8_t> in, unsigned bits, std::span<W> values);

}  // namespace tercet::ring
