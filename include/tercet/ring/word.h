// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "tercet/base/error.h"

/// Ring elements of Z_{2^l}, 1 <= l <= 64, live in the smallest unsigned word that holds l bits.
/// The bits above l are arbitrary between operations ("lazy"); they are cut off by Reduce, when
/// packed for the wire, and when decoded.
namespace tercet::ring {

inline constexpr unsigned kMaxBits = 64;

template <class T>
concept Word = std::is_same_v<T, std::uint8_t> || std::is_same_v<T, std::uint16_t> ||
    std::is_same_v<T, std::uint32_t> || std::is_same_v<T, std::uint64_t>;

template <Word W>
inline constexpr unsigned kWordBits = 8 * sizeof(W);

/// 2^bits - 1 in a word; bits in 0..width of the word.
template <Word W>
constexpr W LowMask(unsigned bits) {
  return bits >= kWordBits<W> ? static_cast<W>(~W{0})
                              : static_cast<W>((std::uint64_t{1} << bits) - 1);
}

/// The representative in [0, 2^bits).
template <Word W>
constexpr W Reduce(W x, unsigned bits) {
  return static_cast<W>(x & LowMask<W>(bits));
}

/// The representative in [-2^(bits-1), 2^(bits-1)).
template <Word W>
constexpr std::int64_t Decode(W x, unsigned bits) {
  const unsigned up = 64 - bits;
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(x) << up) >> up;
}

/// A signed integer as ring element.
template <Word W>
constexpr W Encode(std::int64_t x, unsigned bits) {
  return Reduce(static_cast<W>(static_cast<std::uint64_t>(x)), bits);
}

/// Bytes of the smallest word for `bits`.
constexpr std::size_t WordBytes(unsigned bits) {
  return bits <= 8 ? 1 : bits <= 16 ? 2 : bits <= 32 ? 4 : 8;
}

/// Calls f(W{}) with the smallest word type for `bits`: the one place where run-time widths become
/// types.
template <class F>
decltype(auto) DispatchWord(unsigned bits, F&& f) {
  TERCET_CHECK(bits >= 1 && bits <= kMaxBits, "ring width {} is not in 1..64", bits);
  switch (WordBytes(bits)) {
    case 1:
      return std::forward<F>(f)(std::uint8_t{});
    case 2:
      return std::forward<F>(f)(std::uint16_t{});
    case 4:
      return std::forward<F>(f)(std::uint32_t{});
    default:
      return std::forward<F>(f)(std::uint64_t{});
  }
}

}  // namespace tercet::ring
