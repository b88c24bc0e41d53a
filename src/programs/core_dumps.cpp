// SPDX-License-Identifier: Apache-2.0
#include "programs/core_dumps.h"

#include <sys/resource.h>

#include <cstdlib>
#include <string_view>

#include "base/sanitizers.h"

#ifdef __linux__
#include <sys/prctl.h>
#endif

namespace tercet::programs {
namespace {

// The leak checker of AddressSanitizer looks at its own process like a debugger.
constexpr bool kDebugsItself = TERCET_ADDRESS_SANITIZER;

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
  if (!kDebugsItself) ::prctl(PR_SET_DUMPABLE, 0);
#endif
}

}  // namespace tercet::programs
