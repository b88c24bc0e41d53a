// SPDX-License-Identifier: Apache-2.0
#include "tercet/crypto/fixed_key_hash.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>

#include "crypto/openssl_handles.h"
#include "tercet/base/error.h"

namespace tercet::crypto {

static_assert(sizeof(Block) == 16);
static_assert(std::endian::native == std::endian::little, "blocks are read as bytes");

struct FixedKeyHash::State {
  CipherHandle cipher;
  // Two buffers of 8 KiB stay in the first-level cache and keep OpenSSL's cost of a call small.
  alignas(64) std::array<Block, 512> plain;
  alignas(64) std::array<Block, 512> encrypted;
};

FixedKeyHash::FixedKeyHash(std::span<const std::uint8_t, kKeyBytes> key)
    : state_(std::make_unique<State>()) {
  state_->cipher.reset(EVP_CIPHER_CTX_new());
  TERCET_CHECK(state_->cipher != nullptr, "OpenSSL could not make a cipher context");
  TERCET_CHECK(EVP_EncryptInit_ex(state_->cipher.get(), EVP_aes_128_ecb(), nullptr, key.data(),
                                  nullptr) == 1 &&
                   EVP_CIPHER_CTX_set_padding(state_->cipher.get(), 0) == 1,
               "OpenSSL offers no AES-128-ECB");
}

FixedKeyHash::~FixedKeyHash() = default;
FixedKeyHash::FixedKeyHash(FixedKeyHash&&) noexcept = default;
FixedKeyHash& FixedKeyHash::operator=(FixedKeyHash&&) noexcept = default;

void FixedKeyHash::Hash(std::span<const Block> in, std::span<Block> out) {
  TERCET_CHECK(in.size() == out.size(), "hashing {} blocks into {}", in.size(), out.size());
  TERCET_CHECK(state_ != nullptr, "a hash that was moved from cannot be used");
  State& s = *state_;
  for (std::size_t at = 0; at < in.size(); at += s.plain.size()) {
    const std::size_t n = std::min(s.plain.size(), in.size() - at);
    for (std::size_t i = 0; i < n; ++i)
      s.plain[i] = {in[at + i].low ^ in[at + i].high, in[at + i].low};
    const int bytes = static_cast<int>(n * sizeof(Block));
    int written = 0;
    TERCET_CHECK(EVP_EncryptUpdate(
                     s.cipher.get(), reinterpret_cast<unsigned char*>(s.encrypted.data()), &written,
                     reinterpret_cast<const unsigned char*>(s.plain.data()), bytes) == 1 &&
                     written == bytes,
                 "OpenSSL could not encrypt");
    for (std::size_t i = 0; i < n; ++i) out[at + i] = s.encrypted[i] ^ s.plain[i];
  }
}

}  // namespace tercet::crypto
