// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/dealer/fused.h"
#include "common/dealer/lookup.h"
#include "tercet/mpc/party.h"
#include "tercet/mpc/suite.h"

/// The messages that suites with a dealer have in common. D is the helper, E1 and E2 the
/// evaluators. Every share that D holds is drawn from the keys it has with E1 and with E2, so it
/// receives nothing, and all it sends is independent of the inputs. What E1 and E2 receive is
/// masked by a key that the receiver lacks.
namespace tercet::protocols::dealer {

using mpc::Context;
using mpc::Matrix;

/// Who is who in one layer, and the streams that this party draws from. Every draw happens offline,
/// in the same order at both holders. Not thread safe.
class Ends {
 public:
  /// Opens the streams "<layer>/<suite>" of k_{D+1} (held by D and E1) and of k_D (held by D and
  /// E2), and at D its coins. Throws InternalError when they were opened before.
  Ends(mpc::Party& party, const mpc::ActivationSpec& spec, const std::string& suite,
       const mpc::Roles& roles);

  int Dealer() const { return dealer_; }
  int E1() const { return e1_; }
  int E2() const { return e2_; }
  bool IsDealer() const { return id_ == dealer_; }
  bool IsE1() const { return id_ == e1_; }
  bool IsE2() const { return id_ == e2_; }
  int Me() const { return id_; }
  /// The other evaluator, at an evaluator.
  int Peer() const { return IsE1() ? e2_ : e1_; }

  crypto::PrfStream& WithE1() { return *with_e1_; }  ///< at D and E1
  crypto::PrfStream& WithE2() { return *with_e2_; }  ///< at D and E2
  /// At an evaluator: the stream it has with D.
  crypto::PrfStream& WithDealer() { return IsE1() ? *with_e1_ : *with_e2_; }
  /// At D, where its share of the layer's input is not known offline: draws that nobody follows.
  crypto::PrfStream& Unshared() { return *unshared_; }
  /// At D: public coins.
  crypto::PrfStream& Coins() { return *coins_; }

 private:
  int id_, dealer_, e1_, e2_;
  std::optional<crypto::PrfStream> with_e1_, with_e2_, unshared_, coins_;
};

// ------------------------------------------------------------------------------------------------
// Large layers go in messages of about kPieceBytes, each sent before the next is computed; what is
// sent in pieces is received in the same ones. All are whole bytes, so together they are as long as
// one message. Sending them all before any is received is one hop.
/// Elements of a message between the evaluators.
inline constexpr std::size_t kExchangeElements = std::size_t{1} << 17;
/// Material may come from a file: throws InternalError unless what an evaluator kept is as large as
/// the layer needs.
inline void CheckSize(const char* what, std::size_t found, std::size_t expected) {
  TERCET_CHECK(found == expected, "material with {} of size {}, expected {}", what, found,
               expected);
}
/// Adds to `values` what `from` sent, which fits in one piece.
template <ring::Word W>
void ReceiveAdd(Context& ctx, int from, std::span<W> values, unsigned bits) {
  Buffer<W> other(values.size());
  ctx.Receive(from, std::span<W>(other), bits);
  for (std::size_t i = 0; i < other.size(); ++i) values[i] = static_cast<W>(values[i] + other[i]);
}
/// Sends `values`, of `bits` bits each, in pieces, and adds to `values` what is sent so.
template <ring::Word W>
void SendPieces(Context& ctx, int to, std::span<const W> values, unsigned bits) {
  ForRanges(values.size(), kExchangeElements, [&](std::size_t begin, std::size_t n) {
    ctx.Send(to, values.subspan(begin, n), bits, begin > 0);
  });
}
template <ring::Word W>
void ReceiveAddPieces(Context& ctx, int from, std::span<W> values, unsigned bits) {
  ForRanges(values.size(), kExchangeElements, [&](std::size_t begin, std::size_t n) {
    ReceiveAdd(ctx, from, values.subspan(begin, n), bits);
  });
}
/// Both evaluators send `own`, of `bits` bits each, and add what they receive. 1 hop.
template <ring::Word W>
void ExchangeAdd(Context& ctx, const Ends& ends, std::span<W> own, unsigned bits) {
  SendPieces(ctx, ends.Peer(), std::span<const W>(own), bits);
  ReceiveAddPieces(ctx, ends.Peer(), own, bits);
}
/// At E2, offline: what D deals of `count` elements in messages of `step` elements, bytes_of(n)
/// bytes each, one after the other.
template <class F>
Bytes TakePieces(Context& ctx, const Ends& ends, std::size_t count, std::size_t step,
                 F&& bytes_of) {
  Bytes all;
  ForRanges(count, step, [&](std::size_t, std::size_t n) {
    Bytes piece = ctx.ReceiveBytes(ends.Dealer(), bytes_of(n));
    if (n == count) {
      all = std::move(piece);
      return;
    }
    if (all.empty()) all.reserve(bytes_of(count));
    all.insert(all.end(), piece.begin(), piece.end());
  });
  return all;
}

// ------------------------------------------------------------------------------------------------
// open_masked: z = a + b, a known to D, b to E1 and E2. 1 hop, 2n bits (and one more hop and n bits
// where D's share of z is not known offline). Where the share of one evaluator, N, is known offline
// (spec.known_at), N sends its part then, and b goes from the other one to N alone: 1 hop, n bits,
// and n bits offline. Where spec.opened there is nothing to do: a is z_D, and b what both
// evaluators have (but where D's share is not known offline, both of them are told what it lacks: 1
// hop, 2n bits).
/// At D, offline: a = z_D - F(k_{D+1}) - F(k_D). Where !spec.dealt, z_D is drawn here and kept in
/// `redealt`; else it is *z. Where spec.opened a is z_D, or else -F(k_{D+1}) - F(k_D), kept in
/// `redealt`. Throws InternalError when spec.dealt and z is null.
template <ring::Word W>
Matrix<W> DealMasked(Ends& ends, const mpc::ActivationSpec& spec, std::size_t batch,
                     const AnyMatrix* z, AnyMatrix& redealt) {
  Matrix<W> a;
  if (spec.dealt) {
    TERCET_CHECK(z != nullptr, "layer {}: the dealer's share must be known offline", spec.layer);
    a = z->As<W>();
    if (spec.opened) return a;
  } else if (spec.opened) {
    a = xt::zeros<W>({spec.in.Size(), batch});
  } else {
    a = ends.Unshared().Draw<W>(spec.in.Size(), batch);
    redealt = AnyMatrix(a, spec.ring_bits);
  }
  a -= ends.WithE1().template Draw<W>(spec.in.Size(), batch);
  a -= ends.WithE2().template Draw<W>(spec.in.Size(), batch);
  if (spec.opened) redealt = AnyMatrix(a, spec.ring_bits);
  return a;
}
/// At D, online, where !spec.dealt: its share of z came online; it becomes the drawn one by handing
/// the difference to E1, masked by draws that E1 lacks, and where spec.opened to E2 too, who lacks
/// the other one. 1 hop, n bits to each.
void SendDifference(Context& ctx, const Ends& ends, const mpc::ActivationSpec& spec,
                    const AnyMatrix& redealt, const AnyMatrix& z);
/// At an evaluator, offline: its mask, or nothing where spec.opened; where N's share is known, of
/// which `z` at N is the share, nothing at N and z_N + both masks at the other one.
AnyMatrix PrepareOpenMask(Context& ctx, Ends& ends, const mpc::ActivationSpec& spec,
                          std::size_t batch, const AnyMatrix* z);
/// At E1 and E2, online: b = z_E1 + F(k_{D+1}) + z_E2 + F(k_D), from what was prepared.
template <ring::Word W>
Matrix<W> OpenMasked(Context& ctx, const Ends& ends, const mpc::ActivationSpec& spec,
                     AnyMatrix prepared, const Matrix<W>& z) {
  if (spec.opened) {
    Matrix<W> b = z;
    if (!spec.dealt)
      ReceiveAddPieces(ctx, ends.Dealer(), std::span<W>(b.data(), b.size()), spec.value_bits);
    return b;
  }
  const bool known_here = spec.known_at == ends.Me();
  Matrix<W> opened = known_here ? Matrix<W>(xt::zeros_like(z)) : std::move(prepared.As<W>());
  TERCET_CHECK(opened.shape() == z.shape(), "layer {}: prepared for another batch", spec.layer);
  const std::span<W> b(opened.data(), opened.size());
  ForRanges(known_here ? 0 : b.size(), kExchangeElements, [&](std::size_t begin, std::size_t n) {
    const std::span<W> part = b.subspan(begin, n);
    const W* own = z.data() + begin;
    for (std::size_t i = 0; i < n; ++i) part[i] = static_cast<W>(part[i] + own[i]);
    if (!spec.dealt && ends.IsE1()) ReceiveAdd(ctx, ends.Dealer(), part, spec.value_bits);
    ctx.Send(ends.Peer(), std::span<const W>(part), spec.value_bits, begin > 0);  // 1 hop, n bits
  });
  // The part of an evaluator whose share was known is in what was prepared.
  if (spec.known_at != ends.Peer()) ReceiveAddPieces(ctx, ends.Peer(), b, spec.value_bits);
  return opened;
}

// ------------------------------------------------------------------------------------------------
// open_bits: e = value ^ rho, e known to E1 and E2, rho to D. 1 hop, 2 * width bits.
/// At an evaluator, offline: its mask of `width` bits for each of `count` values.
Bits DrawBits(crypto::PrfStream& stream, std::size_t count, unsigned width);
/// At D, offline: rho, the XOR of both masks.
Bits DrawRho(Ends& ends, std::size_t count, unsigned width);
/// At E1 and E2, online: both send their XOR share masked.
Bits OpenBits(Context& ctx, const Ends& ends, Bits own, const Bits& mask, unsigned width);
/// The same of several values for each element, one array for each width, in one hop; those of
/// width 0 are empty. `masks` may have more arrays.
std::vector<Bits> OpenPlanes(Context& ctx, const Ends& ends, std::vector<Bits> own,
                             std::span<const Bits> masks, std::span<const unsigned> widths);

// ------------------------------------------------------------------------------------------------
// ring elements that D deals, offline: piece by piece, at E2 masked by what E1 draws
/// At D: fill(begin, count, values) gives the `dealt` values of each of a range of elements.
template <ring::Word V, class F>
void DealElements(Context& ctx, Ends& ends, std::size_t count, std::size_t dealt, unsigned bits,
                  F&& fill) {
  Buffer<V> values, masks;
  ForRanges(count, PieceElements(dealt * bits), [&](std::size_t begin, std::size_t n) {
    values.resize(n * dealt);
    masks.resize(values.size());
    fill(begin, n, values.data());
    ends.WithE1().Draw(std::span<V>(masks));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<V>(values[i] - masks[i]);
    ctx.Send(ends.E2(), std::span<const V>(values), bits);  // offline
  });
}
/// At an evaluator: its shares, count * dealt in one column.
AnyMatrix TakeElements(Context& ctx, Ends& ends, std::size_t count, std::size_t dealt,
                       unsigned bits);

/// What an evaluator keeps of one lookup.
struct LookupMaterial {
  Bits mask;          ///< of what is opened
  Bytes bits;         ///< its share of tables of bits: OR steps before the last
  AnyMatrix entries;  ///< its share of tables of ring elements: all others
  void Visit(mpc::Archive& archive) { archive(mask)(bits)(entries); }
};

// ------------------------------------------------------------------------------------------------
// OR steps: XOR-shared bits become additive shares of the OR of each window, or XOR shares of it
// where the last step gives bits. 1 hop a step, 2 * width bits for each output.
/// At D, offline: deals all steps; `offsets` are by what the layer's bits differ from those that
/// the evaluators share. The last step only where `entries`, else it is dealt in another way.
/// Returns the last step's rho.
Bits DealOrSteps(Context& ctx, Ends& ends, const std::vector<OrStep>& steps, const Bits& offsets,
                 const mpc::ActivationSpec& spec, std::size_t batch, const Columns& columns,
                 bool entries);
/// At an evaluator, offline.
std::vector<LookupMaterial> TakeOrSteps(Context& ctx, Ends& ends, const std::vector<OrStep>& steps,
                                        const mpc::ActivationSpec& spec, std::size_t batch,
                                        bool entries);
/// At E1 and E2, online: the last step's windows under rho; where it gives bits, shares of these.
Bits OpenWindows(Context& ctx, const Ends& ends, const std::vector<OrStep>& steps,
                 const std::vector<LookupMaterial>& material, Bits bits, std::size_t batch);
/// At E1 and E2, online: `bits` are XOR shares, rows x batch.
template <ring::Word V>
Matrix<V> RunOrSteps(Context& ctx, const Ends& ends, const std::vector<OrStep>& steps,
                     const std::vector<LookupMaterial>& material, Bits bits,
                     const mpc::ActivationSpec& spec, std::size_t batch);
/// The same of a fused layer, of the windows: the ORs are added up. No message.
template <ring::Word V>
void AddFusedOrs(const OrStep& last, const LookupMaterial& material, const Bits& windows,
                 const mpc::ActivationSpec& spec, FusedSum<V>& sum);
/// Ring elements that D deals for one output of the last OR step: the entries, and of a fused layer
/// their products.
std::size_t DealtOfOr(const OrStep& last, const mpc::ActivationSpec& spec);

// ------------------------------------------------------------------------------------------------
// table: the index z >> shift = d + e, d known to D, e to E1 and E2; D deals the entries f(d + e)
// for every e. No hop where nothing is divided: a and b are d and e. Else one hop, 2m bits, opens
// e for an index of m bits, of which the evaluators have additive shares.
/// At D, offline, for its part a of each value.
template <ring::Word W>
void DealTable(Context& ctx, Ends& ends, const mpc::ActivationSpec& spec, std::span<const W> a);
/// At an evaluator, offline.
LookupMaterial TakeTable(Context& ctx, Ends& ends, const mpc::ActivationSpec& spec,
                         std::size_t count);
/// At E1 and E2, online: `index` are additive shares of the index, or e itself where nothing is
/// divided; additive shares of the entries.
template <ring::Word V>
void RunTable(Context& ctx, const Ends& ends, const mpc::ActivationSpec& spec,
              const LookupMaterial& material, Bits index, std::span<V> out);

// ------------------------------------------------------------------------------------------------
// reshare_evaluators: x_{D+2} = (s_1 - x_{D+1}) + (s_2 - x_D). 1 hop, 2l' bits. Where one evaluator
// alone needs it (spec.only_to), its half in common with D is 0 and the other one sends: l' bits.
/// At every party, offline: the halves of the output that are drawn, both at D, one at E1 and E2.
AnyShare DrawOutput(Ends& ends, const mpc::ActivationSpec& spec, std::size_t batch);
/// At E1 and E2, online: the additive share s becomes the missing half of `share`.
template <ring::Word V>
AnyShare ReshareEvaluators(Context& ctx, const Ends& ends, const mpc::ActivationSpec& spec,
                           AnyShare share, Matrix<V> s) {
  const AnyMatrix& half = ends.IsE1() ? share.mine : share.next;
  if (!half.IsZero()) s -= half.As<V>();
  const std::span<V> values(s.data(), s.size());
  if (!spec.only_to) {
    ExchangeAdd(ctx, ends, values, spec.out_bits);  // 1 hop, l' bits
  } else if (spec.only_to == ends.Me()) {
    ReceiveAddPieces(ctx, ends.Peer(), values, spec.out_bits);
  } else {
    SendPieces(ctx, ends.Peer(), std::span<const V>(values), spec.out_bits);  // 1 hop, l' bits
    return share;
  }
  (ends.IsE1() ? share.next : share.mine) = AnyMatrix(std::move(s), spec.out_bits);
  return share;
}

// ------------------------------------------------------------------------------------------------
// costs, in the order of the messages
/// Both evaluators send `count` values of `bits` bits to each other.
void AddExchange(mpc::Cost& cost, const mpc::Roles& roles, std::size_t count, unsigned bits);
/// The same for each width that is not 0, in one hop.
void AddExchanges(mpc::Cost& cost, const mpc::Roles& roles, std::size_t count,
                  std::span<const unsigned> widths);
/// One of them, `from`, sends them.
void AddPieces(mpc::Cost& cost, mpc::Phase phase, const mpc::Roles& roles, PartyId from,
               std::size_t count, unsigned bits);
void AddOpenMasked(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles);
void AddOrSteps(mpc::Cost& cost, const std::vector<OrStep>& steps, const mpc::ActivationSpec& spec,
                const mpc::Roles& roles, bool entries);
void AddTable(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles);
/// D sends `bytes` to E2 offline.
void AddDealt(mpc::Cost& cost, const mpc::Roles& roles, std::uint64_t bytes);
void AddReshare(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles);
/// The messages of DealElements.
void AddElements(mpc::Cost& cost, const mpc::Roles& roles, std::size_t count, std::size_t dealt,
                 unsigned bits);

}  // namespace tercet::protocols::dealer
