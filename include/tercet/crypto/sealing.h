// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tercet/base/bytes.h"

/// Sealing: encryption to a public key, for whoever has the secret one, by anybody. All functions
/// are thread safe.
namespace tercet::crypto {

/// An X25519 public key.
using SealingPublicKey = std::array<std::uint8_t, 32>;

/// An X25519 secret key with its public one; the secret is wiped when it is destroyed, never
/// copied, never printed.
class SealingKey {
 public:
  static constexpr std::size_t kBytes = 32;
  static SealingKey Random();
  explicit SealingKey(std::span<const std::uint8_t, kBytes> secret);
  SealingKey(SealingKey&& other) noexcept;
  SealingKey& operator=(SealingKey&& other) noexcept;
  SealingKey(const SealingKey&) = delete;
  SealingKey& operator=(const SealingKey&) = delete;
  ~SealingKey();

  const SealingPublicKey& Public() const { return public_; }
  std::span<const std::uint8_t, kBytes> Secret() const { return secret_; }

 private:
  std::array<std::uint8_t, kBytes> secret_{};
  SealingPublicKey public_{};
};

/// What one chunk of a sealed text holds; all but the last are full.
inline constexpr std::size_t kSealedChunkBytes = 65'536;

/// How long a text of so many bytes is when it is sealed: 104 bytes more, and 17 a chunk.
std::size_t SealedBytes(std::size_t text_bytes);

/// A fresh key, sealed to `to` by crypto_box_seal (80 bytes), then the text under that key by
/// crypto_secretstream_xchacha20poly1305: its header (24 bytes) and chunks of 17 bytes more than
/// their text, each with `context` as associated data, the last one with the final tag. Throws
/// InternalError for a public key that is none.
Bytes Seal(const SealingPublicKey& to, ByteSpan context, ByteSpan text);

/// The text; nothing when `sealed` was sealed to another key or with another context, was changed,
/// or is too short or too long by as much as a bit. Never takes more memory than `sealed` does.
/// `key_fits`, if given, says whether it was sealed to this key at all.
std::optional<Bytes> Unseal(const SealingKey& key, ByteSpan context, ByteSpan sealed,
                            bool* key_fits = nullptr);

/// Whether anything can be sealed to this public key: it is no point of low order.
bool CanSealTo(const SealingPublicKey& to);

/// Small hex digits.
std::string HexText(ByteSpan bytes);
/// Fills `bytes` from exactly as many hex digits of either case; false for any other text.
bool ParseHex(std::string_view text, std::span<std::uint8_t> bytes);

using Digest = std::array<std::uint8_t, 32>;
/// SHA-256 of the pieces, one after the other.
Digest Sha256(std::initializer_list<ByteSpan> pieces);

}  // namespace tercet::crypto
