// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tercet::programs {

/// Lets the system write no memory of this process to a file, unless the environment says
/// TERCET_CORE_DUMPS=1: a core dump would hold keys, shares and weights. Debuggers of other users
/// than root are kept out with it. To be called first in a program; what it starts decides for
/// itself.
void ForbidCoreDumps() noexcept;

}  // namespace tercet::programs
