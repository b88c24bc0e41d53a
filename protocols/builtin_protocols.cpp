// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/builtin_protocols.h"

namespace tercet {

void RegisterBuiltinProtocols(mpc::Registry& registry);  // generated from the folders

mpc::Registry BuiltinProtocols() {
  mpc::Registry registry;
  RegisterBuiltinProtocols(registry);
  return registry;
}

}  // namespace tercet
