// SPDX-License-Identifier: Apache-2.0
#include "programs/core_dumps.h"

#include <sys/resource.h>

#include <cstdlib>
#include <string_view>

#ifdef __linux__
#include <sys/prctl.h>
#endif

namespace tercet::programs {
namespace {

// The leak checker of AddressSanitizer looks at its own process like a debugger.
constexpr bool DebugsItself() {
#if defined(__SANITIZE_ADDRESS__)
  return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  return true;
#endif
#endif
  return false;
}

}  // namespace

void ForbidCoreDumps() noexcept {
  const char* asked = std::getenv("TERCET_CORE_DUMPS");
  if (asked != nullptr && std::string_view(asked) == "1") return;
  rlimit limit{};
  ::getrlimit(RLIMIT_CORE, &limit);
  limit.rlim_cur = 0;
  ::setrlimit(RLIMIT_CORE, &limit);
#ifdef __linux__
  // The limit says nothing to a system that hands dumps to a program; this does.
  if (!DebugsItself()) ::prctl(PR_SET_DUMPABLE, 0);
#endif
}

}  // namespace tercet::programs
