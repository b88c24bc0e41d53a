// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tercet/nn/network.h"

/// Rewriting architectures so that they are cheap under secure computation (CBNN, Sec. 4), and
/// counting what they hold.
namespace tercet::compile {

/// Sizes of a network for one image, as papers count them.
struct NetworkCounts {
  std::uint64_t weights = 0;
  std::uint64_t biases = 0;
  std::uint64_t norm_channels = 0;                   ///< channels of all batch normalisations
  std::map<std::string, std::uint64_t> activations;  ///< elements that go through each, by name
  std::uint64_t pooled = 0;                          ///< values that leave pools
  std::uint64_t macs = 0;                            ///< multiply-accumulate operations

  /// Weights, biases and four values a channel of batch normalisation (gamma, beta, mean,
  /// variance), as Keras counts.
  std::uint64_t Parameters() const { return weights + biases + 4 * norm_channels; }
  std::uint64_t Activations() const {
    std::uint64_t sum = 0;
    for (const auto& [name, count] : activations) sum += count;
    return sum;
  }
};
NetworkCounts CountNetwork(const nn::NetworkSpec& network);

/// A network as the text of a JSON file, one layer a line; ParseNetwork gives an equal network.
std::string NetworkText(const nn::NetworkSpec& network);

/// Which layers a rule is for.
struct LayerSelection {
  bool all = false;
  std::vector<std::string> names;
  bool Names(const std::string& name) const {
    return std::find(names.begin(), names.end(), name) != names.end();
  }
  bool Has(const std::string& name) const { return all || Names(name); }
  /// "all", "none" or names with commas between.
  static LayerSelection Parse(const std::string& text);
};

struct CustomiseOptions {
  std::string name;  ///< of the new network; empty: the old one's with "-customised"
  /// Convolutions that become a depthwise and a pointwise one with nothing between (the bias stays
  /// with the second, which keeps the name; the first is NAME.depthwise). With `all`, those of one
  /// input channel stay: a single kernel for all outputs would be left of them.
  LayerSelection separable{.all = true, .names = {}};
  LayerSelection sign;      ///< ReLU and square activations that become Sign
  LayerSelection max_pool;  ///< average pools that become max-pools
  /// Max-pools before Sign go after it (an OR of bits instead of comparisons), and every Sign comes
  /// right after a batch normalisation, which is moved or added.
  bool order = true;
};

struct Customised {
  nn::NetworkSpec network;
  std::vector<std::string> changes;  ///< one line each, for the user
};

/// Throws ConfigError when a selection names a layer that is not there or of another type, and
/// UnsupportedError when a layer that would move is the source of a residual. Weights are not
/// carried over: the new network is to be trained. Thread safe.
Customised Customise(const nn::NetworkSpec& network, const CustomiseOptions& options);

}  // namespace tercet::compile
