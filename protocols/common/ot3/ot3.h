#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "tercet/mpc/party.h"

/// Oblivious transfer among three parties, one of which helps: only additions, no public-key
/// operation. Building blocks for suites. Objects are used by one thread at a time and live through
/// many queries.
namespace tercet::protocols::ot3 {

using mpc::Context;
using mpc::Matrix;
using mpc::Party;
using mpc::Word;

/// The three different parties of a transfer.
struct TransferRoles {
  int sender = 0, receiver = 1, helper = 2;
};

/// The index of the key that two different parties both hold (it is held by no third).
constexpr int SharedKey(int p, int q) { return (p + 1) % 3 == q ? q : p; }

/// 1-out-of-2 transfer [CBNN, Algorithm 1]: the sender has messages m_0, m_1; receiver and helper
/// both know the choice bits; the receiver gets m_choice. The sender learns nothing, the helper
/// sees masked messages only, the receiver nothing of the other message. 2 hops, 3 * bits per
/// element.
///
/// Each party calls the one function of its role. They are separate so that transfers can run side
/// by side.
///
///     ot3::Transfer ot(party, {.sender = 1, .receiver = 0, .helper = 2}, "act1/ot");
///     if (ctx.Is(1)) ot.Offer(ctx, m0, m1, bits);
///     if (ctx.Is(2)) ot.Forward<W>(ctx, choice, rows, cols, bits);
///     if (ctx.Is(0)) m = ot.Take<W>(ctx, choice, rows, cols, bits);
class Transfer {
 public:
  /// Opens the key of sender and receiver for `purpose`. Throws InternalError when roles are not
  /// all different.
  Transfer(Party& party, TransferRoles roles, const std::string& purpose);

  /// Sender: both messages, masked, to the helper.
  template <Word W>
  void Offer(Context& ctx, const Matrix<W>& m0, const Matrix<W>& m1, unsigned bits) {
    const std::size_t rows = m0.shape()[0], cols = m0.shape()[1];
    TERCET_CHECK(m0.shape() == m1.shape(), "messages of different shapes: {} x {} and {} x {}",
                 rows, cols, m1.shape()[0], m1.shape()[1]);
    const Matrix<W> masked0 = m0 + Masks().template Draw<W>(rows, cols);
    const Matrix<W> masked1 = m1 + Masks().template Draw<W>(rows, cols);
    ctx.Send(roles_.helper, masked0, bits);  // 1 hop, bits
    ctx.Send(roles_.helper, masked1, bits);  // the same hop, bits
  }

  /// Helper: passes the chosen masked message on.
  template <Word W>
  void Forward(Context& ctx, std::span<const std::uint8_t> choice, std::size_t rows,
               std::size_t cols, unsigned bits) {
    Matrix<W> chosen = ctx.Receive<W>(roles_.sender, rows, cols, bits);
    Choose(chosen, ctx.Receive<W>(roles_.sender, rows, cols, bits), choice);
    ctx.Send(roles_.receiver, chosen, bits);  // 1 hop, bits
  }

  /// Receiver: the chosen message, unmasked.
  template <Word W>
  Matrix<W> Take(Context& ctx, std::span<const std::uint8_t> choice, std::size_t rows,
                 std::size_t cols, unsigned bits) {
    Matrix<W> mask = Masks().template Draw<W>(rows, cols);
    Choose(mask, Masks().template Draw<W>(rows, cols), choice);
    return ctx.Receive<W>(roles_.helper, rows, cols, bits) - mask;
  }

 private:
  /// first[i] = choice[i] ? second[i] : first[i] without a branch on the (secret) choice.
  template <Word W>
  static void Choose(Matrix<W>& first, const Matrix<W>& second,
                     std::span<const std::uint8_t> choice) {
    TERCET_CHECK(choice.size() == first.size(), "{} choice bits for {} messages", choice.size(),
                 first.size());
    W* p = first.data();
    const W* q = second.data();
    for (std::size_t i = 0; i < choice.size(); ++i)
      p[i] = static_cast<W>(p[i] ^ ((p[i] ^ q[i]) & (W{0} - W{choice[i]})));
  }
  crypto::PrfStream& Masks();

  TransferRoles roles_;
  std::optional<crypto::PrfStream> masks_;  // of the key of sender and receiver
};

/// 1-out-of-N transfer with shared output: the dealer D has one table of 2^k entries per element,
/// the evaluators E1 = D+1 and E2 = D+2 both know an index per element, and get shares of the entry
/// there. D masks its tables with the stream it has with E1 and sends them to E2; E1 draws the
/// mask. 1 hop and the tables' size, offline; nothing online. E1 receives nothing, E2 masked
/// tables; D does not learn the index; nobody learns the entry.
///
///     ot3::Lookup lookup(party, /*dealer=*/0, "act1/lookup");
///     Bytes tables = lookup.DealBits(ctx, std::move(mine), count, k);       // offline; at D: its
///     tables ot3::Lookup::PickBits(share, tables, index, k);                       // online, at
///     E1 and E2
class Lookup {
 public:
  /// Opens the key of D and E1 for `purpose`.
  Lookup(Party& party, int dealer, const std::string& purpose);

  /// XOR form: bit tables as in ring/kernels.h, 1 <= k <= 8. `tables` is read at D only. Returns
  /// the evaluator's half; empty at D. Sends ceil(count * 2^k / 8) bytes. Throws InternalError when
  /// D's tables are of another size.
  Bytes DealBits(Context& ctx, Bytes tables, std::size_t count, unsigned k);
  /// share[i] ^= (entry index[i] of row i) << shift; the two evaluators' results XOR to the entry.
  static void PickBits(std::span<std::uint8_t> share, ByteSpan half,
                       std::span<const std::uint8_t> index, unsigned k, unsigned shift = 0);

  /// Additive form: `tables` has a row of 2^k entries of Z_{2^bits} per element, 1 <= k <= 8; read
  /// at D only. Returns the evaluator's half; empty at D. Sends PackedBytes(count * 2^k, bits)
  /// bytes.
  template <Word W>
  Matrix<W> Deal(Context& ctx, const Matrix<W>& tables, std::size_t count, unsigned k,
                 unsigned bits) {
    const std::size_t entries = std::size_t{1} << k;
    if (ctx.Is(E1())) return mask_->Draw<W>(count, entries);
    if (ctx.Is(E2())) return ctx.Receive<W>(dealer_, count, entries, bits);
    TERCET_CHECK(tables.shape()[0] == count && tables.shape()[1] == entries,
                 "dealer's tables are {} x {}, expected {} x {}", tables.shape()[0],
                 tables.shape()[1], count, entries);
    const Matrix<W> masked = tables - mask_->Draw<W>(count, entries);
    ctx.Send(E2(), masked, bits);  // 1 hop, 2^k * bits
    return ring::MakeMatrix<W>(0, 0);
  }
  /// Entry index[i] of row i; the two evaluators' results add up to the entry of D's table.
  template <Word W>
  static Buffer<W> Pick(const Matrix<W>& half, std::span<const std::uint8_t> index) {
    const std::size_t entries = half.shape()[1];
    TERCET_CHECK(index.size() == half.shape()[0], "{} indices for {} tables", index.size(),
                 half.shape()[0]);
    Buffer<W> share(index.size(), 0);
    bool outside = false;
    for (std::size_t i = 0; i < index.size(); ++i) {
      outside |= index[i] >= entries;
      // D knows by what an index is masked: rows are read whole, and chosen from by masks.
      for (std::size_t v = 0; v < entries; ++v)
        share[i] = static_cast<W>(share[i] | (half(i, v) & (W{0} - static_cast<W>(v == index[i]))));
    }
    TERCET_CHECK(!outside, "an index is not below {}", entries);
    return share;
  }

 private:
  int E1() const { return (dealer_ + 1) % 3; }
  int E2() const { return (dealer_ + 2) % 3; }

  int dealer_;
  std::optional<crypto::PrfStream> mask_;  // of the key of D and E1
};

}  // namespace tercet::protocols::ot3
