// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace tercet::benchmarks {

/// A loop of nothing but an instruction set's multiplications for words of a width, on registers
/// and without waiting for results: what no product on this processor can exceed. Where additions
/// are instructions of their own they are left out, as processors have more units for them.
struct MultiplyAddPeak {
  const char* instruction_set;
  unsigned word_bits;
  /// Products of two words in one round.
  unsigned products_per_round;
  void (*run)(std::uint64_t rounds);
};

/// Those that this processor can run; none but on x86. Thread safe.
std::vector<MultiplyAddPeak> MultiplyAddPeaks();

}  // namespace tercet::benchmarks
