// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "suites/aby3/layout.h"

namespace tercet::protocols::aby3 {

using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::Matrix;
using mpc::Word;

/// What the first hop gives: z = a + b, a at D, b at E1 and E2.
struct Opened {
  AdderInput input;
  Planes top;  ///< the top bit of a at D, of b at E1
  AnyShare x;  ///< ReLU, square: the parts of a and b in the output ring, b's being share D+2
  /// ReLU into a wider ring: shares D and D+1 of a's top bit, at E1 and E2 times that of b.
  AnyShare wrap;
};

/// The first hops of a layer: z is opened under D's mask, and its parts become what an adder and
/// products take. Not thread safe.
class Opening {
 public:
  Opening(Party& party, ActivationSpec spec, Layout layout, const Roles& roles,
          const std::string& purpose);

  /// 1 hop: E1 and E2 exchange opened_bits, unless z is opened already; D sends a row of bits for
  /// each row it shares, and out_bits for ReLU and square.
  Opened Open(Context& ctx, const AnyMatrix& z);
  /// The additive share of a_top b_top at E1 and E2 becomes a replicated one, D's shares drawn from
  /// its keys. 1 hop, wrap_bits each way between E1 and E2.
  void SendWrap(Context& ctx, AnyShare& wrap);
  /// x += 2^(n-f) a_top b_top.
  void AddWrap(Context& ctx, AnyShare& wrap, AnyShare& x) const;

 private:
  template <Word W>
  Opened OpenMasked(Context& ctx, const Matrix<W>& z);
  /// ReLU and square: the parts of a and b as a replicated share, where b's is share D+2 and D
  /// splits a's between the others. `part` is a at D, b at the others. In the first hop, out_bits
  /// from D to E2, and wrap_bits.
  ///
  /// ReLU into a wider ring, or with truncation: a and b go as signed numbers, rounded down, of
  /// which z >> f = (a >> f) + (b >> f) + c_f + 2^(n-f) a_top b_top wherever z >= 0, c_f being the
  /// carry out of the low f bits: then the low n-1 bits carry exactly if one top bit is set, which
  /// that carry cancels. Where z < 0 the result is 0 whatever stands here. Square: b is a signed
  /// number and a is not, and z >> f = (a >> f) + (b >> f) + c_f - 2^(n-f) w, where w is the carry
  /// of a and b + 2^(n-1) out of n bits.
  template <Word W, Word V>
  void ShareOpened(Context& ctx, const Matrix<W>& part, Opened& opened);

  ActivationSpec spec_;
  Layout layout_;
  int d_, e1_, e2_;
  std::optional<crypto::PrfStream> with_e1_, with_e2_;
};

}  // namespace tercet::protocols::aby3
