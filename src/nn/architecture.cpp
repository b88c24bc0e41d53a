#include "tercet/nn/architecture.h"

#include "nn/blocks.h"
#include "nn/compare_classes.h"

namespace tercet::nn {

PublicNetwork Architecture(const NetworkSpec& spec, bool only_class) {
  PublicNetwork network;
  network.name = spec.name;
  network.input = spec.input;
  network.spec_digest = spec.Digest();
  for (Block& block : MakeBlocks(spec)) network.layers.push_back(std::move(block.layer));
  if (only_class) CompareClasses(network);
  return network;
}

}  // namespace tercet::nn
