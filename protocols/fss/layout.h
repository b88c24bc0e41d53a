#pragma once

#include <cstddef>
#include <vector>

#include "dealer/lookup.h"
#include "fss/dcf.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::fss {

/// Correction words of a layer go over the wire in messages of at most about this size, so that
/// none exceeds what a link carries, and the dealer holds one at a time.
inline constexpr std::size_t kPieceBytes = std::size_t{64} << 20;
/// Two public hash keys, fresh in every message.
inline constexpr std::size_t kHashKeyBytes = 2 * crypto::FixedKeyHash::kKeyBytes;

/// How one layer is computed; public, the same at all parties.
struct Layout {
  DcfShape shape;
  bool arithmetic = false;  ///< the comparison gives ring elements at once; no OR steps follow
  std::vector<dealer::OrStep> steps;

  /// Elements whose correction words go in one message, a multiple of kChunk.
  std::size_t PieceElements() const;
  /// Bytes of one message to E1, which begins with the hash keys. E2's has FirstBytes more.
  std::size_t SharedBytes(std::size_t count) const {
    return kHashKeyBytes + shape.RestBytes(count);
  }
};

/// Calls f(begin, count) for each range of at most `step` of `count` elements.
template <class F>
void ForRanges(std::size_t count, std::size_t step, F&& f) {
  for (std::size_t begin = 0; begin < count; begin += step)
    f(begin, step < count - begin ? step : count - begin);
}

/// Throws UnsupportedError or ConfigError as Suite::Check.
Layout MakeLayout(const mpc::ActivationSpec& spec, const mpc::SuiteChoice& choice);

mpc::Cost LayoutCost(const Layout& layout, const mpc::ActivationSpec& spec,
                     const mpc::Roles& roles);

}  // namespace tercet::protocols::fss
