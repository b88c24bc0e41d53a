// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tercet/ring/matrix.h"
#include "tercet/ring/word.h"

namespace tercet {
struct TestAccess;  // sets keys and watches draws; defined by tests alone
}  // namespace tercet

namespace tercet::crypto {

/// Fills `out` from libsodium's generator (the operating system's). Thread safe.
void RandomBytes(std::span<std::uint8_t> out);

/// Overwrites secret bytes with zeros in a way that the compiler does not remove.
void Wipe(std::span<std::uint8_t> secret);

/// A 128-bit PRF key; wiped when it is destroyed, never copied, never printed.
class PrfKey {
 public:
  static constexpr std::size_t kBytes = 16;
  PrfKey() = default;
  explicit PrfKey(std::span<const std::uint8_t> bytes);  ///< Throws InternalError unless 16 bytes.
  static PrfKey Random();
  PrfKey(PrfKey&& other) noexcept;
  PrfKey& operator=(PrfKey&& other) noexcept;
  PrfKey(const PrfKey&) = delete;
  PrfKey& operator=(const PrfKey&) = delete;
  ~PrfKey();
  std::span<const std::uint8_t, kBytes> Data() const { return bytes_; }

 private:
  std::array<std::uint8_t, kBytes> bytes_{};
};

/// One range of blocks that a stream has drawn.
struct PrfUse {
  int key;  ///< share index of the key, 0..2; 3 + i for the coins of party i
  std::string purpose;
  std::uint64_t nonce;
  std::uint64_t first_block;
  std::uint64_t blocks;
};

/// Sees every draw of a KeyRing's streams; tests alone attach one. Thread safe.
class DrawObserver {
 public:
  virtual ~DrawObserver() = default;
  /// `drawn` is what the stream gives its holder for `use`. A test that plays a faulty
  /// implementation changes it.
  virtual void OnDraw(PrfUse use, std::span<std::uint8_t> drawn) = 0;
};

/// Collects what streams have drawn: for the test that no (key, counter) is used twice.
class PrfLedger final : public DrawObserver {
 public:
  void OnDraw(PrfUse use, std::span<std::uint8_t> drawn) override;
  std::vector<PrfUse> Uses() const;

 private:
  mutable std::mutex mutex_;
  std::vector<PrfUse> uses_;
};

/// F(k, nonce || counter): AES-128 in counter mode, nonce = 64 bits derived from the purpose's
/// name, counter = 64-bit block number that only grows. Both holders of k open the stream under the
/// same name and draw the same sizes in the same order, hence the same values. A draw begins at a
/// fresh block. Not thread safe; different streams may be used at the same time.
class PrfStream {
 public:
  PrfStream(int key_index, const PrfKey& key, std::string purpose, DrawObserver* observer);
  ~PrfStream();
  PrfStream(PrfStream&&) noexcept;
  PrfStream& operator=(PrfStream&&) noexcept;

  /// Overwrites `out` with fresh pseudorandom bytes.
  void Fill(std::span<std::uint8_t> out);

  /// Overwrites `out` with fresh words, uniform over the whole word (so over every Z_{2^l} it
  /// holds).
  template <ring::Word W>
  void Draw(std::span<W> out) {
    Fill({reinterpret_cast<std::uint8_t*>(out.data()), out.size_bytes()});
  }
  /// A fresh matrix of uniform words.
  template <ring::Word W>
  ring::Matrix<W> Draw(std::size_t rows, std::size_t cols) {
    auto m = ring::MakeMatrix<W>(rows, cols);
    Draw(std::span<W>(m.data(), m.size()));
    return m;
  }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The two keys of a party: k_i, held with party i-1, and k_{i+1}, held with party i+1 (the keys
/// are indexed like the shares), and one of its own. Hands out streams; a purpose can be opened
/// once per key, so that no counter is used twice. Thread safe.
class KeyRing {
 public:
  /// `party` is 0..2, `mine` is k_party, `next` is k_{party+1}. Draws the key of its own.
  KeyRing(int party, PrfKey mine, PrfKey next, DrawObserver* observer = nullptr);

  /// The stream of key `key` (0..2) for `purpose`, e.g. "conv1/lut/open_masked". Throws
  /// InternalError when this party does not hold the key, or the purpose (or its 64-bit nonce) was
  /// opened before.
  PrfStream Open(int key, std::string_view purpose);
  /// Public coins: a stream of the key that this party has drawn for itself. What comes out of it
  /// is sent to others as it is and masks nothing. Throws as Open.
  PrfStream OpenCoins(std::string_view purpose);
  bool Holds(int key) const;

 private:
  friend struct tercet::TestAccess;
  PrfStream Open(int index, const PrfKey& key, std::string_view purpose);

  int party_;
  PrfKey mine_, next_, own_;
  DrawObserver* observer_;
  std::mutex mutex_;
  std::set<std::pair<int, std::uint64_t>> opened_;
};

}  // namespace tercet::crypto
