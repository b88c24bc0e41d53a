// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/architecture.h"

#include "compile/blocks.h"
#include "compile/compare_classes.h"

namespace tercet::compile {

nn::PublicNetwork Architecture(const nn::NetworkSpec& spec, bool only_class) {
  nn::PublicNetwork network;
  network.name = spec.name;
  network.input = spec.input;
  network.spec_digest = spec.Digest();
  for (Block& block : MakeBlocks(spec)) network.layers.push_back(std::move(block.layer));
  if (only_class) CompareClasses(network);
  return network;
}

}  // namespace tercet::compile
