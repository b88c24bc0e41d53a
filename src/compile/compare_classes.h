// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tercet/nn/integer_network.h"

namespace tercet::compile {

/// The last layer's part of the architecture: see the other function.
void CompareClasses(nn::PublicNetwork& network);

/// Replaces the last layer, whose values are the logits, by one that compares them: see
/// PublicLayer::compared_classes. The class that is left is the logits' arg-max exactly, the lower
/// one where several are equal. The layer's width becomes the smallest that is proven, or where
/// widths are measured two bits more than before. UnsupportedError names a layer that cannot be.
/// Thread safe.
void CompareClasses(nn::IntegerNetwork& network);

}  // namespace tercet::compile
