// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace tercet::crypto {

/// 128 bits; the lowest bit of `low` is the lowest bit of the block's first byte in memory.
struct Block {
  std::uint64_t low = 0, high = 0;

  friend Block operator^(const Block& x, const Block& y) {
    return {x.low ^ y.low, x.high ^ y.high};
  }
  friend Block operator&(const Block& x, std::uint64_t mask) {
    return {x.low & mask, x.high & mask};
  }
  bool operator==(const Block&) const = default;
};

/// H(x) = pi(sigma(x)) ^ sigma(x) with pi = AES-128 under a public key and
/// sigma(first half || second half) = first ^ second || first (Guo, Katz, Wang, Yu: "Efficient and
/// Secure Multiparty Computation from Fixed-Key Block Ciphers", IEEE S&P 2020, Section 7.3). It is
/// circular correlation robust when pi is modelled as a random permutation: for a secret D of high
/// entropy the values H(x ^ D) ^ b D are pseudorandom, each x taken once. What one key has hashed
/// bounds the security, about (hashes under the key) * (the adversary's AES calls) / 2^128, so take
/// a fresh random key for each batch of work.
///
///     FixedKeyHash hash(key);
///     hash.Hash(seeds, children);
///
/// Runs at the speed of the processor's AES where it has one; no table, branch or address depends
/// on the input then. Not thread safe.
class FixedKeyHash {
 public:
  static constexpr std::size_t kKeyBytes = 16;
  /// `key` is public. Throws InternalError when OpenSSL has no AES-128-ECB.
  explicit FixedKeyHash(std::span<const std::uint8_t, kKeyBytes> key);
  ~FixedKeyHash();
  FixedKeyHash(FixedKeyHash&&) noexcept;
  FixedKeyHash& operator=(FixedKeyHash&&) noexcept;

  /// out[i] = H(in[i]). Many at once are fastest. `out` may be `in`, but not overlap it otherwise.
  /// Throws InternalError when the sizes differ.
  void Hash(std::span<const Block> in, std::span<Block> out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tercet::crypto
