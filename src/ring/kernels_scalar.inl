// SPDX-License-Identifier: Apache-2.0
// What the vector kernels do in ordinary registers. Each of their sources includes this inside its
// own anonymous namespace, so that every instruction set has a copy compiled for it, and none is
// shared by the linker.

constexpr size_t Min(size_t a, size_t b) { return a < b ? a : b; }

/// 0, 1, ..., n - 1 as template arguments: compilers keep an array of accumulators in registers
/// only where each access to it has a constant index from the start.
template <size_t... i>
struct Indices {};

template <size_t n, size_t... i>
struct IndicesBelow : IndicesBelow<n - 1, n - 1, i...> {};

template <size_t... i>
struct IndicesBelow<0, i...> {
  using Type = Indices<i...>;
};

// -------------------------------------------------------------------------------------------------
// Memory.

inline uint64_t Load64(const void* p) {
  uint64_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return word;
}

inline void Store64(void* p, uint64_t word) { __builtin_memcpy(p, &word, sizeof word); }

/// A copy of a few bytes without the call.
inline void CopySmall(void* to, const void* from, size_t bytes) {
  auto* out = static_cast<uint8_t*>(to);
  const auto* in = static_cast<const uint8_t*>(from);
  for (; bytes >= 8; bytes -= 8, out += 8, in += 8) __builtin_memcpy(out, in, 8);
  if ((bytes & 4) != 0) {
    __builtin_memcpy(out, in, 4);
    out += 4;
    in += 4;
  }
  if ((bytes & 2) != 0) {
    __builtin_memcpy(out, in, 2);
    out += 2;
    in += 2;
  }
  if ((bytes & 1) != 0) *out = *in;
}

// -------------------------------------------------------------------------------------------------
// Rows of bits.

constexpr uint64_t kEachByte = 0x0101010101010101;

/// Bits that a row of 2^k bits, k <= 3, has in its byte.
constexpr uint8_t SmallRowMask(unsigned k) { return static_cast<uint8_t>((1U << (1U << k)) - 1); }

/// Bytes before row `i`, a multiple of 8 for k < 3.
size_t RowOffset(size_t i, unsigned k) { return (i << k) / 8; }

/// The word whose bit u is bit u ^ rho of `word`, for a public rho < 16.
uint64_t PermuteBits(uint64_t word, unsigned rho) {
  constexpr uint64_t kLower[4] = {0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f,
                                  0x00ff00ff00ff00ff};
  for (unsigned s = 0; s < 4; ++s) {
    if ((rho >> s & 1) == 0) continue;
    const unsigned distance = 1U << s;
    word = ((word >> distance) & kLower[s]) | ((word & kLower[s]) << distance);
  }
  return word;
}

// -------------------------------------------------------------------------------------------------
// Streams of bits.

template <class W>
constexpr unsigned kWidth = 8 * sizeof(W);
template <class W>
constexpr size_t kPerWord = 8 / sizeof(W);

/// The low `bits` of each W in a 64-bit word.
template <class W>
uint64_t ElementMask(unsigned bits) {
  const uint64_t one = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  uint64_t mask = one;
  for (size_t j = 1; j < kPerWord<W>; ++j) mask |= one << (j * kWidth<W> % 64);
  return mask;
}

size_t PackedBytes(size_t count, unsigned bits) {
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

/// A stream of bits, written in whole 64-bit words but for the last.
struct BitWriter {
  uint8_t* out;
  uint64_t word = 0;
  unsigned fill = 0;

  /// `bits` has no bits set from `count` on; count <= 64.
  void Write(uint64_t bits, unsigned count) {
    word |= bits << fill;
    fill += count;
    if (fill < 64) return;
    Store64(out, word);
    out += 8;
    fill -= 64;
    word = fill == 0 ? 0 : bits >> (count - fill);
  }
  void Flush() { CopySmall(out, &word, (fill + 7) / 8); }
};

/// 64 bits from bit `at` of nine readable bytes, at < 8.
inline uint64_t LoadBits(const uint8_t* p, unsigned at) {
  return Load64(p) >> at | (static_cast<uint64_t>(p[8]) << 1) << (63 - at);
}
