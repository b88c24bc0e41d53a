// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "common/dealer/activation.h"
#include "suites/fss/layout.h"

namespace tercet::protocols::fss {

using dealer::Bits;
using dealer::Context;
using dealer::Ends;
using dealer::Formula;

/// The comparison of a formula's numbers by distributed comparison functions (README.md, step 2),
/// as dealer::Activation wants it. D is the helper, E1 and E2 the evaluators. No message online.
class Comparison {
 public:
  Comparison(Layout layout, unsigned out_bits) : layout_(std::move(layout)), out_bits_(out_bits) {}

  /// What an evaluator keeps.
  struct Material {
    Buffer<Block> roots;        ///< of its trees: chunk after chunk, comparison after comparison
    std::vector<Bytes> pieces;  ///< hash keys, then correction words
    void Visit(mpc::Archive& archive) { archive(roots)(pieces); }
  };

  bool GivesElements() const { return layout_.arithmetic; }
  /// At D, offline: a message to E1 and one to E2 for every PieceElements() elements. What the
  /// evaluators get shares of are s and carry themselves: the offsets are 0.
  template <ring::Word W>
  Bits Deal(Context& ctx, Ends& ends, const Formula& formula, std::span<const W> a) const;
  /// At an evaluator, offline.
  Material Take(Context& ctx, Ends& ends, const Formula& formula, std::size_t count) const;
  /// At E1 and E2, online.
  template <ring::Word W>
  Bits CompareBits(Context& ctx, const Ends& ends, const Formula& formula, const Material& material,
                   std::span<const W> b) const;
  template <ring::Word W, ring::Word V>
  Buffer<V> CompareElements(Context& ctx, const Ends& ends, const Formula& formula,
                            const Material& material, std::span<const W> b) const;

 private:
  /// At E1 and E2: evaluates every comparison; take(begin, count, comparison, shares) gets the
  /// additive shares of a chunk, not reduced, value by value.
  template <ring::Word V, ring::Word W, class F>
  void Evaluate(const Ends& ends, const Formula& formula, const Material& material,
                std::span<const W> b, F&& take) const;

  Layout layout_;
  unsigned out_bits_;
};

}  // namespace tercet::protocols::fss
