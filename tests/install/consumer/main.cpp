// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/local.h"
#include "tercet/mpc/registry.h"
#include "tercet/mpc/sharing.h"

namespace tercet {
void RegisterOwnProtocols(mpc::Registry& registry);  // generated from the folder of this project
}

// Shares 41 + 1 among three parties and opens it; exits 0 when that is 42 and the suites are there,
// this project's own one too.
int main() {
  auto registry = tercet::BuiltinProtocols();
  const auto built_in = registry.SuiteNames().size();
  tercet::RegisterOwnProtocols(registry);
  bool right = built_in >= 2 && registry.SuiteNames().size() == built_in + 1;
  tercet::mpc::RunParties([&](tercet::mpc::Party& party) {
    tercet::mpc::Context ctx(party, tercet::mpc::Phase::kOnline);
    tercet::mpc::Sharing sharing(party, 0, "answer");
    const tercet::ring::Matrix<std::uint8_t> secret{{41}};
    const auto x = sharing.Share<std::uint8_t>(ctx, party.Id() == 0 ? &secret : nullptr, 1, 1, 7);
    const auto y = tercet::mpc::AddPublic<std::uint8_t>(party.Id(), x, 1);
    const auto opened = tercet::mpc::Reveal(ctx, y);
    if (party.Id() == 0) std::printf("opened: %d\n", opened(0, 0));
    if (opened(0, 0) != 42) right = false;
  });
  return right ? 0 : 1;
}
