// SPDX-License-Identifier: Apache-2.0
#include "tercet/crypto/sealing.h"

#include <gtest/gtest.h>

#include <string>

#include "tercet/crypto/prf.h"

namespace tercet::crypto {
namespace {

Bytes Of(const std::string& text) { return {text.begin(), text.end()}; }

Bytes Random(std::size_t size) {
  Bytes bytes(size);
  RandomBytes(bytes);
  return bytes;
}

class Sealing : public testing::Test {
 protected:
  SealingKey key_ = SealingKey::Random();
  Bytes context_ = Of("what it is for");
};

TEST_F(Sealing, ComesBackForEverySize) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, kSealedChunkBytes - 1,
                                 kSealedChunkBytes, kSealedChunkBytes + 1, 3 * kSealedChunkBytes}) {
    const Bytes text = Random(size);
    const Bytes sealed = Seal(key_.Public(), context_, text);
    EXPECT_EQ(sealed.size(), SealedBytes(size));
    EXPECT_EQ(Unseal(key_, context_, sealed), text) << size;
  }
}

TEST_F(Sealing, AnotherKeyOrContextOpensNothing) {
  const Bytes sealed = Seal(key_.Public(), context_, Random(100));
  EXPECT_FALSE(Unseal(SealingKey::Random(), context_, sealed));
  EXPECT_FALSE(Unseal(key_, Of("something else"), sealed));
  EXPECT_FALSE(Unseal(key_, {}, sealed));
}

TEST_F(Sealing, EveryChangedByteIsSeen) {
  const Bytes sealed = Seal(key_.Public(), context_, Random(100));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    Bytes changed = sealed;
    changed[i] ^= 4;
    EXPECT_FALSE(Unseal(key_, context_, changed)) << i;
  }
}

TEST_F(Sealing, WhatIsCutOrLongerIsSeen) {
  const Bytes sealed = Seal(key_.Public(), context_, Random(2 * kSealedChunkBytes + 5));
  const std::size_t chunk = kSealedChunkBytes + 17;
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{80}, std::size_t{104}, std::size_t{120},
        104 + chunk, 104 + 2 * chunk, 104 + 2 * chunk + 3, sealed.size() - 1})
    EXPECT_FALSE(Unseal(key_, context_, ByteSpan(sealed).first(size))) << size;
  Bytes longer = sealed;
  longer.push_back(0);
  EXPECT_FALSE(Unseal(key_, context_, longer));
  // Chunks in another order.
  Bytes swapped = sealed;
  std::swap_ranges(swapped.begin() + 104, swapped.begin() + 104 + static_cast<long>(chunk),
                   swapped.begin() + 104 + static_cast<long>(chunk));
  EXPECT_FALSE(Unseal(key_, context_, swapped));
}

TEST_F(Sealing, TheSecretGivesThePublicKey) {
  const SealingKey again(key_.Secret());
  EXPECT_EQ(again.Public(), key_.Public());
  const Bytes sealed = Seal(key_.Public(), context_, Of("x"));
  EXPECT_EQ(Unseal(again, context_, sealed), Of("x"));
}

TEST_F(Sealing, NothingCanBeSealedToAPointOfLowOrder) {
  EXPECT_TRUE(CanSealTo(key_.Public()));
  EXPECT_FALSE(CanSealTo({}));
  EXPECT_FALSE(CanSealTo({1}));
}

TEST(Hex, ComesBackAndRefusesTheRest) {
  const Bytes bytes{0x00, 0x9f, 0xff};
  EXPECT_EQ(HexText(bytes), "009fff");
  Bytes read(3);
  EXPECT_TRUE(ParseHex("009FfF", read));
  EXPECT_EQ(read, bytes);
  for (const char* text : {"", "009ff", "009fff0", "009ff ", "00:9ff", "00xfff"})
    EXPECT_FALSE(ParseHex(text, read)) << text;
}

TEST(Sha256Digest, TakesThePiecesAsOneText) {
  EXPECT_EQ(HexText(Sha256({Of("a"), Of(""), Of("bc")})),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace tercet::crypto
