// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sodium.h>

#include "tercet/base/error.h"

namespace tercet::crypto {

/// Before anything of libsodium that needs its generator or its choice of kernels. Thread safe.
inline void InitSodium() {
  static const bool ready = sodium_init() >= 0;
  TERCET_CHECK(ready, "libsodium could not be initialised");
}

}  // namespace tercet::crypto
