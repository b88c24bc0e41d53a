// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "compile/quantise.h"
#include "tercet/nn/run_plain.h"

/// Integer networks evaluated fast, with floating-point arithmetic that is exact for them.
namespace tercet::compile {

/// What a layer's values were on some images, before the activation: of all elements, and the
/// smallest and largest of each.
struct Seen {
  double low = 0, high = 0;
  std::vector<double> lows, highs;
  /// `values` are features x batch.
  template <class T>
  void Add(const std::vector<T>& values, std::size_t batch);
  /// Whether what leaves the activation (with `shift`) depends on the image, in `channel` of
  /// `channels` or anywhere.
  bool Varies(mpc::ActivationKind activation, unsigned shift = 0) const;
  bool ChannelVaries(mpc::ActivationKind activation, std::size_t channel,
                     std::size_t channels) const;

 private:
  bool ElementVaries(const mpc::ActivationSpec& spec, std::size_t element) const;
};

/// Integers, features x batch, in bytes where they fit.
class PackedValues {
 public:
  template <class T>
  explicit PackedValues(const std::vector<T>& values);
  template <class T>
  std::vector<T> Unpack() const;

 private:
  std::vector<std::uint8_t> bytes_;
  std::vector<std::int64_t> wide_;
};

/// What the layers from `layer` on take from those before, for the whole sample: by Shortcut::from,
/// a chunk of images after the other.
struct Activations {
  std::size_t layer = 0;
  std::map<std::size_t, std::vector<PackedValues>> outputs;
};

/// Thread safe. Layers must outlive it.
class Evaluator {
 public:
  /// `layers` without widths, shifts and factors: those are in the quantised layers.
  Evaluator(const std::vector<nn::PublicLayer>& layers, const nn::InputSpec& input,
            const files::Images& images);

  const Activations& Input() const { return input_; }

  /// Logits as real numbers (integers over the last layer's scale), image after image, continuing
  /// from `from`. `seen` (may be null) takes each layer's values from `from` on.
  std::vector<double> Logits(const std::vector<QuantisedLayer>& network, const Activations& from,
                             std::vector<Seen>* seen = nullptr) const;

  /// What the layers from `to` on take.
  Activations Advance(const std::vector<QuantisedLayer>& network, const Activations& from,
                      std::size_t to) const;

 private:
  std::size_t BatchOf(std::size_t chunk) const;
  template <class T>
  std::vector<double> LogitsWith(const std::vector<QuantisedLayer>& network,
                                 const Activations& from, std::vector<Seen>* seen) const;
  template <class T>
  Activations AdvanceWith(const std::vector<QuantisedLayer>& network, const Activations& from,
                          std::size_t to) const;
  bool UsedFrom(std::size_t output, std::size_t layer) const;

  const std::vector<nn::PublicLayer>& layers_;
  std::size_t images_;
  Activations input_;
};

}  // namespace tercet::compile
