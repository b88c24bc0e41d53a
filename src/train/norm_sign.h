// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace tercet::train {

/// The slope of sign in training: that of the piecewise quadratic function that runs from -1 to 1
/// over |x| <= 1. It follows the step more closely than that of a clipped identity.
/// [Liu et al., Bi-Real Net, ECCV 2018, Sec. 3.3]
torch::Tensor SignSlope(const torch::Tensor& x);

/// The largest pool that NormSign takes.
inline constexpr std::int64_t kMaxNormSignPool = 16;

/// sign(max_pool(batch_norm(x))) in training, with batch statistics, which also update the running
/// ones, and with SignSlope for the gradient: the same as the operators one after the other, in two
/// passes over the values forward and two backward instead of about fifteen, which is most of the
/// time that a binarised network takes to train on a CPU.
///
/// x: N x C x H x W on a CPU, float32 or bfloat16; the result has its type, in channels-last order.
/// The sums do not depend on the number of threads. The other tensors have C values in float32.
/// `pool`: side and stride of the pool, 1 (none) to kMaxNormSignPool, a divisor of H and W. Of
/// equal values the first in a window has the gradient.
torch::Tensor NormSign(const torch::Tensor& x, const torch::Tensor& weight,
                       const torch::Tensor& bias, const torch::Tensor& running_mean,
                       const torch::Tensor& running_var, double momentum, double eps,
                       std::int64_t pool = 1);

}  // namespace tercet::train
