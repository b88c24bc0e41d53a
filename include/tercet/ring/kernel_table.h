// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

/// The table of inner loops alone. It includes nothing with code in it, so that the sources
/// compiled for one instruction set can include it without leaking that instruction set into shared
/// inline functions.
namespace tercet::ring {

/// y[m][0..cols) += sum_k w[m*depth + k] * rows[k][0..cols), modulo 2^(8 * sizeof(W)), for m in [0,
/// outputs). `y` points to `outputs` pointers, `rows` to `depth` pointers; a null rows[k] stands
/// for a row of zeros (padding). Rows of x may overlap each other but not y.
template <class W>
using ProductKernel = void (*)(W* const* y, std::size_t outputs, std::size_t cols, const W* w,
                               const W* const* rows, std::size_t depth);

/// A *bit table* gives each of `count` elements a row of 2^k bits, row after row, least significant
/// bit first. For k >= 3 a row is 2^k / 8 whole bytes; for k < 3 rows share bytes (8 >> k rows in
/// each). 1 <= k <= 8. All `Xor...` change the table in place and touch ceil(count * 2^k / 8)
/// bytes.
///
/// No branch or address depends on what is marked secret, nor on the bits of a table.
///
/// Words need the alignment of their type, bytes need none. No entry throws; all are thread safe.
struct Kernels {
  const char* name;

  ProductKernel<std::uint8_t> product8;
  ProductKernel<std::uint16_t> product16;
  ProductKernel<std::uint32_t> product32;
  ProductKernel<std::uint64_t> product64;

  /// Rows ^= the bits [own > v] for v = 0..2^k-1, that is (1 << own) - 1. own[i] < 2^k, secret.
  void (*xor_greater_rows)(std::uint8_t* table, const std::uint8_t* own, std::size_t count,
                           unsigned k);
  /// Rows ^= the bits f(v ^ rho[i]) ^ flip[i] for v = 0..2^k-1, where bit v of `f` (2^k bits, bytes
  /// of which the first ceil(2^k/8) count) is f(v). rho[i] < 2^k and flip[i] in {0, 1} are secret.
  void (*xor_permuted_rows)(std::uint8_t* table, const std::uint8_t* f, const std::uint8_t* rho,
                            const std::uint8_t* flip, std::size_t count, unsigned k);
  /// out[i] ^= (bit index[i] of row i) << shift. index[i] < 2^k, secret; shift < 8.
  void (*select_bits)(std::uint8_t* out, const std::uint8_t* table, const std::uint8_t* index,
                      std::size_t count, unsigned k, unsigned shift);

  /// Packing as in pack.h, without checks. 1 <= bits <= width of the word.
  void (*pack8)(const std::uint8_t* in, std::size_t count, unsigned bits, std::uint8_t* out);
  void (*pack16)(const std::uint16_t* in, std::size_t count, unsigned bits, std::uint8_t* out);
  void (*pack32)(const std::uint32_t* in, std::size_t count, unsigned bits, std::uint8_t* out);
  void (*pack64)(const std::uint64_t* in, std::size_t count, unsigned bits, std::uint8_t* out);
  void (*unpack8)(const std::uint8_t* in, std::size_t count, unsigned bits, std::uint8_t* out);
  void (*unpack16)(const std::uint8_t* in, std::size_t count, unsigned bits, std::uint16_t* out);
  void (*unpack32)(const std::uint8_t* in, std::size_t count, unsigned bits, std::uint32_t* out);
  void (*unpack64)(const std::uint8_t* in, std::size_t count, unsigned bits, std::uint64_t* out);
};

}  // namespace tercet::ring
