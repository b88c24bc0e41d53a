// SPDX-License-Identifier: Apache-2.0
#include "suites/cbnn/msb.h"

namespace tercet::protocols::cbnn {

MsbExtraction::MsbExtraction(Party& party, int p0, unsigned ring_bits, unsigned value_bits,
                             const std::string& purpose)
    : ring_bits_(ring_bits),
      value_bits_(value_bits),
      beta_(party, purpose + "/beta"),
      r_(party, purpose + "/r"),
      convert_(party, p0, purpose + "/beta_a"),
      offline_zero_(party, purpose + "/offline_zero"),
      online_zero_(party, purpose + "/online_zero") {
  TERCET_CHECK(ring_bits >= value_bits + 1 + kMinMaskBits,
               "ring of {} bits leaves no room for r above {} bits", ring_bits, value_bits);
}

SignMask MsbExtraction::Prepare(Context& ctx, std::size_t rows, std::size_t cols) {
  return ring::DispatchWord(ring_bits_, [&]<Word W>(W) { return PrepareAs<W>(ctx, rows, cols); });
}

template <Word W>
SignMask MsbExtraction::PrepareAs(Context& ctx, std::size_t rows, std::size_t cols) {
  SignMask mask{beta_.DrawBits(rows * cols), {}};
  // r = 1 + r_0 + r_1 + r_2 over the integers, each part of RBits - 2 bits: 0 < r < 2^RBits, and
  // nobody knows it.
  ArithShare<W> r = r_.Draw<W>(rows, cols, ring_bits_);
  const unsigned part_bits = RBits(ring_bits_, value_bits_) - 2;
  for (auto* half : {&r.mine, &r.next})
    for (auto& v : *half) v = ring::Reduce(v, part_bits);
  r = AddPublic(ctx.Id(), std::move(r), W{1});

  const ArithShare<W> beta = BitToArith<W>(ctx, convert_, mask.beta, rows, cols, ring_bits_);
  const ArithShare<W> sign =
      AddPublic(ctx.Id(), Scale(beta, static_cast<W>(-2)), W{1});  // (-1)^beta = 1 - 2 beta
  ArithShare<W> product = Multiply(ctx, offline_zero_, sign, r);
  mask.product = {mpc::AnyMatrix(std::move(product.mine), ring_bits_),
                  mpc::AnyMatrix(std::move(product.next), ring_bits_)};
  return mask;
}

void MsbExtraction::AddCost(int p0, std::size_t count, unsigned ring_bits, mpc::Cost& cost) {
  const std::uint64_t bytes = ring::PackedBytes(count, ring_bits);
  BitTimes::AddCost(p0, count, ring_bits, mpc::Phase::kOffline, cost);
  cost.Add(mpc::Phase::kOffline, mpc::ReshareRound(bytes));
  cost.Add(mpc::Phase::kOnline, mpc::ReshareRound(bytes));
  cost.Add(mpc::Phase::kOnline, {{0, 1, bytes}, {1, 2, bytes}, {2, 0, bytes}});  // u is opened
}

}  // namespace tercet::protocols::cbnn
