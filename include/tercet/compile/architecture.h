// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tercet/nn/integer_network.h"
#include "tercet/nn/network.h"

namespace tercet::compile {

/// The public network of an architecture, without what a model says of itself (value_bits and shift
/// are 0): layers, names, types, shapes, activations, pools, shortcuts, compared classes, and as
/// suites those that the JSON names. Every party derives it from its own JSON; Compile gives a
/// network of exactly these layers. Cheap: no weight has a part in it. Thread safe.
///
/// `only_class`: the last layer compares the classes, so that the class alone leaves.
///
/// Throws UnsupportedError with the layer's name and what is supported.
nn::PublicNetwork Architecture(const nn::NetworkSpec& spec, bool only_class);

}  // namespace tercet::compile
