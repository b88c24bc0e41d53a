#include "fss/dcf.h"

#include <algorithm>
#include <cstring>

#include "tercet/base/error.h"

namespace tercet::protocols::fss {
namespace {

constexpr unsigned kMaxLeafBits = 7;  // one block of bits; larger tables save nothing

// All ones where the lowest bit is set.
constexpr std::uint64_t MaskOf(std::uint64_t bit) { return ~(bit & 1) + 1; }

std::uint64_t Bit(std::uint64_t x, unsigned at) { return x >> at & 1; }

// The value of the left child (mask 0) or of the right one (all ones).
std::uint64_t Child(const Block& values, std::uint64_t mask) {
  return (values.high & mask) | (values.low & ~mask);
}

// 64 bits from `at` on; zeros follow the block.
std::uint64_t BitsFrom(const Block& block, unsigned at) {
  if (at >= 64) return block.high >> (at - 64);
  return at == 0 ? block.low : block.low >> at | block.high << (64 - at);
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

DcfShape MakeDcfShape(unsigned input_bits, unsigned output_bits) {
  TERCET_CHECK(input_bits >= 1 && input_bits <= 63 && output_bits >= 1 && output_bits <= 64,
               "comparison of {} bits with an output of {} bits", input_bits, output_bits);
  const auto bits = [&](unsigned leaf) {
    return (input_bits - leaf) * (128 + output_bits) + (output_bits << leaf);
  };
  unsigned best = 0;
  for (unsigned leaf = 1; leaf <= std::min(kMaxLeafBits, input_bits); ++leaf)
    if (bits(leaf) < bits(best)) best = leaf;
  return {input_bits, output_bits, best};
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
void Dcf<V>::Deal(std::span<const std::uint64_t> alpha, std::span<const std::uint8_t> flip,
                  std::span<const Block> roots1, std::span<const Block> roots2,
                  std::span<std::uint8_t> first, std::span<std::uint8_t> rest) {
  const std::size_t n = alpha.size();
  TERCET_CHECK(n <= kChunk && flip.size() == n && roots1.size() == n && roots2.size() == n &&
                   first.size() == shape_.FirstBytes(n) && rest.size() == shape_.RestBytes(n),
               "dealing {} comparisons with {} flips, {} and {} roots, {} + {} bytes", n,
               flip.size(), roots1.size(), roots2.size(), first.size(), rest.size());
  for (auto* buffer : {&seeds_, &difference_, &other_, &child1_, &child2_, &value1_, &value2_})
    buffer->resize(n);
  words_.resize(n << shape_.leaf_bits);
  sum_.assign(n, 0);
  for (std::size_t i = 0; i < n; ++i) {
    seeds_[i] = RootOf(Evaluator::kE1, roots1[i]);
    difference_[i] = seeds_[i] ^ RootOf(Evaluator::kE2, roots2[i]);
  }
  for (unsigned level = 0; level < shape_.Levels(); ++level) {
    if (level == 0) {
      DealLevel(level, alpha, flip, first);
      continue;
    }
    DealLevel(level, alpha, flip, rest.first(shape_.LevelBytes(n)));
    rest = rest.subspan(shape_.LevelBytes(n));
  }
  DealLeaf(alpha, flip, shape_.Levels() == 0 ? first : rest);
}

template <ring::Word V>
void Dcf<V>::DealLevel(unsigned level, std::span<const std::uint64_t> alpha,
                       std::span<const std::uint8_t> flip, std::span<std::uint8_t> out) {
  const std::size_t n = alpha.size();
  for (std::size_t i = 0; i < n; ++i) other_[i] = seeds_[i] ^ difference_[i];
  tree_.Hash(seeds_, child1_);
  tree_.Hash(other_, child2_);
  value_.Hash(seeds_, value1_);
  value_.Hash(other_, value2_);
  // Plain pointers: bytes may alias the vectors themselves, and would have them read again.
  Block *seeds = seeds_.data(), *corrections = other_.data();
  const Block *child1 = child1_.data(), *child2 = child2_.data(), *difference = difference_.data();
  const Block *value1 = value1_.data(), *value2 = value2_.data();
  V *words = words_.data(), *sum = sum_.data();
  const unsigned at = shape_.input_bits - 1 - level;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t bit = Bit(alpha[i], at), right = MaskOf(bit);
    // Children are H(s) on the left and H(s) ^ s on the right. The correction makes them equal off
    // the path, and leaves their difference as it is on it.
    const Block correction = child1[i] ^ child2[i] ^ (difference[i] & ~right);
    const Block seed = seeds[i];
    seeds[i] = child1[i] ^ (seed & right) ^ (correction & MaskOf(seed.low));
    corrections[i] = correction;

    // Whoever leaves the path here is smaller than alpha where alpha goes right.
    const V target = static_cast<V>(bit ^ flip[i]);
    const V kept = static_cast<V>(Child(value1[i], right) - Child(value2[i], right));
    const V left_over = static_cast<V>(Child(value1[i], ~right) - Child(value2[i], ~right));
    words[i] = Signed(static_cast<V>(target - sum[i] - left_over), seed);
    sum[i] = static_cast<V>(target + kept - left_over);
  }
  std::memcpy(out.data(), corrections, n * sizeof(Block));
  ring::Pack(std::span<const V>(words_.data(), n), shape_.output_bits,
             out.subspan(n * sizeof(Block)));
}

template <ring::Word V>
void Dcf<V>::DealLeaf(std::span<const std::uint64_t> alpha, std::span<const std::uint8_t> flip,
                      std::span<std::uint8_t> out) {
  const std::size_t n = alpha.size();
  const unsigned leaf_bits = shape_.leaf_bits, per_block = shape_.ValuesPerBlock();
  const auto low = ring::LowMask<std::uint64_t>(leaf_bits);
  for (unsigned block = 0; block < shape_.LeafBlocks(); ++block) {
    for (std::size_t i = 0; i < n; ++i) {
      child1_[i] = seeds_[i] ^ Block { block, 0 };
      child2_[i] = child1_[i] ^ difference_[i];
    }
    value_.Hash(child1_, value1_);
    value_.Hash(child2_, value2_);
    if (shape_.output_bits == 1 && leaf_bits == kMaxLeafBits) {
      // The table of bits is one block: ones below alpha, then all flipped. Signs do not matter.
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t point = alpha[i] & low, upper = MaskOf(point >> 6);
        const std::uint64_t below = (std::uint64_t{1} << (point & 63)) - 1;
        const std::uint64_t all = MaskOf(flip[i] ^ static_cast<std::uint64_t>(sum_[i]));
        child1_[i] =
            value1_[i] ^ value2_[i] ^ Block { (below | upper) ^ all, (below & upper) ^ all };
      }
      std::memcpy(out.data(), child1_.data(), out.size());
      return;
    }
    const Block *value1 = value1_.data(), *value2 = value2_.data(), *seeds = seeds_.data();
    const V* sum = sum_.data();
    V* words = words_.data();
    for (unsigned k = 0; k < per_block && block * per_block + k < 1u << leaf_bits; ++k) {
      const unsigned index = block * per_block + k, at = k * shape_.output_bits;
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t below = (index - (alpha[i] & low)) >> 63;  // [index < alpha's low bits]
        const V target = static_cast<V>(below ^ flip[i]);
        const V difference = static_cast<V>(BitsFrom(value1[i], at) - BitsFrom(value2[i], at));
        words[(i << leaf_bits) + index] =
            Signed(static_cast<V>(target - sum[i] - difference), seeds[i]);
      }
    }
  }
  ring::Pack(std::span<const V>(words_.data(), n << leaf_bits), shape_.output_bits, out);
}

template <ring::Word V>
void Dcf<V>::Evaluate(Evaluator who, std::span<const std::uint64_t> x, std::span<const Block> roots,
                      ByteSpan first, ByteSpan rest, std::span<V> out) {
  const std::size_t n = x.size();
  const bool corrects_root = who == Evaluator::kE2;
  TERCET_CHECK(n <= kChunk && roots.size() == n && out.size() == n &&
                   first.size() == (corrects_root ? shape_.FirstBytes(n) : 0) &&
                   rest.size() == shape_.RestBytes(n),
               "evaluating {} comparisons with {} roots, {} + {} bytes into {}", n, roots.size(),
               first.size(), rest.size(), out.size());
  for (auto* buffer : {&seeds_, &child1_, &child2_, &value1_}) buffer->resize(n);
  words_.resize(n);
  for (std::size_t i = 0; i < n; ++i) seeds_[i] = RootOf(who, roots[i]);
  std::fill(out.begin(), out.end(), V{0});

  for (unsigned level = 0; level < shape_.Levels(); ++level) {
    tree_.Hash(seeds_, child1_);
    value_.Hash(seeds_, value1_);
    if (level == 0 && !corrects_root) {  // its control bits are 0: nothing to correct
      std::fill(child2_.begin(), child2_.end(), Block{});
      std::fill(words_.begin(), words_.end(), V{0});
    } else {
      ByteSpan& from = level == 0 ? first : rest;
      std::memcpy(child2_.data(), from.data(), n * sizeof(Block));
      const std::size_t bytes = shape_.LevelBytes(n), blocks = n * sizeof(Block);
      ring::Unpack(from.subspan(blocks, bytes - blocks), shape_.output_bits, std::span<V>(words_));
      from = from.subspan(bytes);
    }
    // Plain pointers: bytes may alias the vectors themselves, and would have them read again.
    Block* seed = seeds_.data();
    const Block *child = child1_.data(), *correction = child2_.data(), *value = value1_.data();
    const V* word = words_.data();
    V* sum = out.data();
    const unsigned at = shape_.input_bits - 1 - level;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t right = MaskOf(x[i] >> at), corrected = MaskOf(seed[i].low);
      sum[i] = static_cast<V>(sum[i] + Child(value[i], right) + (word[i] & corrected));
      seed[i] = child[i] ^ (seed[i] & right) ^ (correction[i] & corrected);
    }
  }

  const ByteSpan leaves = shape_.Levels() == 0 ? first : rest;
  const auto low = ring::LowMask<std::uint64_t>(shape_.leaf_bits);
  const unsigned per_block = shape_.ValuesPerBlock();
  for (std::size_t i = 0; i < n; ++i)
    child1_[i] = seeds_[i] ^ Block { (x[i] & low) / per_block, 0 };
  value_.Hash(child1_, value1_);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t index = x[i] & low;
    V value = static_cast<V>(
        BitsFrom(value1_[i], static_cast<unsigned>(index % per_block) * shape_.output_bits));
    if (!leaves.empty())
      value = static_cast<V>(
          value + (ring::UnpackOne(leaves, shape_.output_bits, (i << shape_.leaf_bits) + index) &
                   MaskOf(seeds_[i].low)));
    value = static_cast<V>(out[i] + value);
    out[i] = who == Evaluator::kE1 ? value : static_cast<V>(0 - value);
  }
}

template class Dcf<std::uint8_t>;
template class Dcf<std::uint16_t>;
template class Dcf<std::uint32_t>;
template class Dcf<std::uint64_t>;

}  // namespace tercet::protocols::fss
