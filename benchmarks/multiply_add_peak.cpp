// SPDX-License-Identifier: Apache-2.0
#include "multiply_add_peak.h"

namespace tercet::benchmarks {

#ifdef __x86_64__

namespace {

// Twelve independent results in registers 0 to 11, which is more than latency times throughput on
// the processors that there are. In assembly, as compilers would move what is always the same out
// of the loop.
#define TERCET_PEAK(name, step)                                                                    \
  void name(std::uint64_t rounds) {                                                                \
    for (; rounds > 0; --rounds) {                                                                 \
      asm volatile(step("0") step("1") step("2") step("3") step("4") step("5") step("6") step("7") \
                       step("8") step("9") step("10") step("11")::                                 \
                           : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",       \
                             "xmm8", "xmm9", "xmm10", "xmm11", "xmm12");                           \
    }                                                                                              \
    asm volatile("vzeroupper" ::: "memory");                                                       \
  }

// The factors are in registers 14 and 15.
#define TERCET_MULTIPLY(instruction, reg, to) \
  instruction " %%" reg "14, %%" reg "15, %%" reg to "\n\t"

#define TERCET_STEP(to) TERCET_MULTIPLY("vpmullw", "ymm", to)
TERCET_PEAK(Avx2Words8, TERCET_STEP)
#undef TERCET_STEP
#define TERCET_STEP(to) TERCET_MULTIPLY("vpmaddwd", "ymm", to)
TERCET_PEAK(Avx2Words16, TERCET_STEP)
#undef TERCET_STEP
#define TERCET_STEP(to) TERCET_MULTIPLY("vpmulld", "ymm", to)
TERCET_PEAK(Avx2Words32, TERCET_STEP)
#undef TERCET_STEP
// The product of the low halves, and the two mixed ones.
#define TERCET_STEP(to) \
  TERCET_MULTIPLY("vpmuludq", "ymm", to) TERCET_MULTIPLY("vpmulld", "ymm", "12")
TERCET_PEAK(Avx2Words64, TERCET_STEP)
#undef TERCET_STEP
#define TERCET_STEP(to) TERCET_MULTIPLY("vpmullw", "zmm", to)
TERCET_PEAK(Avx512Words8, TERCET_STEP)
#undef TERCET_STEP
#define TERCET_STEP(to) TERCET_MULTIPLY("vpmaddwd", "zmm", to)
TERCET_PEAK(Avx512Words16, TERCET_STEP)
#undef TERCET_STEP
#define TERCET_STEP(to) TERCET_MULTIPLY("vpmulld", "zmm", to)
TERCET_PEAK(Avx512Words32, TERCET_STEP)
#undef TERCET_STEP
#define TERCET_STEP(to) TERCET_MULTIPLY("vpmullq", "zmm", to)
TERCET_PEAK(Avx512Words64, TERCET_STEP)
#undef TERCET_STEP
// These two add too.
#define TERCET_STEP(to) TERCET_MULTIPLY("vpdpbusd", "zmm", to)
TERCET_PEAK(VnniWords8, TERCET_STEP)
#undef TERCET_STEP
#define TERCET_STEP(to) TERCET_MULTIPLY("vpdpwssd", "zmm", to)
TERCET_PEAK(VnniWords16, TERCET_STEP)
#undef TERCET_STEP

}  // namespace

std::vector<MultiplyAddPeak> MultiplyAddPeaks() {
  std::vector<MultiplyAddPeak> peaks;
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) {
    peaks.push_back({"avx2", 8, 12 * 16, Avx2Words8});
    peaks.push_back({"avx2", 16, 12 * 16, Avx2Words16});
    peaks.push_back({"avx2", 32, 12 * 8, Avx2Words32});
    peaks.push_back({"avx2", 64, 12 * 4, Avx2Words64});
  }
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    peaks.push_back({"avx512", 8, 12 * 32, Avx512Words8});
    peaks.push_back({"avx512", 16, 12 * 32, Avx512Words16});
    peaks.push_back({"avx512", 32, 12 * 16, Avx512Words32});
    peaks.push_back({"avx512", 64, 12 * 8, Avx512Words64});
  }
  if (__builtin_cpu_supports("avx512vnni")) {
    peaks.push_back({"avx512vnni", 8, 12 * 64, VnniWords8});
    peaks.push_back({"avx512vnni", 16, 12 * 32, VnniWords16});
  }
  return peaks;
}

#else

std::vector<MultiplyAddPeak> MultiplyAddPeaks() { return {}; }

#endif

}  // namespace tercet::benchmarks
