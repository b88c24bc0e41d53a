// SPDX-License-Identifier: Apache-2.0
#include "tercet/crypto/prf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <map>
#include <thread>

#include "tercet/base/error.h"

namespace tercet::crypto {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

PrfKey KeyOf(std::uint8_t first) {
  std::array<std::uint8_t, 16> bytes{};
  for (std::size_t i = 0; i < 16; ++i) bytes[i] = static_cast<std::uint8_t>(first + i);
  return PrfKey(bytes);
}

/// AES-128 of one block, straight from OpenSSL's ECB.
std::array<std::uint8_t, 16> Aes(const PrfKey& key, const std::array<std::uint8_t, 16>& in) {
  std::array<std::uint8_t, 16> out{};
  EVP_CIPHER_CTX* ctx = EVP_CIPHER_CTX_new();
  EXPECT_EQ(EVP_EncryptInit_ex(ctx, EVP_aes_128_ecb(), nullptr, key.Data().data(), nullptr), 1);
  EVP_CIPHER_CTX_set_padding(ctx, 0);
  int written = 0;
  EXPECT_EQ(EVP_EncryptUpdate(ctx, out.data(), &written, in.data(), 16), 1);
  EVP_CIPHER_CTX_free(ctx);
  return out;
}

TEST(PrfTest, BlocksAreAesOfNonceAndCounter) {
  // FIPS 197, appendix C.1: key 00..0f, plaintext 00112233..ff; ties the reference used below to
  // AES.
  const std::array<std::uint8_t, 16> plain{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                           0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
  const std::array<std::uint8_t, 16> cipher{0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30,
                                            0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a};
  ASSERT_EQ(Aes(KeyOf(0), plain), cipher);

  PrfLedger ledger;
  PrfStream stream(0, KeyOf(0), "conv1/mask", &ledger);
  std::vector<std::uint8_t> first(20), second(50'000);
  stream.Fill(first);  // two blocks, the rest of the second is discarded
  stream.Fill(second);
  const std::uint64_t nonce = ledger.Uses().at(0).nonce;
  auto block = [&](std::uint64_t counter) {
    std::array<std::uint8_t, 16> in{};
    for (unsigned i = 0; i < 8; ++i) {
      in[i] = static_cast<std::uint8_t>(nonce >> (56 - 8 * i));
      in[8 + i] = static_cast<std::uint8_t>(counter >> (56 - 8 * i));
    }
    return Aes(KeyOf(0), in);
  };
  for (std::size_t i = 0; i < first.size(); ++i) ASSERT_EQ(first[i], block(i / 16)[i % 16]) << i;
  for (std::size_t i = 0; i < second.size(); ++i)
    ASSERT_EQ(second[i], block(2 + i / 16)[i % 16]) << i;
}

TEST(PrfTest, NonceIsFixedForAPurpose) {
  PrfLedger ledger;
  std::array<std::uint8_t, 1> out{};
  PrfStream(0, KeyOf(1), "", &ledger).Fill(out);
  PrfStream(0, KeyOf(1), "a", &ledger).Fill(out);
  // BLAKE2b of 16 bytes of the empty string is cae66941d9efbd40 4e4d88758ea67670.
  EXPECT_EQ(ledger.Uses().at(0).nonce, 0xcae66941d9efbd40U);
  EXPECT_NE(ledger.Uses().at(1).nonce, ledger.Uses().at(0).nonce);
}

TEST(PrfTest, BothHoldersDrawTheSame) {
  KeyRing one(1, KeyOf(10), KeyOf(20));  // holds keys 1 and 2
  KeyRing two(2, KeyOf(20), KeyOf(30));  // holds keys 2 and 0
  auto a = one.Open(2, "layer/x");
  auto b = two.Open(2, "layer/x");
  EXPECT_EQ(a.Draw<std::uint32_t>(3, 7), b.Draw<std::uint32_t>(3, 7));
  EXPECT_EQ(a.Draw<std::uint64_t>(1, 5), b.Draw<std::uint64_t>(1, 5));
  auto c = two.Open(2, "layer/y");
  auto d = one.Open(1, "layer/x");
  const auto x = one.Open(2, "layer/z").Draw<std::uint64_t>(1, 4);
  EXPECT_NE(c.Draw<std::uint64_t>(1, 4), x);
  EXPECT_NE(d.Draw<std::uint64_t>(1, 4), x);
  EXPECT_EQ(a.Draw<std::uint8_t>(0, 5).size(), 0U);
}

TEST(PrfTest, RefusesKeysNotHeldAndPurposesOpenedBefore) {
  KeyRing ring(1, KeyOf(1), KeyOf(2));
  EXPECT_TRUE(ring.Holds(1) && ring.Holds(2) && !ring.Holds(0));
  EXPECT_THAT([&] { ring.Open(0, "x"); },
              ThrowsMessage<InternalError>(HasSubstr("does not hold key 0")));
  EXPECT_THAT([&] { ring.Open(7, "x"); },
              ThrowsMessage<InternalError>(HasSubstr("does not hold key 7")));
  ring.Open(1, "x");
  ring.Open(2, "x");
  EXPECT_THAT([&] { ring.Open(1, "x"); }, ThrowsMessage<InternalError>(HasSubstr("opened before")));
  EXPECT_THROW(KeyRing(3, KeyOf(1), KeyOf(2)), InternalError);
  EXPECT_THROW(PrfKey(std::vector<std::uint8_t>(15)), InternalError);
}

TEST(PrfTest, NoCounterIsUsedTwice) {
  PrfLedger ledger;
  KeyRing ring(0, KeyOf(1), KeyOf(2), &ledger);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ring, t] {
      auto stream = ring.Open(t % 2, fmt::format("purpose {}", t / 2));
      std::vector<std::uint8_t> out(1000);
      for (std::size_t n : {1U, 16U, 17U, 0U, 999U}) stream.Fill(std::span(out).first(n));
    });
  }
  threads.clear();
  std::map<std::pair<int, std::uint64_t>, std::uint64_t> next;
  for (const auto& use : ledger.Uses()) {
    auto& expected = next[{use.key, use.nonce}];
    EXPECT_EQ(use.first_block, expected);
    EXPECT_GT(use.blocks, 0U);
    expected = use.first_block + use.blocks;
  }
  EXPECT_EQ(next.size(), 4U);
  for (const auto& [id, blocks] : next) EXPECT_EQ(blocks, 1U + 1U + 2U + 63U);
}

TEST(PrfTest, CoinsAreOfAKeyOfTheirOwn) {
  PrfLedger ledger;
  KeyRing ring(1, KeyOf(1), KeyOf(2), &ledger), same(1, KeyOf(1), KeyOf(2));
  std::vector<std::vector<std::uint8_t>> drawn(4, std::vector<std::uint8_t>(32));
  ring.OpenCoins("a").Fill(drawn[0]);
  same.OpenCoins("a").Fill(drawn[1]);
  ring.Open(1, "a").Fill(drawn[2]);
  ring.Open(2, "a").Fill(drawn[3]);
  for (std::size_t i = 0; i < drawn.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(drawn[i], drawn[j]) << i << ", " << j;
  EXPECT_EQ(ledger.Uses().at(0).key, 4);  // 3 + party
  EXPECT_THROW(ring.OpenCoins("a"), InternalError);
}

TEST(PrfTest, AnObserverSeesAndChangesWhatIsDrawn) {
  struct Flip final : DrawObserver {
    void OnDraw(PrfUse use, std::span<std::uint8_t> drawn) override {
      EXPECT_EQ(use.purpose, "a");
      for (auto& byte : drawn) byte ^= 0xff;
    }
  } flip;
  KeyRing watched(0, KeyOf(1), KeyOf(2), &flip), plain(0, KeyOf(1), KeyOf(2));
  std::vector<std::uint8_t> seen(50), expected(50);
  watched.Open(0, "a").Fill(seen);
  plain.Open(0, "a").Fill(expected);
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], expected[i] ^ 0xff);
}

TEST(PrfTest, MovedKeysAreWiped) {
  PrfKey key = KeyOf(5);
  const PrfKey moved = std::move(key);
  EXPECT_EQ(moved.Data()[0], 5);
  for (const auto byte : key.Data()) EXPECT_EQ(byte, 0);  // NOLINT(bugprone-use-after-move)
  const PrfKey a = PrfKey::Random(), b = PrfKey::Random();
  EXPECT_FALSE(std::equal(a.Data().begin(), a.Data().end(), b.Data().begin()));
}

}  // namespace
}  // namespace tercet::crypto
