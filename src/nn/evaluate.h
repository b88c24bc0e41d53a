#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "nn/quantise.h"
#include "tercet/nn/run_plain.h"

/// Integer networks evaluated fast, with floating-point arithmetic that is exact for them.
namespace tercet::nn {

/// Images with labels.
struct Sample {
  Images images;
  std::vector<std::uint8_t> labels;
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

/// Thread safe. Layers and sample must outlive it.
class Evaluator {
 public:
  /// `layers` without widths, shifts and factors: those are in the quantised layers.
  Evaluator(const std::vector<PublicLayer>& layers, const InputSpec& input, const Sample& sample);

  const Activations& Input() const { return input_; }

  /// Percent of the sample classified correctly, continuing from `from`. `ranges` (may be null)
  /// takes the range of values of each layer from `from` on.
  double Accuracy(const std::vector<QuantisedLayer>& network, const Activations& from,
                  std::vector<ValueRange>* ranges = nullptr) const;

  /// What the layers from `to` on take.
  Activations Advance(const std::vector<QuantisedLayer>& network, const Activations& from,
                      std::size_t to) const;

 private:
  std::size_t BatchOf(std::size_t chunk) const;
  template <class T>
  double AccuracyWith(const std::vector<QuantisedLayer>& network, const Activations& from,
                      std::vector<ValueRange>* ranges) const;
  template <class T>
  Activations AdvanceWith(const std::vector<QuantisedLayer>& network, const Activations& from,
                          std::size_t to) const;
  bool UsedFrom(std::size_t output, std::size_t layer) const;

  const std::vector<PublicLayer>& layers_;
  const Sample& sample_;
  Activations input_;
};

}  // namespace tercet::nn
