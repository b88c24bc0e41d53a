#include "common/ot3/ot3.h"

#include "tercet/mpc/suite.h"
#include "tercet/ring/kernels.h"

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

Lookup::Lookup(Party& party, int dealer, const std::string& purpose) : dealer_(dealer) {
  if (party.Id() != E2()) mask_ = party.Keys().Open(SharedKey(dealer, E1()), purpose);
}

Bytes Lookup::DealBits(Context& ctx, Bytes tables, std::size_t count, unsigned k) {
  const std::size_t size = ring::PackedBytes(count << k, 1);
  if (ctx.Is(E2())) return ctx.ReceiveBytes(dealer_, size);
  Bytes mask(size);
  mask_->Fill(mask);
  if (ctx.Is(E1())) return mask;
  TERCET_CHECK(tables.size() == size, "dealer's tables have {} bytes, expected {}", tables.size(),
               size);
  for (std::size_t i = 0; i < size; ++i) tables[i] ^= mask[i];
  ctx.SendBytes(E2(), std::move(tables));  // 1 hop, 2^k bits
  return {};
}

void Lookup::PickBits(std::span<std::uint8_t> share, ByteSpan half,
                      std::span<const std::uint8_t> index, unsigned k, unsigned shift) {
  TERCET_CHECK(share.size() == index.size() &&
                   half.size() == ring::PackedBytes(index.size() << k, 1) && shift < 8,
               "{} shares, {} indices and {} bytes of tables of 2^{} bits, shift {}", share.size(),
               index.size(), half.size(), k, shift);
  ring::ActiveKernels().select_bits(share.data(), half.data(), index.data(), index.size(), k,
                                    shift);
}

void Register(mpc::Registry& registry);
void Register(mpc::Registry& /*registry*/) {}  // a building block: there is no suite to add

}  // namespace tercet::protocols::ot3
