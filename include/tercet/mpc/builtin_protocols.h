// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tercet/mpc/registry.h"

namespace tercet {

/// All protocols of the folder protocols/. Defined in the library tercet::protocols, which programs
/// link; no other library does.
mpc::Registry BuiltinProtocols();

}  // namespace tercet
