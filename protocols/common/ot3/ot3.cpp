// SPDX-License-Identifier: Apache-2.0
#include "common/ot3/ot3.h"

#include "tercet/mpc/registry.h"

namespace tercet::protocols::ot3 {

Transfer::Transfer(Party& party, TransferRoles roles, const std::string& purpose) : roles_(roles) {
  TERCET_CHECK(roles.sender != roles.receiver && roles.sender != roles.helper &&
                   roles.receiver != roles.helper,
               "transfer {}: sender {}, receiver {} and helper {} are not three parties", purpose,
               roles.sender, roles.receiver, roles.helper);
  if (party.Id() != roles.helper)
    masks_ = party.Keys().Open(SharedKey(roles.sender, roles.receiver), purpose);
}

crypto::PrfStream& Transfer::Masks() {
  TERCET_CHECK(masks_.has_value(), "the helper of a transfer has no masks");
  return *masks_;
}

void Register(mpc::Registry& registry);
void Register(mpc::Registry& /*registry*/) {}  // a building block: there is no suite to add

}  // namespace tercet::protocols::ot3
