// SPDX-License-Identifier: Apache-2.0
#include "tercet/crypto/sealing.h"

#include <sodium.h>

#include <algorithm>

#include "crypto/init_sodium.h"
#include "tercet/base/error.h"
#include "tercet/crypto/prf.h"

namespace tercet::crypto {
namespace {

constexpr std::size_t kStreamKeyBytes = crypto_secretstream_xchacha20poly1305_KEYBYTES;
constexpr std::size_t kBoxBytes = kStreamKeyBytes + crypto_box_SEALBYTES;
constexpr std::size_t kStreamHeaderBytes = crypto_secretstream_xchacha20poly1305_HEADERBYTES;
constexpr std::size_t kTagBytes = crypto_secretstream_xchacha20poly1305_ABYTES;
constexpr std::size_t kHeadBytes = kBoxBytes + kStreamHeaderBytes;
static_assert(kHeadBytes == 104 && kTagBytes == 17);
static_assert(SealingKey::kBytes == crypto_box_SECRETKEYBYTES);

// The key of one stream and its state, wiped at the end.
struct Stream {
  std::array<std::uint8_t, kStreamKeyBytes> key{};
  crypto_secretstream_xchacha20poly1305_state state{};
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    sodium_memzero(key.data(), key.size());
    sodium_memzero(&state, sizeof state);
  }
};

}  // namespace

SealingKey SealingKey::Random() {
  std::array<std::uint8_t, kBytes> secret{};
  RandomBytes(secret);
  SealingKey key(secret);
  Wipe(secret);
  return key;
}

SealingKey::SealingKey(std::span<const std::uint8_t, kBytes> secret) {
  InitSodium();
  std::copy(secret.begin(), secret.end(), secret_.begin());
  TERCET_CHECK(crypto_scalarmult_base(public_.data(), secret_.data()) == 0,
               "a sealing key has no public key");
}

SealingKey::SealingKey(SealingKey&& other) noexcept
    : secret_(other.secret_), public_(other.public_) {
  Wipe(other.secret_);
}

SealingKey& SealingKey::operator=(SealingKey&& other) noexcept {
  if (this == &other) return *this;
  secret_ = other.secret_;
  public_ = other.public_;
  Wipe(other.secret_);
  return *this;
}

SealingKey::~SealingKey() { Wipe(secret_); }

std::size_t SealedBytes(std::size_t text_bytes) {
  const std::size_t chunks =
      std::max<std::size_t>(1, (text_bytes + kSealedChunkBytes - 1) / kSealedChunkBytes);
  return kHeadBytes + text_bytes + chunks * kTagBytes;
}

Bytes Seal(const SealingPublicKey& to, ByteSpan context, ByteSpan text) {
  InitSodium();
  Bytes sealed(SealedBytes(text.size()));
  Stream stream;
  crypto_secretstream_xchacha20poly1305_keygen(stream.key.data());
  TERCET_CHECK(crypto_box_seal(sealed.data(), stream.key.data(), stream.key.size(), to.data()) == 0,
               "nothing can be sealed to this public key");
  crypto_secretstream_xchacha20poly1305_init_push(&stream.state, sealed.data() + kBoxBytes,
                                                  stream.key.data());
  std::uint8_t* out = sealed.data() + kHeadBytes;
  for (bool last = false; !last;) {
    const ByteSpan chunk = text.first(std::min(text.size(), kSealedChunkBytes));
    text = text.subspan(chunk.size());
    last = text.empty();
    crypto_secretstream_xchacha20poly1305_push(
        &stream.state, out, nullptr, chunk.data(), chunk.size(), context.data(), context.size(),
        last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL
             : crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
    out += chunk.size() + kTagBytes;
  }
  return sealed;
}

std::optional<Bytes> Unseal(const SealingKey& key, ByteSpan context, ByteSpan sealed,
                            bool* key_fits) {
  InitSodium();
  if (key_fits != nullptr) *key_fits = false;
  if (sealed.size() < kHeadBytes + kTagBytes) return std::nullopt;
  Stream stream;
  if (crypto_box_seal_open(stream.key.data(), sealed.data(), kBoxBytes, key.Public().data(),
                           key.Secret().data()) != 0)
    return std::nullopt;
  if (key_fits != nullptr) *key_fits = true;
  if (crypto_secretstream_xchacha20poly1305_init_pull(&stream.state, sealed.data() + kBoxBytes,
                                                      stream.key.data()) != 0)
    return std::nullopt;
  sealed = sealed.subspan(kHeadBytes);
  Bytes text(sealed.size());
  std::size_t size = 0;
  while (true) {
    const ByteSpan chunk = sealed.first(std::min(sealed.size(), kSealedChunkBytes + kTagBytes));
    sealed = sealed.subspan(chunk.size());
    std::uint8_t tag = 0;
    if (chunk.size() < kTagBytes ||
        crypto_secretstream_xchacha20poly1305_pull(&stream.state, text.data() + size, nullptr, &tag,
                                                   chunk.data(), chunk.size(), context.data(),
                                                   context.size()) != 0)
      return std::nullopt;
    size += chunk.size() - kTagBytes;
    const bool final = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
    if (final != sealed.empty()) return std::nullopt;
    if (final) break;
  }
  text.resize(size);
  return text;
}

bool CanSealTo(const SealingPublicKey& to) {
  InitSodium();
  const std::array<std::uint8_t, crypto_scalarmult_SCALARBYTES> any{8};
  std::array<std::uint8_t, crypto_scalarmult_BYTES> unused{};
  return crypto_scalarmult(unused.data(), any.data(), to.data()) == 0;
}

std::string HexText(ByteSpan bytes) {
  std::string text(2 * bytes.size() + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), bytes.data(), bytes.size());
  text.pop_back();
  return text;
}

bool ParseHex(std::string_view text, std::span<std::uint8_t> bytes) {
  if (text.size() != 2 * bytes.size()) return false;
  const char* end = nullptr;
  return sodium_hex2bin(bytes.data(), bytes.size(), text.data(), text.size(), nullptr, nullptr,
                        &end) == 0 &&
         end == text.data() + text.size();
}

Digest Sha256(std::initializer_list<ByteSpan> pieces) {
  InitSodium();
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  for (const auto& piece : pieces) crypto_hash_sha256_update(&state, piece.data(), piece.size());
  Digest digest{};
  crypto_hash_sha256_final(&state, digest.data());
  return digest;
}

}  // namespace tercet::crypto
