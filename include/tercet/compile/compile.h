// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tercet/files/images.h"
#include "tercet/mpc/registry.h"
#include "tercet/nn/float_network.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/run_plain.h"

namespace tercet::compile {

/// A *fixed-point* layer is one before ReLU, square or a table, one that takes what leaves such a
/// layer, or one with a residual; all others are before Sign or last, on bits or pixels. What
/// enters a table is always proven to be in it.
///
/// How near the integer network is to the float network is measured on the calibration images or,
/// without any, on synthetic ones (noise and smooth random maps): how many predictions are the
/// same, and the *noise*, by how much an image's margin (between its two largest logits) is off,
/// as a part of it, at the median image.
struct CompileOptions {
  /// Images to choose the widths with (training images, never test images); at most 10,000 of them,
  /// drawn with a fixed seed, are used (fewer, at least 1,000, for large networks). Without them
  /// every layer gets the width that its weights and inputs need for sums that are exact, or exact
  /// to 2^-10 of their size.
  const files::Images* calibration = nullptr;
  /// Of those images; may be null. Only accuracies are reported with them: widths are chosen by
  /// the agreement with the float network.
  const std::vector<std::uint8_t>* labels = nullptr;
  /// The range of the widths.
  unsigned min_bits = 6, max_bits = 32;
  /// How many predictions, in percent of the images and near ties (margins below 1/16 of the
  /// median margin) not counted, may differ from the float network's because of narrower widths.
  double max_loss = 0.1;
  /// The noise that narrower widths may add.
  double max_noise = 0.1;
  /// Percent of the images, near ties not counted, with the float network's prediction: fewer (or,
  /// where that allows more, over `max_loss` of others), or a layer without weights or with
  /// constant output, is an error, or with `accept_loss` a warning.
  double min_agreement = 98;
  bool accept_loss = false;
  /// Where one is not 0 and there are no calibration images: the width of every layer, in fixed
  /// point `default_fixed_bits` (else 14 and 28). No image is looked at then.
  unsigned default_bits = 0, default_fixed_bits = 0;
  /// Of the largest value that leaves a ReLU on the images; up to 4 more where these alone make
  /// more than half of `max_noise`. A square's input keeps 3/4 as many, so that what leaves has 1.5
  /// times as many.
  unsigned activation_bits = 8;
  /// Where not 0: the factors and shifts of batch normalisation are first rounded to multiples of
  /// 1 / norm_scale, which MOBIUS (Kitai et al., 2019) computes with in integers, its scale q.
  double norm_scale = 0;
  /// The widths of fixed-point layers hold the values seen on the calibration images and
  /// `head_room` bits more, instead of a proven bound, which grows beyond use in deep networks.
  bool measured = false;
  unsigned head_room = 2;
  /// Only the class leaves the network, not the logits; by default as the JSON's "output" says.
  std::optional<bool> only_class;
  std::function<void(const std::string&)> progress;
  /// Told how much of the search for the widths is done, from 0 to 1, counted in multiplications.
  std::function<void(double part)> on_search;
};

inline constexpr double kMaxNormScale = 1e12;

/// What the lines of warnings begin with.
inline constexpr const char* kWarningLine = "warning: ";

struct CompileReport {
  /// Used of the calibration images; 0 without them.
  std::size_t images = 0;
  /// On those, percent; 0 without labels.
  double float_accuracy = 0, integer_accuracy = 0;
  /// Percent of the same predictions (near ties count), and the noise, see CompileOptions; on
  /// calibration or synthetic images.
  double agreement = 0, noise = 0;
  /// A logit of the float network is about integer * logit_scale. Of weights, so for their owner
  /// alone; it is in no file and no message.
  double logit_scale = 1;
  /// What was chosen and why, for the user: what was multiplied out, and each layer's width, bound,
  /// range on the images and head-room. Warnings are among them, after kWarningLine.
  std::vector<std::string> lines;
};

/// JSON network + float weights -> integers with a width per layer that is proven (or measured, by
/// option), and warnings. `report` may be null. Thread safe; what the options call is called in the
/// caller's thread. With calibration images it searches the least widths, those of the layers with
/// most activations first, which may lose most; the oracle confirms the result.
///
///   Compile(FloatNetwork(spec, LoadTensors(file), file), oracle, {.calibration = &images},
///   &report)
///
/// Before Sign, BN becomes the bias, for every sign of gamma, and each channel has a scale of its
/// own. Before ReLU and square BN is folded into the weights, and all channels have one scale, so
/// that what leaves is q times a real number; the division by 2^shift that ends them keeps q small.
/// {-1,+1} activations become {0,1} (padding stays exact: the bias is then per element). Weights
/// and biases that are whole multiples of a common step are exact, and so is then the layer. Linear
/// layers with nothing between are multiplied out, average pools become sums, an add becomes the
/// shortcut of the layer before it, and when only the class is wanted the last layer compares all
/// pairs of logits (ties go to the lower class, as in Predictions).
///
/// Throws UnsupportedError with the layer's name and what is supported; ConfigError for options,
/// for a layer whose values need more than 32 bits, and for a network that loses too much.
nn::IntegerNetwork Compile(const nn::FloatNetwork& network, const mpc::Oracle& oracle,
                           const CompileOptions& options, CompileReport* report);

}  // namespace tercet::compile
