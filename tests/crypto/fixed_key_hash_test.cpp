// SPDX-License-Identifier: Apache-2.0
#include "tercet/crypto/fixed_key_hash.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "tercet/base/error.h"

namespace tercet::crypto {
namespace {

std::array<std::uint8_t, 16> Counting() {
  std::array<std::uint8_t, 16> key{};
  std::iota(key.begin(), key.end(), std::uint8_t{0});
  return key;
}

Block FromBytes(const std::array<std::uint8_t, 16>& bytes) {
  Block block;
  std::memcpy(&block, bytes.data(), sizeof block);
  return block;
}

// FIPS 197, Appendix C.1: key 00 01 .. 0f, plaintext 00 11 .. ff.
TEST(FixedKeyHashTest, IsMatyasMeyerOseasOverSigma) {
  std::array<std::uint8_t, 16> bytes{};
  for (unsigned i = 0; i < 16; ++i) bytes[i] = static_cast<std::uint8_t>(0x11 * i);
  const Block plain = FromBytes(bytes);
  const Block encrypted = FromBytes({0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd,
                                     0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a});
  const Block x{plain.high, plain.low ^ plain.high};  // sigma(x) is the plaintext
  Block y;
  FixedKeyHash(Counting()).Hash({&x, 1}, {&y, 1});
  EXPECT_EQ(y, (encrypted ^ plain));
}

TEST(FixedKeyHashTest, BlocksAreHashedOneByOneAndInPlace) {
  std::vector<Block> in(1300), out(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = {i * 0x9e3779b97f4a7c15, i ^ 77};
  FixedKeyHash hash(Counting());
  hash.Hash(in, out);
  for (const std::size_t i : {0u, 1u, 511u, 512u, 1299u}) {
    Block alone;
    hash.Hash({&in[i], 1}, {&alone, 1});
    EXPECT_EQ(out[i], alone) << i;
  }
  hash.Hash(in, in);
  EXPECT_EQ(in, out);
}

TEST(FixedKeyHashTest, KeysDifferAndMisuseThrows) {
  auto other = Counting();
  other[3] ^= 1;
  const Block x{1, 2};
  Block y, z;
  FixedKeyHash first(Counting()), second(other);
  first.Hash({&x, 1}, {&y, 1});
  second.Hash({&x, 1}, {&z, 1});
  EXPECT_FALSE(y == z);
  EXPECT_THROW(first.Hash({&x, 1}, {}), InternalError);
  const FixedKeyHash taken = std::move(first);
  EXPECT_THROW(first.Hash({&x, 1}, {&y, 1}), InternalError);  // NOLINT(bugprone-use-after-move)
}

}  // namespace
}  // namespace tercet::crypto
