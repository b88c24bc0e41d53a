// SPDX-License-Identifier: Apache-2.0
#include "suites/fss/dcf.h"

#include <algorithm>
#include <cstring>

#include "common/dealer/lookup.h"
#include "tercet/base/error.h"
#include "tercet/ring/kernels.h"

namespace tercet::protocols::fss {
namespace {

constexpr unsigned kMaxLeafBits = 7;  // one block of bits; larger tables save nothing

// All ones where the lowest bit is set.
constexpr std::uint64_t MaskOf(std::uint64_t bit) { return ~(bit & 1) + 1; }

std::uint64_t Bit(std::uint64_t x, unsigned at) { return x >> at & 1; }

// The values of the left child (mask 0) or of the right one (all ones).
std::uint64_t Child(const Block& values, std::uint64_t mask) {
  return (values.high & mask) | (values.low & ~mask);
}

// y where the mask is set, else x.
template <ring::Word V>
V Choose(V x, V y, std::uint64_t mask) {
  return static_cast<V>(x ^ ((x ^ y) & mask));
}

// 64 bits from `at` < 128 on, without a branch on it; zeros follow the block.
std::uint64_t BitsFrom(const Block& block, unsigned at) {
  const std::uint64_t upper = MaskOf(at >> 6);
  const std::uint64_t low = Child(block, upper), high = block.high & ~upper;
  return low >> (at & 63) | high << 1 << (63 - (at & 63));
}

// E1's control bit is 0 at the root, E2's is 1: the lowest bit of their seeds.
Block RootOf(Evaluator who, Block root) {
  root.low = (root.low & ~std::uint64_t{1}) | (who == Evaluator::kE2 ? 1u : 0u);
  return root;
}

// What a correction must be worth, (t_1 - t_2) w = missing: t_1 - t_2 is 1 or -1 on the path.
template <ring::Word V>
V Signed(V missing, const Block& seed) {
  const V negative = static_cast<V>(~MaskOf(seed.low));
  return static_cast<V>((missing ^ negative) - negative);
}

}  // namespace

DcfShape MakeDcfShape(unsigned input_bits, unsigned output_bits, unsigned outputs) {
  TERCET_CHECK(input_bits >= 1 && input_bits <= 63 && output_bits >= 1 && output_bits <= 64 &&
                   outputs >= 1 && (outputs == 1 || output_bits > 1),
               "comparison of {} bits with {} outputs of {} bits", input_bits, outputs,
               output_bits);
  const auto bits = [&](unsigned leaf) {
    return (input_bits - leaf) * (128 + outputs * output_bits) + (outputs * output_bits << leaf);
  };
  unsigned best = 0;
  for (unsigned leaf = 1; leaf <= std::min(kMaxLeafBits, input_bits); ++leaf)
    if (bits(leaf) < bits(best)) best = leaf;
  return {input_bits, output_bits, best, outputs};
}

template <ring::Word V>
Dcf<V>::Dcf(const DcfShape& shape, std::span<const std::uint8_t, kHashKeyBytes> hash_key)
    : shape_(shape),
      tree_(hash_key.template first<crypto::FixedKeyHash::kKeyBytes>()),
      value_(hash_key.template last<crypto::FixedKeyHash::kKeyBytes>()) {
  TERCET_CHECK(ring::WordBytes(shape.output_bits) == sizeof(V),
               "{} bits do not live in words of {} bytes", shape.output_bits, sizeof(V));
}

template <ring::Word V>
void Dcf<V>::Deal(std::span<const std::uint64_t> alpha, std::span<const V> below,
                  std::span<const V> above, std::span<const Block> roots1,
                  std::span<const Block> roots2, std::span<std::uint8_t> first,
                  std::span<std::uint8_t> rest) {
  const std::size_t n = alpha.size(), values = n * shape_.outputs;
  TERCET_CHECK(n <= kChunk && below.size() == values && above.size() == values &&
                   roots1.size() == n && roots2.size() == n &&
                   first.size() == shape_.FirstBytes(n) && rest.size() == shape_.RestBytes(n),
               "dealing {} comparisons with {} and {} values, {} and {} roots, {} + {} bytes", n,
               below.size(), above.size(), roots1.size(), roots2.size(), first.size(), rest.size());
  for (auto* buffer : {&seeds_, &difference_, &other_, &child1_, &child2_, &value1_, &value2_})
    buffer->resize(n);
  words_.resize(values << shape_.leaf_bits);
  sum_.assign(values, 0);
  for (std::size_t i = 0; i < n; ++i) {
    seeds_[i] = RootOf(Evaluator::kE1, roots1[i]);
    difference_[i] = seeds_[i] ^ RootOf(Evaluator::kE2, roots2[i]);
  }
  const Vectors vectors{below, above};
  for (unsigned level = 0; level < shape_.Levels(); ++level) {
    if (level == 0) {
      DealLevel(level, alpha, vectors, first);
      continue;
    }
    DealLevel(level, alpha, vectors, rest.first(shape_.LevelBytes(n)));
    rest = rest.subspan(shape_.LevelBytes(n));
  }
  DealLeaf(alpha, vectors, shape_.Levels() == 0 ? first : rest);
}

template <ring::Word V>
void Dcf<V>::HashValues(unsigned block, bool both) {
  if (block == 0) {
    value_.Hash(seeds_, value1_);
    if (both) value_.Hash(other_, value2_);
    return;
  }
  for (std::size_t i = 0; i < seeds_.size(); ++i) value1_[i] = seeds_[i] ^ Block { block, 0 };
  value_.Hash(value1_, value1_);
  if (!both) return;
  for (std::size_t i = 0; i < seeds_.size(); ++i) value2_[i] = other_[i] ^ Block { block, 0 };
  value_.Hash(value2_, value2_);
}

template <ring::Word V>
void Dcf<V>::DealLevel(unsigned level, std::span<const std::uint64_t> alpha, const Vectors& vectors,
                       std::span<std::uint8_t> out) {
  const std::size_t n = alpha.size();
  const unsigned at = shape_.input_bits - 1 - level, per_half = shape_.ValuesPerHalf();
  for (std::size_t i = 0; i < n; ++i) other_[i] = seeds_[i] ^ difference_[i];
  tree_.Hash(seeds_, child1_);
  tree_.Hash(other_, child2_);
  // Plain pointers: bytes may alias the vectors themselves, and would have them read again.
  Block *seeds = seeds_.data(), *corrections = other_.data();
  for (unsigned j = 0; !shape_.point && j < shape_.outputs; ++j) {
    if (j % per_half == 0) HashValues(j / per_half, true);
    const unsigned shift = j % per_half * shape_.output_bits;
    const Block *value1 = value1_.data(), *value2 = value2_.data();
    const V *below = vectors.below.data() + j * n, *above = vectors.above.data() + j * n;
    V *words = words_.data() + j * n, *sum = sum_.data() + j * n;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t right = MaskOf(Bit(alpha[i], at));
      // Whoever leaves the path here is smaller than alpha where alpha goes right.
      const V target = Choose(above[i], below[i], right);
      const V kept =
          static_cast<V>((Child(value1[i], right) >> shift) - (Child(value2[i], right) >> shift));
      const V left_over =
          static_cast<V>((Child(value1[i], ~right) >> shift) - (Child(value2[i], ~right) >> shift));
      words[i] = Signed(static_cast<V>(target - sum[i] - left_over), seeds[i]);
      sum[i] = static_cast<V>(target + kept - left_over);
    }
  }
  const Block *child1 = child1_.data(), *child2 = child2_.data(), *difference = difference_.data();
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t right = MaskOf(Bit(alpha[i], at));
    // Children are H(s) on the left and H(s) ^ s on the right. The correction makes them equal off
    // the path, and leaves their difference as it is on it.
    const Block correction = child1[i] ^ child2[i] ^ (difference[i] & ~right);
    const Block seed = seeds[i];
    seeds[i] = child1[i] ^ (seed & right) ^ (correction & MaskOf(seed.low));
    corrections[i] = correction;
  }
  std::memcpy(out.data(), corrections, n * sizeof(Block));
  if (shape_.point) return;
  ring::Pack(std::span<const V>(words_.data(), n * shape_.outputs), shape_.output_bits,
             out.subspan(n * sizeof(Block)));
}

template <ring::Word V>
void Dcf<V>::DealLeaf(std::span<const std::uint64_t> alpha, const Vectors& vectors,
                      std::span<std::uint8_t> out) {
  const std::size_t n = alpha.size();
  const unsigned leaf_bits = shape_.leaf_bits, per_block = shape_.ValuesPerBlock();
  const auto low = ring::LowMask<std::uint64_t>(leaf_bits);
  const V* sum = sum_.data();
  for (unsigned block = 0; block < shape_.LeafBlocks(); ++block) {
    for (std::size_t i = 0; i < n; ++i) {
      child1_[i] = seeds_[i] ^ Block { block, 0 };
      child2_[i] = child1_[i] ^ difference_[i];
    }
    value_.Hash(child1_, value1_);
    value_.Hash(child2_, value2_);
    if (shape_.output_bits == 1 && leaf_bits == kMaxLeafBits) {
      // The table of bits is one block: ones up to alpha where the vectors differ. Signs do not
      // matter.
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t point = alpha[i] & low, upper = MaskOf(point >> 6);
        const std::uint64_t below = (std::uint64_t{1} << (point & 63)) - 1;
        const std::uint64_t all = MaskOf(vectors.above[i] ^ std::uint64_t{sum[i]});
        const std::uint64_t differ = MaskOf(vectors.below[i] ^ vectors.above[i]);
        child1_[i] = value1_[i] ^ value2_[i] ^
                     Block { ((below | upper) & differ) ^ all, (below & upper & differ) ^ all };
      }
      std::memcpy(out.data(), child1_.data(), out.size());
      return;
    }
    const Block *value1 = value1_.data(), *value2 = value2_.data(), *seeds = seeds_.data();
    for (unsigned k = 0; k < per_block && block * per_block + k < shape_.outputs << leaf_bits;
         ++k) {
      const unsigned value = block * per_block + k, at = k * shape_.output_bits;
      const unsigned j = value >> leaf_bits, index = value & static_cast<unsigned>(low);
      const V *below = vectors.below.data() + j * n, *above = vectors.above.data() + j * n;
      V* words = words_.data() + ((j * n) << leaf_bits);
      for (std::size_t i = 0; i < n; ++i) {
        // All ones where index < alpha's low bits.
        const std::uint64_t smaller = MaskOf((index - (alpha[i] & low)) >> 63);
        const V target = Choose(above[i], below[i], smaller);
        const V difference = static_cast<V>(BitsFrom(value1[i], at) - BitsFrom(value2[i], at));
        words[(i << leaf_bits) + index] =
            Signed(static_cast<V>(target - sum[j * n + i] - difference), seeds[i]);
      }
    }
  }
  ring::Pack(std::span<const V>(words_.data(), n * shape_.outputs << leaf_bits), shape_.output_bits,
             out);
}

template <ring::Word V>
void Dcf<V>::EvaluateLevel(unsigned level, std::span<const std::uint64_t> x, std::span<V> out) {
  const std::size_t n = x.size();
  const unsigned at = shape_.input_bits - 1 - level, per_half = shape_.ValuesPerHalf();
  // Plain pointers: bytes may alias the vectors themselves, and would have them read again.
  Block* seed = seeds_.data();
  for (unsigned j = 0; !shape_.point && j < shape_.outputs; ++j) {
    if (j % per_half == 0) HashValues(j / per_half, false);
    const unsigned shift = j % per_half * shape_.output_bits;
    const Block* value = value1_.data();
    const V* word = words_.data() + j * n;
    V* sum = out.data() + j * n;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t right = MaskOf(x[i] >> at), corrected = MaskOf(seed[i].low);
      sum[i] = static_cast<V>(sum[i] + (Child(value[i], right) >> shift) + (word[i] & corrected));
    }
  }
  const Block *child = child1_.data(), *correction = child2_.data();
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t right = MaskOf(x[i] >> at), corrected = MaskOf(seed[i].low);
    seed[i] = child[i] ^ (seed[i] & right) ^ (correction[i] & corrected);
  }
}

template <ring::Word V>
void Dcf<V>::Evaluate(Evaluator who, std::span<const std::uint64_t> x, std::span<const Block> roots,
                      ByteSpan first, ByteSpan rest, std::span<V> out) {
  const std::size_t n = x.size(), values = n * shape_.outputs;
  const bool corrects_root = who == Evaluator::kE2;
  TERCET_CHECK(n <= kChunk && roots.size() == n && out.size() == values &&
                   first.size() == (corrects_root ? shape_.FirstBytes(n) : 0) &&
                   rest.size() == shape_.RestBytes(n),
               "evaluating {} comparisons with {} roots, {} + {} bytes into {}", n, roots.size(),
               first.size(), rest.size(), out.size());
  for (auto* buffer : {&seeds_, &child1_, &child2_, &value1_}) buffer->resize(n);
  words_.resize(values);
  for (std::size_t i = 0; i < n; ++i) seeds_[i] = RootOf(who, roots[i]);
  std::fill(out.begin(), out.end(), V{0});

  for (unsigned level = 0; level < shape_.Levels(); ++level) {
    tree_.Hash(seeds_, child1_);
    if (level == 0 && !corrects_root) {  // its control bits are 0: nothing to correct
      std::fill(child2_.begin(), child2_.end(), Block{});
      std::fill(words_.begin(), words_.end(), V{0});
    } else {
      ByteSpan& from = level == 0 ? first : rest;
      std::memcpy(child2_.data(), from.data(), n * sizeof(Block));
      const std::size_t bytes = shape_.LevelBytes(n), blocks = n * sizeof(Block);
      if (!shape_.point)
        ring::Unpack(from.subspan(blocks, bytes - blocks), shape_.output_bits,
                     std::span<V>(words_));
      from = from.subspan(bytes);
    }
    EvaluateLevel(level, x, out);
  }

  EvaluateLeaf(who, x, shape_.Levels() == 0 ? first : rest, out);
}

// x is masked by what D knows, so it chooses by masks out of a leaf that is read whole.
template <ring::Word V>
void Dcf<V>::EvaluateLeaf(Evaluator who, std::span<const std::uint64_t> x, ByteSpan leaves,
                          std::span<V> out) {
  const std::size_t n = x.size(), values = n * shape_.outputs;
  const unsigned leaf_bits = shape_.leaf_bits, bits = shape_.output_bits;
  const auto low = ring::LowMask<std::uint64_t>(leaf_bits);
  dealer::Bits index(n);
  for (std::size_t i = 0; i < n; ++i) index[i] = static_cast<std::uint8_t>(x[i] & low);
  Buffer<V> words(n, 0);
  if (!leaves.empty() && (bits > 1 || leaf_bits == 0)) {
    words_.resize(values << leaf_bits);
    ring::Unpack(leaves, bits, std::span<V>(words_));
  }
  // A division takes a time that depends on what is divided; this is exact below 2^25.
  const std::uint64_t per_block = shape_.ValuesPerBlock();
  const std::uint64_t inverse = (std::uint64_t{1} << 32) / per_block + 1;
  for (unsigned j = 0; j < shape_.outputs; ++j) {
    const auto value_at = [&](std::size_t i) {
      return (static_cast<std::uint64_t>(j) << leaf_bits) + index[i];
    };
    const auto block_of = [=](std::uint64_t value) { return value * inverse >> 32; };
    for (std::size_t i = 0; i < n; ++i) child1_[i] = seeds_[i] ^ Block { block_of(value_at(i)), 0 };
    value_.Hash(child1_, value1_);
    if (!leaves.empty()) {
      if (bits > 1 || leaf_bits == 0) {
        dealer::SelectEntry<V>(
            leaf_bits, std::span<const V>(words_).subspan(j * n << leaf_bits, n << leaf_bits),
            index, words);
      } else {  // bits, of which there is one vector
        dealer::Bits chosen(n, 0);
        ring::ActiveKernels().select_bits(chosen.data(), leaves.data(), index.data(), n, leaf_bits,
                                          0);
        std::copy(chosen.begin(), chosen.end(), words.begin());
      }
    }
    for (std::size_t i = 0; i < n; ++i) {
      V& share = out[j * n + i];
      const std::uint64_t value = value_at(i);
      const auto at = static_cast<unsigned>(value - block_of(value) * per_block) * bits;
      const V own =
          static_cast<V>(share + BitsFrom(value1_[i], at) + (words[i] & MaskOf(seeds_[i].low)));
      share = who == Evaluator::kE1 ? own : static_cast<V>(0 - own);
    }
  }
}

template class Dcf<std::uint8_t>;
template class Dcf<std::uint16_t>;
template class Dcf<std::uint32_t>;
template class Dcf<std::uint64_t>;

}  // namespace tercet::protocols::fss
