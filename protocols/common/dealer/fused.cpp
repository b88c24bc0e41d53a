// SPDX-License-Identifier: Apache-2.0
#include "common/dealer/fused.h"

#include <utility>

namespace tercet::protocols::dealer {

template <ring::Word V>
FusedSum<V>::FusedSum(std::size_t inputs, std::size_t batch, std::size_t fan_out)
    : batch_(batch),
      fan_out_(fan_out),
      constant_(ring::MakeMatrix<V>(inputs, batch)),
      share_(ring::MakeMatrix<V>(inputs, batch)),
      products_(ring::MakeMatrix<V>(batch, fan_out)) {
  products_.fill(V{0});
}

template <ring::Word V>
void FusedSum<V>::Add(std::size_t i, V constant, std::span<const V> k, const V* dealt) {
  V share = 0;
  V* sums = products_.data() + i % batch_ * fan_out_;
  for (const V factor : k) {
    share = static_cast<V>(share + ring::Times(factor, *dealt++));
    for (std::size_t j = 0; j < fan_out_; ++j)
      sums[j] = static_cast<V>(sums[j] + ring::Times(factor, dealt[j]));
    dealt += fan_out_;
  }
  constant_.data()[i] = constant;
  share_.data()[i] = share;
}

template <ring::Word V>
AnyShare FusedSum<V>::Finish(bool e1, std::optional<bool> multiplies, unsigned bits,
                             AnyMatrix& next) && {
  auto& z = next.As<V>();
  TERCET_CHECK(z.shape()[0] == fan_out_ && z.shape()[1] == batch_,
               "{} x {} outputs of a map of {} x {}", z.shape()[0], z.shape()[1], fan_out_, batch_);
  for (std::size_t j = 0; j < fan_out_; ++j)
    for (std::size_t b = 0; b < batch_; ++b) z(j, b) = static_cast<V>(z(j, b) + products_(b, j));
  if (multiplies) {  // the share is the half that this evaluator has in common with D
    AnyMatrix share(std::move(share_), bits), third;
    if (*multiplies) third = AnyMatrix(std::move(constant_), bits);
    if (e1) return {std::move(share), std::move(third)};
    return {std::move(third), std::move(share)};
  }
  // The linear layer of party p gives (w_p + w_{p+1}) mine + w_p next.
  if (e1) {  // holds w_E1, w_E2
    constant_ += share_;
    share_ = V{0} - share_;
  } else {  // holds w_E2, w_D
    share_ -= constant_;
  }
  return {AnyMatrix(std::move(constant_), bits), AnyMatrix(std::move(share_), bits)};
}

template class FusedSum<std::uint8_t>;
template class FusedSum<std::uint16_t>;
template class FusedSum<std::uint32_t>;
template class FusedSum<std::uint64_t>;

}  // namespace tercet::protocols::dealer
