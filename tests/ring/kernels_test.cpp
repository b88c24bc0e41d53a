// SPDX-License-Identifier: Apache-2.0
#include "tercet/ring/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tercet/ring/pack.h"
#include "tercet/ring/word.h"

namespace tercet::ring {
namespace {

constexpr std::size_t kGuard = 80;
constexpr std::size_t kCounts[] = {0,  1,  2,  3,  7,  8,  9,   15,  16,  17,  31,
                                   32, 33, 63, 64, 65, 71, 100, 127, 128, 129, 1000};

/// Values of exactly the wanted size on the heap, at an odd offset and between random guards: a
/// sanitizer sees reads past the end, GuardsIntact sees writes.
template <class T>
class Guarded {
 public:
  Guarded(std::size_t size, std::mt19937_64& random, std::size_t offset = 1)
      : size_(size), offset_(kGuard + offset), all_(offset_ + size + kGuard) {
    for (T& x : all_) x = static_cast<T>(random());
    before_ = all_;
  }
  T* Data() { return all_.data() + offset_; }
  const T* Data() const { return all_.data() + offset_; }
  std::size_t Size() const { return size_; }
  T& operator[](std::size_t i) { return Data()[i]; }
  const T& operator[](std::size_t i) const { return Data()[i]; }
  bool GuardsIntact() const {
    const auto end = static_cast<std::ptrdiff_t>(offset_ + size_);
    return std::equal(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(offset_),
                      before_.begin()) &&
           std::equal(all_.begin() + end, all_.end(), before_.begin() + end);
  }
  std::vector<T> Values() const { return {Data(), Data() + size_}; }

 private:
  std::size_t size_;
  std::size_t offset_;
  std::vector<T> all_;
  std::vector<T> before_;
};

/// Random values that end where their memory ends, so that a sanitizer sees every byte read too
/// far.
template <class T>
std::vector<T> RandomValues(std::size_t size, std::mt19937_64& random, std::uint64_t below = 0) {
  std::vector<T> values(size);
  for (T& x : values) x = static_cast<T>(below == 0 ? random() : random() % below);
  return values;
}

class KernelsTest : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels_ = *GetParam();
  std::mt19937_64 random_{20240501};
};

template <class W>
void CheckProduct(const Kernels& kernels, std::size_t outputs, std::size_t cols, std::size_t depth,
                  std::mt19937_64& random) {
  SCOPED_TRACE(std::to_string(8 * sizeof(W)) + "-bit words, " + std::to_string(outputs) +
               " outputs, " + std::to_string(cols) + " columns, depth " + std::to_string(depth));
  const std::vector<W> w = RandomValues<W>(outputs * depth, random);
  std::vector<std::vector<W>> x;
  std::vector<const W*> rows;
  for (std::size_t k = 0; k < depth; ++k) {
    x.push_back(RandomValues<W>(cols, random));
    rows.push_back(random() % 5 == 0 ? nullptr : x.back().data());
  }
  std::vector<Guarded<W>> y;
  std::vector<W*> targets;
  std::vector<std::vector<W>> expected;
  for (std::size_t m = 0; m < outputs; ++m) {
    y.emplace_back(cols, random, m % 3);
    expected.push_back(y.back().Values());
    for (std::size_t c = 0; c < cols; ++c) {
      std::uint64_t sum = expected[m][c];
      for (std::size_t k = 0; k < depth; ++k) {
        if (rows[k] != nullptr) sum += std::uint64_t{w[m * depth + k]} * rows[k][c];
      }
      expected[m][c] = static_cast<W>(sum);
    }
  }
  targets.reserve(outputs);
  for (Guarded<W>& row : y) targets.push_back(row.Data());
  ProductOf<W>(kernels)(targets.data(), outputs, cols, w.data(), rows.data(), depth);
  for (std::size_t m = 0; m < outputs; ++m) {
    ASSERT_EQ(y[m].Values(), expected[m]) << "output " << m;
    ASSERT_TRUE(y[m].GuardsIntact()) << "output " << m;
  }
}

template <class W>
void CheckProducts(const Kernels& kernels, std::mt19937_64& random) {
  for (const std::size_t cols : kCounts) {
    for (const std::size_t depth : {0, 1, 2, 3, 4, 5, 25}) {
      CheckProduct<W>(kernels, 5, cols, depth, random);
    }
  }
  for (std::size_t outputs = 0; outputs <= 30; ++outputs) {
    for (const std::size_t cols : {1, 3, 6, 40}) {
      CheckProduct<W>(kernels, outputs, cols, 9, random);
    }
  }
  // Depths around the slices that the vector kernels work in.
  for (const std::size_t depth : {255, 256, 257, 511, 512, 513, 514, 1027, 2049, 2115}) {
    for (const std::size_t cols : {1, 5, 20}) CheckProduct<W>(kernels, 3, cols, depth, random);
  }
}

TEST_P(KernelsTest, Product8) { CheckProducts<std::uint8_t>(kernels_, random_); }
TEST_P(KernelsTest, Product16) { CheckProducts<std::uint16_t>(kernels_, random_); }
TEST_P(KernelsTest, Product32) { CheckProducts<std::uint32_t>(kernels_, random_); }
TEST_P(KernelsTest, Product64) { CheckProducts<std::uint64_t>(kernels_, random_); }

TEST_P(KernelsTest, ProductOfExtremeWords) {
  // -2^15 * -2^15 twice is where signed 16-bit multiplications in pairs overflow.
  const std::vector<std::uint16_t> w(4 * 6, 0x8000);
  for (const std::uint16_t word : {0x8000, 0xffff, 0x7fff}) {
    for (const std::size_t cols : {1, 33}) {
      const std::vector<std::uint16_t> x(cols, word);
      const std::vector<const std::uint16_t*> rows(6, x.data());
      std::vector<std::uint16_t> y(4 * cols, 1);
      std::vector<std::uint16_t*> targets;
      targets.reserve(4);
      for (std::size_t m = 0; m < 4; ++m) targets.push_back(y.data() + m * cols);
      kernels_.product16(targets.data(), 4, cols, w.data(), rows.data(), 6);
      const auto expected = static_cast<std::uint16_t>(1U + 6U * 0x8000U * word);
      EXPECT_EQ(y, std::vector<std::uint16_t>(4 * cols, expected));
    }
  }
}

bool Bit(const std::uint8_t* bytes, std::size_t i) { return (bytes[i / 8] >> (i % 8) & 1) != 0; }

std::size_t TableBytes(std::size_t count, unsigned k) { return ((count << k) + 7) / 8; }

/// Runs `kernel(table)` on a random table and compares each bit with `bit(i, v)` XORed to the old
/// one.
template <class Kernel, class BitOf>
void CheckTable(std::size_t count, unsigned k, std::mt19937_64& random, Kernel kernel,
                BitOf bit_of) {
  Guarded<std::uint8_t> table(TableBytes(count, k), random, count % 7);
  std::vector<std::uint8_t> expected = table.Values();
  for (std::size_t i = 0; i < count; ++i) {
    for (unsigned v = 0; v < 1U << k; ++v) {
      const std::size_t at = (i << k) + v;
      expected[at / 8] = static_cast<std::uint8_t>(expected[at / 8] ^ (bit_of(i, v) << (at % 8)));
    }
  }
  kernel(table.Data());
  ASSERT_EQ(table.Values(), expected) << "k " << k << " count " << count;
  ASSERT_TRUE(table.GuardsIntact()) << "k " << k << " count " << count;
}

TEST_P(KernelsTest, XorGreaterRows) {
  for (unsigned k = 1; k <= 8; ++k) {
    for (const std::size_t count : kCounts) {
      const auto own = RandomValues<std::uint8_t>(count, random_, std::uint64_t{1} << k);
      CheckTable(
          count, k, random_,
          [&](std::uint8_t* table) { kernels_.xor_greater_rows(table, own.data(), count, k); },
          [&](std::size_t i, unsigned v) { return own[i] > v; });
    }
  }
}

TEST_P(KernelsTest, XorGreaterRowsForEveryValue) {
  for (unsigned k = 1; k <= 8; ++k) {
    const std::size_t count = std::max<std::size_t>(128, std::size_t{1} << k);
    std::vector<std::uint8_t> own(count);
    for (std::size_t i = 0; i < count; ++i) own[i] = static_cast<std::uint8_t>(i % (1U << k));
    CheckTable(
        count, k, random_,
        [&](std::uint8_t* table) { kernels_.xor_greater_rows(table, own.data(), count, k); },
        [&](std::size_t i, unsigned v) { return own[i] > v; });
  }
}

TEST_P(KernelsTest, XorPermutedRows) {
  for (unsigned k = 1; k <= 8; ++k) {
    for (const std::size_t count : kCounts) {
      const auto f = RandomValues<std::uint8_t>(TableBytes(1, k), random_);
      const auto rho = RandomValues<std::uint8_t>(count, random_, std::uint64_t{1} << k);
      const auto flip = RandomValues<std::uint8_t>(count, random_, 2);
      CheckTable(
          count, k, random_,
          [&](std::uint8_t* table) {
            kernels_.xor_permuted_rows(table, f.data(), rho.data(), flip.data(), count, k);
          },
          [&](std::size_t i, unsigned v) { return Bit(f.data(), v ^ rho[i]) != (flip[i] == 1); });
    }
  }
}

TEST_P(KernelsTest, SelectBits) {
  for (unsigned k = 1; k <= 8; ++k) {
    for (const std::size_t count : kCounts) {
      for (unsigned shift = 0; shift < 8; ++shift) {
        const auto table = RandomValues<std::uint8_t>(TableBytes(count, k), random_);
        const auto index = RandomValues<std::uint8_t>(count, random_, std::uint64_t{1} << k);
        Guarded<std::uint8_t> out(count, random_, shift);
        std::vector<std::uint8_t> expected = out.Values();
        for (std::size_t i = 0; i < count; ++i) {
          expected[i] = static_cast<std::uint8_t>(
              expected[i] ^ (Bit(table.data(), (i << k) + index[i]) << shift));
        }
        kernels_.select_bits(out.Data(), table.data(), index.data(), count, k, shift);
        ASSERT_EQ(out.Values(), expected) << "k " << k << " count " << count << " shift " << shift;
        ASSERT_TRUE(out.GuardsIntact()) << "k " << k << " count " << count;
      }
    }
  }
}

template <class W>
auto PackEntries(const Kernels& kernels) {
  if constexpr (sizeof(W) == 1) {
    return std::pair(kernels.pack8, kernels.unpack8);
  } else if constexpr (sizeof(W) == 2) {
    return std::pair(kernels.pack16, kernels.unpack16);
  } else if constexpr (sizeof(W) == 4) {
    return std::pair(kernels.pack32, kernels.unpack32);
  } else {
    return std::pair(kernels.pack64, kernels.unpack64);
  }
}

template <class W>
void CheckPacking(const Kernels& kernels, std::mt19937_64& random) {
  const auto [pack, unpack] = PackEntries<W>(kernels);
  for (unsigned bits = 1; bits <= kWordBits<W>; ++bits) {
    for (const std::size_t count : kCounts) {
      SCOPED_TRACE(std::to_string(count) + " elements of " + std::to_string(bits) + " bits in " +
                   std::to_string(sizeof(W)) + " bytes");
      const auto values = RandomValues<W>(count, random);
      std::vector<std::uint8_t> expected(PackedBytes(count, bits));
      for (std::size_t i = 0; i < count; ++i) {
        for (unsigned b = 0; b < bits; ++b) {
          const std::size_t at = i * bits + b;
          expected[at / 8] |= static_cast<std::uint8_t>((values[i] >> b & 1) << (at % 8));
        }
      }
      Guarded<std::uint8_t> packed(expected.size(), random, bits % 8);
      pack(values.data(), count, bits, packed.Data());
      ASSERT_EQ(packed.Values(), expected);
      ASSERT_TRUE(packed.GuardsIntact());

      Guarded<W> back(count, random);
      unpack(expected.data(), count, bits, back.Data());
      for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(back[i], Reduce(values[i], bits)) << i;
      ASSERT_TRUE(back.GuardsIntact());
    }
  }
}

TEST_P(KernelsTest, Packing8) { CheckPacking<std::uint8_t>(kernels_, random_); }
TEST_P(KernelsTest, Packing16) { CheckPacking<std::uint16_t>(kernels_, random_); }
TEST_P(KernelsTest, Packing32) { CheckPacking<std::uint32_t>(kernels_, random_); }
TEST_P(KernelsTest, Packing64) { CheckPacking<std::uint64_t>(kernels_, random_); }

#ifdef TERCET_EXPECTS_VECTORS
TEST(AvailableKernelsTest, TheProcessorHasVectors) { EXPECT_GT(AvailableKernels().size(), 1U); }
#endif

INSTANTIATE_TEST_SUITE_P(Available, KernelsTest, ::testing::ValuesIn(AvailableKernels()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace tercet::ring
