// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "common/dealer/formula.h"
#include "suites/fss/dcf.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::fss {

/// Correction words of a layer go over the wire in messages of at most about this size: more than
/// other tables, since each brings hash keys of its own.
inline constexpr std::size_t kPieceBytes = std::size_t{4} << 20;
/// Two public hash keys, fresh in every message.
inline constexpr std::size_t kHashKeyBytes = 2 * crypto::FixedKeyHash::kKeyBytes;

/// How one layer is computed; public, the same at all parties.
struct Layout {
  /// The comparisons of each element: that of the sign, then that of the carry where there is one.
  std::vector<DcfShape> shapes;
  bool arithmetic = false;  ///< the comparison gives ring elements at once; it is one

  std::size_t FirstBytes(std::size_t count) const;
  std::size_t RestBytes(std::size_t count) const;
  /// Elements whose correction words go in one message, a multiple of kChunk.
  std::size_t PieceElements() const;
  /// Bytes of one message to E1, which begins with the hash keys. E2's has FirstBytes more.
  std::size_t SharedBytes(std::size_t count) const { return kHashKeyBytes + RestBytes(count); }
};

/// Of the last OR step of a fused layer, OR = 1 - [e = rho] by a point function, where that takes
/// fewer bytes than its entries; else nothing.
std::optional<Layout> PointLayout(const mpc::ActivationSpec& spec);

/// Where a comparison gives elements at once, those of them that depend on its outcome: they are
/// its vector. The others, of ReLU one, D deals as they are.
std::vector<std::size_t> Compared(const dealer::Formula& formula, unsigned out_bits);

/// Throws UnsupportedError.
Layout MakeLayout(const mpc::ActivationSpec& spec, const mpc::OptionValues& options);

}  // namespace tercet::protocols::fss
