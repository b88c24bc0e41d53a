// SPDX-License-Identifier: Apache-2.0
#include "tercet/crypto/prf.h"

#include <openssl/evp.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/endian.h"
#include "crypto/init_sodium.h"
#include "crypto/openssl_handles.h"
#include "tercet/base/party_id.h"

namespace tercet::crypto {
namespace {

constexpr std::size_t kBlock = 16;
// Stays in the first-level cache between clearing and encrypting.
constexpr std::size_t kChunk = 16 * 1024;

std::uint64_t NonceOf(std::string_view purpose) {
  InitSodium();
  std::array<std::uint8_t, crypto_generichash_BYTES_MIN> digest{};
  crypto_generichash(digest.data(), digest.size(),
                     reinterpret_cast<const std::uint8_t*>(purpose.data()), purpose.size(), nullptr,
                     0);
  return FromBigEndian(std::span(digest).first(8));
}

}  // namespace

void Wipe(std::span<std::uint8_t> secret) { sodium_memzero(secret.data(), secret.size()); }

void RandomBytes(std::span<std::uint8_t> out) {
  InitSodium();
  // What is empty may have no address, which libsodium does not take.
  if (!out.empty()) randombytes_buf(out.data(), out.size());
}

PrfKey::PrfKey(std::span<const std::uint8_t> bytes) {
  TERCET_CHECK(bytes.size() == kBytes, "a PRF key has {} bytes, got {}", kBytes, bytes.size());
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
}

PrfKey PrfKey::Random() {
  PrfKey key;
  RandomBytes(key.bytes_);
  return key;
}

PrfKey::PrfKey(PrfKey&& other) noexcept : bytes_(other.bytes_) {
  sodium_memzero(other.bytes_.data(), kBytes);
}

PrfKey& PrfKey::operator=(PrfKey&& other) noexcept {
  if (this != &other) {
    bytes_ = other.bytes_;
    sodium_memzero(other.bytes_.data(), kBytes);
  }
  return *this;
}

PrfKey::~PrfKey() { sodium_memzero(bytes_.data(), kBytes); }

void PrfLedger::OnDraw(PrfUse use, std::span<std::uint8_t> /*drawn*/) {
  const std::lock_guard lock(mutex_);
  uses_.push_back(std::move(use));
}

std::vector<PrfUse> PrfLedger::Uses() const {
  const std::lock_guard lock(mutex_);
  return uses_;
}

struct PrfStream::State {
  int key_index;
  std::string purpose;
  std::uint64_t nonce;
  std::uint64_t next_block = 0;
  DrawObserver* observer;
  CipherHandle cipher;
};

PrfStream::PrfStream(int key_index, const PrfKey& key, std::string purpose,
                     DrawObserver* observer) {
  const std::uint64_t nonce = NonceOf(purpose);
  state_ = std::make_unique<State>(
      State{key_index, std::move(purpose), nonce, 0, observer, CipherHandle(EVP_CIPHER_CTX_new())});
  TERCET_CHECK(state_->cipher != nullptr, "OpenSSL could not make a cipher context");
  TERCET_CHECK(EVP_EncryptInit_ex(state_->cipher.get(), EVP_aes_128_ctr(), nullptr,
                                  key.Data().data(), nullptr) == 1,
               "OpenSSL offers no AES-128-CTR");
}

PrfStream::~PrfStream() = default;
PrfStream::PrfStream(PrfStream&&) noexcept = default;
PrfStream& PrfStream::operator=(PrfStream&&) noexcept = default;

void PrfStream::Fill(std::span<std::uint8_t> out) {
  TERCET_CHECK(state_ != nullptr, "a PRF stream that was moved from cannot be drawn from");
  if (out.empty()) return;
  State& s = *state_;
  const std::uint64_t blocks = (out.size() - 1) / kBlock + 1;
  TERCET_CHECK(blocks <= std::numeric_limits<std::uint64_t>::max() - s.next_block,
               "the PRF stream {} is used up", s.purpose);

  std::array<std::uint8_t, kBlock> iv{};
  ToBigEndian(s.nonce, std::span(iv).first(8));
  ToBigEndian(s.next_block, std::span(iv).last(8));
  TERCET_CHECK(EVP_EncryptInit_ex(s.cipher.get(), nullptr, nullptr, nullptr, iv.data()) == 1,
               "OpenSSL refused a counter");
  const std::uint64_t first_block = s.next_block;
  s.next_block += blocks;

  for (std::size_t at = 0; at < out.size(); at += kChunk) {
    const auto piece = out.subspan(at, std::min(kChunk, out.size() - at));
    std::memset(piece.data(), 0, piece.size());
    int written = 0;
    TERCET_CHECK(EVP_EncryptUpdate(s.cipher.get(), piece.data(), &written, piece.data(),
                                   static_cast<int>(piece.size())) == 1 &&
                     static_cast<std::size_t>(written) == piece.size(),
                 "OpenSSL could not encrypt");
  }
  if (s.observer != nullptr)
    s.observer->OnDraw({s.key_index, s.purpose, s.nonce, first_block, blocks}, out);
}

KeyRing::KeyRing(int party, PrfKey mine, PrfKey next, DrawObserver* observer)
    : party_(party),
      mine_(std::move(mine)),
      next_(std::move(next)),
      own_(PrfKey::Random()),
      observer_(observer) {
  TERCET_CHECK(party >= 0 && party < 3, "party {} is not in 0..2", party);
}

bool KeyRing::Holds(int key) const { return key == party_ || key == NextParty(party_); }

PrfStream KeyRing::Open(int key, std::string_view purpose) {
  TERCET_CHECK(Holds(key), "party {} does not hold key {} (asked for {})", party_, key, purpose);
  return Open(key, key == party_ ? mine_ : next_, purpose);
}

PrfStream KeyRing::OpenCoins(std::string_view purpose) { return Open(3 + party_, own_, purpose); }

PrfStream KeyRing::Open(int index, const PrfKey& key, std::string_view purpose) {
  const std::uint64_t nonce = NonceOf(purpose);
  const std::lock_guard lock(mutex_);
  TERCET_CHECK(opened_.emplace(index, nonce).second, "the stream {} of key {} was opened before",
               purpose, index);
  return PrfStream(index, key, std::string(purpose), observer_);
}

}  // namespace tercet::crypto
