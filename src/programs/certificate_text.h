// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tercet/crypto/certificates.h"

namespace tercet::programs {

/// Five lines: of which party it is, its dates, who signed it, and its fingerprint, also as it is
/// read to somebody.
std::string Describe(const crypto::Certificate& certificate);

}  // namespace tercet::programs
