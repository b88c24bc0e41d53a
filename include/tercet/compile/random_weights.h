// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

namespace tercet::compile {

/// Float weights for an architecture that nobody has trained, to measure what it costs: the same
/// for a seed on every machine. Weights are uniform with the deviation sqrt(2 / inputs), with which
/// values keep their size from layer to layer; batch normalisations have scales of either sign and
/// variances of 1. Thread safe.
files::TensorFile RandomWeights(const nn::NetworkSpec& spec, std::uint64_t seed);

}  // namespace tercet::compile
