// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "tercet/base/party_id.h"
#include "tercet/crypto/prf.h"
#include "tercet/mpc/cost.h"
#include "tercet/mpc/share.h"
#include "tercet/net/memory_link.h"
#include "tercet/net/meter.h"
#include "tercet/ring/pack.h"

namespace tercet::mpc {

using net::Phase;

/// One party as a protocol sees it: its number, its links, its keys and its meter. Not tied to a
/// phase; protocols talk through a Context.
///
///     mpc::Party party(1, std::move(links), /*layers=*/plan.layers.size());
///     mpc::Context ctx(party, Phase::kOnline);
class Party {
 public:
  /// Agrees the PRF keys: party i draws k_i and sends it to party i-1 inside their channel (setup,
  /// 1 hop, 16 B). `layers` counts the plan's layers; the meter gets two more, for input and
  /// output. A link may be null where nothing will be said to that party: the key in common with it
  /// is then known to nobody else.
  Party(int id, net::Links links, std::size_t layers, crypto::DrawObserver* observer = nullptr);

  int Id() const { return id_; }
  int Next() const { return NextParty(id_); }
  int Prev() const { return PrevParty(id_); }
  crypto::KeyRing& Keys() { return *keys_; }
  net::Link& LinkTo(int peer);
  net::Meter& Meter() { return meter_; }
  /// The layer that a context of this phase entered last; for errors. Thread safe.
  void EnterLayer(Phase phase, const std::string& layer);
  std::string LayerOf(Phase phase) const;

  /// Tells both neighbours why this party stops and closes the links. Never throws.
  void Abort(const std::string& reason) noexcept;
  /// Closes the links in order. Never throws.
  void Close() noexcept;

 private:
  friend struct tercet::TestAccess;
  /// Keys that a test has chosen; nothing is sent.
  Party(int id, net::Links links, std::size_t layers, std::unique_ptr<crypto::KeyRing> keys);

  int id_;
  net::Links links_;
  std::unique_ptr<crypto::KeyRing> keys_;
  net::Meter meter_;
  mutable std::mutex mutex_;
  std::array<std::string, net::kPhases> layers_;
};

/// One party's view of one phase of one query: sends and receives, counts bytes, follows the depth
/// of dependent messages (hops), and adds phase and layer to every error. One thread at a time;
/// contexts of different phases of the same party may be used at once.
class Context {
 public:
  /// `planned`: what the messages that come must say of the chains that they end, for layers as
  /// Enter numbers them; must outlive the context. A peer whose message says otherwise ends the
  /// query. Null where there is no plan: then nothing is compared.
  Context(Party& party, Phase phase, const Depths* planned = nullptr)
      : party_(party), phase_(phase), planned_(planned) {}
  /// No query has a longer chain. Keeps what a peer says from wrapping around.
  static constexpr std::uint32_t kMaxHops = 1U << 24;

  int Id() const { return party_.Id(); }
  bool Is(int party) const { return party == party_.Id(); }
  int Next() const { return party_.Next(); }
  int Prev() const { return party_.Prev(); }

  /// Everything until the next Enter or Leave belongs to this layer (0 input, 1..L, L+1 output).
  /// `name` is for errors.
  void Enter(std::size_t layer, std::string name);
  /// Ends the layer: its time and its growth of depth go to the meter.
  void Leave();

  /// Sends values packed to `bits` bits each: PackedBytes(values.size(), bits) bytes, one message.
  /// What is longer than kPartBytes travels in parts, so that no queue holds it twice and whoever
  /// waits sees it come. Where messages are pieces of one that both ends send before they receive,
  /// those after the first `continue` it: they never wait for room (net::Message::continues).
  template <Word W>
  void Send(int to, std::span<const W> values, unsigned bits, bool continues = false) {
    Outgoing message = Begin(to, ring::PackedBytes(values.size(), bits), continues);
    const std::size_t step = kPartBytes / bits * 8;  // a whole number of bytes
    for (std::size_t first = 0; first == 0 || first < values.size(); first += step) {
      const auto part = values.subspan(first, std::min(step, values.size() - first));
      Bytes payload(ring::PackedBytes(part.size(), bits));
      ring::Pack(part, bits, std::span<std::uint8_t>(payload));
      SendPart(message, std::move(payload));
    }
  }
  template <Word W>
  void Send(int to, const Matrix<W>& values, unsigned bits) {
    Send(to, std::span<const W>(values.data(), values.size()), bits);
  }
  /// Receives as many values as `out` holds. Throws ProtocolError when the peer sent another length
  /// or step.
  template <Word W>
  void Receive(int from, std::span<W> out, unsigned bits) {
    const Bytes payload = ReceiveBytes(from, ring::PackedBytes(out.size(), bits));
    ring::Unpack(ByteSpan(payload), bits, out);
  }
  template <Word W>
  Matrix<W> Receive(int from, std::size_t rows, std::size_t cols, unsigned bits) {
    auto m = ring::MakeMatrix<W>(rows, cols);
    Receive(from, std::span<W>(m.data(), m.size()), bits);
    return m;
  }
  void SendBytes(int to, Bytes payload);
  /// Takes no more memory than is expected. A part but the last that is much smaller than
  /// kPartBytes is an error: a peer must not make this party wait by sending a little at a time.
  Bytes ReceiveBytes(int from, std::size_t expected_bytes);
  static constexpr std::size_t kPartBytes = std::size_t{1} << 20;

  /// Depth reached so far: the hops of this phase of the query.
  std::uint32_t Depth() const { return depth_; }

 private:
  // A message that is being sent.
  struct Outgoing {
    int to;
    std::uint32_t tag;
    bool begun;
  };
  Outgoing Begin(int to, std::size_t bytes, bool continues = false);
  void SendPart(Outgoing& message, Bytes part);
  net::Message ReceivePart(int from, std::uint32_t step);
  void CheckDepth(int from, std::uint32_t step, std::uint32_t depth) const;
  std::string Where() const;
  [[noreturn]] void ThrowWithPlace(const NetworkError& error) const;

  Party& party_;
  Phase phase_;
  const Depths* planned_;
  std::uint32_t depth_ = 0;
  std::size_t layer_ = 0;
  std::string layer_name_ = "setup";
  std::uint32_t depth_at_enter_ = 0;
  std::chrono::steady_clock::time_point entered_{};
  std::array<std::uint32_t, 3> sent_{}, received_{};  // steps within the layer, by peer
};

/// Waits until all three parties are here and know it, so that they leave together on links of one
/// delay. Its messages have no payload and are not counted: it is there to time phases by itself.
void Meet(Party& party);

/// 3-out-of-3 randomness: a_i = F(k_{i+1}) - F(k_i), so that a_0 + a_1 + a_2 = 0 (Araki et al., CCS
/// 2016). All three parties open it under the same purpose and draw the same sizes in the same
/// order. No message.
class ZeroSharing {
 public:
  ZeroSharing(Party& party, const std::string& purpose)
      : mine_(party.Keys().Open(party.Id(), purpose)),
        next_(party.Keys().Open(party.Next(), purpose)) {}
  template <Word W>
  Matrix<W> Draw(std::size_t rows, std::size_t cols) {
    auto a = next_.Draw<W>(rows, cols);
    a -= mine_.Draw<W>(rows, cols);
    return a;
  }

 private:
  crypto::PrfStream mine_, next_;
};

/// 2-out-of-3 randomness: a replicated share of a uniform value that nobody knows. No message.
class RandomSharing {
 public:
  RandomSharing(Party& party, const std::string& purpose)
      : mine_(party.Keys().Open(party.Id(), purpose)),
        next_(party.Keys().Open(party.Next(), purpose)) {}
  template <Word W>
  ArithShare<W> Draw(std::size_t rows, std::size_t cols, unsigned bits) {
    auto x = mine_.Draw<W>(rows, cols);
    return {std::move(x), next_.Draw<W>(rows, cols), bits};
  }
  /// Random bits; each party's halves are single bits.
  BitShare DrawBits(std::size_t count);

 private:
  crypto::PrfStream mine_, next_;
};

}  // namespace tercet::mpc
