// SPDX-License-Identifier: Apache-2.0
#include "tercet/ring/kernels.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "ring/implementations.h"
#include "tercet/base/error.h"

namespace tercet::ring {
namespace {

constexpr const char* kVariable = "TERCET_KERNELS";

const Kernels& Choose() {
  const char* forced = std::getenv(kVariable);
  if (forced != nullptr && *forced != '\0') return KernelsByName(forced);
  return *AvailableKernels().back();
}

}  // namespace

const Kernels& ActiveKernels() {
  static const Kernels& active = Choose();
  return active;
}

std::vector<const Kernels*> AvailableKernels() {
  std::vector<const Kernels*> available = {&portable::kKernels};
#ifdef TERCET_HIGHWAY_KERNELS
  for (const Kernels* kernels : highway::AvailableKernels()) available.push_back(kernels);
#endif
#ifdef TERCET_X86_KERNELS
  __builtin_cpu_init();
  const bool bmi2 = __builtin_cpu_supports("bmi2");
  if (bmi2 && __builtin_cpu_supports("avx2")) available.push_back(&avx2::kKernels);
  if (bmi2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    available.push_back(&avx512::kKernels);
    if (__builtin_cpu_supports("avx512vnni")) available.push_back(&avx512vnni::kKernels);
  }
#ifdef TERCET_HIGHWAY_KERNELS
  mixed::AddTo(available);
#endif
#endif
  return available;
}

const Kernels& KernelsByName(std::string_view name) {
  std::string names;
  for (const Kernels* kernels : AvailableKernels()) {
    if (name == kernels->name) return *kernels;
    names += names.empty() ? "" : ", ";
    names += kernels->name;
  }
  throw ConfigError(
      kVariable,
      fmt::format("this processor has no kernels named \"{}\"; expected one of {}", name, names));
}

}  // namespace tercet::ring
