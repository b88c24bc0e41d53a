#include "tercet/mpc/sharing.h"

namespace tercet::mpc {

Sharing::Sharing(Party& party, int owner, const std::string& purpose) : owner_(owner) {
  const int second = (owner + 1) % 3;
  if (party.Keys().Holds(owner)) first_ = party.Keys().Open(owner, purpose);
  if (party.Keys().Holds(second)) second_ = party.Keys().Open(second, purpose);
}

Buffer<std::uint8_t> RevealBits(Context& ctx, const BitShare& x) {
  const std::size_t count = x.mine.size();
  ctx.Send(ctx.Next(), std::span<const std::uint8_t>(x.mine), 1);  // 1 hop, 1 bit
  Buffer<std::uint8_t> value(count);
  ctx.Receive(ctx.Prev(), std::span<std::uint8_t>(value), 1);
  for (std::size_t i = 0; i < count; ++i) value[i] ^= x.mine[i] ^ x.next[i];
  return value;
}

}  // namespace tercet::mpc
