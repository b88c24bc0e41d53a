// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tercet/mpc/boolean.h"

/// Carries of a + b, a known to the helper D and b to both evaluators E1 = D+1 and E2 = D+2, by
/// parallel-prefix adders of which nothing else is built.
namespace tercet::protocols::aby3 {

using mpc::BitRef;
using mpc::Context;
using mpc::Party;
using mpc::Planes;
using mpc::PlaneShare;
using mpc::ZeroBits;

/// Sizes of the adder of the `width` low bits, which gives the carry out of them; public. The
/// leaves are groups of two bits, and of the top bit alone where the width is odd; each gives
/// (generate, propagate), the lowest generate alone.
struct AdderShape {
  unsigned width;

  std::size_t Pairs() const { return width / 2; }
  bool Single() const { return width % 2 != 0; }
  std::size_t Groups() const { return Pairs() + (Single() ? 1 : 0); }
  /// Rows of a that D shares: the bits, then the product of each pair.
  std::size_t SharedRows() const { return width + Pairs(); }
  /// Products of the leaves. The single bit's propagate is linear, so none.
  std::size_t LeafRows() const { return 2 * Pairs() - (Pairs() > 0 ? 1 : 0) + (Single() ? 1 : 0); }
};

/// What a party holds of a and b: at D a.mine (with E2) and a.next (with E1), at E1 a.mine, at E2
/// a.next, `SharedRows()` rows; b at E1 and E2. What is not held is empty.
struct AdderInput {
  PlaneShare a;
  Planes b;
};

/// At D: the bits of a and the products of its pairs. `bits` holds at least `width` rows.
Planes SharedRows(const AdderShape& shape, const Planes& bits);

/// One or more carries of the same a + b, side by side: the widest first, which is the one whose
/// SharedRows D shares. All parties call the steps in order. Not thread safe.
class Adder {
 public:
  Adder(Party& party, int helper, std::vector<AdderShape> shapes, const std::string& purpose);
  const AdderShape& Widest() const { return shapes_.front(); }
  /// Whether the widest has more than one group. If not, the leaves are the carries.
  bool HasTree() const { return HasTree(shapes_); }
  static bool HasTree(const std::vector<AdderShape>& shapes) { return shapes[0].Groups() > 1; }
  /// Products of the leaves of all.
  static std::size_t LeafRows(const std::vector<AdderShape>& shapes);
  /// Bits that each level above the leaves, but for the last, reshares, per element.
  static std::vector<std::size_t> Levels(const std::vector<AdderShape>& shapes);

  /// The products of the leaves, an additive share of which D's part is 0. Local: every product is
  /// one of something that D knows and has shared with something that both evaluators know.
  Planes Leaves(const Context& ctx, const AdderInput& input, std::size_t count) const;

  /// With a tree: the products become replicated, their shares at D drawn from its keys. Between
  /// Send and Receive others may send in the same hop. 1 hop, 2 * LeafRows() bits.
  void SendLeaves(Context& ctx, Planes products);
  void ReceiveLeaves(Context& ctx);

  /// With a tree: the levels above. Returns an additive share of the carries, one row each, not
  /// masked. ceil(log2 groups of the widest) - 1 hops.
  Planes Carries(Context& ctx, const AdderInput& input);

 private:
  int E1() const { return NextParty(helper_); }
  int E2() const { return PrevParty(helper_); }

  int helper_;
  std::vector<AdderShape> shapes_;
  ZeroBits zero_;
  std::optional<crypto::PrfStream> with_e1_, with_e2_;  // masks of the leaves
  PlaneShare leaves_;
};

}  // namespace tercet::protocols::aby3
