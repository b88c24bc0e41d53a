// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tercet/base/bytes.h"
#include "tercet/crypto/fixed_key_hash.h"
#include "tercet/ring/pack.h"

/// A distributed comparison function whose point alpha the helper knows: additive shares of one of
/// two vectors of the helper's, `below` where x < alpha, else `above`. The construction, and why it
/// is secure, is in README.md.
namespace tercet::protocols::fss {

using crypto::Block;

/// Elements are worked on chunk by chunk, level by level, so that the cipher has many blocks at a
/// time and they stay in the cache; a multiple of 8, so that every chunk but the last packs to
/// whole bytes.
inline constexpr std::size_t kChunk = 1024;

/// Sizes of one comparison; public.
struct DcfShape {
  unsigned input_bits = 1;   ///< x and alpha are in 0..2^input_bits-1; at most 63
  unsigned output_bits = 1;  ///< shares are in Z_{2^output_bits}; 1 gives XOR shares
  unsigned leaf_bits = 0;    ///< the tree ends there: one leaf is a table of 2^leaf_bits vectors
  unsigned outputs = 1;      ///< length of the vectors
  /// A point function: `above` where x = alpha, else 0. Has no leaf bits, and values there alone.
  bool point = false;

  unsigned Levels() const { return input_bits - leaf_bits; }
  /// Values that are cut from one pseudorandom block at a leaf, and from half of one at a level.
  unsigned ValuesPerBlock() const { return 128 / output_bits; }
  unsigned ValuesPerHalf() const { return 64 / output_bits; }
  unsigned LeafBlocks() const {
    return ((outputs << leaf_bits) + ValuesPerBlock() - 1) / ValuesPerBlock();
  }
  /// Bytes of one level's correction words: a block and a vector for each element.
  std::size_t LevelBytes(std::size_t count) const {
    return count * sizeof(Block) + (point ? 0 : ring::PackedBytes(count * outputs, output_bits));
  }
  std::size_t LeafBytes(std::size_t count) const {
    return ring::PackedBytes(count * outputs << leaf_bits, output_bits);
  }
  /// The first correction: level 0, or the leaf where there is no level. E1 never applies it (its
  /// control bit is 0 at the root), so only E2 gets it.
  std::size_t FirstBytes(std::size_t count) const {
    return Levels() > 0 ? LevelBytes(count) : LeafBytes(count);
  }
  /// All other corrections, for both.
  std::size_t RestBytes(std::size_t count) const {
    return Levels() > 0 ? (Levels() - 1) * LevelBytes(count) + LeafBytes(count) : 0;
  }
  bool operator==(const DcfShape&) const = default;
};

/// The comparison's shape with the fewest bytes.
DcfShape MakeDcfShape(unsigned input_bits, unsigned output_bits, unsigned outputs = 1);

enum class Evaluator : std::uint8_t { kE1, kE2 };

/// Deals and evaluates keys under one pair of public hash keys, at most kChunk elements a call. Not
/// thread safe. V is the word of shape.output_bits. Vectors stand value by value: value j of
/// element i of n is at [j * n + i].
///
///     Dcf<std::uint16_t> dcf(MakeDcfShape(9, 12), hash_key);
///     dcf.Deal(alpha, below, above, roots1, roots2, first, rest);     // D
///     dcf.Evaluate(Evaluator::kE1, x, roots1, {}, rest, share1);      // E1
///     dcf.Evaluate(Evaluator::kE2, x, roots2, first, rest, share2);   // E2
template <ring::Word V>
class Dcf {
 public:
  static constexpr std::size_t kHashKeyBytes = 2 * crypto::FixedKeyHash::kKeyBytes;
  Dcf(const DcfShape& shape, std::span<const std::uint8_t, kHashKeyBytes> hash_key);

  /// At D. alpha, the vectors (reduced) and the roots are secret: no branch or address depends on
  /// them. `first` takes FirstBytes, `rest` RestBytes. Throws InternalError when sizes do not fit.
  void Deal(std::span<const std::uint64_t> alpha, std::span<const V> below,
            std::span<const V> above, std::span<const Block> roots1, std::span<const Block> roots2,
            std::span<std::uint8_t> first, std::span<std::uint8_t> rest);

  /// At an evaluator: out[j * n + i], not reduced, is its additive share of value j for x[i], which
  /// both evaluators know. D, which knows its mask, must not learn it: no branch or address depends
  /// on x either. E1 passes no `first`. Throws InternalError when sizes do not fit.
  void Evaluate(Evaluator who, std::span<const std::uint64_t> x, std::span<const Block> roots,
                ByteSpan first, ByteSpan rest, std::span<V> out);

 private:
  struct Vectors {
    std::span<const V> below, above;
  };
  void DealLevel(unsigned level, std::span<const std::uint64_t> alpha, const Vectors& vectors,
                 std::span<std::uint8_t> out);
  void DealLeaf(std::span<const std::uint64_t> alpha, const Vectors& vectors,
                std::span<std::uint8_t> out);
  void EvaluateLevel(unsigned level, std::span<const std::uint64_t> x, std::span<V> out);
  void EvaluateLeaf(Evaluator who, std::span<const std::uint64_t> x, ByteSpan leaves,
                    std::span<V> out);
  /// value1_, and at D value2_, of block `block` of a level's values.
  void HashValues(unsigned block, bool both);

  DcfShape shape_;
  crypto::FixedKeyHash tree_, value_;  // seeds of children; pseudorandom values
  // One chunk's state: E1's seeds on the path (or the evaluator's), their difference to E2's, what
  // the shares add up to so far, and buffers.
  Buffer<Block> seeds_, difference_, other_, child1_, child2_, value1_, value2_;
  Buffer<V> sum_, words_;
};

}  // namespace tercet::protocols::fss
